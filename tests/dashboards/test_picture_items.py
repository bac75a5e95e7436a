"""The items of an audit of questions about pictures: words and pictures masked together, shown together."""

import shutil
from pathlib import Path

import pytest

from audit.runs import thumbnail
from dashboards.thumbnails import HIDDEN, NOT_FOUND, beside, thumbnails
from dashboards.vault import Vault
from tests import picture_toy
from tests.dashboards.test_pages import opened, told


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data files of a case and, below ``runs``, its finished audit."""
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    folder = picture_toy.taught_run().folder
    shutil.copytree(folder, tmp_path / "runs" / "a")
    shutil.copytree(folder.parent / "images", tmp_path / "images")
    for cohort in ("forget", "retain"):
        shutil.copy(folder.parent / f"{cohort}.jsonl", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.thorough
def test_words_and_pictures_are_masked_until_they_are_asked_for(world: Path) -> None:
    at = opened(world / "runs", "items")
    shown = at.dataframe[0].value
    assert set(shown["image"]) == {HIDDEN} and all(text.startswith("‹masked") for text in shown["prompt"])
    assert "data:image/png" not in str(shown.to_dict()) + told(at) and "forget" not in str(shown["item"])
    assert "copied words" in shown.columns and "class" not in shown.columns
    at.toggle(key="reveal").set_value(True).run()
    revealed = at.dataframe[0].value
    rows = {row["id"]: row for row in picture_toy.read_rows(world, "forget")}
    for _, line in revealed.iterrows():
        row = rows[line["item"]]
        number = int(row["id"].split("-")[1])
        assert line["image"] == thumbnail(picture_toy.picture(number, row["answer"]))
        assert (line["prompt"].strip(), line["target"].strip()) == (row["question"], row["answer"])
    assert "The texts and images are shown" in told(at)


@pytest.mark.thorough
def test_pictures_that_are_not_there_are_said_to_be_missing(world: Path) -> None:
    (world / "images" / "forget-0.png").unlink()
    at = opened(world / "runs", "items")
    at.toggle(key="reveal").set_value(True).run()
    assert set(at.dataframe[0].value["image"]) == {HIDDEN} and NOT_FOUND in told(at)


@pytest.mark.thorough
def test_a_table_whose_items_have_no_picture_has_no_column_of_images(world: Path) -> None:
    report, _ = picture_toy.taught_run()
    tables = {t.table: t for t in report.excerpts}
    bare = report.model_copy(update={"excerpts": tuple(
        t.model_copy(update={"items": tuple(x.model_copy(update={"picture": None}) for x in t.items)})
        for t in report.excerpts
    )})  # fmt: skip
    found = [e.measurement.items for e in report.evidence if hasattr(e.measurement.items, "path")]
    assert tables and found and all(beside(report, table) and not beside(bare, table) for table in found)
    assert len(thumbnails(Vault(world / "runs"), report)) == 56


@pytest.mark.thorough
@pytest.mark.parametrize("page", ["verdict", "evidence", "report"])
def test_pages_count_pictures(world: Path, page: str) -> None:
    words = told(opened(world / "runs", page))
    assert "pictures" in words and " people of the forget set" not in words and "Who was audited" not in words
