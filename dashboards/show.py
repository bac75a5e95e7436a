"""How pages show things: charts with words and data, tables and prose from the report's own blocks.

Whatever stands in a run is hostile text. It reaches the page as escaped HTML, or as data in a table, and never as
Markdown, which Streamlit would read for links, formulas and colours.
"""

import base64
import csv
import io
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import plotly.graph_objects as go
import streamlit as st
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from audit.render import (
    GLOSSARY,
    Block,
    Bullets,
    Cell,
    Code,
    Drawing,
    Facts,
    Figure,
    Grid,
    Heading,
    Text,
    answer,
    axes_drawing,
    axis_lines,
    detection_grid,
    finding_facts,
    finding_name,
    findings_of,
    heat_maps,
    listing_grids,
    path_word,
    replay,
    unmask_command,
)
from audit.render import INK as UNPAINTED
from audit.schema import Evidence, Measurement, Report
from audit.wording import shown_name, visible

HERE: Final = Path(__file__).parent
INK: Final = {"light": "#464e57", "dark": "#bcc4cc"}
PAPER: Final = {"light": "#ffffff", "dark": "#14171a"}
UNDER_MAP: Final = 12
"""A longer table under its map is opened on demand."""
LARGE: Final = 1000
"""A table of more cells is drawn by the page as one scrolls; a smaller one is plain HTML."""


@cache
def _environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    env.filters["picture"] = picture
    env.filters["explained"] = explained
    return env


def picture(figure: Figure) -> str:
    """A drawing of the report as a picture in this theme's colours: Streamlit takes drawings out of HTML."""
    return painted(figure.svg)


def painted(drawing: str) -> str:
    """Vector graphics as the address of a picture, in this theme's colours."""
    theme = st.context.theme.type or "light"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" color="{INK[theme]}" font-family="sans-serif"'
    drawn = drawing.replace("<svg", head, 1).replace("var(--paper, #fff)", PAPER[theme])
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.encode()).decode()}"


def axes(report: Report) -> str:
    """Both axes of a verdict as a picture in HTML; empty where neither was measured."""
    drawing = axes_drawing(report)
    words = "; ".join(f"{term}: {share}" for term, share in axis_lines(report))
    return f'<p><img class="r-drawing r-axes" alt="{escape(words)}" src="{painted(drawing)}"></p>' if drawing else ""


def style(sections: Sequence[str] = ()) -> None:
    """The page's own look, which follows the theme by inheriting its colours; and the heads in the list of pages.

    ``sections`` by page, empty where none begins. The list itself stays flat: nested ones are no lists to a reader of
    screens.
    """
    heads = "".join(
        f"[data-testid=stSidebarNavItems]>li:nth-child({place})::before{{content:{json.dumps(head)}}}"
        for place, head in enumerate(sections, 1) if head
    )  # fmt: skip
    st.html(f"<style>{(HERE / 'style.css').read_text(encoding='utf-8')}{heads}</style>")


def markup(inside: str) -> None:
    """Our own HTML; whatever of a run stands in it has been escaped."""
    st.html(f'<div class="r">{inside}</div>')


def template(name: str, **content: object) -> None:
    """One of our templates, which escapes whatever it is given."""
    markup(_environment().get_template(name).render(**content))


def blocks(content: Sequence[Block]) -> None:
    """The blocks of a report, as every view shows them."""
    template("blocks.html.j2", blocks=content)


@cache
def _terms() -> dict[str, str]:
    """What the glossary of a report says of each of its words, by that word without its mark, in lower case."""
    terms: dict[str, str] = {}
    for term, meaning in GLOSSARY:
        plain = term.lstrip("▲▼●◆–■◧▣□◇✕ ")
        terms |= dict.fromkeys((each.casefold() for each in (plain, *plain.split(", "))), meaning)
    return terms


ALIASES: Final = {
    "holm p": "p", "against the null": "p", "how sure": "likelihood ratio", 
    "what it says": "outputs", "what it holds": "internals", "who is known": "people kept",
    "false alarms": "false alarm", "false alarms at it": "false alarm", "misses at it": "miss",
    "threshold in force": "calibrated threshold", "judged number": "effect", "compared with": "reference",
    "positive control: base": "positive control",
}  # fmt: skip
"""How pages name what the glossary calls otherwise."""


def glossed(term: str) -> str | None:
    """What the glossary says of a word, for a tool tip; None where it does not have it."""
    plain = term.partition(" (")[0].casefold()
    return _terms().get(ALIASES.get(plain, plain))


def explained(words: str, term: str = "") -> Markup:
    """Words with what the glossary says of them, or of another ``term``, as their tool tip."""
    meaning = glossed(term or words)
    return Markup('<abbr title="{}">{}</abbr>').format(meaning, words) if meaning else escape(words)


def lead(text: str) -> None:
    """The sentence that matters."""
    blocks((Text(text, "lead"),))


def text(words: str) -> None:
    """A paragraph."""
    blocks((Text(words),))


def note(words: str) -> None:
    """What a chart or a table means: quieter than the text, and still easy to read."""
    markup(f'<p class="r-note">{escape(words)}</p>')


def bullets(items: Sequence[str]) -> None:
    """Short statements."""
    blocks((Bullets(tuple(items)),))


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Pairs of a term and what it is."""
    blocks((Facts(tuple(rows)),))


def heading(words: str) -> None:
    """A heading inside a page."""
    markup(f"<h2>{escape(words)}</h2>")


def command(line: str) -> None:
    """A line to copy and type."""
    st.code(visible(line, 2000), language=None, wrap_lines=True)


def code(words: str) -> None:
    """Words kept as they are, line by line."""
    blocks((Code("\n".join(visible(line) for line in words.splitlines())),))


def sub(words: str) -> None:
    """A smaller heading."""
    blocks((Heading(words),))


def test_label(key: str) -> str:
    """The address of a test in words: what a list offers, and what stands in the page's address."""
    probe, dot, name = key.partition(".")
    return visible(f"{probe}{dot and ': '}{shown_name(probe, name)}".replace("_", " "))


def table(grid: Grid) -> None:
    """A table; a large one scrolls by itself."""
    if len(grid.rows) * len(grid.columns) <= LARGE:
        blocks((grid,))
    else:
        by_column = {column: [row[i].text for row in grid.rows] for i, column in enumerate(grid.columns)}
        st.dataframe(by_column, hide_index=True)


def listings(m: Measurement, folded: bool = False) -> None:
    """The single findings of a measurement, a table each; words of the data are masked where the report is."""
    for each, listing in zip(listing_grids(m), m.listings, strict=True):
        table(replace(each, folded=folded or (bool(listing.maps) and len(each.rows) > UNDER_MAP)))


def maps(m: Measurement) -> None:
    """The maps of a measurement's listings."""
    for drawn in heat_maps(m):
        chart(drawn)


def rules(rows: Sequence[Evidence], run: str, folded: bool = False) -> None:
    """What rules of yes or no say, and why: ``folded``, on demand."""
    blocks(detection_grid(rows))
    with st.expander("Each of them in full") if folded else nullcontext():
        _reasons(rows, run)


def _reasons(rows: Sequence[Evidence], run: str) -> None:
    """Each rule of yes or no with its reasons, and a line to copy: it says the string again, or where that is masked it
    shows the ``run`` in clear."""
    for m, finding in findings_of(rows):
        sub(f"{finding_name(finding)}: {answer(finding)}")
        facts(finding_facts(m, finding))
        if finding.trigger is not None:
            command(replay(finding.trigger) or unmask_command(path_word(run)))


def grid(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], tones: Sequence[str] = ()) -> Grid:
    """A table of visible text; ``tones`` by column."""
    look = (*tones, *[""] * len(columns))
    cells = tuple(tuple(Cell(text, tone) for text, tone in zip(row, look, strict=False)) for row in rows)
    return Grid(caption, tuple(columns), cells)


def chart(drawing: Drawing, picked: Callable[[], None] | None = None) -> None:
    """A figure with its words for those who do not see it, its caption, and its data."""
    st.plotly_chart(
        inked(drawing.figure), key=drawing.id, alt=visible(f"{drawing.label}. {drawing.caption}"), theme="streamlit",
        on_select="ignore" if picked is None else picked, selection_mode="points",
        config={"displaylogo": False, "displayModeBar": False, "scrollZoom": False},
    )  # fmt: skip
    note(drawing.caption)
    with st.expander("Data"):
        table(drawing.data)
        csv_button(drawing)


def csv_button(drawing: Drawing) -> None:
    """The numbers behind a figure, to take away."""
    st.download_button("CSV", lambda: csv_of(drawing.data), f"{drawing.id}.csv", "text/csv",
                       key=f"csv-{drawing.id}", on_click="ignore")  # fmt: skip


def inked(figure: go.Figure) -> go.Figure:
    """The figure with text that can be read on this theme's ground; Streamlit's own greys are too faint for it."""
    ink = INK[st.context.theme.type or "light"]
    painted = go.Figure(figure)
    painted.update_layout(font_color=ink, legend_font_color=ink)
    for trace in painted.select_traces({"type": "scatter"}):
        if isinstance(trace.textfont.color, list | tuple):
            trace.textfont.color = [ink if colour == UNPAINTED else colour for colour in trace.textfont.color]
    painted.update_xaxes(tickfont_color=ink, title_font_color=ink)
    return painted.update_yaxes(tickfont_color=ink, title_font_color=ink)


def picked(chart_id: str) -> list[str | float] | None:
    """The address of the point that was clicked, as its figure wrote it."""
    state = st.session_state.get(chart_id)
    points = state["selection"]["points"] if state else []
    return list(points[0]["customdata"]) if points else None


def csv_of(grid: Grid) -> str:
    """A table as CSV. A cell that a spreadsheet would run as a formula begins with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(grid.columns)
    writer.writerows([[_inert(cell.text) for cell in row] for row in grid.rows])
    return out.getvalue()


def _inert(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "@", "\t", "\r") else text


def latex_of(grid: Grid) -> str:
    """A table as LaTeX (tabular), every special character escaped."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
                                                    "\\": r"\textbackslash{}"}  # fmt: skip
    lines = [[cell.text for cell in row] for row in grid.rows]
    body = [" & ".join("".join(special.get(c, c) for c in x) for x in line) + r" \\" for line in [grid.columns, *lines]]
    frame = "l" * len(grid.columns)
    return "\n".join([rf"\begin{{tabular}}{{{frame}}}", r"\hline", body[0], r"\hline", *body[1:], r"\hline",
                      r"\end{tabular}", ""])  # fmt: skip
