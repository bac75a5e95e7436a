"""Why does this test say so?"""

from inspect import cleandoc

import streamlit as st

from audit.calibration import Calibrated, Subjects
from audit.plugins import Description, describe
from audit.render import (
    deciding,
    evidence_sentence,
    judged_reading,
    key,
    null_of,
    overall_reading,
    own_reading,
    power_cell,
    profiles,
    reliability,
    roc,
    sentence,
    tippett,
)
from audit.schema import Evidence, Missing
from audit.wording import CELL, NAME, number, p_of, visible
from dashboards import bar, known, show, states

ORDER = 40


def about(e: Evidence, described: dict[str, Description]) -> None:
    """The probe's own help text: its hypothesis, assumptions and references."""
    description = described.get(e.measurement.probe)
    if description is None:
        show.text("The probe that made this measurement is not installed here, so its help text cannot be shown.")
    else:
        for paragraph in cleandoc(description.docstring).split("\n\n"):
            show.text(visible(" ".join(paragraph.split())))


def truth(subjects: Subjects, calibrated: Calibrated) -> None:
    """What models of known truth say of this test: thresholds to try, curves, and whether the ratios hold."""
    clean, knowing, clean_worlds, knowing_worlds = known.scores(subjects, calibrated)
    if clean and knowing:
        low, high = min(*clean, *knowing), max(*clean, *knowing)
        threshold = st.slider(
            "Threshold on the effect",
            float(low),
            float(high),
            float(calibrated.threshold),
            key="threshold",
            help=show.glossed("Calibrated threshold"),
        )
        show.facts([
            ("False alarms at it", known.counted("clean", clean_worlds, [score > threshold for score in clean])),
            ("Misses at it", known.counted("knowing", knowing_worlds, [score <= threshold for score in knowing])),
            ("Threshold in force", f"{number(calibrated.threshold)}; the slider changes nothing but this page"),
        ])  # fmt: skip
        show.note("Every model counts here, also several of one world. The sentence above counts worlds, each once, in "
                  "which the rule was not fitted.")  # fmt: skip
        show.chart(roc(clean, knowing, threshold))
    held = calibrated.reliability
    show.chart(tippett(held.clean, held.knowing))
    show.chart(reliability(held.bands))
    show.note(f"Cost of the ratios: Cllr {number(held.cllr)} bits, at best {number(held.cllr_min)} recalibrated; "
              f"chance alone loses {number(held.envelope)}.")  # fmt: skip


view = bar.current()
report = states.report_or_stop(view)
tests = {show.test_label(key(e.measurement)): e for e in report.evidence if view.keeps(e)}
if not tests:
    states.nothing("No finding here", "No test of this cohort gave a finding; choose another cohort above.")
    st.stop()
chosen = st.selectbox("Test", list(tests), key="test", bind="query-params")
e = tests.get(chosen or "") or next(iter(tests.values()))
m = e.measurement
show.lead(evidence_sentence(e))
control = m.positive_control
show.facts([
    ("Suspect", f"{own_reading(m).name} {own_reading(m).shown}; unit: {visible(m.unit, NAME)}"),
    *([("Overall effect", total.shown)] if (total := overall_reading(m)) is not None else []),
    ("What decides", f"{judged_reading(e).name}: {deciding(e).words}"),
    ("Detection limit", power_cell(m)),
    ("Against the null", p_of(m)),
    ("Positive control: base", number(control) if isinstance(control, Missing) else
     f"{number(control.value)}, {'found' if control.found else 'not found: blind here'}"),
    ("Floor", number(m.floor)),
    ("Seed, mode", f"{m.seed}, {m.mode}"),
])  # fmt: skip
if (drawn := null_of(m)) is not None:
    show.chart(drawn)
else:
    reason = m.null.missing if isinstance(m.null, Missing) else number(m.value)
    states.nothing("No null to draw", sentence(visible(reason, CELL)))
for profile in profiles(m):
    show.chart(profile)
if m.findings:
    show.heading("Rules of yes or no")
    show.rules([e], view.path)
if m.listings:
    show.heading("Single findings")
    show.maps(m)
    show.listings(m)

show.heading("On models of known truth")
calibration = known.of(report, e)
if isinstance(calibration, Missing):
    states.nothing("No curves", sentence(calibration.missing))
else:
    truth(*calibration)

show.heading("Hypothesis, assumptions, references")
about(e, {d.name: d for d in describe("probes")})
if m.notes:
    show.bullets([sentence(n) for n in m.notes])
show.heading("Reproduce")
show.command(report.reproduce)
