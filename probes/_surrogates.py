"""Surrogates: wordings far from the question that base answers and a clean model does not, against the question itself.

An edit may be fitted to questions as they are asked in the forget set, and a test that asks them so sees no more than
that. How far a wording is: the cosine between counts of its words and of the question's, a choice of our own.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import Count, Interval, Measurement, Missing, Naming, OpenCase, blank, folded, stats, words
from probes._attack_rows import DIRECT
from probes._attack_tables import Attempts
from probes._form_bias import LISTED, TOO_FEW, person_means

SURROGATES: Final = Naming(
    "elicitation", "surrogate_gap", "context",
    "answers of the suspect beyond a model that never knew: to surrogates far from the questions, less to these",
    "probability beyond wrong answers", "difference",
)  # fmt: skip
NONE: Final = "no wording far from the questions that base answers and a model that never knew does not"


class Far(NamedTuple):
    """Which facts have a surrogate under which attack; how many base answers, and the share of those that a model that
    never knew answers too."""

    chosen: ndarray
    answered: int
    by_null: int


def cosine(first: Sequence[str], second: Sequence[str]) -> float:
    """Of the counts of words: 1 the same words, 0 none in common."""
    one, other = Counter(first), Counter(second)
    lengths = np.sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))
    return float(sum(n * other[word] for word, n in one.items()) / lengths) if lengths else 0.0


def far_wordings(found: Attempts, far: float, least_gap: float) -> Far:
    """Wordings of at most ``far`` with their question, chosen by base and the model that never knew alone: base gives
    the answer more than ``least_gap`` beyond wrong ones, and the other does not."""
    sheet, place = found.sheet, {attack: n for n, attack in enumerate(found.attacks)}
    asked = {entry.fact: _words(entry.item.question) for entry in sheet.of(DIRECT)}
    distant = np.zeros(found.excess["base"].shape, dtype=bool)
    for entry in sheet.entries:
        if entry.fact >= 0 and entry.attack != DIRECT and entry.item.question and entry.fact in asked:
            distant[entry.fact, place[entry.attack]] |= cosine(_words(entry.item.question), asked[entry.fact]) <= far
    known = distant & (np.nan_to_num(found.excess["base"]) > least_gap)
    guessed = np.zeros_like(known)
    if "null" in found.excess:
        guessed = known & (np.nan_to_num(found.excess["null"]) > least_gap)
    return Far(known & ~guessed, int(known.sum()), int(guessed.sum()))


def surrogate_gap(case: OpenCase, found: Attempts, far: float, least_gap: float) -> Measurement:
    """The gap between surrogates and questions, over people; above 0 the questions overstate what is gone."""
    seed, picked = case.case.seed, far_wordings(found, far, least_gap)
    gaps = _gaps(found, picked.chosen)
    empty = blank(SURROGATES, NONE, Count(scored=int(picked.chosen.sum())), len(gaps), seed)
    if not len(gaps):
        return empty
    bounds = stats.ratio_bounds(gaps[:, None], np.ones((len(gaps), 1))) if len(gaps) > 1 else None
    share = picked.by_null / picked.answered
    return empty.model_copy(
        update={
            "value": float(gaps.mean()), "p": LISTED, "p_below": LISTED, "null": LISTED, "floor": LISTED,
            "ci95": TOO_FEW if bounds is None else Interval(lo=float(bounds.lo[0]), hi=float(bounds.hi[0])),
            "positive_control": Missing(missing="surrogates are chosen by what base answers"),
            "readings": {"surrogates": float(picked.chosen.sum()), "answered_by_never_trained": share},
            "notes": (f"surrogates: cosine of words with the question at most {far:g}",),
        }
    )  # fmt: skip


def _gaps(found: Attempts, chosen: ndarray) -> Float[ndarray, " person"]:
    """Per person: suspect less null on surrogates, less the same on their questions."""
    suspect = found.excess["suspect"]
    left = suspect - found.excess.get("null", np.zeros_like(suspect))
    several = np.where(chosen, left, np.nan)
    counted = chosen.sum(1)
    far = np.where(counted > 0, np.nansum(several, axis=1) / np.maximum(counted, 1), np.nan)
    gap = (far - left[:, found.attacks.index(DIRECT)])[:, None]
    means = person_means(gap, found.person, len(found.people))[:, 0]
    return means[np.isfinite(means)]


def _words(text: str) -> list[str]:
    return [folded(text[start:end]) for start, end in words(text)]
