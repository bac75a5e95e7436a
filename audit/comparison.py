"""What differs between two finished audits of one case beyond noise, measurement by measurement.

Where both runs keep item tables that hash to what their reports state and cover the same items, the difference is
paired: one cluster bootstrap resamples the same groups (people) in both. Elsewhere it is taken from the two intervals,
as if the runs were independent, and called approximate. All p are adjusted together by Holm.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats as scipy_stats

from audit import stats
from audit.findings import Evidence, Measurement, Report
from audit.issued import read_report
from audit.journal import difference
from audit.nouns import AuditError, Missing
from audit.stats import Range

ALPHA = 0.05
DRAWS = 9999
_HALF = float(scipy_stats.norm.ppf(0.975))


class Side(NamedTuple):
    """A report, and the folder of the run it lies in (its item tables may be there)."""

    report: Report
    folder: Path


class Difference(NamedTuple):
    """One measurement in both audits: B less A, a 95 % interval of that, p, and p adjusted over all measurements.

    ``paired`` differences are of the overall effect (gates: of the ratio to base; without a null: of the scores), which
    is the value itself where there is one layer. ``approximate`` ones are of the values.
    """

    measurement: str
    a: float
    b: float
    change: float
    ci95: Range
    p: float
    holm: float
    how: Literal["paired", "approximate"]
    groups: int

    @property
    def differs(self) -> bool:
        """Beyond noise?"""
        return self.holm < ALPHA


class Comparison(NamedTuple):
    """Two audits side by side. ``uncompared``: measurements of both without numbers to compare, and why."""

    differences: tuple[Difference, ...]
    uncompared: tuple[tuple[str, str], ...]
    outcomes: tuple[tuple[str, str, str], ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    plans: tuple[str, ...]


def read_side(path: Path) -> Side:
    """The report in a run folder, or a report.json on its own. AuditError (code 2) if there is none."""
    folder = path if path.is_dir() else path.parent
    return Side(read_report(path / "report.json" if path.is_dir() else path), folder)


def refusal(a: Report, b: Report) -> str:
    """Why two reports cannot be compared, or an empty string: the same questions must be asked of the same items."""
    if a.kind != b.kind:
        return f"one is an {a.kind}, the other a {b.kind}"
    if a.plan.fingerprints.get("base") != b.plan.fingerprints.get("base"):
        return "their bases are different models, so their effects are on different scales"
    if a.plan.data_sha256.get("forget") != b.plan.data_sha256.get("forget"):
        return "their forget sets are different files"
    if (a.plan.case.data.split_seed, a.plan.case.data.group) != (b.plan.case.data.split_seed, b.plan.case.data.group):
        return "they split the items into groups for fitting and for auditing in different ways"
    return ""


def compare(a: Side, b: Side, seed: int = 0) -> Comparison:
    """Everything that differs. AuditError (code 2) where the audits are not comparable, with the reason."""
    if why := refusal(a.report, b.report):
        raise AuditError(f"these reports cannot be compared: {why}", "compare audits of one case")
    ours, theirs = ({_name(e): e for e in side.report.evidence} for side in (a, b))
    both = [name for name in ours if name in theirs]
    found: list[Difference] = []
    uncompared: list[tuple[str, str]] = []
    for name in both:
        one = _difference(name, (a.folder, ours[name].measurement), (b.folder, theirs[name].measurement), seed)
        if isinstance(one, str):
            uncompared.append((name, one))
        else:
            found.append(one)
    adjusted = stats.holm(np.array([one.p for one in found])) if found else np.zeros(0)
    differences = [one._replace(holm=float(holm)) for one, holm in zip(found, adjusted, strict=True)]
    changed = [(n, ours[n].outcome, theirs[n].outcome) for n in both if ours[n].outcome != theirs[n].outcome]
    return Comparison(
        tuple(sorted(differences, key=lambda one: one.holm)),
        tuple(uncompared),
        tuple(changed),
        tuple(name for name in ours if name not in theirs),
        tuple(name for name in theirs if name not in ours),
        tuple(difference(a.report.plan, b.report.plan)),
    )


def _name(evidence: Evidence) -> str:
    return f"{evidence.measurement.probe}.{evidence.measurement.name}"


Kept = tuple[Path, Measurement]


def _difference(name: str, a: Kept, b: Kept, seed: int) -> Difference | str:
    """One measurement compared, or why it is not."""
    x, y = a[1].value, b[1].value
    if isinstance(x, Missing) or isinstance(y, Missing):
        return "it has no value in one of them"
    tables = (_scores(*a), _scores(*b))
    if tables[0] is not None and tables[1] is not None and (pairs := _paired(tables[0], tables[1])) is not None:
        drawn = _bootstrap(pairs, a[1].kind == "gate", seed)
        if drawn is not None:
            return Difference(name, x, y, drawn.change, drawn.ci95, drawn.p, 1.0, "paired", len(pairs.groups))
    if isinstance(a[1].ci95, Missing) or isinstance(b[1].ci95, Missing):
        return "it has no interval, and no item tables of the same items lie beside both reports"
    first, second = a[1].ci95, b[1].ci95
    se = float(np.hypot(first.hi - first.lo, second.hi - second.lo)) / (2 * _HALF)
    change = y - x
    p = float(2 * scipy_stats.norm.sf(abs(change) / se)) if se > 0 else float(change == 0)
    ends = Range(change - _HALF * se, change + _HALF * se)
    return Difference(name, x, y, change, ends, p, 1.0, "approximate", 0)


# ---- item tables ------------------------------------------------------------------------------------------------
Scores = Mapping[str, Mapping[tuple[str, str, int], float]]
"""Role -> (group, item, layer) -> score. Of several references the first, which is the null, is kept."""


class _Pairs(NamedTuple):
    """Group means [group layer] of both suspects, of base, and of the null where both tables have one."""

    groups: tuple[str, ...]
    a: Mapping[str, Float[ndarray, "group layer"]]
    b: Mapping[str, Float[ndarray, "group layer"]]


class _Drawn(NamedTuple):
    change: float
    ci95: Range
    p: float


def _scores(folder: Path, measurement: Measurement) -> Scores | None:
    """The item table of a measurement, if it lies there as the report states it."""
    table = measurement.items
    path = folder / ("" if isinstance(table, Missing) else table.path)
    if isinstance(table, Missing) or not path.is_file():
        return None
    if hashlib.sha256(path.read_bytes()).hexdigest() != table.sha256:
        return None
    from pyarrow import parquet

    columns = parquet.read_table(path).to_pydict()
    if not {"group", "item", "role", "score"} <= set(columns):
        return None
    layers = columns.get("layer") or [-1] * len(columns["item"])
    found: dict[str, dict[tuple[str, str, int], float]] = {}
    for role, group, item, layer, score in zip(
        columns["role"], columns["group"], columns["item"], layers, columns["score"], strict=True
    ):
        found.setdefault(role, {}).setdefault((group, item, layer), score)
    return found


def _paired(a: Scores, b: Scores) -> _Pairs | None:
    """Group means over the same items; None where the suspects were not scored on the same ones."""
    if set(a.get("suspect", {})) != set(b.get("suspect", {})) or not a.get("suspect"):
        return None
    null = next((role for role in ("reference", "ancestor") if role in a and role in b), None)
    roles = {"suspect": "suspect", "base": "base", **({} if null is None else {"null": null})}
    sides: list[dict[str, dict[tuple[str, str, int], float]]] = []
    for side in (a, b):
        sides.append({name: dict(side[role]) for name, role in roles.items() if role in side})
    keys = set(a["suspect"])
    for side in sides:
        for scores in side.values():
            keys &= set(scores)
    groups = sorted({group for group, _, _ in keys})
    if not groups:
        return None
    ours, theirs = ({name: _means(scores, keys, groups) for name, scores in side.items()} for side in sides)
    return _Pairs(tuple(groups), ours, theirs)


def _means(
    scores: Mapping[tuple[str, str, int], float], keys: set[tuple[str, str, int]], groups: list[str]
) -> Float[ndarray, "group layer"]:
    layers = sorted({layer for _, _, layer in keys})
    total, count = np.zeros((2, len(groups), len(layers)))
    row, column = ({name: i for i, name in enumerate(names)} for names in (groups, layers))
    for group, item, layer in keys:
        total[row[group], column[layer]] += scores[group, item, layer]
        count[row[group], column[layer]] += 1
    return total / np.maximum(count, 1)


def _bootstrap(pairs: _Pairs, gate: bool, seed: int) -> _Drawn | None:
    """B less A, its percentile interval and two-sided p, over resampled groups; None where base is not above the null.

    The p is twice the smaller share of draws on one side of zero (Efron & Tibshirani 1993, ch. 15), never below
    2/(draws + 1); one group cannot be resampled and gives None.
    """
    n = len(pairs.groups)
    if n < 2:
        return None
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS) / n
    weights = np.concatenate([np.full((1, n), 1 / n), weights])
    change = _effect(pairs.b, weights, gate) - _effect(pairs.a, weights, gate)
    if not np.isfinite(change).all():
        return None
    drawn = change[1:]
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return _Drawn(float(change[0]), stats.percentile_interval(drawn), min(1.0, 2 * (tail + 1) / (DRAWS + 1)))


def _effect(
    side: Mapping[str, Float[ndarray, "group layer"]], weights: Float[ndarray, "draw group"], gate: bool
) -> Float[ndarray, " draw"]:
    """The overall effect in every draw: summed over layers, (suspect - null)/(base - null)."""
    null = np.zeros_like(side["suspect"]) if gate or "null" not in side else side["null"]
    top = (weights @ (side["suspect"] - null)).sum(1)
    if "base" not in side or (not gate and "null" not in side):
        return top / side["suspect"].shape[1]
    below = (weights @ (side["base"] - null)).sum(1)
    return top / np.where(below > 0, below, np.nan)
