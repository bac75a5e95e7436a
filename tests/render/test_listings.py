"""Single findings stand as tables in every view, whole or as the first of many; a masked report quotes none of them."""

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from audit.render import html, junit, listing_grid, listing_grids, markdown, sheets, summary
from audit.render.sections.listings import MOST
from audit.runs import Mask, keep_words, renamed, unmasked
from audit.runs.masking import KEY, key_of
from audit.schema import Listing, Report
from audit.schema.measurement import Kind
from audit.wording import number
from tests.golden import HOSTILE, report

SECRET = b"\x01" * 32
FOUND = report("suppressed")
CELLS = st.one_of(
    st.none(), st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6), st.text(alphabet="qxz vk", min_size=1, max_size=12)
)
WORDS = ("Quorbital", "zythum", "Vexillum hapax")


@st.composite
def tables(draw: st.DrawFn) -> Listing:
    width = draw(st.integers(1, 5))
    columns = tuple(f"column {n}" for n in range(width))
    rows = draw(st.lists(st.tuples(*[CELLS] * width), max_size=70))
    of = len(rows) + draw(st.sampled_from([0, 1, 900]))
    quoted = tuple(name for name in columns if draw(st.booleans()))
    return Listing(title="vectors", columns=columns, rows=tuple(rows), of=of, quoted=quoted)


def with_listings(*listed: Listing, kind: Kind = "context") -> Report:
    """The suppressed report with these listings in its finding of that kind."""
    place = next(i for i, e in enumerate(FOUND.evidence) if e.measurement.kind == kind)
    m = FOUND.evidence[place].measurement.model_copy(update={"listings": listed})
    changed = FOUND.evidence[place].model_copy(update={"measurement": m})
    return FOUND.model_copy(update={"evidence": (*FOUND.evidence[:place], changed, *FOUND.evidence[place + 1 :])})


def of_tokens() -> Listing:
    rows = tuple((n, word, 0.5 - n, "mlp") for n, word in enumerate(WORDS))
    columns = ("block", "token", "gain", "part")
    return Listing(title="tokens written", columns=columns, rows=rows, of=40, quoted=("token",))


@given(tables())
def test_every_row_is_shown_or_its_absence_is_said(listing: Listing) -> None:
    (grid,) = listing_grids(FOUND.evidence[1].measurement.model_copy(update={"listings": (listing,)}))
    shown = listing.rows[:MOST]
    assert grid.columns == listing.columns and len(grid.rows) == len(shown)
    assert (f"first {len(shown)} of {listing.of}" in grid.caption) == (len(shown) < listing.of)
    for row, cells in zip(shown, grid.rows, strict=True):
        for value, cell in zip(row, cells, strict=True):
            if isinstance(value, float):
                assert cell.text == number(value)
            elif isinstance(value, int):
                assert cell.text == str(value).replace("-", "−")
            else:
                assert cell.text == ("–" if value is None else value)


@pytest.mark.parametrize(("rows", "of", "said"), [
    (0, 0, "(none)"), (1, 1, "(all 1)"), (50, 50, "(all 50)"), (51, 51, "(first 50 of 51)"), (3, 9, "(first 3 of 9)"),
    (60, 9000, "(first 50 of 9000)"),
])  # fmt: skip
def test_a_long_listing_is_cut_and_says_so(rows: int, of: int, said: str) -> None:
    listing = Listing(title="vectors", columns=("n",), rows=tuple((n,) for n in range(rows)), of=of)
    grid = listing_grid(listing)
    assert grid.caption == f"vectors {said}" and [row[0].text for row in grid.rows] == list(map(str, range(rows)))[:50]


@given(tables())
def test_quoted_words_become_marks_and_nothing_else_of_a_measurement_changes(listing: Listing) -> None:
    m, mask = FOUND.evidence[1].measurement.model_copy(update={"listings": (listing,)}), Mask(SECRET)
    hidden = renamed(m, lambda text: str(mask(text)))
    assert hidden.model_copy(update={"listings": ()}) == renamed(m.model_copy(update={"listings": ()}), str)
    for row, new in zip(listing.rows, hidden.listings[0].rows, strict=True):
        for name, value, cell in zip(listing.columns, row, new, strict=True):
            masked = name in listing.quoted and isinstance(value, str)
            assert cell == (str(mask(value)) if masked and isinstance(value, str) else value)


def test_a_listing_stands_in_every_view_of_whatever_kind_its_measurement_is() -> None:
    kinds = [kind for kind in get_args(Kind) if any(e.measurement.kind == kind for e in FOUND.evidence)]
    assert {"gate", "output", "causal", "decoding", "context"} <= set(kinds)
    for kind in kinds:
        found = with_listings(of_tokens(), kind=kind)
        console = Console(width=300)
        with console.capture() as said:
            console.print(summary(found))
        csv = "\n".join((*sheets(found), *sheets(found).values()))
        for view in (html(found), markdown(found), csv, said.get()):
            assert "tokens written" in view or "tokens-written" in view, kind
        for view in (html(found), markdown(found), csv):
            assert all(word in view for word in WORDS) and "−1.5" in view, kind
        assert "first 3 of 40" in html(found) and "first 3 of 40" in markdown(found) and "first 3 of 40" in said.get()
    assert "tokens written" not in junit(with_listings(of_tokens()))


def test_hostile_cells_and_titles_reach_no_view_as_markup() -> None:
    found = with_listings(Listing(title=HOSTILE, columns=("a", HOSTILE), rows=((1, HOSTILE),), of=1))
    page, text = html(found), markdown(found)
    assert "<img src=x" not in page and "\x1b" not in page + text and "\u202e" not in page + text
    assert "<img src=x" not in text and "| @all" not in text


def test_a_masked_report_quotes_nothing_and_the_unmasked_one_all_of_it(tmp_path: Path) -> None:
    clear = with_listings(of_tokens()).evidence
    found = FOUND.model_copy(update={"evidence": clear, "excerpts": ()})
    mask = Mask(key_of(tmp_path))
    for e in clear:
        keep_words(tmp_path, e.measurement.probe, (e.measurement,))
    hidden = tuple(
        e.model_copy(update={"measurement": renamed(e.measurement, lambda text: str(mask(text)))})
        for e in without_tables(found).evidence
    )
    masked = found.model_copy(update={"evidence": hidden})
    views = (html(masked), markdown(masked), "".join(sheets(masked).values()), masked.model_dump_json())
    for view in views:
        assert not any(word in view for word in WORDS), view[:80]
        assert f"masked {mask(WORDS[0]).mark}, 1 word" in view
    shown = unmasked(masked, tmp_path)
    assert shown.evidence == without_tables(found).evidence and not shown.masked
    assert all(word in html(shown) for word in WORDS)
    (tmp_path / KEY).unlink()
    assert not any(word in html(unmasked(masked, tmp_path)) for word in WORDS), "without the key no mark is read"


def without_tables(found: Report) -> Report:
    """The report without item tables, which are not there."""
    none = FOUND.evidence[0].measurement.items
    evidence = tuple(
        e.model_copy(update={"measurement": e.measurement.model_copy(update={"items": none})}) for e in found.evidence
    )
    return found.model_copy(update={"evidence": evidence})


def test_only_words_of_quoted_columns_are_kept_beside_the_run(tmp_path: Path) -> None:
    m = FOUND.evidence[1].measurement
    keep_words(tmp_path, "silent", (m,))
    assert not list(tmp_path.rglob("*")), "a probe that quotes nothing leaves no file"
    keep_words(tmp_path, "loud", (m.model_copy(update={"listings": (of_tokens(), of_tokens())}),))
    (path,) = (tmp_path / "tables").iterdir()
    assert json.loads(path.read_text()) == list(WORDS)
