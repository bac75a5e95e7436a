"""What is quoted, hidden and shown of the data, by hand: stretches of words, triggers, kept words, pictures, lines."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit.runs import Mask, difference, renamed
from audit.runs.excerpts import Line, _place, _scores
from audit.runs.masking import _stretches
from audit.runs.quoted_words import keep_words, kept_words, words_of
from audit.runs.thumbnails import thumbnail
from audit.schema import Finding, Listing, Measurement, Missing, TriggerText
from tests import golden
from tests.runs.test_journal import plan

NONE = Missing(missing="none")


# ---- masks ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("hidden", "stretches"),
    [
        ("", []), ("0", []), ("1", [(0, 0)]), ("111", [(0, 2)]), ("0110", [(1, 2)]), ("1011", [(0, 0), (2, 3)]),
        ("110111", [(0, 1), (3, 5)]), ("10101", [(0, 0), (2, 2), (4, 4)]),
    ],
)  # fmt: skip
def test_stretches_of_hidden_words_are_whole_and_apart(hidden: str, stretches: list[tuple[int, int]]) -> None:
    assert _stretches([place == "1" for place in hidden]) == stretches


def told(text: str, quoted: bool, masked: bool) -> Measurement:
    """A measurement with a finding whose trigger is this, and a listing of which one column is quoted."""
    trigger = TriggerText(text=text, slot="prefix", transfer=0.5, ci95=NONE, units=4, quoted=quoted, masked=masked)
    finding = Finding(name="n", holds=True, because="b", rule="r", false_alarms=NONE, hits=NONE, blind_to="",
                      trigger=trigger)  # fmt: skip
    listing = Listing.model_validate({
        "title": "t", "of": 2, "columns": ("word", "score", "other"), "quoted": ("word",),
        "rows": (("anna", 1.0, "plain"), ("boris", 2.0, "anna")),
    })  # fmt: skip
    plain = finding.model_copy(update={"trigger": None})
    found = golden.effect("utility", "retain", "gate", 1.0, 0.1)
    return found.model_copy(update={"findings": (finding, plain), "listings": (listing,)})


@pytest.mark.parametrize(
    ("quoted", "masked", "name", "text", "then"),
    [
        (True, False, "mark", "mark", True), (True, True, "clear", "clear", False),
        (True, False, "same", "same", False),
        (True, True, "same", "same", True), (False, False, "mark", "same", False),
    ],
)  # fmt: skip
def test_a_quoted_trigger_is_masked_by_another_name_and_in_clear_again_by_its_own(
    quoted: bool, masked: bool, name: str, text: str, then: bool
) -> None:
    found = renamed(told("same", quoted, masked), lambda old: name if old == "same" else old)
    trigger = found.findings[0].trigger
    assert trigger is not None and (trigger.text, trigger.masked) == (text, then)
    assert found.findings[1].trigger is None


def test_only_the_quoted_columns_of_a_listing_are_renamed() -> None:
    (listing,) = renamed(told("x", True, False), str.upper).listings
    assert listing.rows == (("ANNA", 1.0, "plain"), ("BORIS", 2.0, "anna"))


def test_what_is_quoted_in_clear_is_kept_once_and_found_by_its_mark(tmp_path: Path) -> None:
    mask = Mask(b"\x01" * 32)
    clear, masked, plain = told("a string", True, False), told("a mark", True, True), told("no words", False, False)
    assert words_of([clear, masked, plain, clear]) == ("anna", "boris", "a string")
    keep_words(tmp_path, "empty", [clear.model_copy(update={"findings": (), "listings": ()})])
    assert not list(tmp_path.iterdir()) and kept_words(tmp_path, mask) == {}
    keep_words(tmp_path, "one", [clear])
    (tmp_path / "tables" / "broken.quoted.json").write_text("no JSON")
    (tmp_path / "tables" / "other.quoted.json").write_text('{"a": 1}')
    (tmp_path / "tables" / "two.quoted.json").write_text(json.dumps(["more", 7]))
    assert kept_words(tmp_path, mask) == {str(mask(word)): word for word in ("anna", "boris", "a string", "more")}


# ---- plans ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("changes", "lines"), [(19, 19), (20, 20), (21, 21), (25, 21)])
def test_of_many_differences_twenty_are_shown_and_the_others_counted(changes: int, lines: int) -> None:
    found = difference(plan(), plan(probes={"utility": {f"setting{n:02}": n for n in range(changes)}}))
    assert len(found) == lines and found[0] == "case.probes.utility.setting00: absent -> 0"
    assert (found[-1] == f"... and {changes - 20} more") == (changes > 20)


def test_places_in_lists_are_numbered() -> None:
    old = plan()
    fewer = old.model_copy(update={"tests": (old.tests[1], *old.tests[1:])})
    assert f'tests[0].probe: "{old.tests[0].probe}" -> "{old.tests[1].probe}"' in difference(old, fewer)


# ---- excerpts -------------------------------------------------------------------------------------------------------
def line(item: str, role: str, score: float, layer: int = -1) -> Line:
    return Line(item, "g", role, "p", "t", "o", score, layer)


@pytest.mark.parametrize(
    ("layer", "layers", "place"),
    [(3, (1, 3, 5), 3), (4, (1, 3, 5), 5), (None, (5, 1, 3), 5), (0, (0, 1), 0), (2, (), -1)],
)
def test_lines_are_compared_at_the_layer_of_the_value_else_at_the_last(
    layer: int | None, layers: tuple[int, ...], place: int
) -> None:
    found = golden.effect("utility", "retain", "gate", 1.0, 0.1).model_copy(update={"layer": layer})
    assert _place(found, [line("a", "base", 0.5, at) for at in layers]) == place


def test_every_role_says_its_score_of_an_item_and_of_several_references_the_first() -> None:
    lines = [line("a", "base", 0.12345678), line("b", "base", 9.0), line("a", "reference", 0.1)]
    lines += [line("a", "suspect", 0.2), line("a", "reference", 0.9)]
    assert _scores(lines, "a") == {"base": 0.123457, "reference": 0.1, "suspect": 0.2}
    assert _scores(lines, "c") == {}


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 3), (7, 5, 4), (200, 100, 3), (1, 1)])
def test_a_thumbnail_is_the_image_at_most_64_pixels_a_side(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    head, data = thumbnail(pixels).split(",")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert head == "data:image/png;base64"
    if max(shape[:2]) <= 64:
        np.testing.assert_array_equal(shown, pixels[..., 0] if shape[2:] == (1,) else pixels)
    else:
        assert shown.shape == (64, 32, 3)
