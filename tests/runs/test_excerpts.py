"""Item tables as they are read, and images among the items that a derived report shows."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from audit.runs import Mask, excerpts, key_of
from audit.runs.excerpts import Imaged, Line, Quoted, _images, read_table
from audit.runs.thumbnails import thumbnail
from audit.schema import AuditError, ExitCode, Masked, Pictured, Shown, Table

PIXELS = {"a": np.full((3, 2), 7, np.uint8), "b": np.full((2, 2, 3), 9, np.uint8)}
LINES = (("a", "g", "suspect", "p", "t", "o", 0.5), ("b", "h", "base", "q", "u", "", 1.5))


def table(folder: Path, axis: dict[str, list[int]]) -> Table:
    (folder / "tables").mkdir()
    path = folder / "tables" / "x.parquet"
    columns = {name: [line[i] for line in LINES] for i, name in enumerate(Line._fields[:-1])} | axis
    parquet.write_table(pyarrow.table(columns), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Table(path="tables/x.parquet", sha256=digest, rows=2, columns=tuple(columns), axis="")


@pytest.mark.parametrize(
    ("axis", "places"),
    [({}, (-1, -1)), ({"layer": [4, 0]}, (4, 0)), ({"axis_value": [2, 1], "layer": [9, 9]}, (2, 1))],
)
def test_the_lines_of_a_table_have_the_place_on_its_axis_or_none(
    axis: dict[str, list[int]], places: tuple[int, int], tmp_path: Path
) -> None:
    stated = table(tmp_path, axis)
    assert read_table(stated, tmp_path) == tuple(Line(*line, at) for line, at in zip(LINES, places, strict=True))
    for change in (lambda path: path.write_bytes(b"other"), Path.unlink):
        change(tmp_path / stated.path)
        with pytest.raises(AuditError) as caught:
            read_table(stated, tmp_path)
        assert caught.value.code == ExitCode.INTEGRITY


# ---- images -----------------------------------------------------------------------------------------------------
def text(value: str) -> Masked:
    return Masked(mark=hashlib.sha256(value.encode()).hexdigest()[:12], words=1)


def excerpt(prompt: Any, picture: Pictured | None = None) -> Any:
    return SimpleNamespace(prompt=prompt, picture=picture)


def report(**tables: list[Any]) -> Any:
    case = SimpleNamespace(data="the data")
    plan = SimpleNamespace(case=case, data_sha256={"forget": "0"})
    shown = [SimpleNamespace(table=name, items=items) for name, items in tables.items()]
    return SimpleNamespace(plan=plan, excerpts=shown)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """Which pixels were looked for: those of images alone, or of images that words ask about."""
    found: list[tuple[str, Any, Any]] = []
    for name in ("stored_pictures", "asked_pictures"):
        monkeypatch.setattr(
            excerpts, name, lambda of, hashes, roots, name=name: found.append((name, of, roots)) or dict(PIXELS)
        )
    return found


def test_where_no_item_has_an_image_none_is_looked_for(asked: list[Any], tmp_path: Path) -> None:
    assert _images(report(words=[excerpt(text("p"))] * 2), tmp_path) is None and not asked


@pytest.mark.parametrize("key", [True, False])
def test_images_that_words_ask_about_are_shown_beside_the_words(key: bool, asked: list[Any], tmp_path: Path) -> None:
    mask = Mask(key_of(tmp_path)) if key else None
    found = report(
        words=[excerpt(text("p"))], mixed=[excerpt(text("p")), excerpt(text("p"), Pictured(mark="1" * 12))]
    )  # fmt: skip
    images = _images(found, tmp_path)
    assert images is not None and not images.classed and images.unpictured == {"words"}
    assert [(name, of) for name, of, _ in asked] == [("asked_pictures", found.plan.case)]
    assert asked[0][2] == (Path.cwd(), *tmp_path.resolve().parents)
    mark = "" if mask is None else mask.image(PIXELS["a"]).mark
    assert images.quote("a") == Pictured(mark=mark, png=thumbnail(PIXELS["a"])) and images.quote("c") is None
    line = Line("a", "g", "suspect", "p", "t", "o", 0.5, -1)
    quoted = Quoted(text, images)(line)
    assert quoted == {name: text(getattr(line, name)) for name in ("item", "group", "prompt", "target", "output")} | {
        "picture": images.quote("a")
    }
    assert "picture" not in Quoted(text, images)(line._replace(item="c"))


def test_images_alone_are_the_prompt_and_their_classes_are_told(asked: list[Any], tmp_path: Path) -> None:
    found = report(images=[excerpt(Pictured(mark="1" * 12))], words=[excerpt(text("p"))])
    images = _images(found, tmp_path)
    assert images is not None and images.classed and images.unpictured == frozenset()
    assert [(name, of) for name, of, _ in asked] == [("stored_pictures", "the data")]
    assert images.quote("b") == Pictured(mark="", png=thumbnail(PIXELS["b"])) and images.quote("c") == Pictured(mark="")
    quoted = Quoted(text, images)(Line("b", "g", "base", "p", "t", "o", 1.0, -1))
    assert quoted == {
        "item": text("b"), "group": text("g"), "prompt": images.quote("b"), "target": Shown(text="t"),
        "output": Shown(text="o"),
    }  # fmt: skip


def test_images_that_are_not_found_are_masked_without_a_mark(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excerpts, "asked_pictures", lambda *_: {})
    images = _images(report(mixed=[excerpt(text("p"), Pictured(mark="1" * 12))]), tmp_path)
    assert isinstance(images, Imaged) and images.quote("a") == Pictured(mark="")
