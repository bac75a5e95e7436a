"""Where the suspect's states lie between base's and those of models that never knew: centred kernel alignment."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from audit.probing import (
    EFFECT_UNIT,
    CaseModels,
    Cohort,
    Count,
    Curve,
    Interval,
    Measurement,
    Missing,
    Naming,
    blank,
    kernel_alignment,
)
from probes._answer_states import Answering, States

PLACEMENT = Naming(
    probe="representation_similarity", name="placement", kind="context",
    statistic="1 - (CKA(suspect, reference) - CKA(base, reference))/(CKA of two references - CKA(base, reference)), of "
    "the states of forget items that the head reads, clipped to [0, 1]",
    unit=EFFECT_UNIT, scale="effect",
)  # fmt: skip
NO_PARTS = (
    "Listed and not judged: similarity is of all items together, so that no person has a part of it that a test could "
    "permute; its interval is a jackknife over groups."
)
NO_NULL = "no model that never knew was given; how alike the suspect and base are stands in the readings"
NO_SECOND = (
    "two models that never knew are needed: how alike these are is the other end of the scale; similarities stand in "
    "the readings"
)
NO_ROOM = "two models that never knew are not clearly more alike than base and one of them: nothing lies between"
UNLIKE_BOTH = (
    "the suspect is unlike the references and less like base than these are: it lies on no way between them; "
    "similarities stand in the readings"
)
NO_VARIATION = "too few items or groups, or states that do not vary"
HALFWAY = 0.5
LESS_ALIKE = 0.1
"""Retained states of the suspect that are by so much less like base's than a reference's are: damaged?"""
NOT_ALIKE = 0.5
"""The same where there is no reference: an alignment below this."""
_PAIRS = {
    "suspect_base": ("suspect", "base"), "suspect_reference": ("suspect", "null"),
    "base_reference": ("base", "null"), "references": ("null", "floor0"),
}  # fmt: skip

Alignments = Mapping[str, Sequence[kernel_alignment.Alignment]]
"""Alignments after every block, and of what the head reads, by pair of models."""


class Similar(NamedTuple):
    """Alignments of the pairs of models that the case has, on forget and on retained items."""

    by_cohort: Mapping[Cohort, Alignments]
    rows: Count
    groups: int


def aligned_models(
    states: Mapping[str, Mapping[Cohort, States]], cohorts: Mapping[Cohort, Answering]
) -> Similar:  # fmt: skip
    """CKA of every pair at every site; ``states`` by the models' names."""
    models = [name for name in ("suspect", "base", "null", "floor0") if name in states]
    by_cohort: dict[Cohort, Alignments] = {}
    for cohort in ("forget", "retain"):
        group, sites = cohorts[cohort].groups, len(states["base"][cohort].layers)
        every: list[dict[frozenset[str], kernel_alignment.Alignment]] = []
        for site in range(sites):
            kernels = {
                name: kernel_alignment.kernel(states[name][cohort].layers[site].numpy(), group) for name in models
            }
            wanted = [pair for pair in combinations(models, 2) if frozenset(pair) in map(frozenset, _PAIRS.values())]
            every.append({frozenset(p): kernel_alignment.alignment(kernels[p[0]], kernels[p[1]]) for p in wanted})
        present = {name: frozenset(pair) for name, pair in _PAIRS.items() if set(pair) <= set(models)}
        by_cohort[cohort] = {name: [site[pair] for site in every] for name, pair in present.items()}
    forget = cohorts["forget"]
    return Similar(
        by_cohort, Count(scored=len(forget.items), unscored=forget.left_out), len(set(forget.groups.tolist()))
    )


def placed(similar: Similar, cast: CaseModels, seed: int) -> Measurement:
    """The placement of the state that the head reads, with every similarity beside it."""
    forget, readings = similar.by_cohort["forget"], _readings(similar)
    empty = blank(PLACEMENT, _why_not(forget, cast), similar.rows, similar.groups, seed)
    notes = [NO_PARTS, last_layer(len(forget["suspect_base"]) - 1)]
    if damaged := _damage(similar.by_cohort["retain"]):
        notes.append(damaged)
        readings["retain_collapsed"] = 1.0
    context = Missing(missing="a number for comparison, of all items together")
    filled = empty.model_copy(
        update={
            "readings": {name: value for name, value in readings.items() if np.isfinite(value)},
            "curves": _curves(similar), "notes": tuple(notes), "items": context, "p": context, "p_below": context,
            "null": context, "floor": context, "power": context, "people": context,
            "positive_control": Missing(missing="base lies at 1 and a second reference at 0 by construction"),
        }
    )  # fmt: skip
    at = _position(forget)
    if at is None:
        return filled
    if at.value < HALFWAY and forget["suspect_base"][-1].value < forget["base_reference"][-1].value:
        unlike = Missing(missing=UNLIKE_BOTH)
        return filled.model_copy(update={"value": unlike, "ci95": unlike})
    ends = Interval(lo=1 - at.ci95.hi, hi=1 - at.ci95.lo)
    return filled.model_copy(update={"value": 1 - at.value, "ci95": ends})


def _position(alignments: Alignments, site: int = -1) -> kernel_alignment.Position | None:
    names = ("suspect_reference", "base_reference", "references")
    if not set(names) <= set(alignments):
        return None
    return kernel_alignment.position(*(alignments[name][site] for name in names))


def _why_not(forget: Alignments, cast: CaseModels) -> str:
    """Why there is no placement; unused where there is one."""
    if cast.null is None:
        return NO_NULL
    if "references" not in forget:
        return NO_SECOND
    return NO_ROOM if np.isfinite(forget["references"][-1].value) else NO_VARIATION


def _readings(similar: Similar) -> dict[str, float]:
    """All similarities of the state that the head reads, and the position by cohort (0 base, 1 never trained)."""
    readings = {"retain_collapsed": 0.0}
    for cohort, alignments in similar.by_cohort.items():
        readings |= {f"cka_{name}_{cohort}": sites[-1].value for name, sites in alignments.items()}
        at = _position(alignments)
        if at is not None:
            readings |= {f"position_{cohort}": at.value}
            readings |= {f"position_{cohort}_lo": at.ci95.lo, f"position_{cohort}_hi": at.ci95.hi}
    return readings


def _damage(retain: Alignments) -> str:
    """What is to be said where the suspect's states of retained items are unlike base's; else empty."""
    suspect = retain["suspect_base"][-1].value
    reference = retain["base_reference"][-1].value if "base_reference" in retain else None
    bar = NOT_ALIKE if reference is None else reference - LESS_ALIKE
    if not suspect < bar:
        return ""
    beside = "" if reference is None else f", a reference's to {reference:.2f}"
    return (
        f"the suspect's states of retained items are like base's to CKA {suspect:.2f}{beside}: damaged, or another "
        "model altogether?"
    )


def last_layer(blocks: int) -> str:
    """Which column is the last."""
    return f"layer {blocks} is the state that the head reads"


_SHOWN = (
    ("forget", "suspect_reference", "suspect", "CKA with a reference, forget items"),
    ("forget", "base_reference", "base", "CKA with a reference, forget items"),
    ("forget", "references", "reference", "CKA with a reference, forget items"),
    ("forget", "suspect_base", "suspect", "CKA with base, forget items"),
    ("forget", "base_reference", "reference", "CKA with base, forget items"),
    ("retain", "suspect_base", "suspect", "CKA with base, retained items"),
    ("retain", "base_reference", "reference", "CKA with base, retained items"),
)


def _curves(similar: Similar) -> tuple[Curve, ...]:
    """Similarities by layer: to a reference, and to base on forget and on retained items."""
    curves: list[Curve] = []
    for cohort, pair, role, unit in _SHOWN:
        alignments = similar.by_cohort[cohort].get(pair)  # type: ignore[call-overload]
        if alignments is None:
            continue
        shown = [(n, a, a.ci95) for n, a in enumerate(alignments) if np.isfinite(a.value)]
        bounded = all(ci95 is not None for _, _, ci95 in shown)
        curves.append(
            Curve.model_validate(
                {
                    "axis": "layer", "unit": unit, "scale": "score", "role": role, "x": [n for n, _, _ in shown],
                    "y": [a.value for _, a, _ in shown], "lo": [c.lo for *_, c in shown if c is not None and bounded],
                    "hi": [c.hi for *_, c in shown if c is not None and bounded],
                }
            )
        )  # fmt: skip
    return tuple(curves)
