"""The few bounded numbers by which a calibration reads a measurement.

Bounded, so that no single number can carry a score beyond what the models of known truth have shown; on the effect
scale 0 is the level of a model that never knew and 1 is base.
"""

import math
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from audit.calibration.scores import Score
from audit.schema import ALPHA, Measurement, Missing, Overall

Class = Literal["causal", "decoding", "recovery", "output"]
INSIDE: Final = ("causal", "decoding")
"""The classes of evidence that read states; the others read what the model says."""

LOWEST, HIGHEST = -1.0, 2.0
DECADES: Final = 4.0
"""Probabilities and studentised readings are read in decades, up to so many."""

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


def full_name(score: Score | Measurement) -> str:
    """``probe.name``."""
    return f"{score.probe}.{score.name}"


def _held(value: float, lo: float = LOWEST, hi: float = HIGHEST) -> float:
    return min(max(value, lo), hi)


def _decades(spreads: float) -> float:
    return _held(math.copysign(math.log10(1 + abs(spreads)), spreads), -DECADES, DECADES)


def features(score: Score) -> dict[str, float]:
    """The features of a measurement; none where it can say nothing: no value, base not found, as published, a gate.

    ``effect``: the overall effect, or the only one; ``over_floor``: the largest effect less the reference-to-reference
    floor; ``tail``: -log10 of the in-case p, against people whom nobody was taught; ``largest_person`` and
    ``higher_criticism``: what the probe read, as sign times log10(1 + size).
    """
    value = score.value
    if isinstance(value, Missing) or not score.control_found or score.mode != "controlled" or score.kind == "gate":
        return {}
    values = {"effect": _held(score.overall.value if isinstance(score.overall, Overall) else value)}
    if not isinstance(score.floor, Missing):
        values["over_floor"] = _held(value - score.floor)
    if not isinstance(score.p, Missing):
        values["tail"] = _held(-math.log10(score.p), 0.0, DECADES)
    return values | {name: _decades(score.readings[name]) for name in SPARSE if name in score.readings}


LEAST_TAIL: Final = -math.log10(ALPHA)


def exceeds(row: Mapping[str, float], threshold: float) -> bool:
    """Does a measurement show a trace by its own threshold: its effect above it, and found by its own test?"""
    return row["effect"] > threshold and row.get("tail", DECADES) > LEAST_TAIL


class FeatureRow(NamedTuple):
    """The features of one measurement, which is named ``probe.name``."""

    measurement: str
    values: dict[str, float]

    @property
    def columns(self) -> dict[Feature, float]:
        """The same, each feature named in full."""
        return {Feature(self.measurement, feature): value for feature, value in self.values.items()}


def feature_row(measurement: Measurement) -> FeatureRow:
    """What a calibration reads of a measurement."""
    return FeatureRow(full_name(measurement), features(Score.of(measurement)))


def class_of(kind: str, feature: str) -> Class | None:
    """The class of evidence that a feature belongs to: its measurement's. The mean of outputs speaks on its own."""
    classes: dict[str, Class] = {"causal": "causal", "decoding": "decoding", "recovery": "recovery"}
    if feature in SPARSE:
        return "output" if kind == "output" else classes.get(kind)
    return classes.get(kind) if feature == "effect" else None
