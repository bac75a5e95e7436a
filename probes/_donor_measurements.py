"""What stands beside the evidence of a restoration audit: donor restoration, the published injection, the decision."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    Count,
    Curve,
    Design,
    Interval,
    Measurement,
    Missing,
    Naming,
    Null,
    Number,
    assess,
    blank,
    by_person,
    interval,
    n_blocks,
    panel_of,
    stats,
)
from probes._decision import Finding, decide
from probes._interventions import Restored, controls, forced, injection, restored, retained_shift, swapped
from probes._profiles import Place, after, curve, handed, read_by
from probes._restoration import Scene, scores

LEAST_GAP = 0.1
"""Base exceeds a model that never knew by this probability, or what is read is no evidence."""
LEAST_LOSS = 0.1
"""Where the suspect answers with less than this below base, nothing was lost."""
READS_RETAINED = 0.8
NULL_SETS = 50
RESTORED = Naming(
    probe="sae_restoration", name="donor_restoration", kind="context",
    statistic="share of what the suspect lost that comes back when base donates the features which speak for the "
    "answers, less the same of matched random features",
    unit="share of base's probability beyond the suspect's", scale="difference",
)  # fmt: skip
INJECTION = Naming(
    probe="sae_restoration", name="published_restoration", kind="context", mode="paper",
    statistic="accuracy on the forget rows after the published injection at the first strength, less without it",
    unit="accuracy", scale="difference",
)  # fmt: skip
TABLE = Naming(
    probe="sae_restoration", name="decision_table", kind="context",
    statistic="row of the decision table: 1 retained, 2 partly, 3 re-encoded, 4 reader intact only, 5 not detected, "
    "0 none",
    unit="row", scale="other",
)  # fmt: skip
SAME_OUTPUT = "the suspect answers as base does: nothing was lost that could be restored"
NO_EXPERTS = "no answer is in enough rows of either half of the groups, so that no features speak for one"
PUBLISHED = (
    "The published score is no evidence: the donor brings the answer along, an empty set of features does the same, "
    "and models that never knew restore as well."
)


def _audited(scene: Scene) -> list[str]:
    """The suspect, and the model that never knew where there is one."""
    return [name for name in ("suspect", "null") if name in scene.models]


def _count(scene: Scene) -> Count:
    scored = int(scene.experts.scored.sum())
    return Count(scored=scored, unscored=len(scene.sheet.rows) - scored)


# ---- donor restoration ------------------------------------------------------------------------------------------
class _Rates(NamedTuple):
    """Shares of what a model lost: restored by the experts, and by each random set."""

    experts: float
    random: Float[ndarray, " set"]


def donor_restoration(scene: Scene, sets: int, own_gain: float) -> Measurement:
    """Donation of base's codes of the experts against matched random sets, with every control."""
    scored, seed = scene.experts.scored, scene.case.case.seed
    if not scored.any():
        return blank(RESTORED, NO_EXPERTS, _count(scene), 0, seed)
    drawn = scene.matched(sets, seed)
    base = scores(scene.bench, scene.models["base"], scene.sheet.rows).probability
    empty = blank(RESTORED, SAME_OUTPUT, _count(scene), len(scene.sheet.people), seed)
    readings: dict[str, float] = {
        "experts_an_answer": float((scene.experts.by_row[scored] >= 0).sum(1).double().mean())
    }
    for name in _audited(scene):
        seen = restored(scene, name, drawn if name == "suspect" else drawn[:NULL_SETS])
        readings |= {
            f"{name}_unedited": float(seen.plain[scored].mean()),
            f"{name}_experts": float(seen.experts[scored].mean()),
            f"{name}_random_sets": float(seen.random[:, scored].mean()),
        }
        rates = _rates(seen, base, scored)
        if rates is not None:
            readings |= {f"rate_{name}": rates.experts, f"rate_of_random_sets_{name}": float(rates.random.mean())}
            if name == "suspect":
                empty = _tested(scene, empty, rates, (seen, base))
    readings |= {f"control_{key}": value for key, value in controls(scene, "suspect", own_gain, seed).items()}
    force = forced(scene, "suspect")
    readings |= {} if force is None else {"force_rate_of_false_answers": force}
    readings |= {"retained_shift_without_labels": retained_shift(scene, "suspect")}
    changed = {"readings": readings, "layer": scene.layer, "curves": _depths(scene), "notes": (scene.label,)}
    return empty.model_copy(update=changed)


def _rates(seen: Restored, base: Float[ndarray, " row"], scored: ndarray) -> _Rates | None:
    """None where the model lost too little."""
    lost = float((base - seen.plain)[scored].mean())
    if lost < LEAST_LOSS:
        return None
    gained = (seen.random - seen.plain)[:, scored].mean(1)
    return _Rates(float((seen.experts - seen.plain)[scored].mean()) / lost, gained / lost)


def _tested(scene: Scene, empty: Measurement, rates: _Rates, seen: tuple[Restored, ndarray]) -> Measurement:
    """The experts' share beyond the random sets', with its p among these and an interval over people."""
    scored, (answers, base) = scene.experts.scored, seen
    beyond = np.where(scored, answers.experts - answers.random.mean(0), np.nan)
    lost = np.where(scored, base - answers.plain, np.nan)
    people = by_person(scene.sheet, {"beyond": beyond[:, None], "lost": lost[:, None]}).people
    p = (1 + int((rates.random >= rates.experts).sum())) / (1 + len(rates.random))
    null = Null(kind="matched random sets", quantiles=stats.quantile_summary(rates.random), n=len(rates.random))
    return empty.model_copy(
        update={
            "value": rates.experts - float(rates.random.mean()), "p": p, "null": null,
            "ci95": interval(people["beyond"], people["lost"], scene.case.case.seed),
            "positive_control": Missing(missing="base has lost nothing that it could be given back"),
        }
    )  # fmt: skip


def _depths(scene: Scene) -> tuple[Curve, ...]:
    """What the suspect answers when it goes on from base's whole state, block by block: where its change begins."""
    places = [Place(after(layer), "all") for layer in range(n_blocks(scene.case))]
    states = [handed(scene.cast.base, place) for place in places]
    read_out = np.exp(read_by(scene.bench, scene.cast.suspect, scene.sheet.rows, states))
    people = by_person(scene.sheet, {"suspect": read_out}).people["suspect"]
    drawn = curve("suspect", people, scene.case.case.seed)
    return (drawn.model_copy(update={"unit": "probability after base's state"}),)


# ---- the published injection ------------------------------------------------------------------------------------
def published_restoration(scene: Scene, alphas: tuple[float, ...], sets: int, of: int) -> Measurement:
    """The published intervention, beside what does the same without any expert; ``sets`` of the ``of`` random ones."""
    seed = scene.case.case.seed
    if not scene.experts.scored.any():
        return blank(INJECTION, NO_EXPERTS, _count(scene), 0, seed)
    drawn = scene.matched(of, seed)[:sets]
    seen = {name: injection(scene, name, alphas, drawn) for name in _audited(scene)}
    readings = {f"{name}_{key}": value for name, by_key in seen.items() for key, value in by_key.items()}
    gain = seen["suspect"][f"experts_alpha{alphas[0]:g}"] - seen["suspect"]["unedited"]
    empty = blank(INJECTION, "as published: no test and no threshold", _count(scene), len(scene.sheet.people), seed)
    return empty.model_copy(update={"value": gain, "readings": readings, "layer": scene.layer, "notes": (PUBLISHED,)})


# ---- the decision -----------------------------------------------------------------------------------------------
def decision_table(scene: Scene, readout: Finding, draws: int) -> Measurement:
    """The row of the decision table, by whole-state reverse patch, read-out and swap."""
    seed = scene.case.case.seed
    read_out = {name: scene.run_on("base", scene.states(name)).probability[:, None] for name in scene.models}
    scored = by_person(scene.sheet, read_out)
    reverse, reads = _reverse(scene, Design(seed, LEAST_GAP, draws=draws), read_out)
    swap = _swap(scene)
    decision = decide(reverse, readout, swap)
    readings = {"reads_retained": reads}
    for name, finding in (("reverse", reverse), ("readout", readout), ("donor_swap", swap)):
        readings |= {} if isinstance(finding.value, Missing) else {name: finding.value}
    empty = blank(TABLE, "a row and no number", scored.n, len(scored.people["suspect"]), seed)
    return empty.model_copy(
        update={"value": float(decision.row), "readings": readings, "layer": scene.layer, "notes": (decision.text,)}
    )


def _reverse(scene: Scene, design: Design, read_out: dict[str, Float[ndarray, "row 1"]]) -> tuple[Finding, float]:
    """Whole-state reverse patch as an effect, and how well base reads the suspect's retained states beside its own."""
    retained = scene.retain.rows
    own = scores(scene.bench, scene.models["base"], retained).hit.mean()
    read = scene.run_on("base", scene.states("suspect", retained), retained).hit.mean()
    reads = float(read / max(own, 1e-9))
    if scene.cast.null is None:
        return Finding.absent("no model that never knew: what base recomputes by itself cannot be told apart"), reads
    if reads < READS_RETAINED:
        return Finding.absent(f"base reads the suspect's states of retained facts at {reads:.2f} of its own: no "
                              "common basis"), reads  # fmt: skip
    assessed = assess(panel_of(by_person(scene.sheet, read_out), None), design)
    if not assessed.control.found:
        return Finding.absent("base's own later blocks do not exceed what they read in a model that never knew"), reads
    return Finding(assessed.value, assessed.ci95), reads


def _swap(scene: Scene) -> Finding:
    """Share of what was lost that base's whole state restores in the suspect, less that in a model that never knew."""
    base = scores(scene.bench, scene.models["base"], scene.sheet.rows).probability
    rates: dict[str, float] = {}
    for name in _audited(scene):
        plain = scores(scene.bench, scene.models[name], scene.sheet.rows).probability
        lost = float((base - plain).mean())
        if lost >= LEAST_LOSS:
            rates[name] = float((swapped(scene, name).probability - plain).mean()) / lost
    if "suspect" not in rates:
        return Finding.absent(SAME_OUTPUT)
    value: Number = rates["suspect"] - min(max(rates.get("null", 0.0), 0.0), 1.0)
    absent: Interval | Missing = Missing(missing="one number, judged by its size")
    return Finding(value, absent)
