"""Where does it persist?"""

from functools import partial

import streamlit as st

from audit.render import depth_map, key, layered, profiles
from dashboards import bar, show, states

ORDER = 50


def open_items(chart: str) -> None:
    """A click on a layer leads to its items."""
    if where := show.picked(chart):
        bar.go("items", run=str(where[0]), table=show.test_label(str(where[1])), layer=f"{where[2]:g}")


view = bar.current()
report = states.report_or_stop(view)
rows = view.rows()
tests = {show.test_label(test): test for test in layered([r.report for r in rows])}
if not tests:
    states.nothing("No depth to show", "No test of these audits read the states layer by layer.")
    st.stop()
name = st.selectbox("Test", list(tests), key="depth", bind="query-params") or next(iter(tests))
chosen = tests.get(name) or next(iter(tests.values()))
if (drawn := depth_map(rows, chosen)) is not None:
    show.note("Click on a cell to read the items behind it.")
    show.chart(drawn, picked=partial(open_items, drawn.id))

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
                 kwargs={"run": view.run.name, "table": name, "layer": layer})  # fmt: skip
