"""Scores of every edge of every row: what would the objective lose if this reader saw the other run's writer?

To first order an edge's score is (other write - own write) . d objective / d reader's input, summed over positions. One
backward serves all rows of a batch, because the objective gives one number a row and the numbers are only added; the
points of an integrated gradient are stacked into the batch too. The gradient behind a reader's norm is taken in closed
form from the gradients at q, k, v and the MLP's input, so that plain modules are enough; gradients are averaged over
the points before they meet the writers, so that the product over all edges is paid once a row and not once a point.

Sources: EAP, arXiv 2310.10348; EAP-IG, arXiv 2403.17806 (inputs), and its public code for activations and
clean-corrupted. Points are midpoints (k + 1/2)/m; ``left`` is the published k/m, which never sees the clean input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench.batching import batches, halving, padded_tokens
from audit.bench.edges.graph import Graph, graph_of
from audit.bench.gradients import valued
from audit.bench.layout import Geometry, Targets
from audit.bench.passes import Job, LoadedModel, Opener, entering
from audit.bench.reads.readout import FINAL
from audit.bench.reads.vocabulary_sweep import biased
from audit.bench.results import Forward, RowObjective
from audit.case import Rows
from audit.schema import AuditError, Site
from audit.wrappers import (
    Batch,
    BlockMaps,
    NativeWrapper,
    Projections,
    Tap,
    Wrapper,
    block_maps,
    taken_back,
)

_HEADS = ("q", "k", "v")
Method = Literal["eap", "ig_inputs", "ig_activations", "clean_corrupted"]


@dataclass(frozen=True)
class Attribution:
    """How edges are scored. ``steps`` counts the points of an integrated gradient, whose places ``rule`` gives."""

    method: Method = "ig_inputs"
    steps: int = 5
    rule: Literal["midpoint", "left"] = "midpoint"

    def alphas(self) -> tuple[float, ...]:
        """Shares of the clean input at the points: 1 is clean, 0 the other run."""
        if self.method in ("eap", "clean_corrupted"):
            return (1.0,) if self.method == "eap" else (0.0, 1.0)
        offset = 0.5 if self.rule == "midpoint" else 0.0
        return tuple((k + offset) / self.steps for k in range(self.steps))


@dataclass(frozen=True, eq=False)
class Means:
    """The other run where no aligned text is at hand: mean states over some rows, at every position but the first.

    inputs [d] (token embeddings), z [block head d_head], mlp [block d]. The first position keeps its own state: it is
    the attention sink of most models, and no text decides it.
    """

    inputs: Float[Tensor, " d"]
    z: Float[Tensor, "block head d_head"]
    mlp: Float[Tensor, "block d"]


class EdgeScores(NamedTuple):
    """Scores [row writer reader] of the edges of ``graph`` (0 where there is none), and the objective of both runs.

    A score estimates objective(edge from the other run) - objective(clean): positive where cutting raises it.
    """

    graph: Graph
    scores: Float[Tensor, "row writer reader"]
    clean: Float[Tensor, " row"]
    other: Float[Tensor, " row"]


class _States(NamedTuple):
    """What the writers of one run wrote, and what the run made of the objective."""

    inputs: Float[Tensor, "row pos d"]
    embed: Float[Tensor, "row pos d"]
    z: list[Tensor]
    attn: list[Tensor]
    mlp: list[Tensor]
    value: Float[Tensor, " row"]


class _Point(NamedTuple):
    """Where an integrated gradient interpolates: the inputs (None) or one writer's site, at this share of clean."""

    site: Site | None
    alpha: float


def edge_scores(
    opened: LoadedModel,
    opener: Opener,
    rows: Rows,
    other: Rows | Means,
    settings: tuple[RowObjective, Attribution, int],
) -> EdgeScores:
    """Score all edges of all rows. ``other`` holds rows of the same lengths, token by token, or mean states.

    ``settings``: the objective (one number a row), the attribution, and the tokens a batch may hold. Numbers are in
    float32 (float64 for a float64 model), on the CPU. AuditError: rows of other lengths, or a model without such edges.
    """
    graph = graph_of(opened.wrapper)
    _tokens_only(rows, *([other] if isinstance(other, Rows) else []))
    if isinstance(other, Rows) and (other.ids.shape != rows.ids.shape or bool((other.mask != rows.mask).any())):
        raise AuditError("the other rows have other lengths", "align them token by token, or give mean states")
    objective, attribution, budget = settings
    wide = torch.promote_types(opened.wrapper.dtype, torch.float32)
    maps = block_maps(cast(NativeWrapper, opened.wrapper))
    scores = torch.zeros(len(rows), len(graph.writers), len(graph.readers), dtype=wide)
    clean, corrupted = torch.zeros(len(rows), dtype=wide), torch.zeros(len(rows), dtype=wide)
    targets = Targets(rows)

    def score_batch(index: Tensor | None) -> None:
        where = Geometry(targets, index, None, opened.wrapper.device)
        entered = entering(opened, opener, Job(rows, (), (), None, None), where)
        batch = _Scored(opened.wrapper, graph, maps, where, _Conditions(objective, entered.taps, entered.bias))
        mine, theirs = batch.states(where.ids), batch.other_states(other)
        at = slice(None) if index is None else index
        scores[at] = batch.scores(mine, theirs, attribution).cpu()
        clean[at], corrupted[at] = mine.value.to(wide).cpu(), theirs.value.to(wide).cpu()

    width = max(rows.lengths.tolist(), default=0)
    most = max(width, padded_tokens(budget, opened.wrapper.device) // len(attribution.alphas()))
    with torch.enable_grad():
        for index in batches(rows.lengths, width, most, opened.wrapper.device):
            halving(score_batch, index, len(rows))
    return EdgeScores(graph, scores, clean, corrupted)


def _tokens_only(*both: Rows) -> None:
    """AuditError for rows with inputs beside their tokens: two runs are mixed token by token."""
    ignored = sorted({name for rows in both for name in rows.extra})
    if ignored:
        raise AuditError(f"edges are scored on tokens alone and would ignore {', '.join(ignored)}", "give rows of text")


class _Conditions(NamedTuple):
    """The objective, and what the checkpoint's own edits do in every run."""

    objective: RowObjective
    taps: list[Tap]
    bias: Tensor | None


class _Scored:
    """One batch of rows."""

    def __init__(
        self, wrapper: Wrapper, graph: Graph, maps: Sequence[BlockMaps], where: Geometry, conditions: _Conditions
    ) -> None:
        self.wrapper, self.graph, self.maps, self.where, self.conditions = wrapper, graph, maps, where, conditions
        self.wide = torch.promote_types(wrapper.dtype, torch.float32)

    # ---- the two runs -------------------------------------------------------------------------------------------
    @torch.no_grad()
    def states(self, ids: Tensor, inputs: Tensor | None = None) -> _States:
        """A run without gradients: what every writer wrote."""
        written: dict[Site, Tensor] = {}
        inputs = self.wrapper.embed(ids) if inputs is None else inputs
        taps = [Tap(site, _keeping(written, site)) for site in self._writing()]
        forward = self._forward(inputs, taps, 1)
        by = {part: [written[s] for s in written if s.part == part] for part in ("z", "attn_out", "mlp_out")}
        value = valued(self.conditions.objective, forward, self.where.n)
        return _States(inputs, written[Site(part="embed")], by["z"], by["attn_out"], by["mlp_out"], value)

    def other_states(self, other: Rows | Means) -> _States:
        """The other run of these rows; mean states stand at every position but the first."""
        if isinstance(other, Rows):
            ids = other.ids if self.where.index is None else other.ids[self.where.index]
            return self.states(ids[:, : self.where.width].to(self.where.device))
        own = self.wrapper.embed(self.where.ids)
        mine = self.states(self.where.ids)
        patched = self.states(self.where.ids, _but_first(own, other.inputs))
        z = [_but_first(a, b) for a, b in zip(mine.z, other.z, strict=True)]
        attn = [_but_first(a, _attention(m, b)) for m, a, b in zip(self.maps, mine.attn, other.z, strict=True)]
        mlp = [_but_first(a, b) for a, b in zip(mine.mlp, other.mlp, strict=True)]
        return patched._replace(z=z, attn=attn, mlp=mlp)

    def _writing(self) -> list[Site]:
        blocks = range(self.graph.blocks)
        return [Site(part="embed"), *(Site(part=p, block=b) for b in blocks for p in ("z", "attn_out", "mlp_out"))]

    def _forward(self, inputs: Tensor, taps: list[Tap], times: int) -> Forward:
        """Run the rows ``times`` over (stacked) and score their answers, whatever the inputs are."""
        where, final = self.where, list[Tensor]()
        mask = where.mask.repeat(times, 1)
        batch = Batch(where.ids.repeat(times, 1), mask, inputs)
        self.wrapper.forward(batch, [*self.conditions.taps, *taps, Tap(FINAL, final.append)], None, None)
        row, position, _ = where.targets.cut("answer", where.index)
        row, position = row.to(where.device), position.to(where.device)
        key = (where.rows.key if where.index is None else where.rows.key[where.index]).to(where.device)[row, position]
        copies = torch.arange(times, device=where.device).repeat_interleave(len(row)) * where.n
        rows, at, target = row.repeat(times) + copies, position.repeat(times) - 1, where.ids[row, position]
        logits = biased(self.wrapper.head(final[0][rows, at]), self.conditions.bias).to(self.wide)
        logprob = logits.log_softmax(-1).gather(-1, target.repeat(times)[:, None])[:, 0]
        return Forward(logprob, logits, target.repeat(times), rows, key.repeat(times), {}, at)

    # ---- scores -------------------------------------------------------------------------------------------------
    def scores(self, mine: _States, theirs: _States, attribution: Attribution) -> Float[Tensor, "row writer reader"]:
        """Writers' differences times readers' gradients, averaged over the points."""
        alphas, sites = attribution.alphas(), [None]
        if attribution.method == "ig_activations":
            sites = [s for s in self._writing() if s.part != "z"]
        shape = (self.where.n, len(self.graph.writers), len(self.graph.readers))
        total = torch.zeros(shape, dtype=self.wide, device=self.where.device)
        for site in sites:
            self._add(total, self._gradients(mine, theirs, [_Point(site, alpha) for alpha in alphas]), mine, theirs)
        return total / (len(sites) * len(alphas)) * self.graph.exists.to(self.where.device)

    def _add(self, total: Tensor, gradients: list[Tensor], mine: _States, theirs: _States) -> None:
        """Add the product of each writer with all readers [row reader pos d] from its own block on."""
        mask = self.where.mask[:, None, :, None]
        readers = (torch.cat(gradients, 1) * mask).flatten(2).mT
        per, width = self.graph.per_block, self.graph.heads + 1
        total[:, :1] += (theirs.embed - mine.embed).to(self.wide).flatten(1)[:, None] @ readers
        for block in range(self.graph.blocks):
            lines = slice(1 + block * width, 1 + (block + 1) * width)
            total[:, lines, block * per :] += (
                self._difference(block, mine, theirs).flatten(2) @ readers[..., block * per :]
            )

    @torch.no_grad()
    def _difference(self, block: int, mine: _States, theirs: _States) -> Float[Tensor, "row writer pos d"]:
        """What the heads and the MLP of one block write in the other run, less what they write in this one."""
        maps = self.maps[block]
        heads = maps.written(theirs.z[block].to(self.wide)) - maps.written(mine.z[block].to(self.wide))
        return torch.cat([heads, (theirs.mlp[block] - mine.mlp[block]).to(self.wide)[:, None]], 1)

    def _gradients(self, mine: _States, theirs: _States, points: Sequence[_Point]) -> list[Tensor]:
        """Gradients at the readers' inputs in the stream, summed over the points: one [row reader pos d] a block."""
        k, last = len(points), Site(part="resid_out", block=self.graph.blocks - 1)
        shares = [point.alpha if point.site is None else 1.0 for point in points]
        inputs = torch.cat([_mix(mine.inputs, theirs.inputs, a) for a in shares]).detach().requires_grad_()
        reading = [Site(part="mlp_in", block=b) for b in range(self.graph.blocks)]
        nodes: dict[Site, Tensor] = {}
        stream: dict[Site, Tensor] = {}
        taps = [*self._mixing(mine, theirs, points), *(Tap(s, _passing(nodes, s)) for s in (*reading, last))]
        taps += [Tap(s, _keeping(stream, s)) for b in range(self.graph.blocks) for s in self._streams(b)]
        outs = Projections(cast(NativeWrapper, self.wrapper))
        with outs.recorded():
            value = valued(self.conditions.objective, self._forward(inputs, taps, k), k * self.where.n)
        wanted = [*outs.values(), *(nodes[site] for site in (*reading, last))]
        got = torch.autograd.grad(value.sum(), wanted, allow_unused=True, materialize_grads=True)
        grads = [gradient.to(self.wide) for gradient in got]
        at_slots = outs.with_values(grads[: len(outs)])
        *at_mlps, at_last = (g.unflatten(0, (k, -1)) for g in grads[len(outs) :])
        with torch.no_grad():
            blocks = [
                self._of_block(b, [at_slots.of(b, part).unflatten(0, (k, -1)) for part in _HEADS], at_mlp, stream)
                for b, at_mlp in enumerate(at_mlps)
            ]
        return [*blocks, at_last.sum(0)[:, None]]

    def _streams(self, block: int) -> tuple[Site, Site]:
        """The stream that attention reads and the one that the MLP reads."""
        middle = "resid_in" if self.graph.parallel else "resid_mid"
        return Site(part="resid_in", block=block), Site(part=middle, block=block)

    def _of_block(
        self, block: int, at_heads: Sequence[Tensor], at_mlp: Tensor, stream: dict[Site, Tensor]
    ) -> Float[Tensor, "row reader pos d"]:
        """From the gradients at q, k and v [point row pos head d_head] and at the MLP's input [point row pos d]."""
        maps, points = self.maps[block], len(at_mlp)
        x, mid = (stream[s].to(self.wide).unflatten(0, (points, -1)) for s in self._streams(block))
        reads = [maps.reads[part] for part in _HEADS]
        if len({weight.shape[1] for weight in reads}) == 1:
            reads, at_heads = [torch.cat(reads)], [torch.cat([*at_heads], -2)]
        heads = [taken_back(maps.attn_norm, weight, g, x) for weight, g in zip(reads, at_heads, strict=True)]
        return torch.cat([*heads, taken_back(maps.mlp_norm, None, at_mlp[..., None, :], mid)], 1)

    def _mixing(self, mine: _States, theirs: _States, points: Sequence[_Point]) -> list[Tap]:
        """The tap that puts mixtures of both runs at the points' one site; none for the inputs."""
        site = points[0].site
        if site is None:
            return []
        own, other = ((r.embed if site.block is None else _at(r, site)) for r in (mine, theirs))
        mixed = torch.cat([_mix(own, other, point.alpha) for point in points])
        return [Tap(site, lambda state: mixed + 0.0 * state)]


def _at(run: _States, site: Site) -> Tensor:
    assert site.block is not None
    return (run.attn if site.part == "attn_out" else run.mlp)[site.block]


def _keeping(states: dict[Site, Tensor], site: Site) -> Callable[[Tensor], None]:
    def visit(state: Tensor) -> None:
        states[site] = state.detach().clone()

    return visit


def _passing(states: dict[Site, Tensor], site: Site) -> Callable[[Tensor], Tensor]:
    def visit(state: Tensor) -> Tensor:
        states[site] = state
        return state

    return visit


def _mix(mine: Tensor, theirs: Tensor, alpha: float) -> Tensor:
    return theirs + alpha * (mine - theirs)


def _but_first(own: Tensor, mean: Tensor) -> Tensor:
    """``mean`` at every position but the first."""
    states = mean.to(own).expand_as(own).clone()
    states[:, 0] = own[:, 0]
    return states


def _attention(maps: BlockMaps, z: Float[Tensor, "head d_head"]) -> Float[Tensor, " d"]:
    """What attention adds to the stream where its heads hold these values."""
    return maps.written(z[None, None].to(maps.writes))[0].sum(0)[0]


@torch.no_grad()
def mean_states(opened: LoadedModel, opener: Opener, rows: Rows, budget: int) -> Means:
    """Mean states of all real tokens but the first of each row."""
    wrapper, targets = opened.wrapper, Targets(rows)
    graph = graph_of(wrapper)
    _tokens_only(rows)
    maps = block_maps(cast(NativeWrapper, wrapper))
    wide = torch.promote_types(wrapper.dtype, torch.float32)
    sums: list[Tensor] = []
    count = 0.0
    for index in batches(rows.lengths, max(rows.lengths.tolist()), budget, wrapper.device):
        where = Geometry(targets, index, None, wrapper.device)
        entered = entering(opened, opener, Job(rows, (), (), None, None), where)
        conditions = _Conditions(_nothing, entered.taps, entered.bias)
        run = _Scored(wrapper, graph, maps, where, conditions).states(where.ids)
        weight = where.mask.to(wide).clone()
        weight[:, 0] = 0.0
        of_batch = [run.inputs, *run.z, *run.mlp]
        added = [torch.einsum("bp...,bp->...", state.to(wide), weight) for state in of_batch]
        sums = added if not sums else [a + b for a, b in zip(sums, added, strict=True)]
        count += float(weight.sum())
    means = [total / max(count, 1.0) for total in sums]
    n = graph.blocks
    return Means(means[0], torch.stack(means[1 : 1 + n]), torch.stack(means[1 + n :]))


def _nothing(forward: Forward) -> Tensor:
    """An objective that asks nothing."""
    return forward.logprob.new_zeros(int(forward.row.max()) + 1)
