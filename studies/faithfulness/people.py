"""People: what a metric says of each audited person, from the item tables of an audit, and mistakes counted by person.

A person's effect is (suspect - null) of this person over the mean (base - null) of all of them, layers weighing as in
the overall effect: its mean over people is the metric that the audit reports.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.schema import Measurement, Missing, axis_column
from audit.stats import significant
from studies.faithfulness.readings import AttackedWorld

ALARMED = 0.05
OUTPUTS = ("probability", "extraction_strength", "exact_memorisation", "truth_ratio")
DEPTHS = {"depth_profile_all": "depth_profile", "depth_profile_answer": "depth_profile_answer"}
LENS_GAP_NATS = 0.5


class Items(NamedTuple):
    """One item table as arrays: the person of every item, and each role's scores; the first reference is the null."""

    person: tuple[str, ...]
    base: Float[ndarray, "item layer"]
    suspect: Float[ndarray, "item layer"]
    null: Float[ndarray, "item layer"]


def read_items(path: Path) -> Items:
    """The table of one measurement. The floor's scores, of the second reference, are left out."""
    from pyarrow import parquet

    columns = parquet.read_table(path).to_pydict()
    names, first, item = np.unique(np.array(columns["item"]), return_index=True, return_inverse=True)
    layer = np.unique(np.array(columns[axis_column(columns) or "axis_value"]), return_inverse=True)[1]
    role, score = np.array(columns["role"]), np.array(columns["score"], dtype=float)

    def of(name: str) -> ndarray:
        filled = np.full((len(names), int(layer.max()) + 1), np.nan)
        # Backwards, so that what is written first, the null among the references, is what stays.
        chosen = np.flatnonzero(role == name)[::-1]
        filled[item.reshape(-1)[chosen], layer.reshape(-1)[chosen]] = score[chosen]
        return filled

    person = tuple(str(columns["group"][i]) for i in first)
    return Items(person, of("base"), of("suspect"), of("reference"))


def _by_person(items: Items, values: Float[ndarray, "item layer"], included: ndarray) -> dict[str, ndarray]:
    person = np.array(items.person)
    return {name: values[included & (person == name)].mean(0) for name in np.unique(person[included]).tolist()}


def effects(items: Items, eligible: Callable[[ndarray], ndarray]) -> dict[str, float]:
    """Every person's effect over the layers that ``eligible`` picks from (base - null) by layer; empty without any."""
    included = np.asarray(np.isfinite(np.concatenate([items.base, items.suspect, items.null], 1)).all(1))
    gap = _by_person(items, items.suspect - items.null, included)
    base_gap = np.stack(list(_by_person(items, items.base - items.null, included).values())).mean(0)
    layers = eligible(base_gap)
    if not len(layers):
        return {}
    return {name: float(x[layers].sum() / base_gap[layers].sum()) for name, x in gap.items()}


def depth_scores(items: Items, tau_nats: float) -> dict[str, float]:
    """Every person's mean of 1 less the unlearning depth score of their items; items that no layer encodes drop out."""
    with np.errstate(divide="ignore"):
        base, suspect, null = (np.log(x) for x in (items.base, items.suspect, items.null))
        lost, weight = base - suspect, base - null
    weight = np.where((weight > tau_nats) & np.isfinite(lost + weight).all(1, keepdims=True), weight, 0.0)
    encoded = weight.sum(1) > 0
    ratio = np.divide(lost, weight, out=np.zeros_like(weight), where=weight > 0)
    score = (weight * ratio.clip(0, 1)).sum(1) / np.where(encoded, weight.sum(1), 1.0)
    return {name: float(x[0]) for name, x in _by_person(items, 1.0 - score[:, None], encoded).items()}


def of_audit(measurements: Sequence[Measurement], tables: Path, tau_nats: float) -> dict[str, dict[str, float]]:
    """Metric -> person -> effect, for every metric that has items; a metric without a number has no people."""
    by_metric: dict[str, dict[str, float]] = {}
    for m in measurements:
        if m.form != "trained" or isinstance(m.items, Missing):
            continue
        items = read_items(tables / m.items.path)
        # The depth score has no table of its own: it is made from what is patched at the answer.
        if m.name == "depth_profile_answer":
            by_metric["unlearning_depth_score"] = depth_scores(items, tau_nats)
        if isinstance(m.value, Missing):
            continue
        if m.name in OUTPUTS:
            by_metric[m.name] = effects(items, lambda gap: np.flatnonzero(gap >= 1e-9))
        elif m.name == "lens_lift":
            by_metric["logit_lens"] = effects(items, lambda gap: np.flatnonzero(gap >= min(LENS_GAP_NATS, gap.max())))
        elif m.name in DEPTHS:
            layers = [int(name.removeprefix("effect_layer")) for name in m.readings if name.startswith("effect_layer")]
            by_metric[DEPTHS[m.name]] = effects(items, lambda _, layers=layers: np.array(sorted(layers)))
    return {metric: by for metric, by in by_metric.items() if by}


# ---- mistakes by person -------------------------------------------------------------------------------------------
class Person(NamedTuple):
    """One audited person in one model: the world, how the model was made, whether it knows this person, the effect."""

    world: int
    mechanism: str
    knows: bool
    effect: float


def threshold(clean: Float[ndarray, " person"], share: float = ALARMED) -> float:
    """The least effect of a clean model's person that at most ``share`` of them exceed."""
    return float(np.sort(clean)[::-1][int(share * len(clean))])


class Tally(NamedTuple):
    """k of n people."""

    k: int
    n: int


class Mistakes(NamedTuple):
    """False positives and misses by person on worlds that the threshold was not set on.

    ``by_world``: world -> (threshold, false positives, misses); the mechanisms' counts are sums over worlds.
    """

    false_positives: Tally
    misses: Tally
    by_world: Mapping[int, tuple[float, Tally, Tally]]
    missed: Mapping[str, Tally]
    alarmed: Mapping[str, Tally]


def mistakes(everyone: Sequence[Person]) -> Mistakes | None:
    """Every world judged by a threshold that 5 % of the people of other worlds' clean models exceed.

    None where fewer than two worlds hold clean models.
    """
    worlds = sorted({p.world for p in everyone if not p.knows})
    if len(worlds) < 2:
        return None
    by_world: dict[int, tuple[float, Tally, Tally]] = {}
    tallies: dict[tuple[bool, str], list[int]] = {}
    for world in worlds:
        at = threshold(np.array([p.effect for p in everyone if p.world != world and not p.knows]))
        residents = [p for p in everyone if p.world == world]
        for p in residents:
            count = tallies.setdefault((p.knows, p.mechanism), [0, 0])
            count[0] += (p.effect <= at) if p.knows else (p.effect > at)
            count[1] += 1
        clean, knowing = [p for p in residents if not p.knows], [p for p in residents if p.knows]
        alarms, missed = sum(p.effect > at for p in clean), sum(p.effect <= at for p in knowing)
        by_world[world] = (at, Tally(alarms, len(clean)), Tally(missed, len(knowing)))
    alarms, missed = ({m: Tally(*c) for (k, m), c in tallies.items() if k is knows} for knows in (False, True))
    return Mistakes(_sum(alarms), _sum(missed), by_world, missed, alarms)


def _sum(tallies: Mapping[str, Tally]) -> Tally:
    return Tally(sum(t.k for t in tallies.values()), sum(t.n for t in tallies.values()))


# ---- from readings ------------------------------------------------------------------------------------------------
def everyone(worlds: Sequence[AttackedWorld], key: str) -> list[Person]:
    """The audited people of clean models, and those whom knowing models were taught, as they are.

    People whom a dosed model was not taught are neither: they are left out.
    """
    persons: list[Person] = []
    for world in worlds:
        for r in world.readings:
            if r.state != "before" or r.pool not in ("clean", "knowing"):
                continue
            knows = r.pool == "knowing"
            own = {name: x for name, x in r.people.get(key, {}).items() if not knows or name in r.taught}
            persons += [Person(world.world, r.mechanism, knows, x) for x in own.values()]
    return persons


def people_part(worlds: Sequence[AttackedWorld]) -> dict[str, object]:
    """False positives and misses by person for every metric that has people, as they stand in results.json."""
    keys = dict.fromkeys(key for world in worlds for r in world.readings for key in r.people)
    return {
        "worlds": [w.world for w in worlds],
        "share": ALARMED,
        "metrics": {key: None if (m := mistakes(everyone(worlds, key))) is None else _row(m) for key in keys},
    }


def _row(counts: Mistakes) -> dict[str, object]:
    def listed(tallies: Mapping[str, Tally]) -> dict[str, list[int]]:
        return {name: list(tally) for name, tally in sorted(tallies.items())}

    return {
        "false_positives": list(counts.false_positives),
        "misses": list(counts.misses),
        "missed": listed(counts.missed),
        "alarmed": listed(counts.alarmed),
        "by_world": {
            str(world): {"threshold": significant(at, 5), "false_positives": list(wrong), "misses": list(missed)}
            for world, (at, wrong, missed) in counts.by_world.items()
        },
    }
