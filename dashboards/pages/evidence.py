"""How strong is each finding?"""

import math
from typing import Final

import numpy as np
import streamlit as st

from audit.judging import short
from audit.render import (
    FAMILIES,
    axis_lines,
    blindness,
    deciding,
    evidence_sentence,
    finding_ratio,
    is_blind,
    judged_reading,
    known,
    part,
    positions,
    power_cell,
    ratios,
    title,
    with_prior,
)
from audit.schema import Evidence, LikelihoodRatio, Missing
from audit.stats import benjamini_hochberg, holm
from audit.wording import number, p_of, units
from dashboards import bar, show, states

ORDER = 30
SECTION = "Why"
COLUMNS: Final = ("Test", "Outcome", "Judged number (95 %)", "What decides", "Detection limit", "Likelihood ratio")
COUNTED: Final = ("Test", "n scored / errored / unscored", "Units", "p", "Holm p", "q")


def adjusted(rows: list[Evidence]) -> dict[int, tuple[str, str]]:
    """Holm's p and Benjamini and Hochberg's q over the tests that have a p, by place."""
    tested = [i for i, e in enumerate(rows) if not isinstance(e.measurement.p, Missing)]
    if not tested:
        return {}
    p = np.array([rows[i].measurement.p for i in tested], dtype=float)
    return {
        i: (number(float(a)), number(float(q))) for i, a, q in zip(tested, holm(p), benjamini_hochberg(p), strict=True)
    }


def counted(e: Evidence) -> str:
    """Nothing drops out of a denominator silently."""
    n = e.measurement.n
    return f"{n.scored} / {n.errored} / {n.unscored}"


def judged(e: Evidence) -> str:
    """The number that was judged, under its name."""
    reading = judged_reading(e)
    return blindness(e.measurement) if is_blind(e) else f"{reading.name} {reading.shown}"


def ratio(e: Evidence) -> str:
    """A ratio with its words, or why none is given."""
    weighed = finding_ratio(e)
    if isinstance(weighed, LikelihoodRatio):
        return short(weighed)
    return "in-case: no ratio" if isinstance(e.ratio, Missing) else "none: it lies on the other side"


def table(rows: list[Evidence]) -> None:
    """Every finding in a row: what it is, by which number, against what, and how strongly it speaks."""
    cells = [
        [title(e.measurement), part(e), judged(e), deciding(e).words, power_cell(e.measurement), ratio(e)] for e in rows
    ]
    show.table(show.grid(f"{len(rows)} findings", COLUMNS, cells, ("", "mark")))


def counts(rows: list[Evidence]) -> None:
    """What stands behind every number; adjusted over the rows that are shown, and over no others."""
    both = adjusted(rows)
    cells = [
        [title(e.measurement), counted(e), units(e.measurement), p_of(e.measurement).removeprefix("p = "),
         *both.get(i, ("none", "none"))]
        for i, e in enumerate(rows)
    ]  # fmt: skip
    show.table(show.grid(f"Counts and p of {len(rows)} findings", COUNTED, cells))
    show.note(
        "Holm p and q are adjusted over the rows of this table. A planned family is held to Holm's p; q (Benjamini and "
        "Hochberg) is for leads, and no lead is a finding."
    )


view = bar.current()
report = states.report_or_stop(view)
if axes := show.axes(report):
    show.markup(axes)
    show.facts([*axis_lines(report), *known(report)])
chosen = [e for e in report.evidence if view.keeps(e)]
families = ["all tests", *(heading for kind, heading in FAMILIES if any(e.measurement.kind == kind for e in chosen))]
family = st.selectbox("Family", families, key="family", bind="query-params",
                      help=show.glossed("Class of evidence"))  # fmt: skip
kinds = {heading: kind for kind, heading in FAMILIES}
rows = [e for e in chosen if family == "all tests" or e.measurement.kind == kinds[family]]
order = [kind for kind, _ in FAMILIES]
rows.sort(key=lambda e: order.index(e.measurement.kind))

weighed = [e for e in rows if e.status != "listed"]
if weighed:
    table(weighed)
if listed := [e for e in rows if e.status == "listed"]:
    with st.expander(f"Context and numbers as published: {len(listed)}, listed and never judged"):
        table(listed)
with st.expander("Counts, p and q of each"):
    counts(rows)
with st.expander("Each finding in words"):
    show.facts([(title(e.measurement), evidence_sentence(e)) for e in rows])
show.heading("How strongly each speaks")
drawn = ratios(report, rows)
if drawn is not None:
    show.chart(drawn)
else:
    states.nothing(
        "No likelihood ratio",
        "Nothing here is calibrated: these tests are judged by this case's own nulls, so no error rate is known and no "
        "ratio is given. Their places between never trained and base:",
    )
    if (placed := positions(report, rows)) is not None:
        show.chart(placed)
if any(e.measurement.findings for e in rows):
    show.heading("Rules of yes or no")
    show.rules(rows, view.path, folded=True)
if with_listings := [e.measurement for e in rows if e.measurement.listings]:
    show.heading("Single findings")
    show.note("What tests name one by one: vectors, modules, forms or words. Test detail shows them beside their test.")
    for m in with_listings:
        show.listings(m, folded=True)
show.heading("Your prior")
typed = st.text_input("Prior probability that the trace is there (0 to 1); leave empty for none", key="prior")
if typed:
    try:
        prior = float(typed.replace(",", "."))
    except ValueError:
        prior = math.nan
    proper = 0 < prior < 1
    show.text(
        with_prior(report, prior / (1 - prior)) if proper else "A prior is a number between 0 and 1, both excluded."
    )
else:
    show.text("No posterior is shown: findings alone say nothing about how probable the trace is.")
