"""Features and strength for one concept: whatever suppresses it most of what keeps the rest, on a selection split.

The states below the edit do not depend on it: they are read once, and every variant resumes after them. Nothing that
is reported may come from the rows that were searched on. Source: the budget of SAEBench (least accuracy among the
settings that keep 99 % elsewhere), on rows of its own instead of those that are reported.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from audit.bench import Bench, GatedClamp, Start
from audit.case import Rows
from audit.schema import Checkpoint, Read, Site
from saes.concept_features import (
    ConceptCodes,
    Moves,
    above_percentile,
    by_firing_rate,
    clamped,
    clamped_to,
    concept_codes,
    gated_clamp,
    joined,
    multiplied,
    normalised_mean_scores,
)
from saes.expert_features import Activity, matched_sets
from saes.sparse_coder import SparseCoder

_ROUNDING = 1e-9


class Edited(NamedTuple):
    """What an edit is searched on: the model, the dictionary of one of its sites, and how many first positions of every
    row stay out of it (class token, BOS)."""

    model: Checkpoint
    site: Site
    coder: SparseCoder
    leading: int = 0


class ReadRows(NamedTuple):
    """Rows with their states at the site, of a tower of tokens padded; ``own`` marks those that are described."""

    rows: Rows
    states: Float[Tensor, "row pos d"]
    own: Bool[Tensor, "row pos"]

    def described(self, chosen: Bool[Tensor, " row"] | None = None) -> Float[Tensor, "state d"]:
        """The described states of all rows, or of some."""
        return self.states[self.own if chosen is None else self.own & chosen[:, None]]


class Answers(NamedTuple):
    """How rows are answered: ``right`` where every content token is the likeliest, and the content's probability."""

    right: Bool[Tensor, " row"]
    probability: Float[Tensor, " row"]

    @property
    def accuracy(self) -> float:
        """The share of rows that are right."""
        return float(self.right.double().mean())


Way = Literal["typical", "absolute", "multiplied"]


class Grid(NamedTuple):
    """What is tried: the percentiles of the score of normalised means; for the rule of firing rates, how often a
    feature may fire elsewhere and how many are taken; and strengths.

    A strength is in units of a feature's typical code, ``absolute`` in the dictionary's own units, or a factor of the
    code times its mean on the concept (``multiplied``).
    """

    percentiles: tuple[float, ...] = (99.9, 99.0, 97.0)
    most_elsewhere: tuple[float, ...] = (0.001, 0.01, 0.03, 0.1)
    counts: tuple[int, ...] = (1, 4, 10, 20, 40)
    strengths: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    way: Way = "typical"

    def moves(self, codes: ConceptCodes, features: Int[Tensor, " column"], strength: float) -> Moves:
        """The moves of these features at a strength."""
        if self.way == "absolute":
            return clamped_to(features, strength)
        return (multiplied if self.way == "multiplied" else clamped)(codes, features, strength)


SAEURON = Grid((99.99, 99.999), (), (), (-1.0, -5.0, -10.0, -20.0, -30.0), "multiplied")
"""What SAeUron's released code tries: few features by the score, codes multiplied."""
FARRELL = Grid((), (0.001, 0.01), (10, 20), (25.0, 50.0, 100.0, 200.0), "absolute")
"""The sixteen settings of arXiv 2410.19278, as SAEBench runs them."""


class Candidate(NamedTuple):
    """Features by a rule and its setting: the percentile, or the rate and the count."""

    rule: str
    setting: tuple[float, ...]
    features: Int[Tensor, " column"]


class Choice(NamedTuple):
    """What was chosen for a concept, and on the rows of the search the accuracy before and after, elsewhere too;
    ``tried``: how many variants it was chosen from."""

    candidate: Candidate
    strength: float
    moves: Moves
    before: float
    after: float
    others_before: float
    others_after: float
    tried: int


class Search(NamedTuple):
    """What is tried, which share of the accuracy elsewhere is to be held, and what other concepts moved already."""

    grid: Grid = Grid()
    budget: float = 0.99
    earlier: tuple[Moves, ...] = ()


def read_rows(bench: Bench, edited: Edited, rows: Rows) -> ReadRows:
    """Read the states of rows at the site, once."""
    states = bench.run(edited.model, rows, [read := Read(site=edited.site, at="all")])[read]
    by_token = bench.open(edited.model).tower(edited.site.tower).by_token
    own = rows.mask.clone() if by_token else torch.ones(states.shape[:2], dtype=torch.bool)
    own[:, : edited.leading] = False
    return ReadRows(rows, states, own)


def answers(bench: Bench, edited: Edited, read: ReadRows, write: GatedClamp | None = None) -> Answers:
    """How the model answers under a write at the site (None: as it is), resumed from the states that were read."""
    reads = [Read(site=Site(part="logits"), at="key", reduce=reduce) for reduce in ("rank", "logprob")]
    if edited.site.part == "resid_out":
        states = read.states if write is None else write.moved(read.states)
        done = bench.run(edited.model, read.rows, reads, start=Start(edited.site, states))
    else:
        done = bench.run(edited.model, read.rows, reads, () if write is None else (write,))
    row, _ = read.rows.targets("key")
    n = len(read.rows)
    count = torch.bincount(row, minlength=n)
    missed = torch.zeros(n).index_add(0, row, (done[reads[0]] > 0).float())
    total = torch.zeros(n).index_add(0, row, done[reads[1]])
    return Answers((missed == 0) & (count > 0), (total / count.clamp_min(1)).exp())


def codes_of(edited: Edited, concept: ReadRows, others: Sequence[Tensor]) -> ConceptCodes:
    """What the features do on a concept's rows beside other states, each [state d]."""
    return concept_codes(edited.coder, concept.described(), torch.cat([*others]))


def candidates(codes: ConceptCodes, grid: Grid) -> tuple[Candidate, ...]:
    """The feature sets of a grid by both rules, each set once, the smallest first."""
    scores = normalised_mean_scores(codes)
    sets = [Candidate("normalised means", (q,), above_percentile(scores, q)) for q in grid.percentiles]
    sets += [
        Candidate("firing rates", (most, float(count)), by_firing_rate(codes, most, count))
        for most in grid.most_elsewhere for count in grid.counts
    ]  # fmt: skip
    once = {tuple(sorted(each.features.tolist())): each for each in reversed(sets) if len(each.features)}
    return tuple(sorted(once.values(), key=lambda each: len(each.features)))


def chosen(
    bench: Bench, edited: Edited, rows: tuple[ReadRows, ReadRows], codes: ConceptCodes, search: Search
) -> Choice | None:
    """The features and strength under which the concept's rows are answered worst, right answers first and then their
    probability, among those that hold the budget elsewhere; None where none does. ``rows``: the concept's, the others.

    What was moved ``earlier`` for other concepts acts too, so that the budget is that of all of them at once.
    """

    def seen(read: ReadRows, *moves: Moves) -> Answers:
        return answers(bench, edited, read, _write(edited, (*search.earlier, *moves)))

    own, others = rows
    with bench.without_store():
        before, others_before = seen(own).accuracy, answers(bench, edited, others).accuracy
        variants = [
            (each, strength, search.grid.moves(codes, each.features, strength))
            for each in candidates(codes, search.grid) for strength in search.grid.strengths
        ]  # fmt: skip
        after = [seen(own, moves) for _, _, moves in variants]
        left = [(each.accuracy, float(each.probability.mean())) for each in after]
        for n in sorted(range(len(left)), key=lambda n: left[n]):
            candidate, strength, moves = variants[n]
            elsewhere = seen(others, moves).accuracy
            if elsewhere >= search.budget * others_before - _ROUNDING:
                accuracies = before, after[n].accuracy, others_before, elsewhere
                return Choice(candidate, strength, moves, *accuracies, tried=len(variants))
    return None


def matched_moves(
    edited: Edited, codes: ConceptCodes, choice: Choice, grid: Grid, draws: int, seed: int = 0
) -> tuple[Moves, ...]:
    """Random features in the chosen ones' place, as many, firing as often over the concept and the rest (each weighing
    half) and writing as much, moved by the same strength: what a choice is compared with."""
    size = codes.typical * edited.coder.W_dec.double().norm(dim=1)
    nothing = torch.zeros(1, edited.coder.features, dtype=torch.bool)
    activity = Activity(nothing, (codes.rate / 2 + codes.others_rate / 2).numpy(), size.numpy())
    at = choice.candidate.features
    sets = matched_sets(at, at, activity, draws, seed)
    return tuple(grid.moves(codes, features.unique(), choice.strength) for features in sets)


def _write(edited: Edited, moves: tuple[Moves, ...]) -> GatedClamp | None:
    return gated_clamp(edited.coder, edited.site, joined(moves), edited.leading) if moves else None
