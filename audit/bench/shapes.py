"""The shapes that cross the bench: rows in, writes in between, passes out.

Another model's state enters as :class:`Start` or :class:`Replace`; both name a checkpoint rather than hold a tensor
where they can, so that a pass is named by content and can be cached.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from audit.nouns import Checkpoint, Positions, Read, Site


@dataclass(frozen=True, eq=False)
class Rows:
    """Tokenised rows, right-padded, in the caller's order.

    ids, mask: Int/Bool [row pos]. answer_spans: Int [row 2], token positions [start, end) of the answer; start >= 1.
    key: Bool [row pos], content tokens of the answer (targets; the state that predicts target t lies at t - 1).
    ``template_hash`` is part of the hash; ``extra`` carries pixel values and the like.
    """

    ids: Int[Tensor, "row pos"]
    mask: Bool[Tensor, "row pos"]
    answer_spans: Int[Tensor, "row 2"]
    key: Bool[Tensor, "row pos"]
    item_ids: tuple[str, ...]
    group_ids: tuple[str, ...]
    template_hash: str = ""
    extra: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __len__(self) -> int:
        return self.ids.shape[0]

    @cached_property
    def lengths(self) -> Int[Tensor, " row"]:
        """Real tokens per row."""
        return self.mask.sum(1)

    @cached_property
    def hash(self) -> str:
        """sha256 over tokens, mask, spans, content marks, template and extra. Item names do not enter."""
        digest = hashlib.sha256(self.template_hash.encode())
        for tensor in (self.ids, self.mask, self.answer_spans, self.key, *(self.extra[k] for k in sorted(self.extra))):
            digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def targets(self, at: Positions) -> tuple[Int[Tensor, " token"], Int[Tensor, " token"]]:
        """Row and position of every target token for ``answer`` or ``key``, row by row (the packed order)."""
        if at == "key":
            chosen = self.key
        else:
            pos = torch.arange(self.ids.shape[1])
            chosen = (pos >= self.answer_spans[:, :1]) & (pos < self.answer_spans[:, 1:])
        row, position = chosen.nonzero(as_tuple=True)
        return row, position

    def take(self, index: Int[Tensor, " row"]) -> "Rows":
        """The rows at ``index``, trimmed to their longest row."""
        n = int(self.lengths[index].max()) if len(index) else 0
        names = index.tolist()
        return Rows(
            ids=self.ids[index, :n], mask=self.mask[index, :n], answer_spans=self.answer_spans[index],
            key=self.key[index, :n], item_ids=tuple(self.item_ids[i] for i in names),
            group_ids=tuple(self.group_ids[i] for i in names), template_hash=self.template_hash,
            extra={k: v[index] for k, v in self.extra.items()},
        )  # fmt: skip


# ---- writes: what is changed on the way -------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Start:
    """Resume after ``site`` (a block's ``resid_out``) from another state at all positions: blocks below do not run."""

    site: Site
    source: Checkpoint | Float[Tensor, "row pos d"]


@dataclass(frozen=True, eq=False)
class Replace:
    """Replace the state at ``site`` by another model's (or a given tensor), at the given positions only.

    A tensor is [row pos d] for ``all``, packed [token d] for ``answer``/``key``, [row d] for ``last``.
    """

    site: Site
    source: Checkpoint | Tensor
    positions: Positions = "key"


@dataclass(frozen=True, eq=False)
class LowRank:
    """Affine low-rank edit of a state: h <- h + (h @ v.T) @ u + b; ``rows`` limits it to those rows (None: all)."""

    site: Site
    u: Float[Tensor, "k d"]
    v: Float[Tensor, "k d"]
    b: Float[Tensor, " d"]
    rows: Bool[Tensor, " row"] | None = None


@dataclass(frozen=True, eq=False)
class Scale:
    """Multiply columns of a state: h[..., columns] *= factor, one factor a column, or [row column] with per_row."""

    site: Site
    columns: Int[Tensor, " column"]
    factor: Tensor
    per_row: bool = False


@dataclass(frozen=True, eq=False)
class Prefix:
    """Virtual tokens put into the embedded input of every row: before everything, or before position ``at`` of each."""

    emb: Float[Tensor, "row n d"]
    at: Int[Tensor, " row"] | Literal["start"] = "start"


@dataclass(frozen=True, eq=False)
class LogitBias:
    """Add a constant to the logits at every position."""

    bias: Float[Tensor, " vocab"]


@dataclass(frozen=True, eq=False)
class Edges:
    """Exact edge patching: each reader sees the kept writers of this run and the other run's for the rest.

    Writers are embed, attn_0, mlp_0, attn_1, ...; readers attn_0, mlp_0, ..., final. keep: Bool [writer reader];
    ``other`` holds ``embed`` and every block's ``attn_out``/``mlp_out`` at all positions. A matrix of the shape of
    :class:`~audit.bench.graph.Graph` cuts between heads instead (also [row writer reader], one a row); then ``other``
    holds ``embed`` and every block's ``z``/``mlp_out``.
    """

    keep: Bool[Tensor, "*row writer reader"]
    other: "Pass"


@runtime_checkable
class Dictionary(Protocol):
    """What :class:`Features` needs of a sparse autoencoder (sae_lens objects fit)."""

    def encode(self, x: Tensor) -> Tensor: ...
    def decode(self, feature_acts: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Features:
    """Scale dictionary features in place: h <- h + decode(f') - decode(f), f'[columns] = scale * f[columns].

    ``name`` is the content hash of the dictionary; without it the pass is not cached.
    """

    site: Site
    sae: Dictionary
    columns: Int[Tensor, " column"]
    scale: float
    name: str | None = None


Write = Replace | LowRank | Scale | Prefix | LogitBias | Edges | Features


# ---- what comes out ---------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Pass:
    """What a pass read, in input row order; ``reads[read]`` is a CPU tensor in float32 unless the bench says otherwise.

    ``state``: last/mean [row d], all [row pos d] (padding zero), answer/key packed [token d] in ``Rows.targets`` order;
    ``pattern`` sites are [row head pos pos]. ``logprob``/``rank``: packed [token] (nats; 0 = best).
    """

    rows: Rows
    reads: Mapping[Read, Tensor]

    def __getitem__(self, read: Read) -> Tensor:
        return self.reads[read]


class Grads(NamedTuple):
    """Gradients of the summed objective; value is the objective per row."""

    value: Float[Tensor, " row"]
    at_sites: Mapping[Site, Float[Tensor, "row pos d"]]
    at_inputs: Float[Tensor, "row pos d"] | None
    at_params: Mapping[str, Tensor]


class Optimised(NamedTuple):
    """The best of several restarts by the validation groups, and the course of every restart."""

    prefix: Float[Tensor, "n d"]
    objective_by_step: Float[Tensor, "restart step"]
    validation: Float[Tensor, " restart"]


class Forward(NamedTuple):
    """What an objective sees of a pass with gradients: log-probabilities of the targets, and the logits behind them.

    logprob, row: [token] over the answer's tokens (key tokens where ``key`` is true); logits [token vocab].
    states: what ``at_sites`` asked for, all positions; ``states[site][row, at]`` are those that predict the targets.
    ``at`` is None where packed states were scored, which have no place in a row.
    """

    logprob: Float[Tensor, " token"]
    logits: Float[Tensor, "token vocab"]
    target: Int[Tensor, " token"]
    row: Int[Tensor, " token"]
    key: Bool[Tensor, " token"]
    states: Mapping[Site, Float[Tensor, "row pos d"]]
    at: Int[Tensor, " token"] | None = None


RowObjective = Callable[[Forward], Float[Tensor, " row"]]
"""One number a row; the bench sums them, so that rows stay independent."""

Objective = Callable[[Forward | None, Forward | None, Forward | None, Forward | None], Tensor]
"""A training loss of (forget, retain, frozen forget, frozen retain), one scalar."""


class Apart(NamedTuple):
    """A second loss whose gradient is taken apart from the first's, and the rule that makes one gradient of the two.

    ``combine(first, second, scale)`` gets gradients by parameter name and the factor 1 / (sqrt(v) + eps) by which Adam
    scales each of their entries: v is its bias-corrected second moment after one more gradient with the squares of
    both. (Before the step v is zero where an entry has had no gradient yet, and along the sum it may be near zero where
    the two cancel; such entries would rule every inner product.)
    """

    objective: Objective
    combine: Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Recipe:
    """How to train: what the loss is, on which rows, by which optimiser, for how long. Named by content.

    ``objective(forget, retain, frozen_forget, frozen_retain) -> scalar``; the frozen passes are of the checkpoint that
    training starts from and are None unless ``needs_frozen``. ``trainable`` is a regular expression on parameter names.
    ``at_sites``: whose states all these passes carry. ``apart``: a second loss, for methods that weigh two gradients.
    ``paired``: forget rows 2i and 2i + 1 belong together and are drawn together, half of ``batch`` (rounded up) pairs a
    step. ``settings`` is what the record of the result states beside the settings of the descent.
    """

    name: str
    objective: Objective
    steps: int
    lr: float
    batch: int = 64
    warmup_steps: int = 30
    schedule: Literal["linear", "constant"] = "linear"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    trainable: str = ".*"
    needs_frozen: bool = False
    at_sites: tuple[Site, ...] = ()
    apart: Apart | None = None
    paired: bool = False
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict[str, str | int | float | bool])
    every: tuple[int, Callable[[int, Any], None]] | None = None
    gradient_transform: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    seed: int = 0


WeightStream = Iterator[tuple[str, tuple[Tensor, ...]]]
