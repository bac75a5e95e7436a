"""The joint rule: one score from all calibrated measurements that ran, refitted from their stored scores for that set.

Ridge logistic regression on bounded features, no slope below 0. A trace needs a score above every clean model's (but
for the share that a threshold lets pass), and evidence: two classes from two measurements, one of which reads states,
or a causal effect that is also beyond its own reference-to-reference floor. Classes are causal, decoding, recovery and
output. An effect is evidence above its bar if its own test, against people whom nobody was taught, finds it too; a
sparse reading (a few people where the mean sees none) is above its bar. A feature that a model lacks reads 0, like one
that never knew.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from audit.calibration.error_rates import (
    Decision,
    HeldOut,
    Roster,
    Rule,
    held_out,
    labelled,
    record,
    roster,
    stated,
    threshold,
)
from audit.calibration.evidence_features import INSIDE, LEAST_TAIL, SPARSE, Class, Feature, class_of
from audit.calibration.records import Calibration, ErrorRates, Subjects
from audit.schema import Interval, Missing, Record, Reliability
from audit.stats import Scale, bands, clustered, cost, likelihood_ratio, monotone, significant

SEED = 0
DIGITS = 6
_rounded = partial(significant, digits=DIGITS)
LEAST_SHARE = 0.5
"""A feature that fewer of the pool's clean and knowing models have does not enter the score."""
LEAST_UNIT = 1e-6
QUANTILES = np.linspace(0, 1, 101)


class Weight(Record):
    """What the score makes of one feature; ``bar``: above it, the feature is evidence of its class."""

    measurement: str
    feature: str
    mean: float
    sd: float
    slope: float
    bar: float
    evidence: Class | None


class Joint(Record):
    """A joint rule with its errors: for exactly these features, from exactly these calibrations.

    Its score is 0 at the threshold and -1 in the median model that never knew.
    """

    schema_version: str = "1.0"
    made_from: dict[str, str]
    intercept: float
    weights: tuple[Weight, ...]
    scale: Scale
    record: ErrorRates
    reliability: Reliability

    @property
    def columns(self) -> tuple[Feature, ...]:
        """The features, in order."""
        return tuple(Feature(w.measurement, w.feature) for w in self.weights)


class ActiveEvidence(NamedTuple):
    """A feature that is evidence: its class, its measurement, and whether it sees ``few`` people or the mean."""

    kind: Class
    measurement: str
    few: bool = False


class Joined(NamedTuple):
    """What the joint rule says of one model: its score, the evidence above its bars, and whether that is a trace."""

    score: float
    lit: tuple[ActiveEvidence, ...]
    found: bool


class Line(NamedTuple):
    """The fitted rule on arrays: standardised features, their slopes, and the bar of each."""

    mean: Float[ndarray, " column"]
    sd: Float[ndarray, " column"]
    slope: Float[ndarray, " column"]
    bar: Float[ndarray, " column"]
    intercept: float

    def score(self, x: Float[ndarray, "model column"]) -> Float[ndarray, " model"]:
        """The joint score, 0 at the threshold; a missing feature reads 0."""
        return self.intercept + (np.nan_to_num(x, nan=0.0) - self.mean) / self.sd @ self.slope


class Table(NamedTuple):
    """The stored features of all subjects: NaN where a subject lacks one."""

    people: Roster
    columns: tuple[Feature, ...]
    classes: tuple[Class | None, ...]
    x: Float[ndarray, "subject column"]


def is_sufficient(lit: Sequence[ActiveEvidence], above_floor: Sequence[str]) -> bool:
    """Is this enough: a causal effect beyond its floor, or two classes, of two measurements, one from inside?

    One of them has to be an effect: people who stand out where no mean does are believed by name alone, where two kinds
    of evidence name the same ones (:func:`audit.judging.kept_people.witnessed`), and not by how far somebody stands out
    in each.
    """
    if any(x.kind == "causal" and not x.few and x.measurement in above_floor for x in lit):
        return True
    if all(x.few for x in lit):
        return False
    inside = [x for x in lit if x.kind in INSIDE]
    return any(a.kind != b.kind and a.measurement != b.measurement for a in inside for b in lit)


def _lit(table: Table, line: Line, row: Float[ndarray, " column"]) -> tuple[ActiveEvidence, ...]:
    """The evidence of one model: every feature above its bar; an effect only where its own test finds it."""
    tested = {
        column.measurement
        for column, value in zip(table.columns, row, strict=True)
        if column.feature == "tail" and value > LEAST_TAIL
    }
    lit: list[ActiveEvidence] = []
    for column, kind, value, bar in zip(table.columns, table.classes, row, line.bar, strict=True):
        few = column.feature in SPARSE
        if kind is not None and value > bar and (few or column.measurement in tested):  # NaN is above nothing
            lit.append(ActiveEvidence(kind, column.measurement, few))
    return tuple(dict.fromkeys(lit))


def _joined(table: Table, line: Line, row: Float[ndarray, " column"]) -> Joined:
    score, lit = float(line.score(row[None])[0]), _lit(table, line, row)
    beyond = [
        c.measurement for c, value in zip(table.columns, row, strict=True) if c.feature == "over_floor" and value > 0
    ]
    return Joined(score, lit, score > 0 and is_sufficient(lit, beyond))


# ---- fit --------------------------------------------------------------------------------------------------------
def _fit(table: Table, seen: Bool[ndarray, " subject"]) -> Line:
    """The rule from some subjects: both kinds equally heavy, every world as heavy as another.

    Its score is scaled so that 0 is the threshold and -1 the median clean model: scores of rules that were fitted on
    different subjects can then be held against one another.
    """
    people, x = table.people, table.x[seen]
    knows, world, clean = people.knowing[seen], people.world[seen], people.clean[seen]
    bar = np.array([_bar(column[clean], world[clean]) for column in x.T])
    filled = np.nan_to_num(x, nan=0.0)
    mean, sd = filled.mean(0), np.maximum(filled.std(0), 1e-6)
    data = clustered.labelled(np.zeros(len(knows)).tolist(), knows.tolist(), world.tolist())
    weight = monotone.balanced(data, np.ones(data.holds.shape[1]))
    fitted = monotone.rising_logistic((filled - mean) / sd, knows, weight)
    raw = Line(mean, sd, fitted.slope, bar, fitted.intercept)
    never = raw.score(x[clean])
    top, middle = threshold(never, world[clean]), float(np.median(never))
    unit = max(top - middle, LEAST_UNIT)
    return raw._replace(slope=fitted.slope / unit, intercept=(fitted.intercept - top) / unit)


def _bar(value: Float[ndarray, " model"], world: ndarray) -> float:
    """Above what a feature is evidence: what clean worlds reach; nothing where no clean model has the feature."""
    present = np.isfinite(value)
    return threshold(value[present], world[present]) if present.any() else float("inf")


def _rule(table: Table, line: Line) -> Rule:
    def judge(which: Bool[ndarray, " subject"]) -> Decision:
        joined = [_joined(table, line, row) for row in table.x[which]]
        return Decision(np.array([model.found for model in joined], bool), np.array([model.score for model in joined]))

    return judge


def table_of(subjects: Subjects, calibrations: Mapping[str, Calibration], wanted: Sequence[Feature] | None) -> Table:
    """The stored features; ``wanted`` selects and orders them, else all of trained rows that may enter the score."""
    known: dict[Feature, tuple[Class | None, ndarray]] = {}
    people = roster(subjects.subjects)
    counted = people.clean | people.knowing
    for probe, calibration in sorted(calibrations.items()):
        for measured in calibration.measurements if calibration.joins else ():
            if measured.kind == "context" or measured.form != "trained":
                continue
            for column in measured.columns:
                values = np.full(len(subjects.subjects), np.nan)
                values[list(column.subject)] = column.value
                if np.isfinite(values[counted]).mean() < LEAST_SHARE:
                    continue
                key = Feature(f"{probe}.{measured.name}", column.feature)
                known[key] = (class_of(measured.kind, column.feature), values)
    columns = tuple(known) if wanted is None else tuple(column for column in wanted if column in known)
    x = np.stack([known[column][1] for column in columns], axis=1) if columns else np.empty((len(subjects.subjects), 0))
    return Table(people, columns, tuple(known[column][0] for column in columns), x)


def _usable(table: Table) -> Bool[ndarray, " subject"]:
    return np.isfinite(table.x).sum(1) > 0


def judged_apart(table: Table, known: bool = False) -> HeldOut:
    """The joint rule's decision on every subject, each by a fit that knew neither its world nor its mechanism; where
    mechanisms may be ``known``, not its world."""
    return held_out(table.people, _usable(table), lambda seen: _rule(table, _fit(table, seen)), known=known)


def fit_joint(
    subjects: Subjects, calibrations: Mapping[str, Calibration], wanted: Sequence[Feature] | None = None
) -> Joint:
    """The joint rule for these features with its errors on held-out worlds and mechanisms.

    AuditError where the pool is too small to leave a world and a mechanism out.
    """
    table = table_of(subjects, calibrations, wanted)
    held = judged_apart(table)
    data = labelled(table.people, held.score, held.judged)
    scale = likelihood_ratio.fit_scale(data, SEED, subjects.draws)
    line = _fit(table, _usable(table) & (table.people.clean | table.people.knowing))
    return Joint(
        made_from={probe: calibration.content_hash() for probe, calibration in sorted(calibrations.items())},
        intercept=_rounded(line.intercept),
        weights=_weights(table, line),
        scale=scale,
        record=record(table.people, stated(table.people, held)),
        reliability=reliability(data, SEED, subjects.draws),
    )


def _weights(table: Table, line: Line) -> tuple[Weight, ...]:
    most = 1e6  # no value passes a bar that no clean model could set
    return tuple(
        Weight(
            measurement=column.measurement, feature=column.feature, mean=_rounded(line.mean[i]),
            sd=_rounded(line.sd[i]), slope=_rounded(line.slope[i]), bar=_rounded(min(line.bar[i], most)),
            evidence=table.classes[i],
        )
        for i, column in enumerate(table.columns)
    )  # fmt: skip


def apply(joint: Joint, features: Mapping[Feature, float]) -> Joined:
    """The joint rule on one model that has all of the rule's features."""
    columns, row = joint.columns, np.array([features[column] for column in joint.columns])
    table = Table(roster(()), columns, tuple(w.evidence for w in joint.weights), np.empty((0, len(columns))))
    mean, sd, slope, bar = (
        np.array([getattr(w, name) for w in joint.weights]) for name in ("mean", "sd", "slope", "bar")
    )
    return _joined(table, Line(mean, sd, slope, bar, joint.intercept), row)


_fitted: dict[tuple[str, ...], Joint] = {}


def refitted(subjects: Subjects, calibrations: Mapping[str, Calibration], wanted: Sequence[Feature]) -> Joint:
    """:func:`fit_joint`, remembered within the process: audits with the same tests share one rule."""
    key = (*(c.content_hash() for _, c in sorted(calibrations.items())), *(column.key for column in wanted))
    if key not in _fitted:
        _fitted[key] = fit_joint(subjects, calibrations, wanted)
    return _fitted[key]


# ---- are the ratios worth what they say? ------------------------------------------------------------------------
def reliability(data: clustered.Labelled, seed: int, draws: int) -> Reliability:
    """Cost, Tippett curves and bands of log10 ratios of models that the fit of the ratios never saw."""
    fold = clustered.folds(data, seed)
    log10 = likelihood_ratio.held_out(data, fold, seed)
    held = data.rescored(log10)
    costs = cost(held, likelihood_ratio.limits_held_out(data, fold), seed, draws)
    return Reliability(
        cllr=_rounded(costs.cllr), cllr_min=_rounded(costs.cllr_min), gap=_rounded(costs.gap),
        envelope=_rounded(costs.envelope),
        gap_ci95=Interval(lo=_rounded(costs.gap_ci95.lo), hi=_rounded(costs.gap_ci95.hi)),
        clean=tuple(_rounded(q) for q in np.quantile(log10[~data.knows], QUANTILES)),
        knowing=tuple(_rounded(q) for q in np.quantile(log10[data.knows], QUANTILES)),
        bands=tuple((_rounded(b.nominal), _counted(b.empirical), b.knowing, b.clean) for b in bands(held)),
    )  # fmt: skip


def _counted(empirical: float) -> float | Missing:
    return _rounded(empirical) if np.isfinite(empirical) else Missing(missing="models of one kind only")
