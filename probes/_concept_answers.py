"""What is answered: accuracy about the concept in every manner of asking, accuracy that should stay, and flips."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    EFFECT_UNIT,
    RATIO_UNIT,
    Control,
    Count,
    Design,
    Finding,
    Measurement,
    Missing,
    Naming,
    PersonRows,
    Table,
    assess,
    blank,
    interval,
    item_table,
)
from probes._concept_accuracy import Answered, Parts, answered, balanced, parts_of, sheet_of, yes_rates
from probes._concept_items import MANNERS, drawn
from probes._concept_recovery import NOT_COUNTED, panel_of_models
from probes._concept_scene import ConceptScene

PROBE: Final = "concept_erasure"
LEAST_GAP: Final = 0.1
FLIPS_ALLOWED: Final = 0.01
"""An edit of one concept changes no more answers than this about pictures without it."""
ALWAYS: Final = 0.9
"""Who says no to at least this share of the present and of the absent says no whatever is shown,"""
TELLS_APART: Final = 0.25
"""where base says yes to the present by so much more than to the absent."""
LISTED: Final = Missing(missing="listed for comparison, and not tested")
RATIO_NULL: Final = Missing(missing="the comparison is with base")

ACCURACY = Naming(
    PROBE, "accuracy", "context",
    "largest effect over manners of asking on accuracy about the concept, yes and no balanced over present and absent",
    EFFECT_UNIT, "effect",
)  # fmt: skip
RETAINED = Naming(
    PROBE, "retained_accuracy", "context",
    "accuracy on other concepts, of the same kind and of others, relative to base", RATIO_UNIT, "ratio",
)  # fmt: skip
FLIPS = Naming(
    PROBE, "flips", "context",
    f"share of the answers about pictures without the concept that differ from base's (at most {FLIPS_ALLOWED:.0%} for "
    "an edit of one concept alone)", "share of answers", "probability",
)  # fmt: skip


def accuracy(scene: ConceptScene, most: int) -> tuple[Measurement, Measurement, Measurement]:
    """Accuracy about the concept, about what should stay, and how many answers flipped."""
    seed, groups = scene.case.case.seed, set(scene.sheet.people)
    forget = tuple(item for item in scene.items.forget if item.group in groups)
    retained = [(name, drawn(items, most, seed + n)) for n, (name, items) in enumerate(scene.items.retained())]
    parts = parts_of(scene, [("forget", forget), *retained])
    answers = {name: answered(scene, name, parts.sheet) for name in scene.models}
    return (
        _about_concept(scene, parts, answers), _about_others(scene, parts, answers), _flips(scene, parts, answers)
    )  # fmt: skip


def _about_concept(scene: ConceptScene, parts: Parts, answers: Mapping[str, Answered]) -> Measurement:
    """UA by manner, as an effect on accuracy over pictures."""
    seed, values = scene.case.case.seed, {name: balanced(parts, each) for name, each in answers.items()}
    columns: dict[str, dict[str, ndarray]] = {name: {} for name in values}
    readings: dict[str, float] = {}
    for manner in MANNERS:
        at = parts.of("forget", manner)
        if not len(at):
            continue
        items = [parts.sheet.items[n] for n in at]
        for name, each in values.items():
            columns[name][manner] = scene.by_picture(items, each[at])
            readings[f"accuracy_{manner}_{name}"] = float(each[at].mean())
        readings[f"unlearning_accuracy_{manner}"] = 1 - readings[f"accuracy_{manner}_suspect"]
        readings[f"greedy_{manner}_suspect"] = float(answers["suspect"].greedy[at].mean())
    wide = [m for m in columns["base"] if np.isfinite(columns["base"][m]).mean() >= 0.75]
    stack = {name: np.stack([each[m] for m in wide], 1) for name, each in columns.items()}
    complete = np.isfinite(np.concatenate(list(stack.values()), 1)).all(1)
    people = np.array(scene.sheet.people)[complete].tolist()
    panel = panel_of_models({name: x[complete] for name, x in stack.items()}, people)
    assessed = assess(panel, Design(seed, LEAST_GAP, name=ACCURACY.key))
    empty = blank(ACCURACY, "", Count(scored=len(parts.of("forget"))), int(complete.sum()), seed)
    return assessed.onto(
        empty.model_copy(
            update={
                "readings": readings | _yes_readings(parts, answers) | _blind(scene),
                "items": _table(scene, parts, {name: each.right for name, each in answers.items()}, "accuracy"),
                "findings": (always_no(parts, answers),),
                "notes": (f"manners in this order: {', '.join(wide)}",),
            }
        )
    )


def _yes_readings(parts: Parts, answers: Mapping[str, Answered]) -> dict[str, float]:
    result = {name: yes_rates(parts, each) for name, each in answers.items()}
    sides = ("yes_where_present", "yes_where_absent")
    return {f"{s}_{name}": r for name, rates in result.items() if rates for s, r in zip(sides, rates, strict=True)}


def _blind(scene: ConceptScene) -> dict[str, float]:
    """What is answered of the trained items without a picture, and before a blank one."""
    readings: dict[str, float] = {}
    for shown in ("none", "blank"):
        sheet = sheet_of(scene, scene.sheet.items, shown)
        assert sheet is not None, "a scene has items"
        for name in (n for n in scene.models if n in ("base", "suspect", "null")):
            readings[f"accuracy_{shown}_picture_{name}"] = float(answered(scene, name, sheet).right.mean())
    return readings


def always_no(parts: Parts, answers: Mapping[str, Answered]) -> Finding:
    """Does the suspect say no whatever is shown, where base tells pictures apart?"""
    rule = (
        f"the suspect holds no for likelier than yes before at least {ALWAYS:.0%} of the pictures with the concept and "
        f"of those without, where base says yes to the former at least {TELLS_APART:g} more often"
    )
    rates = {name: yes_rates(parts, answers[name]) for name in ("base", "suspect")}
    base, suspect = rates["base"], rates["suspect"]
    if base is None or suspect is None:
        reason = "yes-or-no questions about the concept are not asked both where it is present and where it is absent"
        holds, because = Missing(missing=reason), reason
    elif base[0] - base[1] < TELLS_APART:
        because = "base itself does not tell pictures with the concept from those without by yes and no"
        holds = Missing(missing=because)
    else:
        holds = bool(max(suspect) <= 1 - ALWAYS)
        because = (
            f"the suspect says yes to {suspect[0]:.0%} of the present and {suspect[1]:.0%} of the absent, base to "
            f"{base[0]:.0%} and {base[1]:.0%}"
        )
    return Finding(
        name="always no", holds=holds, because=because, rule=rule, false_alarms=NOT_COUNTED, hits=NOT_COUNTED,
        blind_to="questions that are not answered by yes or no",
    )  # fmt: skip


def _people(
    parts: Parts, at: Sequence[int] | ndarray, values: Mapping[str, Float[ndarray, " item"]]
) -> tuple[list[str], dict[str, Float[ndarray, "person 1"]]]:
    """Means over pictures of some items, in every model."""
    groups = [parts.sheet.items[n].group for n in at]
    people, person = np.unique(np.array(groups), return_inverse=True)
    count = np.bincount(person.reshape(-1), minlength=len(people))
    means = {name: np.bincount(person.reshape(-1), x[at], len(people)) / count for name, x in values.items()}
    return people.tolist(), {name: x[:, None] for name, x in means.items()}


def _about_others(scene: ConceptScene, parts: Parts, answers: Mapping[str, Answered]) -> Measurement:
    """IRA and CRA, and both together relative to base."""
    seed, right = scene.case.case.seed, {name: each.right for name, each in answers.items()}
    at = np.concatenate([parts.of("in_domain"), parts.of("cross_domain")])
    empty = blank(RETAINED, "no retained item asks for another concept", Count(scored=len(at)), 0, seed)
    if not len(at):
        return empty
    people, means = _people(parts, at, right)
    readings: dict[str, float] = {}
    for part, short in (("in_domain", "in_domain"), ("cross_domain", "cross_domain")):
        mine = parts.of(part)
        readings |= {f"{short}_accuracy_{n}": float(x[mine].mean()) for n, x in right.items() if len(mine)}
    base, suspect = means["base"], means["suspect"]
    if base.mean() <= 0:
        return empty.model_copy(update={"value": Missing(missing="base answers none of them"), "readings": readings})
    null = means.get("null")
    return blank(RETAINED, "", Count(scored=len(at)), len(people), seed).model_copy(
        update={
            "value": float(suspect.mean() / base.mean()), "ci95": interval(suspect, base, seed), "p": RATIO_NULL,
            "p_below": RATIO_NULL, "null": RATIO_NULL, "floor": RATIO_NULL,
            "positive_control": Missing(missing="no reference and no ancestor") if null is None else Control(
                value=float(null.mean() / base.mean()), ci95=Missing(missing="shown for comparison"),
                found=bool(null.mean() >= base.mean() / 2),
            ),
            "items": _table(scene, parts, right, "retained"), "readings": readings,
        }
    )  # fmt: skip


def _flips(scene: ConceptScene, parts: Parts, answers: Mapping[str, Answered]) -> Measurement:
    """Answers about pictures without the concept that are others than base's."""
    seed = scene.case.case.seed
    at = np.concatenate([parts.of(name) for name in ("absent", "in_domain", "cross_domain")])
    empty = blank(FLIPS, "no retained item is asked", Count(scored=len(at)), 0, seed)
    if not len(at):
        return empty
    flipped = {
        name: (each.chosen != answers["base"].chosen).astype(float) for name, each in answers.items() if name != "base"
    }
    people, means = _people(parts, at, flipped)
    ones = np.ones_like(means["suspect"])
    readings = {f"flips_{name}": float(x.mean()) for name, x in means.items()}
    absent = parts.of("absent")
    readings |= {f"flips_asked_for_it_{n}": float(x[absent].mean()) for n, x in flipped.items() if len(absent)}
    return blank(FLIPS, "", Count(scored=len(at)), len(people), seed).model_copy(
        update={
            "value": float(means["suspect"].mean()), "ci95": interval(means["suspect"], ones, seed),
            "p": LISTED, "p_below": LISTED, "null": LISTED, "floor": LISTED,
            "positive_control": Missing(missing="base is what it is compared with: it flips nothing"),
            "items": _table(scene, parts, flipped, "flips"), "readings": readings,
            "notes": (f"{'within' if means['suspect'].mean() <= FLIPS_ALLOWED else 'beyond'} what an edit of one "
                      f"concept alone may change ({FLIPS_ALLOWED:.0%})",),
        }
    )  # fmt: skip


def _table(scene: ConceptScene, parts: Parts, values: Mapping[str, ndarray], name: str) -> Table:
    """A line an item and model."""
    rows = parts.sheet.rows.take(torch.from_numpy(np.flatnonzero(parts.sheet.option == 0)))
    people, person = np.unique(np.array(rows.group_ids), return_inverse=True)
    persons = PersonRows(rows, parts.sheet.items, tuple(map(str, people)), person.reshape(-1))
    scores = {model: x[:, None] for model, x in values.items()}
    return item_table(scene.case, f"{PROBE}_{name}", persons, scores, {m: scene.cast.role(m) for m in scores})
