"""Which tests must be silent for a clean verdict, and whether they are.

A test's power in this case decides, not a list: a sharp test (it finds a small planted trace) has to be silent, a blunt
one neither blocks nor counts. Where no power is known (older documents), causal and decoding tests both have to be
silent, and an output test has to find base.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from audit import stats
from audit.judging.axes import is_trace, trusted
from audit.judging.in_case import is_sharp, limit_of, quiet
from audit.schema import ALPHA, EFFECT_KINDS, HINT_ALPHA, INTERNAL_KINDS, Evidence, Interval, Measurement, Power

STATES = ("causal", "decoding")
EVERY_KIND = (*EFFECT_KINDS, "recovery")


def settled(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence with several tests in mind: a trace inside that Holm does not leave one among all tests of the
    inside is a hint, and a hint that Holm does not leave one among all sharp tests is none."""
    inside = trusted(evidence, INTERNAL_KINDS)
    lucky = by_chance(inside, ALPHA)
    first = [_no_trace(e, len(inside)) if is_trace(e) and id(e) in lucky else e for e in evidence]
    family = [e for e in trusted(first, EVERY_KIND) if is_sharp(e.measurement)]
    chance = by_chance(family, HINT_ALPHA)
    return [_no_hint(e, len(family)) if e.status == "hint" and id(e) in chance else e for e in first]


def by_chance(family: Sequence[Evidence], alpha: float) -> set[int]:
    """Which tests of a family (by ``id``) have no p below ``alpha`` any more when adjusted together by Holm (1979)."""
    tested = [(id(e), p) for e in family if isinstance(p := e.measurement.p, float)]
    adjusted = stats.holm(np.array([p for _, p in tested], float))
    return {name for (name, _), p in zip(tested, adjusted, strict=True) if p >= alpha}


def _no_trace(evidence: Evidence, tests: int) -> Evidence:
    because = f"{evidence.because}; but no more than a hint among {tests} tests of the inside (Holm)"
    settled_as = {"status": "hint", "outcome": "inconclusive", "direction": "none", "because": because}
    return evidence.model_copy(update=settled_as)


def _no_hint(evidence: Evidence, tests: int) -> Evidence:
    silent = quiet(evidence.measurement)
    because = f"{silent.because}; its p is no hint among {tests} sharp tests (Holm)"
    return silent.model_copy(update={"because": because})


def known_power(evidence: Sequence[Evidence]) -> bool:
    """Is the power of any test known in this case?"""
    return any(isinstance(e.measurement.power, Power) for e in trusted(evidence, EVERY_KIND))


class Silence(NamedTuple):
    """The silent tests, and why the others forbid a clean verdict; none where it may be reached.

    ``lacking`` says which kind of test is missing altogether.
    """

    quiet: list[Evidence]
    doubts: list[Evidence]
    lacking: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Is everything silent that has to be?"""
        return not self.doubts and not self.lacking


def silence(evidence: Sequence[Evidence]) -> Silence:
    """What is silent here, of settled evidence without a trace."""
    if not known_power(evidence):
        return _by_kind(evidence)
    counted = [e for e in trusted(evidence, EVERY_KIND) if e.status != "blunt"]
    silent, doubts = [e for e in counted if e.status == "silent"], [e for e in counted if e.status != "silent"]
    kinds = {e.measurement.kind for e in silent}
    lacking = () if "output" in kinds or _is_doubted(doubts, ("output",)) else ("no sharp output test",)
    if not kinds & set(STATES) and not _is_doubted(doubts, STATES):
        lacking += ("no sharp test of the inside",)
    return Silence(silent, doubts, lacking)


def _is_doubted(doubts: Sequence[Evidence], kinds: Sequence[str]) -> bool:
    return any(e.measurement.kind in kinds for e in doubts)


def _by_kind(evidence: Sequence[Evidence]) -> Silence:
    """Without known power: causal and decoding tests silent, and an output test that finds base."""
    lacking: list[str] = []
    doubts: list[Evidence] = []
    for kind in EFFECT_KINDS:
        seeing = trusted(evidence, (kind,))
        if not seeing:
            lacking.append(f"no {kind} test that finds base")
        doubts += [e for e in seeing if kind != "output" and e.outcome != "no trace found"]
    quiet_ones = [e for e in trusted(evidence, EFFECT_KINDS) if e.outcome == "no trace found"]
    return Silence(quiet_ones, doubts, tuple(lacking))


def sharpest(silent: Sequence[Evidence]) -> Measurement | None:
    """The silent test that would have found the smallest trace; None where no power is known."""
    known = [e.measurement for e in silent if is_sharp(e.measurement)]
    return min(known, key=_found_share, default=None)


def _found_share(measurement: Measurement) -> tuple[float, str]:
    power = measurement.power
    share = power.share if isinstance(power, Power) and isinstance(power.share, float) else float("inf")
    return share, f"{measurement.probe}.{measurement.name}"


def limit_sentence(silent: Sequence[Evidence]) -> str:
    """The detection limit of what is silent: of the outputs and of the inside, each by its sharpest test."""
    sides: list[str] = []
    for kinds, side in ((("output",), "outputs"), (INTERNAL_KINDS, "inside")):
        best = sharpest([e for e in silent if e.measurement.kind in kinds])
        if best is not None:
            sides.append(f"{side} ({best.probe}.{best.name}): {limit_of(best)}")
    return f"detection limit, {'; '.join(sides)}" if sides else ""


def is_open_above(evidence: Sequence[Evidence]) -> bool:
    """Is there a test, not blunt, that decides nothing although its interval lies above 0?"""
    for e in trusted(evidence, EVERY_KIND):
        bound = e.measurement.bound
        undecided = e.outcome == "inconclusive" and e.status != "blunt"
        if undecided and isinstance(bound, Interval) and bound.lo > 0:
            return True
    return False
