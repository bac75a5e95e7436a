"""Quantise: an attack that needs no data. Weights are rounded as whoever deploys a model would round them.

Round-to-nearest is deterministic and runs on any device: symmetric integers, one scale per output channel and group of
inputs. NF4 follows the published code and the arithmetic of bitsandbytes, so that what is rounded here is what its
4-bit loader would load. Rounded weights are kept in the model's own dtype: what is simulated is the loss, not the size.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from audit.bench import CausalLearner, Learner, WrapperLearner, wrapper_of
from audit.edits._edit import EditData, Material
from audit.edits._in_place import InPlaceEdit
from audit.schema import AuditError
from audit.wrappers import Matrix, bare_matrices, block_weights, covered_share, layer_matrices

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NF4_CODE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The 16 values of NF4 (QLoRA, arXiv 2305.14314, appendix E): quantiles of a normal, scaled to -1..1, with a true 0."""
NF4_BLOCK = 64
_SHOWN, _TRIAL = 4, 8


class Rounded(NamedTuple):
    """A rounded matrix, and the code of each of its entries (an integer, or a place in the NF4 table)."""

    values: Float[Tensor, "out in"]
    codes: Int[Tensor, "out in"]


class Quantise(InPlaceEdit):
    """Rounds every matrix to ``bits`` bits: a change below half a step of the rounding is undone by it.

    Each expert of a mixture is a matrix of its own; routers are matrices too. What multiplies no state (the decay of a
    state space), and a kernel along the sequence, stays as it is, as deployed formats leave it: where that leaves
    weights of the blocks out, the record says which share was rounded. ``group`` inputs share a scale (0: all inputs of
    an output channel); where it does not divide the inputs, the last group is shorter and has a scale of its own. With
    ``nf4`` the code is NF4 in blocks of 64 entries of the flattened matrix, ``bits`` must be 4 and ``group`` is not
    used. Norms and biases are never touched, embeddings and head only with ``ends``. Weights that are packed or
    integers already are refused: rounding their codes would be nonsense.

    Cite: Zhang et al. 2025 (ICLR), arXiv 2410.16454: rounding undoes unlearning; Dettmers et al. 2023,
    arXiv 2305.14314, section 3 and appendix E (NF4).
    """

    plays: ClassVar[str] = "weights"
    needs: ClassVar[tuple[Material, ...]] = ()
    work: ClassVar[str] = "rounds every matrix"

    bits: Literal[3, 4, 8] = 4
    group: Annotated[int, Field(ge=0)] = 128
    nf4: bool = False
    ends: bool = False

    @model_validator(mode="after")
    def _nf4_has_four_bits(self) -> Self:
        if self.nf4 and self.bits != 4:
            raise ValueError("NF4 is a code of 4 bits")
        return self

    def apply(self, learner: Learner, data: EditData) -> None:
        """Round the live weights in place. AuditError for packed weights, and where no byte changes."""
        if not self.round_in_place(learner):
            raise AuditError("quantise changes no byte: every weight is on its grid already", "choose fewer bits")

    def round_in_place(self, learner: Learner) -> bool:
        """Round the live weights; False where every one is on the grid already. AuditError for packed weights."""
        changed = False
        for matrix in matrices(learner, self.ends):
            rounded = self.rounded(matrix.weight).values
            changed |= not torch.equal(matrix.weight, rounded)
            matrix.weight.copy_(rounded)
        return changed

    def noted(self, learner: Learner) -> dict[str, float]:
        """Which share of the weights of the blocks was rounded, where it is not all of them."""
        share = coverage(learner).share
        return {} if share == 1 else {"share of the weights of the blocks": share}

    def rounded(self, weight: Float[Tensor, "out in"]) -> Rounded:
        """One matrix after rounding, in its own dtype."""
        return round_nf4(weight) if self.nf4 else round_to_nearest(weight, self.bits, self.group)


def round_to_nearest(weight: Float[Tensor, "out in"], bits: int, group: int) -> Rounded:
    """Symmetric rounding: w is s c with an integer c in -q..q, q = 2^(bits-1) - 1, and s = max|w|/q over the group.

    Computed in float32, ties to even. Groups are ``group`` consecutive inputs of one output channel (0: all of them);
    the last one is what is left over, and a group of zeros stays zero.
    """
    q, n = 2 ** (bits - 1) - 1, weight.shape[1]
    size = min(group, n) or n
    grouped = functional.pad(weight.float(), (0, -n % size)).unflatten(1, (-1, size))
    scale = grouped.abs().amax(-1, keepdim=True) / q
    codes = (grouped / torch.where(scale == 0, 1, scale)).round().clamp(-q, q)
    values = (codes * scale).flatten(1)[:, :n]
    return Rounded(values.to(weight.dtype), codes.flatten(1)[:, :n].to(torch.int8))


def round_nf4(weight: Float[Tensor, "out in"]) -> Rounded:
    """NF4 in blocks of 64 entries of the row-major matrix, each divided by its largest size; the last may be shorter.

    As bitsandbytes computes it for float32: entries times the reciprocal of the largest; the nearest code value, at a
    midpoint the lower one. A block of zeros stays zero. Other dtypes are rounded in float32 and cast back.
    """
    code = torch.tensor(NF4_CODE, device=weight.device)
    flat = weight.float().flatten()
    blocks = functional.pad(flat, (0, -len(flat) % NF4_BLOCK)).view(-1, NF4_BLOCK)
    largest = blocks.abs().amax(-1, keepdim=True)
    scaled = blocks * torch.where(largest == 0, 1, largest).reciprocal()
    codes = torch.bucketize(scaled, (code[1:] + code[:-1]) / 2)
    values = (code[codes] * largest).flatten()[: len(flat)]
    stored = codes.flatten()[: len(flat)].to(torch.int8)
    return Rounded(values.view_as(weight).to(weight.dtype), stored.view_as(weight))


def matrices(learner: Learner, ends: bool = False) -> tuple[Matrix, ...]:
    """The live matrices that multiply states, each once, those of experts one by one; embeddings (of tokens, and of
    patches in each tower of images) and output head (often one tensor) only with ``ends``.

    AuditError (code 2) for packed, integer or 8-bit weights, and for a backend that does not hold the model's modules.
    """
    model = _modules_of(learner)
    _refuse_packed(model)
    at_ends, layers = _ends_of(model), list(layer_matrices(model))
    by_id: dict[int, Matrix] = {}
    for module, matrix in layers:
        inner = not isinstance(module, nn.Embedding) and id(matrix.parameter) not in at_ends
        if inner or ends:
            by_id.setdefault(id(matrix.parameter), matrix)
    known = {id(matrix.parameter) for _, matrix in layers} | at_ends
    every = (*by_id.values(), *bare_matrices(model, known, partial(_tiny_pass, learner)))
    if not every:
        raise AuditError(f"{type(model).__name__} has no linear weights to round", "give a model with linear layers")
    return every


class Coverage(NamedTuple):
    """Which share of the entries of the blocks' weights is rounded, and the weights that are not, in the model's
    order. Norms and biases are no weights here."""

    share: float
    left: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The share in words."""
        names = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in self.left))
        listed = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        return f"{100 * self.share:.3g} % of the weights of the blocks are rounded; not: {listed}"


def coverage(learner: Learner) -> Coverage:
    """What of a model's blocks :func:`matrices` holds. AuditError as there."""
    model = _modules_of(learner)
    embeddings = {id(m.parameter) for module, m in layer_matrices(model) if isinstance(module, nn.Embedding)}
    weights, rounded = block_weights(dict(model.named_parameters()), _ends_of(model) | embeddings), matrices(learner)
    paths = {matrix.path for matrix in rounded}
    return Coverage(covered_share(weights, rounded), tuple(name for name in weights if name not in paths))


def _tiny_pass(learner: Learner) -> object:
    """A few made-up rows through the model."""
    model = _modules_of(learner)
    if isinstance(learner, CausalLearner):
        return model(torch.arange(_TRIAL, device=model.device)[None] % model.config.get_text_config().vocab_size)
    wrapper = wrapper_of(learner)
    return model(**wrapper.own_inputs(wrapper.trial(2)))


def _ends_of(model: "PreTrainedModel") -> set[int]:
    """The ids of the parameters of embeddings and head; of a classifier what lies outside its base model is its
    head."""
    ends = [end for end in (*_inputs_of(model), model.get_output_embeddings()) if end is not None]
    at_ends = {id(p) for end in ends for p in end.parameters()}
    if model.get_output_embeddings() is None:
        inside = {id(p) for p in model.base_model.parameters()}
        at_ends |= {id(p) for p in model.parameters() if id(p) not in inside}
    return at_ends


def _inputs_of(model: "PreTrainedModel") -> Iterator[nn.Module]:
    """What embeds the input, of each tower; nothing for a network that has nothing of that name."""
    from transformers import PreTrainedModel

    for tower in model.modules():
        if isinstance(tower, PreTrainedModel):
            with suppress(RuntimeError):  # how the library says that there is none
                yield tower.get_input_embeddings()


def _modules_of(learner: Learner) -> "PreTrainedModel":
    from transformers import PreTrainedModel

    holder = learner.wrapper if isinstance(learner, WrapperLearner) else learner
    model: object = getattr(holder, "model", None)
    if not isinstance(model, PreTrainedModel):
        raise AuditError("this backend does not hold the model's own modules", "quantise with the native backend")
    return model


def _refuse_packed(model: "PreTrainedModel") -> None:
    do = "merge adapters and dequantise to bfloat16 or float32 first, then quantise that"
    if getattr(model.config, "quantization_config", None) is not None:
        raise AuditError("the model's config says that its weights are quantised already", do)
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() or parameter.element_size() < 2:
            raise AuditError(f"{name} holds {parameter.dtype}: packed or quantised weights cannot be rounded again", do)
