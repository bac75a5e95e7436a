"""Rows under many candidates at once: every pair of a candidate and a row is a row of the same few batches.

A candidate is a few vectors: virtual tokens at a place of each row, or what is added to the first states of a block.
Candidates differ in length: who has fewer virtual tokens makes shorter rows, so that no token that is not there takes
part. Nothing that steps do not change is computed twice: the
rows' own embeddings, their places and what a checkpoint's edits write are prepared once, no parameter asks for
gradients, only targets go through the head, and no row goes on after the state that predicts its last target.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.batching import batches, halving
from audit.bench.gradients import trainable_only, valued
from audit.bench.layout import Geometry, Targets, VirtualTokens
from audit.bench.passes import Entering, Job, LoadedModel, entering
from audit.bench.reads.readout import FINAL
from audit.bench.reads.vocabulary_sweep import biased
from audit.bench.results import Forward, RowObjective
from audit.case import Rows
from audit.schema import Checkpoint, Positions
from audit.wrappers import Batch, Tap

Places = Int[Tensor, " row"] | Literal["start"]


class Side(NamedTuple):
    """Rows, the places of each candidate in them, and what of them is scored."""

    rows: Rows
    places: Sequence[Places]
    targets: Positions = "key"


class Climbed(NamedTuple):
    """The objective of every row under every candidate, and the gradient of each candidate's sum."""

    value: Float[Tensor, "candidate row"]
    gradient: Float[Tensor, "candidate n d"]


class Prepared(NamedTuple):
    """One batch, all but the virtual tokens: its rows among all pairs, its input with gaps, the flat positions of the
    gaps and the virtual token that fills each, and the flat positions of the states that are scored."""

    pairs: Int[Tensor, " pair"]
    where: Geometry
    batch: Batch
    gaps: Int[Tensor, " gap"]
    filling: Int[Tensor, " gap"]
    scored: Int[Tensor, " target"]
    targets: Forward
    entered: Entering


class Gaps(NamedTuple):
    """Vectors of one batch: of which pair, the how-manieth of its candidate, and the flat position where it stands."""

    pair: Int[Tensor, " gap"]
    token: Int[Tensor, " gap"]
    flat: Int[Tensor, " gap"]


class Given(NamedTuple):
    """One batch as the model is given it."""

    batch: Batch
    taps: list[Tap]


def no_other(ckpt: Checkpoint) -> LoadedModel:
    """The opener of a search: none of its writes reads another model."""
    raise AssertionError(f"a search runs one model, not {ckpt.source} beside it")


def _as_far_as_scored(rows: Rows, at: Positions) -> Rows:
    """The rows up to the state that predicts their last target: what comes after it no score reads."""
    row, position = rows.targets(at)
    scored = torch.ones_like(rows.ids)
    scored[row, position] = position
    return replace(rows, mask=rows.mask & (torch.arange(rows.mask.shape[1]) < scored.amax(1, keepdim=True)))


class Candidates:
    """The pairs of some candidates (``chosen``: their numbers) and the rows of one side, cut into batches.

    ``counts``: how many virtual tokens each candidate has. ``budget``: padded tokens a batch.
    """

    def __init__(
        self, opened: LoadedModel, side: Side, counts: Sequence[int], chosen: Sequence[int], budget: int
    ) -> None:
        self.opened, self.side, self.chosen = opened, side, list(chosen)
        self.n, self.longest = len(side.rows), max(counts)
        self.candidate = torch.tensor(self.chosen).repeat_interleave(self.n)
        every = side.rows.take(torch.arange(self.n).repeat(len(self.chosen)))
        self.rows = every if opened.plays else _as_far_as_scored(every, side.targets)
        self.tokens = self._tokens(torch.tensor(counts)[self.candidate])
        self.packed = Targets(self.rows)
        taken = 0 if self.tokens is None or self.tokens.taken is None else self.tokens.taken
        lengths = self.rows.lengths + taken
        cut = batches(lengths, int(lengths.max()), budget, opened.wrapper.device)
        self.waiting = [torch.arange(len(self.candidate)) if part is None else part for part in cut]
        self.prepared: list[Prepared] = []

    def _tokens(self, counts: Int[Tensor, " pair"]) -> VirtualTokens | None:
        """Room for the virtual tokens of every pair."""
        wrapper, none = self.opened.wrapper, torch.zeros(self.n, dtype=torch.long)
        room = torch.zeros(1, self.longest, wrapper.d_model, device=wrapper.device).expand(len(counts), -1, -1)
        placed = [self.side.places[c] for c in self.chosen]
        at = [none if isinstance(places, str) else places.long().cpu() for places in placed]
        return VirtualTokens(room, torch.cat(at), counts)

    def values(self, prefixes: Float[Tensor, "all n d"], objective: RowObjective) -> Float[Tensor, "candidate row"]:
        """The objective of every row under every chosen candidate, on the CPU."""
        value = torch.zeros(len(self.candidate))

        def run(batch: Prepared) -> None:
            value[batch.pairs] = self._valued(batch, prefixes, objective).float().cpu()

        with torch.no_grad():
            self._each(run)
        return value.view(len(self.chosen), self.n)

    def climbed(self, prefixes: Float[Tensor, "all n d"], objective: RowObjective) -> Climbed:
        """The same with the gradient of every candidate's summed objective; zero for those that are not chosen."""
        value, gradient = torch.zeros(len(self.candidate)), torch.zeros_like(prefixes)
        free = prefixes.detach().requires_grad_()

        def run(batch: Prepared) -> None:
            each = self._valued(batch, free, objective)
            gradient.add_(torch.autograd.grad(each.sum(), free)[0])
            value[batch.pairs] = each.detach().float().cpu()

        with torch.enable_grad(), trainable_only(self.opened.wrapper.parameters(), wanted=False):
            self._each(run)
        return Climbed(value.view(len(self.chosen), self.n), gradient)

    def _each(self, run: Callable[[Prepared], None]) -> None:
        """Every batch once; one that memory is too small for stays halved."""
        before, self.prepared = self.prepared, []
        waiting, self.waiting = self.waiting, []
        for known in (*before, *map(self._prepare, waiting)):
            halving(partial(self._one, run, known), known.pairs, len(self.candidate))

    def _one(self, run: Callable[[Prepared], None], known: Prepared, index: Tensor | None) -> None:
        assert index is not None, "pairs are named"
        batch = known if index is known.pairs else self._prepare(index)
        run(batch)
        self.prepared.append(batch)

    def _prepare(self, index: Int[Tensor, " pair"]) -> Prepared:
        opened = self.opened
        where = Geometry(self.packed, index, self.tokens, opened.wrapper.device)
        with torch.no_grad():
            batch = where.batch(opened.wrapper)
            entered = entering(opened, no_other, Job(self.rows, (), (), None, None), where)
        pair, token, gaps = self._gaps(where)
        filling = self.candidate[index][pair] * self.longest + token
        row, position, _ = self.packed.cut(self.side.targets, index)
        target, key = (x[index[row], position].to(where.device) for x in (self.rows.ids, self.rows.key))
        row = row.to(where.device)
        nothing = torch.zeros(0, device=where.device)
        scored = where.flat(self.side.targets)
        at = scored - row * where.total
        targets = Forward(nothing, nothing[:, None], target, row, key, {}, at)
        return Prepared(index, where, batch, gaps.to(where.device), filling.to(where.device), scored, targets, entered)

    def _gaps(self, where: Geometry) -> Gaps:
        """Where the vectors of a batch's pairs stand."""
        pair, token = (torch.arange(self.longest) < where.count[:, None]).nonzero(as_tuple=True)
        return Gaps(pair, token, pair * where.total + where.insert[pair] + token)

    def _entered(self, batch: Prepared, filled: Float[Tensor, "gap d"]) -> Given:
        """What a batch's pairs are given, with the vectors in their gaps."""
        empty = batch.batch.embeds
        assert empty is not None, "virtual tokens stand between embeddings"
        embeds = empty.flatten(0, 1).index_copy(0, batch.gaps, filled.to(empty.dtype)).view(empty.shape)
        return Given(batch.batch._replace(embeds=embeds), batch.entered.taps)

    def _valued(
        self, batch: Prepared, prefixes: Float[Tensor, "all n d"], objective: RowObjective
    ) -> Float[Tensor, " pair"]:
        """The objective of one batch's pairs."""
        wrapper, final = self.opened.wrapper, list[Tensor]()
        given, taps = self._entered(batch, prefixes.flatten(0, 1)[batch.filling])
        wrapper.forward(given, [*taps, Tap(FINAL, final.append)])
        states = final[0].flatten(0, 1)[batch.scored]
        logits = biased(wrapper.head(states), batch.entered.bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logprob = -torch.nn.functional.cross_entropy(logits, batch.targets.target, reduction="none")
        return valued(objective, batch.targets._replace(logprob=logprob, logits=logits), batch.where.n)
