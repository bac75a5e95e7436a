"""Where does it persist?"""

import streamlit as st

from audit.render.comparisons import depth_map, layered
from audit.render.figures import key, profiles
from audit.render.wording import title
from dashboards import bar, show, states

ORDER = 50


def open_items() -> None:
    """A click on a layer leads to its items."""
    where = show.picked(f"depth-{st.session_state['depth']}")
    if where:
        bar.go("items", run=where[0], table=where[1], layer=f"{where[2]:g}")


view = bar.current()
report = states.report_or_stop(view)
rows = view.rows()
tests = layered([r.report for r in rows])
titles = {key(e.measurement): title(e.measurement) for r in rows for e in r.report.evidence}
if not tests:
    states.nothing("No depth to show", "No test of these audits read the states layer by layer.")
    st.stop()
chosen = (
    st.selectbox("Test", tests, key="depth", bind="query-params", format_func=lambda t: titles.get(t, t)) or tests[0]
)
if (drawn := depth_map(rows, chosen)) is not None:
    show.note("Click on a cell to read the items behind it.")
    show.chart(drawn, picked=open_items)

show.heading("This checkpoint, layer by layer")
mine = [e.measurement for e in report.evidence if key(e.measurement) == chosen]
panels = [d for m in mine for d in profiles(m)]
if not panels:
    states.nothing("Not measured here", "The chosen checkpoint has no such profile.")
for panel in panels:
    show.chart(panel)
steps = sorted({x for m in mine for c in m.curves if c.axis == "layer" and c.role == "suspect" for x in c.x})
if steps and view.run is not None:
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    layer = left.selectbox("Layer", [f"{x:g}" for x in steps], key="open-layer")
    right.button("Show the items of this layer", key="to-items", on_click=bar.go, args=("items",),
                 kwargs={"run": view.run.name, "table": chosen, "layer": layer})  # fmt: skip
