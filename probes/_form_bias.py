"""By how much a form was suppressed, and by how much more than others: drops, and the bias between paired forms.

D_f = (P_f(base) - P_f(suspect)) / P_f(base), of means over people. The form-dependent bias is the largest difference
D_trained - D_f over forms, each on the facts that are asked for in both. Its interval is simultaneous over forms
(bootstrap over people, max-t): the largest of several noisy differences is never small, so it is not its own estimate's
percentiles that bound it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit.probing import Interval, Missing, stats

DRAWS = 2000
LISTED = Missing(missing="listed for comparison, and not tested")
TOO_FEW = Missing(missing="an interval over people needs at least two")
Models = Mapping[str, Float[ndarray, "fact form"]]


class Drop(NamedTuple):
    """One form: how many facts and people it asks for, what base, suspect and null give them, and what is gone.

    ``blind`` says that base does not know the facts
    in this form. ``effect`` is the suspect's excess over base's (0 never trained, 1 base).
    """

    facts: int
    people: int
    base: float
    suspect: float
    null: float | None
    drop: float
    ci95: Interval | Missing
    effect: float | None
    blind: bool


class Bias(NamedTuple):
    """The largest difference of drops, its simultaneous interval, the number of the form that kept most, and the
    difference of every form by number."""

    value: float
    ci95: Interval | Missing
    form: int
    differences: dict[int, float]


def person_means(
    values: Float[ndarray, "fact form"], person: Int[ndarray, " fact"], people: int
) -> Float[ndarray, "person form"]:
    """Means over each person's facts; NaN where a person has none."""
    member = np.zeros((people, len(person)))
    member[person, np.arange(len(person))] = 1.0
    finite = np.isfinite(values)
    count = member @ finite
    return np.where(count > 0, member @ np.where(finite, values, 0.0) / np.maximum(count, 1), np.nan)


def common(models: Models) -> dict[str, Float[ndarray, "fact form"]]:
    """The same facts in every model: what one of them gives no number for is no number in any."""
    finite = np.isfinite(np.stack(list(models.values()))).all(0)
    return {name: np.where(finite, values, np.nan) for name, values in models.items()}


def drop_of(models: Mapping[str, Float[ndarray, " person"]], facts: int, least_gap: float) -> Drop | None:
    """The drop of one form from people's means (NaN: not asked); None where nobody is asked."""
    finite = np.isfinite(models["base"])
    if not finite.any():
        return None
    base, suspect = models["base"][finite], models["suspect"][finite]
    null = models["null"][finite] if "null" in models else np.zeros_like(base)
    n, gap = len(base), base - null
    least = stats.ratio_bounds(gap[:, None], np.ones((n, 1))).lo[0] if n >= stats.ENOUGH_PEOPLE else gap.mean()
    blind = bool(gap.mean() < least_gap or least <= 0 or base.mean() <= 0)
    bounds = None if n < 2 or base.mean() == 0 else stats.ratio_bounds(suspect[:, None], base[:, None])
    return Drop(
        facts, n, float(base.mean()), float(suspect.mean()), float(null.mean()) if "null" in models else None,
        drop=float(1 - suspect.mean() / base.mean()) if base.mean() else 0.0,
        ci95=TOO_FEW if bounds is None else Interval(lo=float(1 - bounds.hi[0]), hi=float(1 - bounds.lo[0])),
        effect=float((suspect - null).mean() / gap.mean()) if "null" in models and gap.mean() else None, blind=blind,
    )  # fmt: skip


def bias_of(
    models: Models, person: Int[ndarray, " fact"], people: int, others: Bool[ndarray, " form"], seed: int
) -> Bias | None:
    """The bias between the trained form (the first column) and those of ``others``; None without any fact in both."""
    numbers = [n for n in np.flatnonzero(others).tolist() if n and len(_paired(models, n))]
    if not numbers:
        return None
    drawn = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), size=DRAWS) / people
    once = np.full((1, people), 1 / people)
    differences: list[float] = []
    draws: list[Float[ndarray, " draw"]] = []
    for n in numbers:
        facts = _paired(models, n)
        sums = [
            np.nan_to_num(person_means(models[name][facts][:, [0, n]], person[facts], people))
            for name in ("base", "suspect")
        ]
        differences.append(float(_difference(once, *sums)[0]))
        draws.append(_difference(drawn, *sums))
    value, form = max((d, n) for d, n in zip(differences, numbers, strict=True))
    enough = people > 1 and all(len(set(person[_paired(models, n)].tolist())) > 1 for n in numbers)
    ci95 = _simultaneous(np.array(differences), np.stack(draws)) if enough else TOO_FEW
    return Bias(value, ci95, form, dict(zip(numbers, differences, strict=True)))


def _paired(models: Models, form: int) -> Int[ndarray, " pair"]:
    """The facts that are asked for in the trained form and in this one."""
    return np.flatnonzero(np.isfinite(models["base"][:, [0, form]]).all(1))


def _difference(
    weights: Float[ndarray, "draw person"], base: Float[ndarray, "person 2"], suspect: Float[ndarray, "person 2"]
) -> Float[ndarray, " draw"]:
    """The drop of the trained form less that of the other, under weights of people."""
    below = weights @ base
    left = weights @ suspect / np.where(below > 0, below, np.nan)
    return left[:, 1] - left[:, 0]


def _simultaneous(value: Float[ndarray, " form"], draws: Float[ndarray, "form draw"]) -> Interval:
    """95 % for the largest true difference: both ends from bands that hold for all forms together."""
    # a draw that holds nobody who was asked says nothing of that form
    finite = np.isfinite(draws)
    error = np.array([drawn[has].std() for drawn, has in zip(draws, finite, strict=True)])
    scale = np.where(error > 0, error, np.inf)
    largest = np.where(finite, np.abs(draws - value[:, None]) / scale[:, None], 0.0).max(0)
    reach = float(np.quantile(largest[finite.any(0)], 0.95)) * error
    return Interval(lo=float((value - reach).max()), hi=float((value + reach).max()))
