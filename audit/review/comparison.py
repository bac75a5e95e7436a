"""What differs between two finished audits of one case beyond noise, measurement by measurement.

Where both runs keep item tables that hash to what their reports state, cover the same items and give the effects that
the reports state, the difference is paired: one cluster bootstrap resamples the same groups (people) in both. Elsewhere
it is taken from the two intervals, as if the runs were independent, and called approximate. All p are adjusted together
by Holm.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
import scipy
from jaxtyping import Float
from numpy import ndarray

from audit import stats
from audit.render import Reading, answer, finding_name, overall_reading, own_reading
from audit.review.comparability import refusal
from audit.runs import difference, read_issued
from audit.schema import AuditError, Evidence, Finding, Interval, Measurement, Missing, Report, axis_column
from audit.storage import hashed_columns

ALPHA = 0.05
DRAWS = 9999
ROUNDING = 1e-6
NO_RULE = "not asked"
_HALF = NormalDist().inv_cdf(0.975)


class Side(NamedTuple):
    """A report, and the folder of the run it lies in (its item tables may be there). ``remark``: what is to be said of
    whether it is the one that was issued."""

    report: Report
    folder: Path
    remark: str = ""


class Difference(NamedTuple):
    """One measurement in both audits: B less A, a 95 % interval of that, p, and p adjusted over all measurements.

    ``paired`` differences are of the overall effect, which is the value itself where there is one layer (gates: of the
    ratio to base). ``approximate`` ones are of the same number where both sides have it, with its name in ``number``.
    ``least`` is the smallest p that so few units and so many draws allow; no p is below it.
    """

    measurement: str
    a: float
    b: float
    change: float
    ci95: Interval
    p: float
    holm: float
    how: Literal["paired", "approximate"]
    groups: int
    number: str
    least: float

    @property
    def bounded(self) -> bool:
        """Is p as small as it can be here, so that the adjusted one is a bound?"""
        return self.p <= self.least

    @property
    def differs(self) -> bool:
        """Beyond noise?"""
        return self.holm < ALPHA


class Comparison(NamedTuple):
    """Two audits side by side. ``uncompared``: measurements of both without numbers to compare, and why.

    ``findings``: the rules of yes or no whose answers differ.
    """

    differences: tuple[Difference, ...]
    uncompared: tuple[tuple[str, str], ...]
    outcomes: tuple[tuple[str, str, str], ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    plans: tuple[str, ...]
    findings: tuple[tuple[str, str, str], ...] = ()


def read_side(path: Path, verified: bool = True) -> Side:
    """The report in a run folder, or a report.json on its own, checked unless ``verified`` is off.

    AuditError: code 2 if there is none, 3 if its folder is not as it was issued.
    """
    issued = read_issued(path, verified)
    return Side(issued.report, path if path.is_dir() else path.parent, issued.remark)


def compare(a: Side, b: Side, seed: int = 0) -> Comparison:
    """Everything that differs. AuditError (code 2) where the audits are not comparable, with the reason."""
    if reason := refusal(a.report, b.report):
        raise AuditError(f"these reports cannot be compared: {reason}", "compare audits of one case")
    ours, theirs = ({_name(e): e for e in side.report.evidence} for side in (a, b))
    both = [name for name in ours if name in theirs]
    compared: list[Difference] = []
    uncompared: list[tuple[str, str]] = []
    for name in both:
        row = _difference(name, (a.folder, ours[name].measurement), (b.folder, theirs[name].measurement), seed)
        if isinstance(row, str):
            uncompared.append((name, row))
        else:
            compared.append(row)
    adjusted = stats.holm(np.array([row.p for row in compared])) if compared else np.zeros(0)
    differences = [row._replace(holm=float(holm)) for row, holm in zip(compared, adjusted, strict=True)]
    changed = [(n, ours[n].outcome, theirs[n].outcome) for n in both if ours[n].outcome != theirs[n].outcome]
    return Comparison(
        tuple(sorted(differences, key=lambda row: row.holm)),
        tuple(uncompared),
        tuple(changed),
        tuple(name for name in ours if name not in theirs),
        tuple(name for name in theirs if name not in ours),
        tuple(difference(a.report.plan, b.report.plan)),
        tuple((name, was, now) for name, was, now in findings_beside(a.report, b.report) if was != now),
    )


def compare_with_first(a: Side, others: Sequence[Side], seed: int = 0) -> tuple[Comparison, ...]:
    """Every other audit against the first; p are adjusted by Holm over all of their measurements together."""
    each = [compare(a, other, seed) for other in others]
    every = [row for comparison in each for row in comparison.differences]
    adjusted = stats.holm(np.array([row.p for row in every])) if every else np.zeros(0)
    rows = iter([row._replace(holm=float(holm)) for row, holm in zip(every, adjusted, strict=True)])
    return tuple(
        comparison._replace(differences=tuple(next(rows) for _ in comparison.differences)) for comparison in each
    )


def findings_beside(a: Report, b: Report) -> tuple[tuple[str, str, str], ...]:
    """Every rule of yes or no of either report, and what it says in both: ``not asked`` where one has no such rule."""
    ours, theirs = ({_rule(e, f): answer(f) for e in r.evidence for f in e.measurement.findings} for r in (a, b))
    return tuple((n, ours.get(n, NO_RULE), theirs.get(n, NO_RULE)) for n in dict.fromkeys((*ours, *theirs)))


def _rule(evidence: Evidence, finding: Finding) -> str:
    return f"{finding_name(finding)} ({_name(evidence)})"


def _name(evidence: Evidence) -> str:
    return f"{evidence.measurement.probe}.{evidence.measurement.name}"


Kept = tuple[Path, Measurement]


def _difference(name: str, a: Kept, b: Kept, seed: int) -> Difference | str:
    """One measurement compared, or why it is not."""
    reading, other = _readings(a[1], b[1])
    x, y = reading.value, other.value
    if isinstance(x, Missing) or isinstance(y, Missing):
        return "it has no value in one of them"
    drawn = _paired(a, b, seed)
    if drawn is not None:
        floor, number = least_p(drawn.groups), (overall_reading(a[1]) or own_reading(a[1])).name
        p = max(drawn.p, floor)
        return Difference(name, *drawn.effects, drawn.change, drawn.ci95, p, 1.0, "paired", drawn.groups, number, floor)
    if isinstance(reading.ci95, Missing) or isinstance(other.ci95, Missing):
        return "it has no interval, and no item tables of the same items lie beside both reports"
    first, second = reading.ci95, other.ci95
    floor = least_p(min(a[1].units, b[1].units))
    se = float(np.hypot(first.hi - first.lo, second.hi - second.lo)) / (2 * _HALF)
    change = y - x
    p = max(float(2 * scipy.stats.norm.sf(abs(change) / se)) if se > 0 else float(change == 0), floor)
    ends = Interval(lo=change - _HALF * se, hi=change + _HALF * se)
    return Difference(name, x, y, change, ends, p, 1.0, "approximate", 0, reading.name, floor)


def _readings(a: Measurement, b: Measurement) -> tuple[Reading, Reading]:
    """The numbers that are compared without item tables: overall effects where both have them, else the values."""
    first, second = overall_reading(a), overall_reading(b)
    if first is None or second is None or isinstance(first.ci95, Missing) or isinstance(second.ci95, Missing):
        return own_reading(a), own_reading(b)
    return first, second


def least_p(units: int) -> float:
    """The smallest two-sided p of so many units (2^n signs, both ways) and so many draws; 0 units: of draws alone."""
    return max(2 / (DRAWS + 1), 2.0 ** (1 - units) if units else 0.0)


# ---- item tables ------------------------------------------------------------------------------------------------
Place = tuple[str, str, int]
"""Group, item, layer."""
Scores = dict[str, dict[Place, float]]
"""Role -> place -> score. Of several references the first, which is the null, is kept."""


class _Model(NamedTuple):
    """Group means [group layer] of a suspect above the null, and of base above it."""

    suspect: Float[ndarray, "group layer"]
    base: Float[ndarray, "group layer"]

    def effect(self, weights: Float[ndarray, "draw group"]) -> Float[ndarray, " draw"]:
        """The overall effect in every draw: summed over layers, (suspect - null)/(base - null)."""
        total = (weights @ self.base).sum(1)
        return (weights @ self.suspect).sum(1) / np.where(total > 0, total, np.nan)


class _Drawn(NamedTuple):
    effects: tuple[float, float]
    change: float
    ci95: Interval
    p: float
    groups: int


def _paired(a: Kept, b: Kept, seed: int) -> _Drawn | None:
    """B less A, its percentile interval and two-sided p, over resampled groups; None where tables do not allow it.

    The p is twice the smaller share of draws on one side of zero (Efron & Tibshirani 1993, ch. 15), never below
    2/(draws + 1).
    """
    ours, theirs = _scores(*a), _scores(*b)
    if ours is None or theirs is None or set(ours["suspect"]) != set(theirs["suspect"]):
        return None
    places = set(ours["suspect"])
    for scores in (*ours.values(), *theirs.values()):
        places &= set(scores)
    n = len({group for group, _, _ in places})
    if n < 2:
        return None
    first, second = _as_stated(ours, places, a[1]), _as_stated(theirs, places, b[1])
    if first is None or second is None or first.base.shape != second.base.shape:
        return None
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS) / n
    x, y = (model.effect(np.concatenate([np.full((1, n), 1 / n), weights])) for model in (first, second))
    change = y - x
    if not np.isfinite(change).all():
        return None
    drawn = change[1:]
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    ends, p = stats.percentile_interval(drawn), min(1.0, 2 * (tail + 1) / (DRAWS + 1))
    return _Drawn((float(x[0]), float(y[0])), float(change[0]), ends, p, n)


def _scores(folder: Path, measurement: Measurement) -> Scores | None:
    """Suspect, base and null (not for a gate) of a measurement's item table, if it lies there as the report has it."""
    table = measurement.items
    columns = None if isinstance(table, Missing) else hashed_columns(folder / table.path, table.sha256)
    if columns is None or not {"group", "item", "role", "score"} <= set(columns):
        return None
    axis = axis_column(columns)
    places = [-1] * len(columns["item"]) if axis is None else columns[axis]
    by_role: Scores = {}
    names = (columns["role"], columns["group"], columns["item"], places, columns["score"])
    for role, group, item, layer, score in zip(*names, strict=True):
        by_role.setdefault(role, {}).setdefault((group, item, layer), score)
    null = None if measurement.kind == "gate" else next((r for r in ("reference", "ancestor") if r in by_role), None)
    if not {"suspect", "base"} <= set(by_role) or (null is None and measurement.kind != "gate"):
        return None
    roles = {"suspect": by_role["suspect"], "base": by_role["base"]}
    return roles if null is None else {**roles, "null": by_role[null]}


def _as_stated(scores: Scores, places: set[Place], m: Measurement) -> _Model | None:
    """The model whose effect is the one that the report states, to rounding; None where the table gives no such effect.

    Layers at which base hardly exceeds the null were left out of the effect: those that it exceeds most are tried,
    first all of them, then all but one, and so on.
    """
    means = {role: _means(by_place, places) for role, by_place in scores.items()}
    null = means.get("null", np.zeros_like(means["base"]))
    suspect, base = means["suspect"] - null, means["base"] - null
    stated = m.value if isinstance(m.overall, Missing) else m.overall.value
    once, order = np.full((1, len(base)), 1 / len(base)), np.argsort(-base.mean(0), kind="stable")
    for count in range(len(order), 0, -1):
        layers = np.sort(order[:count])
        model = _Model(suspect[:, layers], base[:, layers])
        if not isinstance(stated, Missing) and abs(float(model.effect(once)[0]) - stated) < ROUNDING:
            return model
    return None


def _means(scores: Mapping[Place, float], places: set[Place]) -> Float[ndarray, "group layer"]:
    groups, layers = sorted({g for g, _, _ in places}), sorted({layer for _, _, layer in places})
    row, column = ({name: i for i, name in enumerate(names)} for names in (groups, layers))
    total, count = np.zeros((2, len(groups), len(layers)))
    for group, item, layer in places:
        total[row[group], column[layer]] += scores[group, item, layer]
        count[row[group], column[layer]] += 1
    return total / np.maximum(count, 1)
