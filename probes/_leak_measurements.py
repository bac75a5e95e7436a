"""leak@k twice: beyond wrong answers and a clean model, and as published, without either."""

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from audit.probing import EFFECT_UNIT, Count, Curve, Listing, Measurement, Missing, Naming, blank, stats
from probes._attack_effects import Asking, EffectDesign, over_attacks
from probes._attack_tables import DIES, SAMPLING, SURVIVES, TOO_FEW_PEOPLE, beyond, published_listing
from probes._form_bias import person_means
from probes._leak_rates import Drawn, best_of_wrong

PROBE: Final = "elicitation"
LEAK: Final = Naming(
    PROBE, "leak_at_k", "context",
    "effect on the chance that the best of k continuations says the answer, beyond that of matched wrong answers",
    EFFECT_UNIT, "effect",
)  # fmt: skip
PUBLISHED_LEAK: Final = Naming(
    PROBE, "published_leak_at_k", "context",
    "leak@k as published: the best ROUGE-L recall of the whole answer in k continuations, without any control",
    "share of the answer's words", "probability", mode="paper",
)  # fmt: skip
AS_PUBLISHED: Final = Missing(missing="as published: no interval, no null, no test")
NOT_DRAWN: Final = "nothing was drawn: `samples` is 0, or the family `sampling` left out"
ROLES: Final[Mapping[str, Literal["base", "suspect", "reference"]]] = {
    "base": "base", "suspect": "suspect", "null": "reference"
}  # fmt: skip


def leak(asked: Asking, k: int, design: EffectDesign) -> Measurement:
    """leak@k beyond wrong answers as an effect over people, with what it is at every k up to it."""
    found = asked.found
    places = [n for n, attack in enumerate(found.attacks) if attack.startswith(f"{SAMPLING}/") and found.known[n]]
    measured, _ = over_attacks(found, LEAK, places, design)
    if not asked.drawn:
        return blank(LEAK, NOT_DRAWN, Count(scored=0), 0, design.seed)
    temperature, first = next(iter(asked.drawn.items()))
    readings = {
        f"{part}_{name}": float(values.mean()) for name, each in first.items()
        for part, values in (("leak", each.leak(k)), ("leak_wrong", each.leak_wrong(k)))
    }  # fmt: skip
    draws = first["suspect"].own.shape[1]
    said = f"k {k} of {draws} continuations of each question; curves and readings: temperature {temperature:g}"
    return measured.model_copy(
        update={
            "curves": _curves(asked, first, k), "readings": measured.readings | readings,
            "notes": (*measured.notes, said),
        }
    )  # fmt: skip


def published_leak(asked: Asking, k: int, seed: int) -> Measurement:
    """leak@k as published, and beside every attack as published what its controls leave of it."""
    people, person = asked.sheet.person()
    empty = blank(PUBLISHED_LEAK, NOT_DRAWN, Count(scored=len(asked.sampled)), len(people), seed)
    listing = published_listing(asked.found)
    if not asked.drawn:
        return empty.model_copy(update={"listings": (listing,)})
    first = next(iter(asked.drawn.values()))
    mine = person[[entry.fact for entry in asked.sampled]]
    best = {name: stats.best_of_k(each.published, k) for name, each in first.items()}
    wrong = {name: best_of_wrong(each.published_wrong, k) for name, each in first.items()}
    row = _published_row(best, wrong, (mine, len(people)), k)
    rows = Listing(title=listing.title, columns=listing.columns, rows=(row, *listing.rows), of=listing.of + 1)
    readings = {f"published_{name}": float(values.mean()) for name, values in best.items()}
    return empty.model_copy(
        update={
            "value": readings["published_suspect"], "ci95": AS_PUBLISHED, "p": AS_PUBLISHED, "p_below": AS_PUBLISHED,
            "null": AS_PUBLISHED, "floor": AS_PUBLISHED, "positive_control": AS_PUBLISHED, "readings": readings,
            "listings": (rows,),
        }
    )  # fmt: skip


def _published_row(
    best: Mapping[str, Float[ndarray, " fact"]], wrong: Mapping[str, Float[ndarray, " fact"]],
    owner: tuple[Int[ndarray, " fact"], int], k: int,
) -> tuple[str | float | None, ...]:  # fmt: skip
    """The published quantity in the suspect and in a clean model, and what is left over people beyond the same measured
    against wrong answers. ``owner``: whose each fact is, and how many people there are."""
    name, null = f"leak@{k} by ROUGE-L recall", best.get("null")
    excess = best["suspect"] - wrong["suspect"] - (0.0 if null is None else null - wrong["null"])
    means = person_means(excess[:, None], *owner)[:, 0]
    value, (lo, hi) = beyond(means[np.isfinite(means)])
    judged = TOO_FEW_PEOPLE if lo is None else SURVIVES if lo > 0 else DIES
    bare = float(best["suspect"].mean()), None if null is None else float(null.mean())
    return name, *bare, float(wrong["suspect"].mean()), value, lo, hi, judged


def _curves(asked: Asking, first: Mapping[str, Drawn], k: int) -> tuple[Curve, ...]:
    """leak@k beyond wrong answers over k, by model: means over people."""
    ks = sorted({*(2**n for n in range(8) if 2**n < k), k})
    people, person = asked.sheet.person()
    mine = person[[entry.fact for entry in asked.sampled]]

    def mean(each: Drawn, at: int) -> float:
        by_person = person_means((each.leak(at) - each.leak_wrong(at))[:, None], mine, len(people))
        return float(np.nanmean(by_person))

    return tuple(
        Curve(
            axis="k", unit="rate of the answer less that of wrong answers", scale="difference", role=ROLES[name],
            x=tuple(float(at) for at in ks), y=tuple(mean(each, at) for at in ks),
        )
        for name, each in first.items() if name in ROLES
    )  # fmt: skip
