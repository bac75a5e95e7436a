"""What changed from base, and is it like retraining?"""

import streamlit as st

from audit.render import NamedReport, is_control, key, part, position, positions, title
from audit.review import findings_beside
from audit.schema import Evidence, Missing, Report
from audit.wording import interval, number
from dashboards import bar, show, states

ORDER = 20


def differs(e: Evidence) -> bool:
    """Is the suspect told apart from a model that never knew, by its interval or, without one, by its floor?"""
    place = position(e.measurement)
    if isinstance(place, Missing):
        return e.outcome == "trace found"
    low, high = (place.value if end is None else end for end in (place.lo, place.hi))
    floor = abs(place.floor) if place.floor is not None else 0.0
    bottom, top = (
        (-floor if place.null_lo is None else place.null_lo),
        (floor if place.null_hi is None else place.null_hi),
    )
    return low > top or high < bottom


def inside(e: Evidence) -> str:
    """Does the suspect lie inside the reference band?"""
    place = position(e.measurement)
    if isinstance(place, Missing) or place.null_lo is None or place.null_hi is None:
        return "no band"
    if place.value > place.null_hi:
        return "no, above"
    return "no, below" if place.value < place.null_lo else "yes"


def cells(e: Evidence, pinned: Report | None) -> list[str]:
    """One row of the table: a test, its numbers in base, suspect and reference, and how they differ."""
    m = e.measurement
    base = "missing" if isinstance(m.positive_control, Missing) else number(m.positive_control.value)
    place = position(m)
    delta = "missing" if isinstance(place, Missing) else number(place.value)
    row = [title(m), base, number(m.value), interval(m.ci95), delta, inside(e), part(e)]
    if pinned is not None:
        other = next((x for x in pinned.evidence if key(x.measurement) == key(m)), None)
        row.append("not measured" if other is None else f"{number(other.measurement.value)}, {part(other)}")
    return row


view = bar.current()
report = states.report_or_stop(view)
rows = view.rows()
left, right = st.columns(2)
only = left.toggle("Only what differs from a model that never knew", value=True, key="diff", bind="query-params")
others = ["nothing", *(r.address for r in rows if view.run and r.address != view.run.name)]
names = {r.address: r.name for r in rows}
pin = right.selectbox("Pin beside it", others, key="pin", bind="query-params", format_func=lambda a: names.get(a, a))
pinned: NamedReport | None = next((r for r in rows if r.address == pin), None)

if is_control(report):
    states.nothing("This is base itself", "It is the positive control: beside itself nothing changed.")
if warning := states.reference(report):
    states.nothing("No reference model", warning)
chosen = [e for e in report.evidence if view.keeps(e) and e.measurement.mode == "controlled"]
selected = [e for e in chosen if differs(e)] if only else chosen
show.text(f"{len(selected)} of {len(chosen)} tests shown" + (": those that differ." if only else "."))
drawn = positions(report, selected, pinned)
if drawn is None:
    states.nothing("Nothing to draw", "No test of this choice has both ends of the scale, or none differs.")
else:
    show.chart(drawn)
columns = ("Test", "Base", "Suspect", "95 %", "Δ to never trained, of base's", "Inside the reference band?", "Outcome")
if pinned is not None:
    columns = (*columns, f"Pinned: {pinned.name}")
listed = show.grid(f"{len(selected)} tests", columns, [cells(e, pinned.report if pinned else None) for e in selected])
if selected:
    show.table(listed)
    place = st.container(horizontal=True)
    place.download_button("CSV", show.csv_of(listed), "compare.csv", "text/csv", on_click="ignore")
    place.download_button("LaTeX", show.latex_of(listed), "compare.tex", "text/plain", on_click="ignore")
if pinned is not None and (differing := [r for r in findings_beside(report, pinned.report) if r[1] != r[2]]):
    show.heading("Rules of yes or no that say otherwise of the pinned one")
    show.table(show.grid(f"{len(differing)} findings", ("Finding", "Suspect", f"Pinned: {pinned.name}"), differing))
