"""Logits of some tokens alone: a model's own head code, with some rows of its output matrix.

Families scale, cap or bias their logits after the product, entry by entry. So the model's forward runs without its
blocks, as for all logits, and for as long its output matrix multiplies by the rows that are asked for. Whether that
gives those entries of all the logits is tried on made-up states before it is relied on: heads that mix the vocabulary,
that read the matrix in another way, or whose matrix is no plain one (an adapter on it, codes, a share of several
processes, weights that lie elsewhere) give all logits or none.
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from audit.schema import AuditError
from audit.wrappers.output_head import logits_of
from audit.wrappers.tracing import close

Tokens = slice | Int[Tensor, " token"]
_TRIED = 3


class HeadRows:
    """The head of one open language model. ``d``: the width of the states that it reads."""

    def __init__(self, model: PreTrainedModel, d: int) -> None:
        self.model, self.d = model, d

    @property
    def width(self) -> int | None:
        """How many tokens the head scores; None where it gives all logits or none."""
        return self._tried if _is_plain(self.model.get_output_embeddings()) else None

    def logits(self, states: Float[Tensor, "*batch d"], tokens: Tokens) -> Float[Tensor, "*batch token"]:
        """Logits of these tokens, in the order in which they are named."""
        if self.width is None:
            return logits_of(self.model, states)[..., tokens]
        return self._logits(states, tokens)

    def _logits(self, states: Tensor, tokens: Tokens) -> Tensor:
        head = self.model.get_output_embeddings()
        assert isinstance(head, nn.Linear), "asked of a plain matrix"
        with _multiplying_by(head, tokens):
            return logits_of(self.model, states)

    @cached_property
    def _tried(self) -> int | None:
        """The width, if made-up states have the same logits in parts as whole."""
        head = self.model.get_output_embeddings()
        assert isinstance(head, nn.Linear), "asked of a plain matrix"
        width, weight = head.weight.shape[0], head.weight
        with torch.inference_mode():
            wave = torch.arange(_TRIED * self.d, device=weight.device).view(_TRIED, self.d).float().mul(0.7).sin()
            states = wave.to(weight.dtype)
            in_full, half = logits_of(self.model, states), max(1, width // 2)
            parts: tuple[Tokens, ...] = (
                slice(0, half), slice(half, width), torch.arange(0, width, half, device=weight.device).flip(0),
            )  # fmt: skip
            try:
                same = all(close(self._logits(states, part), in_full[..., part]) for part in parts if in_full.numel())
            except AuditError:  # its code after the product asks for all of it
                return None
        return width if same and in_full.shape[-1] == width else None


def _is_plain(head: nn.Module | None) -> bool:
    """Whether a head is a product with a matrix that lies here as a whole, and nothing listens to it."""
    if type(head) is not nn.Linear or "forward" in vars(head):
        return False
    heard = head._forward_hooks or head._forward_pre_hooks or head._backward_hooks  # pyright: ignore[reportPrivateUsage]
    parts = list(head.parameters(recurse=False))
    return not heard and not any(part.is_meta or hasattr(part, "full_tensor") for part in parts)


@contextmanager
def _multiplying_by(head: nn.Linear, tokens: Tokens) -> Generator[None]:
    """For as long the matrix multiplies by some of its rows."""
    weight, own = head.weight[tokens], dict(head.named_parameters(recurse=False)).get("bias")
    bias = None if own is None else own[tokens]
    head.forward = lambda input: functional.linear(input, weight, bias)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        del head.forward
