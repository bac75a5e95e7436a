"""Is the content really gone?"""

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

import pandas as pd
import streamlit as st
from markupsafe import escape

from audit.render import (
    MANY,
    OFF_LADDER,
    RUNGS,
    VERDICT_SYMBOL,
    Drawing,
    NamedReport,
    Paint,
    Shown,
    axis_lines,
    beside_verdict,
    columns,
    how_sure,
    known,
    matrix,
    meaning,
    painted,
    sentence,
    spoken,
    three_lines,
    untested,
    worst_first,
)
from audit.schema import LikelihoodRatio, Report
from audit.wording import NAME, visible
from dashboards import bar, show, states

ORDER = 10
SHOWN: Final[dict[str, Shown]] = {"log₁₀ likelihood ratio": "ratio", "p": "p", "effect": "value"}
HEIGHT = 560
"""Of the grid that stands for a drawing of too many cells, in pixels."""


def box(report: Report) -> None:
    """The verdict: its word, what it means, and where it stands on the ladder."""
    word = report.verdict.word
    rungs = "".join(
        f'<li class="{"here" if rung == word else ""} {"off" if rung in OFF_LADDER else ""}"'
        f"{' aria-current=true' if rung == word else ''}>{rung}</li>"
        for rung in (*RUNGS, *OFF_LADDER)
    )
    terms = (*axis_lines(report), *known(report))
    terms += three_lines(report, untested(report))
    beside = "".join(
        f'<p class="r-beside"><strong>{term}:</strong> {escape(words)}</p>' for term, words in beside_verdict(report)
    )
    lines = "".join(f"<div><dt>{term}</dt><dd>{escape(sentence(words))}</dd></div>" for term, words in terms)
    show.markup(
        f'<section class="r-verdict"><p class="r-eyebrow">{escape(visible(report.plan.case.name, NAME))} · '
        f'{escape(visible(report.report_id, NAME))}</p>'
        f'<p class="r-word"><span aria-hidden="true">{VERDICT_SYMBOL[word]}</span> {word}</p>'
        f'<p class="r-lead">{escape(meaning(report))}</p>{beside}'
        f'<ol class="r-ladder" aria-label="The verdict ladder">{rungs}</ol>'
        f'{show.axes(report)}<dl>{lines}</dl><p>{escape(how_sure(report))}</p></section>'
    )  # fmt: skip


def counters(report: Report) -> None:
    """Four outcomes, never two."""
    outcomes = [e.outcome for e in report.evidence if e.measurement.kind not in ("gate", "context")]
    missed = len({s.probe for s in report.skips} | {f.probe for f in report.failures})
    rows = [
        ("▲", "trace found", outcomes.count("trace found")), ("◆", "inconclusive", outcomes.count("inconclusive")),
        ("●", "no trace found", outcomes.count("no trace found")), ("–", "tests not run or failed", missed),
    ]  # fmt: skip
    items = "".join(f'<li><b>{n}</b><span aria-hidden="true">{mark}</span> {words}</li>' for mark, words, n in rows)
    show.markup(f'<ul class="r-counts" aria-label="Findings by outcome">{items}</ul>')


class Matrix(NamedTuple):
    """The matrix as a drawing, and its cells for a view without one."""

    drawn: Drawing
    cells: list[list[Paint]]


@st.cache_resource(show_spinner="Comparing the checkpoints…", max_entries=32)
def compared(which: Sequence[tuple[str, str, str]], number: Shown, _rows: Sequence[NamedReport]) -> Matrix:
    """The matrix of these reports, drawn once for everybody who looks at them."""
    return Matrix(matrix(_rows, number), painted(_rows, number))


def has_ratio(report: Report) -> bool:
    """Is any likelihood ratio known of this report's tests?"""
    return any(isinstance(e.ratio, LikelihoodRatio) for e in report.evidence)


def open_cell() -> None:
    """A click on a cell of the matrix leads to that test of that checkpoint."""
    if where := show.picked("matrix"):
        bar.go("test_detail", run=str(where[0]), test=show.test_label(str(where[1])))


def open_selected(table: str, rows: Sequence[NamedReport], tests: Sequence[str]) -> None:
    """The same from a table, which also takes the keyboard."""
    cells = st.session_state[table]["selection"]["cells"]
    if cells and cells[0][1] in tests:
        bar.go("test_detail", run=rows[cells[0][0]].address, test=show.test_label(cells[0][1]))


def as_table(table: str, drawn: Drawing, rows: Sequence[NamedReport]) -> None:
    """The matrix in words, one cell of which can be chosen."""
    tests = columns([r.report for r in rows])
    words = [[cell.text for cell in row[1:]] for row in drawn.data.rows]
    choose(table, pd.DataFrame(words, columns=tests), rows)


def as_grid(table: str, cells: Sequence[Sequence[Paint]], rows: Sequence[NamedReport]) -> None:
    """The matrix in its marks and colours, one cell of which can be chosen."""
    tests = columns([r.report for r in rows])
    css = [[f"background-color:{c.ground};color:{c.ink}" if c.ground else "" for c in line] for line in cells]
    marks = pd.DataFrame([[c.mark for c in line] for line in cells], columns=tests)
    choose(table, marks, rows, css)


def choose(table: str, cells: pd.DataFrame, rows: Sequence[NamedReport], css: Sequence[Sequence[str]] = ()) -> None:
    """A grid of checkpoints by tests; a chosen cell opens its test."""
    cells.insert(0, "checkpoint", [r.name for r in rows])
    styles = pd.DataFrame([["", *line] for line in css], columns=cells.columns)
    tests = list(cells.columns[1:])
    st.dataframe(
        cells.style.apply(lambda _: styles, axis=None) if css else cells,
        key=table, hide_index=True, selection_mode="single-cell", height=HEIGHT if css else "auto",
        column_config={"checkpoint": st.column_config.TextColumn(pinned=True)}
        | {test: st.column_config.TextColumn(show.test_label(test)) for test in tests},
        on_select=partial(open_selected, table, rows, tests),
    )  # fmt: skip


view = bar.current()
report = states.report_or_stop(view)
box(report)
counters(report)

show.heading("Every checkpoint by every test")
rows = view.rows()
left, right = st.columns([3, 2])
usual = "log₁₀ likelihood ratio" if any(has_ratio(r.report) for r in rows) else "effect"
hint = show.glossed("Effect" if usual == "effect" else "Likelihood ratio")
shown = left.segmented_control("Number in a cell", list(SHOWN), default=usual, key="cell", bind="query-params",
                               required=True, help=hint)  # fmt: skip
order = right.selectbox("Order", ["as in the folder", "worst first"], key="order", bind="query-params")
if order == "worst first":
    rows = tuple(sorted(rows, key=lambda r: (*worst_first(r.report), r.name)))
which = tuple((r.name, r.address, r.report.report_id) for r in rows)
drawn, cells = compared(which, SHOWN[shown or usual], rows)
if sum(map(len, cells)) > MANY:
    with st.container(key="matrix-many"):
        as_grid("matrix-grid", cells, rows)
        show.note(f"{drawn.caption} Choose a cell to open its test. More than {MANY} cells are a grid, not a drawing.")
        show.csv_button(drawn)
else:
    with st.container(key="matrix-wide"):
        show.chart(drawn, picked=open_cell)
        with st.expander("The same as a table, for the keyboard: choose a cell to open its test"):
            as_table("matrix-table", drawn, rows)
    with st.container(key="matrix-narrow"):
        show.note("Choose a cell to open its test.")
        as_table("matrix-small", drawn, rows)

show.heading("Limits of this verdict")
limits = dict.fromkeys(sentence(x) for x in (*report.verdict.limits, *report.limits))
show.bullets([*limits][:3])
if missing := states.reference(report):
    show.text(missing)
show.facts([("Not tested", untested(report))])
if report.skips or report.failures:
    reasons = [(s.probe, f"Not run: {s.reason}") for s in report.skips]
    reasons += [(f.probe, f"Failed: {f.error} (error id {f.error_id}, in run.log)") for f in report.failures]
    show.facts([(visible(p, NAME).replace("_", " "), sentence(reason)) for p, reason in reasons])
show.heading("What would change this")
show.bullets([sentence(x) for x in report.verdict.would_change] or ["Nothing is recorded."])
show.heading("Why")
show.bullets([sentence(spoken(report, x)) for x in report.verdict.because])
