"""The few bounded numbers by which a calibration reads a measurement.

Bounded, so that no single number can carry a score beyond what the models of known truth have shown; on the effect
scale 0 is the level of a model that never knew and 1 is base.
"""

from typing import Final, Literal, NamedTuple

from audit.findings import Measurement, Overall
from audit.nouns import Missing
from audit.pools import Score

Class = Literal["causal", "decoding", "recovery", "sparse"]
LOWEST, HIGHEST = -1.0, 2.0
MOST_SPREADS: Final = 20.0
"""Studentised readings (the largest person, higher criticism) are read up to here, on either side."""

SPARSE: Final = ("largest_person", "higher_criticism")
"""Readings that see a few people where the mean over people cannot."""

JUDGED: Final = ("output", "causal", "decoding", "recovery")


class Feature(NamedTuple):
    """One number of one measurement: ``probe.name`` and which of its features."""

    measurement: str
    feature: str

    @property
    def key(self) -> str:
        """How it is named in a file."""
        return f"{self.measurement}:{self.feature}"


def named(score: Score | Measurement) -> str:
    """``probe.name``."""
    return f"{score.probe}.{score.name}"


def _held(value: float, lo: float = LOWEST, hi: float = HIGHEST) -> float:
    return min(max(value, lo), hi)


def features(score: Score) -> dict[str, float]:
    """The features of a measurement; none where it can say nothing: no value, base not found, as published, a gate.

    ``effect``: the overall effect, or the only one; ``over_floor``: the largest effect less the reference-to-reference
    floor; ``largest_person`` and ``higher_criticism`` as the probe read them.
    """
    value = score.value
    if isinstance(value, Missing) or not score.control_found or score.mode != "controlled" or score.kind == "gate":
        return {}
    found = {"effect": _held(score.overall.value if isinstance(score.overall, Overall) else value)}
    if not isinstance(score.floor, Missing):
        found["over_floor"] = _held(value - score.floor)
    sparse = {
        name: _held(score.readings[name], -MOST_SPREADS, MOST_SPREADS) for name in SPARSE if name in score.readings
    }
    return found | sparse


def class_of(kind: str, feature: str) -> Class | None:
    """Which class of evidence a feature belongs to; outputs are none by their mean, their few people are."""
    if feature in SPARSE:
        return "sparse" if kind in JUDGED else None
    if feature != "effect":
        return None
    classes: dict[str, Class] = {"causal": "causal", "decoding": "decoding", "recovery": "recovery"}
    return classes.get(kind)
