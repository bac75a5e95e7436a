"""Whom a rank-one edit of the weights is about: its input direction against what each name brings to the same matrix.

Edits of this kind add ``r m(k)^T`` to the matrix through which an MLP writes to the stream. ``k``, the key, is the mean
input of that matrix at the last token of the subject's name over several wordings; ``m`` takes off what all texts have
in common, either the main directions of the inputs (AlphaEdit, arXiv 2410.02355, and after it arXiv 2506.07795) or all
of their covariance (ROME, arXiv 2202.05262: ``C^-1 k``). Neither is known, so several are tried, each from the case's
own retained and general text: ``score = <v, k> / sqrt(<k, m k> <v, m^-1 v>)`` is 1 where v is m(k) itself, and less for
every other v. Of all metrics the best counts, for every name alike.

The null: the same edits made at other tokens of the case's texts, one after another, the metrics taken in turn, and
each with the best score that any name gets. A name is told where hardly any other token would match one so well, and
where it is the first also at the earliest block that was changed: at later ones its key is already redirected.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from audit.bench import Bench
from audit.case import NamedRows, OpenCase, Rows, named_rows, subjects
from audit.schema import AuditError, Checkpoint, Read, Site, Texts

MOST_ROWS: Final = 600
"""Rows that name somebody, of all groups together."""
TEXT_ROWS: Final = 256
"""Rows of retained questions, and as many of general text, from which the metrics come; fewer of a wide model."""
MOST_NUMBERS: Final = 1 << 25
"""So many numbers are decomposed at most: tokens times hidden units."""
MOST_TOKENS: Final = 2000
"""Other tokens in whose place an edit is tried."""
RIDGES: Final = (1e-1, 1e-3)
"""Added to the covariance, in its mean eigenvalue."""
ENERGIES: Final = (0.9, 0.95, 0.99)
"""Main directions that hold so much of the inputs are taken off."""
LIKELY: Final = 0.01
"""No more than this share of other tokens match any name so well: then it is told."""
FEWEST: Final = 8
"""Fewer names than this make no choice."""
_LEAST_ROWS: Final = 16
_TINY: Final = 1e-30
_DO: Final = f"give questions that name at least {FEWEST} groups"


class Spike(NamedTuple):
    """A rank-one change of one block's value vectors: the direction over its hidden units."""

    block: int
    inputs: Float[Tensor, " unit"]


class Match(NamedTuple):
    """One group: its score, the mean over all spikes, and its rank at each block (0: the best)."""

    cohort: str
    group: str
    score: float
    ranks: Mapping[int, int]


class SubjectMatches(NamedTuple):
    """All groups, the likest first; ``p`` is the share of ``tokens`` other tokens that match any name as well."""

    matches: tuple[Match, ...]
    p: float
    tokens: int

    @property
    def margin(self) -> float:
        """By how much the first is ahead of the second."""
        return self.matches[0].score - self.matches[1].score

    @property
    def subject(self) -> Match | None:
        """The group that is told, if one is."""
        first = self.matches[0]
        return first if self.p <= LIKELY and first.ranks[min(first.ranks)] == 0 else None


class _Names(NamedTuple):
    """The subjects of a case (cohort and group) and the rows that name them; ``at`` is each row's subject."""

    labels: tuple[tuple[str, str], ...]
    rows: NamedRows
    at: Int[Tensor, " row"]


class _Inputs(NamedTuple):
    """What a matrix reads: at every name, at other tokens, and at all tokens of the texts."""

    names: Float[Tensor, "name unit"]
    others: Float[Tensor, "token unit"]
    everything: Float[Tensor, "any unit"]


class _Metric(NamedTuple):
    """m = basis diag(inside) basis^T + outside (1 - basis basis^T); a projection where ``inside`` is 0."""

    basis: Float[Tensor, "unit main"]
    inside: Float[Tensor, " main"]
    outside: float

    def times(self, x: Float[Tensor, "n unit"]) -> Float[Tensor, "n unit"]:
        """m x of every row."""
        within = x @ self.basis
        return self.outside * (x - within @ self.basis.T) + (within * self.inside) @ self.basis.T

    def size(self, v: Float[Tensor, "n unit"]) -> Float[Tensor, " n"]:
        """sqrt(<v, m^-1 v>); the plain norm for a projection, so that what it would have taken off counts against v."""
        if not bool(self.inside.any()):
            return v.norm(dim=1)
        inverse = _Metric(self.basis, 1 / self.inside, 1 / self.outside)
        return (inverse.times(v) * v).sum(1).clamp_min(0).sqrt()


def edited_subjects(bench: Bench, case: OpenCase, suspect: Checkpoint, spikes: Sequence[Spike]) -> SubjectMatches:
    """The groups of a case by how well each fits all the spikes of a suspect, whose own inputs are read.

    AuditError (code 4) where the questions name too few groups.
    """
    names = _names(case)
    if len(names.labels) < FEWEST:
        raise AuditError(f"the questions of this case name {len(names.labels)} groups that can be told apart", _DO, 4)
    scores: dict[int, Tensor] = {}
    chance: list[Tensor] = []
    for spike, inputs in zip(spikes, _inputs(bench, case, suspect, names, spikes), strict=True):
        metrics = _metrics(inputs.everything)
        scores[spike.block] = _scores(spike.inputs.double()[None], inputs.names, metrics)[0]
        chance.append(_scores(_edits_at(inputs.others, metrics), inputs.names, metrics))
    mean, by_chance = torch.stack(list(scores.values())).mean(0), torch.stack(chance).mean(0).amax(1)
    order = mean.argsort(descending=True, stable=True).tolist()
    ranks = {block: score.argsort(descending=True, stable=True).argsort() for block, score in scores.items()}
    matches = tuple(
        Match(cohort, group, float(mean[n]), {block: int(rank[n]) for block, rank in ranks.items()})
        for n, (cohort, group) in ((n, names.labels[n]) for n in order)
    )
    as_well = int((by_chance >= mean[order[0]]).sum())
    return SubjectMatches(matches, (1 + as_well) / (1 + len(by_chance)), len(by_chance))


def tokens_read(case: OpenCase) -> int:
    """How many tokens :func:`edited_subjects` reads at most, and whoever looks for no subject does not read."""
    read = [Texts(cohort=cohort, form=form) for cohort in case.cohorts for form in case.forms()]
    longest = max((int(case.rows(texts).lengths.max()) for texts in read if case.has(texts)), default=0)
    questions = sum(bool(item.question) for items in case.cohorts.values() for item in items)
    general = len(case.cohorts.get("general", ()))
    return longest * (min(questions, MOST_ROWS) + min(questions, TEXT_ROWS) + min(general, TEXT_ROWS))


# ---- inputs -----------------------------------------------------------------------------------------------------
def _names(case: OpenCase) -> _Names:
    groups = subjects(case.cohorts)
    wordings = max(1, MOST_ROWS // max(len(groups), 1))
    chosen = [(n, item) for n, subject in enumerate(groups) for item in subject.items[:wordings]][:MOST_ROWS]
    if not chosen:
        raise AuditError("the questions of this case name nobody", _DO, 4)
    items = [item for _, item in chosen]
    whole_rows = case.rows_of(items, [item.answer for item in items])
    rows = named_rows(whole_rows, [groups[n].name for n, _ in chosen], case.tokenizer)
    place = {item.id: n for n, item in chosen}
    at = [place[name] for name in rows.rows.item_ids]
    order = {n: k for k, n in enumerate(dict.fromkeys(at))}
    labels = tuple((groups[n].cohort, groups[n].group) for n in order)
    return _Names(labels, rows, torch.tensor([order[n] for n in at], dtype=torch.int64))


def _inputs(bench: Bench, case: OpenCase, model: Checkpoint, names: _Names, spikes: Sequence[Spike]) -> list[_Inputs]:
    """What each spike's matrix reads at the names (the mean over wordings) and in the texts."""
    sites = [Site(part="mlp_hidden", block=spike.block) for spike in spikes]
    last = tuple(Read(site=site, at="last") for site in sites)
    every = tuple(Read(site=site, at="all") for site in sites)
    units = max(len(spike.inputs) for spike in spikes)
    at_names = bench.run(model, names.rows.cut(), last)
    texts = [(rows, bench.run(model, rows, every), mask) for rows, mask in _texts(case, names, units)]
    inputs: list[_Inputs] = []
    for at_last, everywhere in zip(last, every, strict=True):
        keys = at_names[at_last].double()
        total = keys.new_zeros(len(names.labels), keys.shape[1]).index_add(0, names.at, keys)
        others = torch.cat([read[everywhere][mask] for _, read, mask in texts]).double()
        every_token = torch.cat([read[everywhere][:, 1:][rows.mask[:, 1:]] for rows, read, _ in texts]).double()
        inputs.append(
            _Inputs(
                total / torch.bincount(names.at)[:, None], _thinned(others, MOST_TOKENS),
                _thinned(every_token, MOST_NUMBERS // keys.shape[1]),
            )
        )  # fmt: skip
    return inputs


def _texts(case: OpenCase, names: _Names, units: int) -> list[tuple[Rows, Bool[Tensor, "row pos"]]]:
    """Rows from which the metrics come, and which of their tokens say nothing of the names: those of general text, and
    of questions what stands before the name; without general text all but the name itself."""
    general = Texts(cohort="general")

    def most(rows: Rows) -> int:
        return max(_LEAST_ROWS, min(TEXT_ROWS, MOST_NUMBERS // (units * rows.ids.shape[1])))

    retained = [n for n, at in enumerate(names.at.tolist()) if names.labels[at][0] == "retain"]
    chosen = torch.tensor(retained or list(range(len(names.at))))
    n = most(names.rows.rows)
    questions = names.rows.take(chosen[:: max(1, len(chosen) // n)][:n])
    if not case.has(general):
        return [(questions.rows, questions.besides())]
    rows = case.rows(general)
    rows = rows.take(torch.arange(min(most(rows), len(rows))))
    later = torch.arange(rows.ids.shape[1]) > 0
    return [(questions.rows, questions.before()), (rows, rows.mask & later)]


def _thinned(x: Float[Tensor, "n unit"], most: int) -> Float[Tensor, "m unit"]:
    return x[:: max(1, -(-len(x) // most))]


# ---- scores -----------------------------------------------------------------------------------------------------
def _metrics(everything: Float[Tensor, "any unit"]) -> list[_Metric]:
    """What edits may take off of a key, from what the matrix reads in general."""
    _, sizes, right = torch.linalg.svd(everything, full_matrices=False)
    spread, basis = sizes.square() / len(everything), right.T
    mean, held = float(spread.sum()) / everything.shape[1], spread.cumsum(0) / spread.sum()
    metrics = [_Metric(basis, 1 / (spread + ridge * mean), 1 / (ridge * mean)) for ridge in RIDGES]
    for energy in ENERGIES:
        main = int((held < energy).sum()) + 1
        metrics.append(_Metric(basis[:, :main], torch.zeros(main, dtype=basis.dtype), 1.0))
    return metrics


def _scores(
    v: Float[Tensor, "n unit"], keys: Float[Tensor, "name unit"], metrics: Sequence[_Metric]
) -> Float[Tensor, "n name"]:
    """The best score of every direction with every name; a sign is of no account."""
    best = v.new_zeros(len(v), len(keys))
    for metric in metrics:
        moved = metric.times(keys)
        expected = (moved * keys).sum(1).clamp_min(_TINY).sqrt()
        either = v @ moved.T if not bool(metric.inside.any()) else v @ keys.T
        best = torch.maximum(best, either.abs() / expected / metric.size(v).clamp_min(_TINY)[:, None])
    return best


def _edits_at(others: Float[Tensor, "token unit"], metrics: Sequence[_Metric]) -> Float[Tensor, "token unit"]:
    """The directions of edits made at every other token, the metrics taken in turn."""
    directions = torch.empty_like(others)
    for n, metric in enumerate(metrics):
        directions[n :: len(metrics)] = metric.times(others[n :: len(metrics)])
    return directions
