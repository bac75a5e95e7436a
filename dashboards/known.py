"""What models of known truth say of a test: the stored calibration that judged it, and no other."""

from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st

from audit.calibration import Calibrated, CalibrationLibrary, Subjects, read_library, stored
from audit.schema import AuditError, Evidence, Missing, Report


class Known(NamedTuple):
    """A calibrated measurement and the models that it was calibrated on."""

    subjects: Subjects
    calibrated: Calibrated


@st.cache_resource(show_spinner="Reading the calibrations…")
def _shelf() -> CalibrationLibrary | None:
    try:
        return read_library(stored())
    except AuditError:
        return None


def of(report: Report, e: Evidence) -> Known | Missing:
    """The calibration that judged this finding, if it is the one stored here; else why its curves cannot be drawn."""
    m = e.measurement
    use = next((u for u in report.calibrations if u.probe == m.probe), None)
    if e.basis != "calibrated" or use is None:
        reason = use.because if use is not None else "no calibration judged this test"
        return Missing(missing=f"judged in-case, so it has no curves of known truth: {reason}")
    shelf = _shelf()
    calibration = None if shelf is None else shelf.calibrations.get(m.probe)
    if calibration is None or shelf is None or shelf.subjects is None or calibration.content_hash() != use.sha256:
        return Missing(missing=f"the calibration {use.sha256[:12]} that judged this test is not the one installed here")
    calibrated = next((c for c in calibration.measurements if c.name == m.name and c.form == m.form), None)
    if calibrated is None:
        return Missing(missing="its calibration holds nothing about this measurement")
    return Known(shelf.subjects, calibrated)


class Scores(NamedTuple):
    """The effect of a test in clean models and in models that know everything, and the world that each is of."""

    clean: list[float]
    knowing: list[float]
    clean_worlds: list[int]
    knowing_worlds: list[int]


def scores(subjects: Subjects, calibrated: Calibrated) -> Scores:
    """The scores of known truth behind a calibrated measurement; doses between the two are left out."""
    column = next((c for c in calibrated.columns if c.feature == "effect"), None)
    effects = Scores([], [], [], [])
    for place, value in zip(column.subject, column.value, strict=True) if column else ():
        subject = subjects.subjects[place]
        if subject.kept == 0 and subject.pool == "clean":
            effects.clean.append(value)
            effects.clean_worlds.append(subject.world)
        elif subject.pool == "knowing" and subject.kept == subject.audited:
            effects.knowing.append(value)
            effects.knowing_worlds.append(subject.world)
    return effects


def counted(kind: str, worlds: Sequence[int], wrong: Sequence[bool]) -> str:
    """``1 of 330 clean models, in 1 of 60 worlds``: the world of every model, and whether it was judged wrongly."""
    hit = {world for world, each in zip(worlds, wrong, strict=True) if each}
    return f"{sum(wrong)} of {len(wrong)} {kind} models, in {len(hit)} of {len(set(worlds))} worlds"
