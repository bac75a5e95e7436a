"""Does it come back?"""

from collections.abc import Sequence

import streamlit as st

from audit.plugins import describe
from audit.render import exact_rate, finding_name, findings_of, positions, power_cell, profiles, sentence, title
from audit.schema import Evidence, Measurement, Power, Report
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


def searched(report: Report, attacks: Sequence[Evidence]) -> list[Evidence]:
    """What stands beside an attack: every measurement with a rule of yes or no, and the others of attacking probes."""
    probes = {e.measurement.probe for e in attacks}
    return [e for e in report.evidence if e.measurement.findings or e.measurement.probe in probes]


def limits(rows: Sequence[Evidence]) -> list[tuple[str, str]]:
    """What each search would find, by counts on planted models and in this case's own noise, and what it would not."""
    pairs: list[tuple[str, str]] = []
    for _, finding in findings_of(rows):
        pairs.append((finding_name(finding), f"{sentence(exact_rate(finding.hits, 'models made so'))} Not searched: "
                      f"{sentence(finding.blind_to)}"))  # fmt: skip
    powers = [e.measurement for e in rows if isinstance(e.measurement.power, Power)]
    return [*pairs, *((f"{title(m)}, in this case", sentence(power_cell(m))) for m in powers)]


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
beside = [e for e in searched(report, attacks) if view.keeps(e)]
if any(e.measurement.findings for e in beside):
    show.heading("Rules of yes or no")
    show.rules(beside, view.path)
    show.heading("What the searches would find, and what they did not search")
    show.facts(limits(beside))
if listed := [e for e in beside if e.measurement.listings or (e.measurement.curves and e not in attacks)]:
    show.heading("What was searched")
for e in listed:
    show.sub(title(e.measurement))
    if e not in attacks:
        for drawn in profiles(e.measurement):
            show.chart(drawn)
    show.maps(e.measurement)
    show.listings(e.measurement)
show.heading("Attacks that were not tried")
show.bullets([sentence(x) for x in untested(report)] or ["Every listed attack family was tried."])
