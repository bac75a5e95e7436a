"""Which items keep it, and what do they say?"""

from collections.abc import Mapping
from functools import partial

import pyarrow as pa
import streamlit as st
from markupsafe import escape

from audit.render import key, scores
from audit.schema import Missing, Report, Table
from audit.wording import NAME, number, visible
from dashboards import bar, items, show, states
from dashboards import thumbnails as images
from dashboards.items import Row, as_shown
from dashboards.vault import Vault

ORDER = 60
MANY, PAGE = 20_000, 200
HIGH = 56
"""The height of a row with a picture, in pixels."""
DIGITS = ("base: score", "suspect: score", "reference: score", "z")
ROLES = ("base", "suspect", "reference")
Z = "z: the suspect's score minus the reference's mean over these items, in standard deviations of the reference."
COPIED = "Copied words: the longest run of the target that the suspect's output holds."


@st.cache_resource(show_spinner="Reading the items…", max_entries=4)
def read(vault: Vault, run: str, table: Table) -> pa.Table:
    """A table, verified once."""
    return items.read(vault, run, table)


@st.cache_resource(show_spinner="Pairing the items…", max_entries=8)
def sheet(_table: pa.Table, sha256: str, layer: float) -> items.Sheet:
    """One layer of a table; named by the table's hash."""
    return items.sheet(_table, layer)


@st.cache_resource(show_spinner="Reading the images…", max_entries=4)
def thumbnails(vault: Vault, _report: Report, report_id: str) -> Mapping[str, str]:
    """The images of a run, read once it is asked for them."""
    return images.thumbnails(vault, _report)


def picture(row: Row, reveal: bool) -> str:
    """The address of a row's small picture, where it may be shown and is there."""
    return pictures.get(row.item, "") if reveal else ""


def frame(rows: list[Row], reveal: bool) -> dict[str, list[str | float | None]]:
    """The table as columns."""
    columns: dict[str, list[str | float | None]] = {
        "item": [as_shown(r.item, True) if reveal else f"item {i + 1}" for i, r in enumerate(rows)],
        **question_columns(rows, reveal),
    }
    for role in ROLES:
        if any(r.output.get(role) for r in rows):
            columns[f"{role}: output"] = [as_shown(r.output.get(role, ""), reveal) for r in rows]
        columns[f"{role}: score"] = [r.score.get(role) for r in rows]
    columns["z"] = [r.z for r in rows]
    if not classed:
        columns["copied words"] = [r.copied for r in rows]
    marked = reviewed()
    columns["reviewed"] = [r.item in marked for r in rows]
    return columns


def question_columns(rows: list[Row], reveal: bool) -> dict[str, list[str | float | None]]:
    """What an item asks and what is to be answered: texts, some about an image, or an image and its class, which is no
    secret."""
    columns: dict[str, list[str | float | None]] = {}
    if pictured:
        columns["image"] = [picture(r, reveal) or images.HIDDEN for r in rows]
    if classed:
        return columns | {"class": [as_shown(r.target, True) for r in rows]}
    return columns | {
        "prompt": [as_shown(r.prompt, reveal) for r in rows], "target": [as_shown(r.target, reveal) for r in rows],
    }  # fmt: skip


def exported(rows: list[Row], reveal: bool) -> str:
    """Rows as CSV, masked as they are shown."""
    columns = frame(rows, reveal)
    cells = [["" if x is None else str(x) for x in line] for line in zip(*columns.values(), strict=True)]
    return show.csv_of(show.grid("items", list(columns), cells))


def reviewed() -> set[str]:
    """The items that were marked in this session."""
    return st.session_state.setdefault("_reviewed", set())


def mark(item: str) -> None:
    """Mark an item as reviewed, or take the mark back."""
    reviewed().symmetric_difference_update({item})


def underlined(piece: items.Span) -> str:
    """A piece of an output as HTML, underlined if it is copied."""
    words = escape(as_shown(piece.text, True))
    return f"<u>{words}</u>" if piece.copied else str(words)


def detail(row: Row, reveal: bool) -> None:
    """One item in three columns, with the words that an output copies from the target underlined."""
    shown = []
    for role in ROLES:
        output = row.output.get(role, "")
        pieces = items.spans(row.target, output) if reveal else []
        words = " ".join(underlined(p) for p in pieces)
        words = words or str(escape(items.masked(output) if output else "no output recorded"))
        score = number(row.score[role]) if role in row.score else "not scored"
        shown.append(f"<div><h3>{role}</h3><p>{words}</p><p>score {score}</p></div>")
    if pictured:
        address = picture(row, reveal)
        show.markup(f'<img class="r-thumb" alt="the image" src="{escape(address)}">' if address else images.HIDDEN)
    if classed:
        show.facts([("Class", as_shown(row.target, True)), ("Group", as_shown(row.group, reveal))])
    else:
        show.facts([("Prompt", as_shown(row.prompt, reveal)), ("Target", as_shown(row.target, reveal)),
                    ("Group", as_shown(row.group, reveal))])  # fmt: skip
    show.markup(f'<div class="r-columns">{"".join(shown)}</div>')
    word = "Take the mark back" if row.item in reviewed() else "Mark as reviewed"
    st.button(word, key="mark", on_click=mark, args=(row.item,))


def narrowed(rows: tuple[Row, ...], reveal: bool) -> list[Row]:
    """The rows that the filters leave."""
    known = [r.score["suspect"] for r in rows if "suspect" in r.score]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    left, middle, right = st.columns(3)
    # A search in masked texts would still tell whether a guess stands in them.
    label = "Search in the classes" if classed else "Search in the texts (only when revealed)"
    words = left.text_input(label, key="q", disabled=not (reveal or classed))
    bounds = middle.slider("Suspect score", low, max(high, low + 1e-9), (low, max(high, low + 1e-9)), key="scores")
    orders = ["table order", "suspect score, highest", "z, highest", *([] if classed else ["copied words"])]
    by = right.selectbox("Sort by", orders, key="by", bind="query-params")
    matching = items.matching(rows, words if (reveal or classed) and words else "", *bounds)
    ranks = {"suspect score, highest": lambda r: -r.score.get("suspect", -1e99), "copied words": lambda r: -r.copied,
             "z, highest": lambda r: -(r.z if r.z is not None else -1e99)}  # fmt: skip
    return sorted(matching, key=ranks[by]) if by in ranks else matching


def paged(rows: list[Row], total: int) -> list[Row]:
    """One page of a large table; the whole of a small one."""
    if total <= MANY:
        return rows
    pages = max(1, -(-len(rows) // PAGE))
    number_of = st.number_input(f"Page (of {pages}; {PAGE} items each)", 1, pages, key="page")
    return rows[(number_of - 1) * PAGE : number_of * PAGE]


view = bar.current()
report = states.report_or_stop(view)
assert view.run is not None
tables = {
    show.test_label(key(e.measurement)): e.measurement.items
    for e in report.evidence
    if view.keeps(e) and not isinstance(e.measurement.items, Missing)
}
if not tables:
    states.nothing("No item table", "No test of this cohort kept a table of items.")
    st.stop()
left, right = st.columns([3, 1])
chosen = left.selectbox("Test", list(tables), key="table", bind="query-params")
chosen = chosen if chosen in tables else next(iter(tables))
table = read(view.vault, view.run.name, tables[chosen])
steps = [f"{x:g}" for x in items.layers(table)]
axis = visible(tables[chosen].axis, NAME) or "layer"
layer = right.selectbox(axis.capitalize(), steps, key="layer", bind="query-params", disabled=len(steps) == 1,
                        format_func=lambda x: "whole model" if x == "-1" else x) or steps[0]  # fmt: skip
classed = images.of_images(report)
pictured = classed or images.beside(report, tables[chosen])
things = "images" if classed else "texts and images" if pictured else "texts"
reveal = st.toggle(f"Reveal the {things}", key="reveal")
pictures = thumbnails(view.vault, report, report.report_id) if pictured and reveal else {}
if reveal:
    states.panel(f"The {things} are shown", "<p>This is the data that should be forgotten. Do not let it out of the "
                 "house: what you export from here holds it too.</p>", "bad", role="alert")  # fmt: skip
if pictured and reveal and not pictures:
    show.note(images.NOT_FOUND)
rows = sheet(table, tables[chosen].sha256, float(layer)).rows
matching = narrowed(rows, reveal)
page = paged(matching, len(rows))
show.text(f"{len(matching)} of {len(rows)} items" + ("." if reveal else f"; ids and {things} are masked."))
columns = {"image": st.column_config.ImageColumn("image")} if pictures else {}
event = st.dataframe(frame(page, reveal), key="sheet", on_select="rerun", selection_mode="multi-row", hide_index=True,
                     height=420, column_config=columns, row_height=HIGH if pictures else None)  # fmt: skip
picked = [page[i] for i in event["selection"]["rows"] if i < len(page)]
show.note(Z if classed else f"{Z} {COPIED}")
st.download_button(
    "Export the selection" if picked else "Export this page", partial(exported, picked or page, reveal), "items.csv",
    "text/csv", on_click="ignore",
)  # fmt: skip
for row in picked[:3]:
    show.heading(as_shown(row.item, True) if reveal else "Chosen item")
    detail(row, reveal)
pairs = [r for r in matching if "suspect" in r.score]
show.heading("All of these items")
for role in ("base", "reference"):
    both = [r for r in pairs if role in r.score]
    if both:
        show.chart(scores([r.score["suspect"] for r in both], [r.score[role] for r in both], role))
