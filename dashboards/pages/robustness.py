"""Does it come back?"""

import streamlit as st

from audit.plugins import describe
from audit.render import positions, profiles, sentence, title
from audit.schema import Measurement, Report
from dashboards import bar, show, states

ORDER = 70


def excess(m: Measurement) -> str:
    """By how much the suspect recovers beyond a model that never knew: the area between, and where it is widest."""
    by_role = {c.role: c for c in m.curves if c.x}
    suspect, reference = by_role.get("suspect"), by_role.get("reference")
    if suspect is None or reference is None or suspect.x != reference.x:
        return ""
    gaps = [a - b for a, b in zip(suspect.y, reference.y, strict=True)]
    widest = max(range(len(gaps)), key=lambda i: gaps[i])
    return (
        f"Excess recovery of {title(m)}: at most {gaps[widest]:.2f} above a model that never knew, at {suspect.axis} "
        f"{suspect.x[widest]:g}; {gaps[-1]:.2f} at the end."
    )


def untested(report: Report) -> list[str]:
    """The attacks that this report did not try."""
    return [f"{attack.family} ({attack.access})" for attack in report.attacks if not attack.measurements]


view = bar.current()
report = states.report_or_stop(view)
attacks = [e for e in report.evidence if e.measurement.kind == "recovery" and view.keeps(e)]
if not attacks:
    attacking = {probe.name for probe in describe("probes") if probe.attack is not None}
    reasons = [f"{s.probe}: {s.reason}" for s in report.skips if s.probe in attacking]
    states.nothing("No attack was tried", sentence("; ".join(reasons) or "this audit planned no recovery test"))
log_x = st.toggle("Logarithmic steps", key="log", bind="query-params")
for e in attacks:
    for drawn in profiles(e.measurement):
        if log_x:
            drawn.figure.update_xaxes(type="log")
        show.chart(drawn)
    if excess_recovery := excess(e.measurement):
        show.text(excess_recovery)
if attacks and (placed := positions(report, attacks)) is not None:
    show.heading("Every attack on one scale")
    show.chart(placed)
show.heading("Attacks that were not tried")
show.bullets([sentence(x) for x in untested(report)] or ["Every listed attack family was tried."])
