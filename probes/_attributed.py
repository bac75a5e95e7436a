"""What the tokens of prompts carry in several models, as measurements."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    CaseModels,
    Design,
    Listing,
    Measurement,
    Missing,
    Naming,
    Null,
    OpenCase,
    assess,
    blank,
    by_person,
    interval,
    item_table,
    panel_of,
    stats,
)
from probes._emphasis import Gains
from probes._key_tokens import Likeness, likeness, template_share
from probes._left_out import Prompts

LEAST_GAP = 0.05
NO_NULL = "no model that never knew to compare with; what the models read stands in the readings"
NOT_IN_BASE = Missing(missing="base says the answer without an emphasis")
NO_FLOOR = Missing(missing="no second reference, so one never-trained model cannot be compared with another")
LISTED = "Listed and not judged: a suspect that is base's child reads a question as base does, known or not."
_SHOWN, _A_QUESTION = 20, 4
"""Rows of the listing, and how many of them are of one item."""


class KeyRule(NamedTuple):
    """Which tokens are key tokens: the ``most`` highest, or the fewest with a ``share`` of the positive mass."""

    most: int
    share: float


class Task(NamedTuple):
    """The case, its models and its prompts."""

    case: OpenCase
    cast: CaseModels
    prompts: Prompts
    key: KeyRule
    draws: int


class Attributed(NamedTuple):
    """Every model's contributions [row pos] by one way, and how alike they are to base's."""

    given: Mapping[str, Float[ndarray, "row pos"]]
    alike: Mapping[str, Likeness]


def attributed(task: Task, given: Mapping[str, Float[ndarray, "row pos"]]) -> Attributed:
    """Every model beside base."""
    question = task.prompts.question
    return Attributed(given, {n: likeness(given["base"], x, question, *task.key) for n, x in given.items()})


def mean(x: Float[ndarray, " row"]) -> float:
    """The mean of what is defined; 0 where nothing is."""
    return float(x[np.isfinite(x)].mean()) if np.isfinite(x).any() else 0.0


def alike(task: Task, naming: Naming, read: Attributed, by: Literal["top", "ranks"]) -> Measurement:
    """How alike the suspect's tokens are to base's, as an effect over people."""
    case, cast, prompts, _, draws = task
    scores = {name: getattr(each, by)[:, None] for name, each in read.alike.items()}
    scored, seed = by_person(prompts.sheet, scores), case.case.seed
    n = scored.n.model_copy(update={"unscored": scored.n.unscored + prompts.untaken})
    reason = NO_NULL if len(scored.groups) else "no item whose tokens carry different parts of the answer"
    empty = blank(naming, reason, n, len(scored.groups), seed)
    roles = {name: cast.role(name) for name in scores}
    filled = empty.model_copy(
        update={
            "items": item_table(case, f"{naming.probe}_{naming.name}", prompts.sheet, scores, roles),
            "readings": readings(read, prompts, by), "notes": (LISTED,),
        }
    )  # fmt: skip
    if cast.null is None or not len(scored.groups):
        return filled
    return assess(panel_of(scored, None), Design(seed, LEAST_GAP, draws=draws, name=naming.key)).onto(filled)


def readings(read: Attributed, prompts: Prompts, by: Literal["top", "ranks", "all"]) -> dict[str, float]:
    """Means over items, by model: how alike to base's, and where the mass lies."""
    numbers: dict[str, float] = {}
    for name, each in read.alike.items():
        shown: dict[str, Float[ndarray, " row"]] = {}
        if name != "base" and by != "ranks":
            shown |= {"jaccard": each.top, "jaccard_of_mass": each.mass}
        if name != "base" and by != "top":
            shown |= {"spearman": each.ranks}
        if by != "ranks":
            shown |= {"on_key_tokens_of_base": each.focus}
            shown |= {"template": template_share(read.given[name], prompts.question)}
        numbers |= {f"{quantity}_{name}": mean(x) for quantity, x in shown.items()}
    return numbers


def recovered(task: Task, naming: Naming, given: Mapping[str, Gains], otherwise: str) -> Measurement:
    """What an emphasis on key words gives the suspect beyond what other words give it, less the same of a model that
    never knew, in nats over people. ``otherwise``: why nobody could be asked."""
    case, cast, prompts, _, draws = task
    by = "gold" if naming.name == "recovery" else "contrast"
    scores = {name: getattr(each, by)[:, None] for name, each in given.items()}
    scored, seed = by_person(prompts.sheet, scores), case.case.seed
    n = scored.n.model_copy(update={"unscored": scored.n.unscored + prompts.untaken})
    people = scored.people
    if not len(scored.groups):
        return blank(naming, otherwise, n, 0, seed)
    readings = {f"gain_{name}": float(x.mean()) for name, x in people.items()}
    if by == "gold":
        readings |= {f"key_words_{name}": mean(each.key) for name, each in given.items()}
        readings |= {f"other_words_{name}": mean(each.other) for name, each in given.items()}
    roles = {name: cast.role(name) for name in scores}
    table = item_table(case, f"{naming.probe}_{naming.name}", prompts.sheet, scores, roles)
    filled = blank(naming, NO_NULL, n, len(scored.groups), seed).model_copy(
        update={"items": table, "readings": readings, "positive_control": NOT_IN_BASE}
    )
    if cast.null is None:
        return filled
    gap = people["suspect"] - people["null"]
    tested = stats.mean_max_t(gap, seed, None, draws)
    floors = [abs(float((x - people["null"]).mean())) for name, x in people.items() if name.startswith("floor")]
    null = Null(
        kind="sign flips over people", quantiles=stats.quantile_summary(tested.null_effect),
        n=len(tested.null_effect), least_p=stats.least_p(len(gap), 0, draws),
    )  # fmt: skip
    return filled.model_copy(
        update={
            "value": float(gap.mean()), "ci95": interval(gap, np.ones_like(gap), seed), "p": tested.p,
            "p_below": tested.p_below, "null": null, "floor": max(floors) if floors else NO_FLOOR,
            "notes": (LISTED,),
        }
    )  # fmt: skip


def listing(
    task: Task, lost: Mapping[str, Float[ndarray, "row pos"]], slopes: Mapping[str, Float[ndarray, "row pos"]]
) -> Listing:
    """The tokens that carry most in base of the items in which a token carries most, beside what they carry in the
    suspect, by both ways."""
    prompts, base = task.prompts, np.where(task.prompts.question, lost["base"], np.nan)
    held = [np.flatnonzero(marks) for marks in prompts.question]
    telling = sorted(range(len(held)), key=lambda n: -np.nanmax(base[n]) if np.isfinite(base[n]).any() else np.inf)
    rows: list[tuple[str | float | None, ...]] = []
    for n in telling[: _SHOWN // _A_QUESTION]:
        words = {t.position: prompts.items[n].question[t.begin : t.end].strip() for t in prompts.tokens[n]}
        for at in held[n][np.argsort(-base[n, held[n]], kind="stable")][:_A_QUESTION].tolist():
            cells = [x[name][n, at] if x else np.nan for x in (lost, slopes) for name in ("base", "suspect")]
            shown = (round(float(x), 4) if np.isfinite(x) else None for x in cells)
            rows.append((prompts.items[n].id, words[at], *shown))
    return Listing(
        title="Question tokens that carry the answer (nats of its mean log-probability)",
        columns=("item", "token", "left out, base", "left out, suspect", "gradients, base", "gradients, suspect"),
        rows=tuple(rows), of=int(prompts.question.sum()), quoted=("item", "token"),
    )  # fmt: skip
