"""What of a score follows from the people behind it, and the same score by the statistics as they are now."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from audit.calibration import Score
from audit.judging import Given, judge, verdict
from audit.pools.panel_file import Assessed
from audit.probing import Assessment, Panel, Recorded, assess


def assessed_of(recorded: Sequence[Recorded], scores: Sequence[Score]) -> dict[str, Assessed]:
    """What an audit recorded, by measurement, with what of each score is its own.

    Where a measurement was assessed more than once, that of which most of the score follows counts, the latest first.
    """
    by_name = {name_of(score): score for score in scores if score.mode == "controlled"}
    assessed: dict[str, Assessed] = {}
    for panel, design, result in recorded:
        if (score := by_name.get(design.name)) is None:
            continue
        again = _score(result, score, panel, {})
        own = {name: score.readings.get(name) for name in result.readings}
        fields = tuple(
            field
            for field in Score.model_fields
            if (own == again.readings if field == "readings" else getattr(score, field) == getattr(again, field))
        )
        if design.name not in assessed or len(fields) >= len(assessed[design.name].fields):
            assessed[design.name] = Assessed(panel, design, fields, tuple(result.readings))
    return assessed


def _score(result: Assessment, score: Score, panel: Panel, readings: Mapping[str, float]) -> Score:
    """The score with this assessment in it. The people of a pool are invented: their names may be told."""
    measured = result.onto(score.restored().model_copy(update={"readings": readings}))
    return Score.of(measured, {name: name for name in panel.names})


class Again(NamedTuple):
    """A score assessed again, and by which test."""

    score: Score
    test: str


def assessed_again(score: Score, assessed: Assessed) -> Again:
    """The score with what the statistics say now in place of what they said."""
    others = {name: value for name, value in score.readings.items() if name not in assessed.readings}
    given = others if "readings" in assessed.fields else score.readings
    result = assess(assessed.panel, assessed.design)
    now = _score(result, score, assessed.panel, given)
    return Again(score.model_copy(update={field: getattr(now, field) for field in assessed.fields}), result.test)


def word_of(scores: Sequence[Score], roles: Given, floors: Mapping[str, float]) -> str:
    """The in-case verdict's word, as an audit reaches it from the same measurements."""
    return verdict([judge(score.restored(), floors) for score in scores], roles).word


def name_of(score: Score) -> str:
    """What the score's measurement is called among panels: ``probe.measurement``."""
    return f"{score.probe}.{score.name}"
