"""What a backend must do: one batch, forward, with taps. Everything else (batching, cache, pooling) is the bench's.

A :class:`Tap` is called with the whole state at its site and may return another state in its place. Backends run the
blocks and the final norm but never the LM head: scores are read at the few positions that are asked for, by
:meth:`Wrapper.head` on ``final_in`` states, so that nothing of size positions x vocabulary exists unless someone asks.

What a model does not have is refused in one place, for every backend: :meth:`Wrapper.forward` looks at the towers of
all sites and at the inputs beside the tokens before :meth:`Wrapper.run_blocks` runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from audit.schema import TOWERS, AuditError, Op, Part, Site, TowerName
from audit.wrappers.placement import resident_bytes

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

NOTHING: Mapping[str, Tensor] = MappingProxyType({})
"""No input beside the tokens."""
_TRIAL_LENGTH = 5


class Batch(NamedTuple):
    """One right-padded batch on the model's device. ``embeds`` replaces ``ids`` as input where given; ``extra`` holds
    inputs beside the tokens by name (pixel values ...), one entry a row; ``cache``, of models that keep any, the keys
    and values of tokens before these, where those of these are put too."""

    ids: Int[Tensor, "row pos"]
    mask: Bool[Tensor, "row pos"]
    embeds: Float[Tensor, "row pos d"] | None = None
    extra: Mapping[str, Tensor] = NOTHING
    cache: "DynamicCache | None" = None


class Tap(NamedTuple):
    """``visit(state)`` sees the state at ``site`` ([row pos d]; q k v z [row pos head d_head]; pattern
    [row head pos pos]) and returns None, or the state to put in its place. Taps at one site run in the given order."""

    site: Site
    visit: Callable[[Tensor], Tensor | None]


class Tower(NamedTuple):
    """One tower of a model: the width of its residual stream, its blocks, and the parts that were found in them.

    ``by_token``: its positions are those of the rows' tokens. Where they are not (patches of an image), ``summary``
    says which state the head reads: ``class``, the first position, or ``pooled``, the mean over all positions (of a
    convolutional network); without one ``last`` or ``answer`` name no place in it. ``positions``: how many states a
    row has there at the most, of images of so many pixels as ``counted_on`` where it depends on their size (0: it does
    not); ``leading``: how many of them stand before the patches. ``read``: the blocks whose output another tower reads
    (none where the head reads the last one): what lies above them reaches nothing. ``widths``: of each block's
    stream, where they differ from ``d_model``, which is the width that the head reads.
    """

    name: TowerName
    d_model: int
    n_blocks: int
    parts: frozenset[Part]
    by_token: bool = True
    summary: Literal["class", "pooled"] | None = None
    positions: int = 0
    leading: int = 0
    counted_on: int = 0
    widths: tuple[int, ...] = ()
    read: tuple[int, ...] = ()

    def summarised(self, state: Shaped[Tensor, "row pos *d"]) -> Shaped[Tensor, "*entry"]:
        """The state that the head reads, of a tower with a ``summary``."""
        return state[:, 0] if self.summary == "class" else state.mean(1)


class Stop(NamedTuple):
    """Nothing after block ``block`` of ``tower`` is computed; None: nothing after the tower's final norm."""

    block: int | None
    tower: TowerName = "text"

    @property
    def depth(self) -> tuple[int, float]:
        """Stops compare by tower, in the order in which towers run, then by block."""
        return TOWERS.index(self.tower), inf if self.block is None else self.block


class Resume(NamedTuple):
    """Start after block ``block`` of ``tower`` from ``state``: neither the towers before it nor blocks 0..block run."""

    block: int
    state: Float[Tensor, "row pos d"]
    tower: TowerName = "text"


class Wrapper(ABC):
    """One opened model behind one backend. ``name`` is the model's class; ``takes`` names the inputs beside the tokens
    that the model reads."""

    supports: frozenset[Op]
    takes: frozenset[str] = frozenset()
    image_token: int | None = None
    """The token in whose place an image stands, of a model that reads images and words."""
    unseen: str = ""
    """Why parts that a model has cannot be seen here; empty where none is hidden."""
    name: str
    towers: Mapping[TowerName, Tower]
    vocab_size: int
    device: torch.device
    dtype: torch.dtype
    backend: str
    attention: str

    @abstractmethod
    def __init__(self, model: "PreTrainedModel", attention: str = "default") -> None:
        """Put an open model behind the backend."""

    @classmethod
    def behind(cls, model: "PreTrainedModel", attention: str = "default") -> "Wrapper":
        """An open model behind this backend."""
        return cls(model, attention)

    # ---- what it has ---------------------------------------------------------------------------------------------
    @property
    def head_tower(self) -> TowerName:
        """The tower that the head reads: the last one that a pass runs."""
        return next(name for name in reversed(TOWERS) if name in self.towers)

    def tower(self, name: TowerName | None = None) -> Tower:
        """One tower; None: the one that the head reads. AuditError names those that there are where this one is not."""
        name = name or self.head_tower
        if name not in self.towers:
            raise AuditError(
                f"{self.name} has no {name} tower: it has {' and '.join(t for t in TOWERS if t in self.towers)}",
                "choose a site of a tower that this model has",
            )
        return self.towers[name]

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the tower that the head reads."""
        return self.tower().parts

    @property
    def n_blocks(self) -> int:
        """Blocks of the tower that the head reads."""
        return self.tower().n_blocks

    @property
    def d_model(self) -> int:
        """Width of the states that the head reads."""
        return self.tower().d_model

    def refuse_ignored(self, extra: Collection[str]) -> None:
        """AuditError where rows bring inputs that the model would not read: two different rows would be one to it."""
        ignored = sorted(set(extra) - self.takes)
        if ignored:
            own = ["tokens"] if self.tower().by_token else []
            reads = " and ".join([*own, ", ".join(sorted(self.takes))]) if self.takes else "tokens alone"
            raise AuditError(
                f"{self.name} would ignore {', '.join(ignored)}: it reads {reads}",
                "give rows without these inputs, or a model that takes them",
            )

    # ---- what it does --------------------------------------------------------------------------------------------
    def forward(
        self, batch: Batch, taps: Sequence[Tap], resume: Resume | None = None, stop: Stop | None = None
    ) -> None:
        """Run the blocks (and the final norm), calling the taps; see :class:`Stop` for where a pass ends.

        Gradients flow iff the caller's grad mode is on. Raises AuditError for a site of a tower or a part that is not
        there, and for inputs that the model does not take.
        """
        towers: set[TowerName | None] = {tap.site.tower for tap in taps}
        towers.update(end.tower for end in (resume, stop) if end is not None)
        for name in towers:
            self.tower(name)
        self.refuse_ignored(batch.extra)
        self.run_blocks(batch, taps, resume, stop)

    @abstractmethod
    def run_blocks(self, batch: Batch, taps: Sequence[Tap], resume: Resume | None, stop: Stop | None) -> None:
        """:meth:`forward`, once towers and inputs are known to be there."""

    @abstractmethod
    def embed(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        """Embeddings of tokens, as ``Batch.embeds`` takes them. AuditError for a model that reads no tokens."""

    def inputs(self, batch: Batch) -> Float[Tensor, "row pos d"]:
        """What enters the first block for this batch, as ``Batch.embeds`` takes it."""
        return self.embed(batch.ids) if batch.embeds is None else batch.embeds

    def trial(self, n: int) -> Batch:
        """A batch of ``n`` made-up rows that differ, to see how the model is hooked."""
        ids = torch.arange(n * _TRIAL_LENGTH).view(-1, _TRIAL_LENGTH) * 7 + 1
        ids = ids.remainder(max(self.vocab_size - 1, 1)).to(self.device)
        return Batch(ids, torch.ones_like(ids, dtype=torch.bool))

    def own_inputs(self, batch: Batch) -> Mapping[str, object]:
        """What the model's own forward is called with for a batch of whole rows."""
        return {"input_ids": batch.ids, "use_cache": False} if self.tower().by_token else dict(batch.extra)

    def trial_seen(self, n: int) -> Batch:
        """The same with an image each, of a model that reads images and words. AuditError for any other."""
        raise AuditError(f"{self.name} does not read images and words", "give a vision-language model")

    def check_attention(self, batch: Batch) -> None:
        """AuditError (code 3) where a model says something else under another attention implementation; asked of those
        of which it is known to happen."""
        return None

    @abstractmethod
    def norm(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The final norm, applied to residual states."""

    @abstractmethod
    def head(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of normed states, with the family's own soft cap, exactly as the model computes them."""

    @property
    def head_width(self) -> int | None:
        """How many tokens the head scores, where :meth:`head_part` computes no more than it gives; None where the head
        gives all logits or none."""
        return None

    def head_part(
        self, states: Float[Tensor, "*batch d"], tokens: slice | Int[Tensor, " token"]
    ) -> Float[Tensor, "*batch token"]:
        """Logits of some tokens, in the order in which they are named."""
        return self.head(states)[..., tokens]

    @abstractmethod
    def parameters(self) -> dict[str, Tensor]:
        """Parameters by their checkpoint names (the live tensors; ties appear under every name). Those of a model that
        is spread are without values, or a rank's share: :func:`audit.wrappers.gathered` reads them."""

    def size_bytes(self) -> int:
        """Bytes of the parameters in memory, tied ones counted once; those that lie on disk take none."""
        return resident_bytes(self.parameters())


def text_tower(
    d_model: int, n_blocks: int, parts: Collection[Part], width: int | None = None
) -> Mapping[TowerName, Tower]:
    """The towers of a causal language model: one. ``width``: of what its blocks hand on (None: ``d_model``)."""
    widths = () if width in (None, d_model) else (width,) * n_blocks
    return {"text": Tower("text", d_model, n_blocks, frozenset(parts), widths=widths)}
