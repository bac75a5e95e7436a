"""What people see of an audit of questions about pictures: words and pictures masked alike, and shown beside each
other only where they are asked for."""

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray
from PIL import Image

from audit.case import asked_pictures
from audit.render import html, markdown
from audit.review import verify_run
from audit.runs import Imaged, Mask, Wanted, choose, export, key_of, unmasked
from audit.schema import Masked, Report, Shown
from tests import picture_toy
from tests.engine.test_image_pages import copied, files_of, held, terminal


@pytest.fixture(scope="module")
def pictures() -> dict[str, ndarray]:
    """The forget pictures by item."""
    folder, rows = picture_toy.taught_case().parent, picture_toy.read_rows(picture_toy.taught_case().parent, "forget")
    return {row["id"]: np.array(Image.open(folder / row["image"])) for row in rows}


def shown_here(monkeypatch: pytest.MonkeyPatch) -> Report:
    report, folder = picture_toy.taught_run()
    monkeypatch.chdir(folder.parent)
    return unmasked(report, folder)


@pytest.mark.thorough
def test_pages_count_pictures_and_speak_of_no_people_and_no_classes() -> None:
    report, _ = picture_toy.taught_run()
    assert not report.failures and {"forget_likelihood", "utility"} <= {e.measurement.probe for e in report.evidence}
    assert {e.measurement.unit_of_replication for e in report.evidence} <= {"picture", "sequence", "parameter"}
    for page in (markdown(report), html(report).partition("<script")[0], terminal(report)):
        assert "14 of 14 pictures of the forget set" in page
        assert not re.search(r"people of the forget set|Who (was audited|is known)", page)
    said = markdown(report).replace("\\", "")
    assert "asked of an image as the processor in base's folder leaves it" in said and "Forward tokens" in said
    [said] = [m.statistic for m in (e.measurement for e in report.evidence) if m.name == "probability"]
    assert "content tokens" in said, "a question has words for an answer, and no class"


def test_a_run_of_pictures_is_verified() -> None:
    assert not verify_run(picture_toy.taught_run().folder).problems


# ---- masks ------------------------------------------------------------------------------------------------------
def test_no_page_of_a_masked_run_holds_a_forget_picture_or_its_words(pictures: dict[str, ndarray]) -> None:
    report, folder = picture_toy.taught_run()
    files = files_of(folder)
    assert not {name: seen for name, data in files.items() if (seen := held(data, pictures))}
    pages = {name: data for name, data in files.items() if name.startswith("report.")}
    assert len(pages) >= 3 and not any(b"data:image/png" in data for data in files.values())
    words = {b"what color is the pet", b"forget picture ", b"images/forget"}
    assert not {(name, word) for name, data in pages.items() for word in words if word in data}
    quoted = [x for table in report.excerpts for x in table.items]
    assert quoted and all(x.picture is not None and not x.picture.png for x in quoted)
    assert all(isinstance(text, Masked) for x in quoted for text in (x.item, x.group, x.prompt, x.target, x.output))


def test_a_masked_picture_shows_a_mark_of_its_pixels(pictures: dict[str, ndarray]) -> None:
    report, folder = picture_toy.taught_run()
    mask = Mask(key_of(folder))
    by_item = {str(mask(name).mark): mask.image(pixels).mark for name, pixels in pictures.items()}
    table = next(t for t in report.excerpts if "utility" not in t.table)
    marks = {x.item.mark: x.picture.mark for x in table.items if isinstance(x.item, Masked) and x.picture is not None}
    assert marks and all(by_item[item] == image for item, image in marks.items())
    page = markdown(report)
    assert "Texts and images of the data are masked" in page and all(mark in page for mark in marks.values())


@pytest.mark.thorough
def test_an_unmasked_report_shows_each_picture_beside_its_question_and_answer(
    pictures: dict[str, ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = shown_here(monkeypatch)
    quoted = [x for table in report.excerpts for x in table.items]
    seen = 0
    for x in quoted:
        assert x.picture is not None and isinstance(x.item, Shown) and isinstance(x.prompt, Shown)
        assert x.prompt.text and x.target == Shown(text=x.target.text if isinstance(x.target, Shown) else "")
        if x.item.text in pictures:
            seen += 1
            decoded = np.array(Image.open(BytesIO(base64.b64decode(x.picture.png.partition(",")[2]))))
            np.testing.assert_array_equal(decoded, pictures[x.item.text])
    assert seen
    page = html(report)
    row = next(line for line in page.split("<tr>") if "what color is the pet" in line)
    assert '<img class="thumb"' in row and picture_toy.FORGOTTEN in row
    assert "texts and images of the data that a person or a law asked to be forgotten" in page
    export(report, tmp_path / "derived", Wanted())
    holding = {name for name, data in files_of(tmp_path / "derived").items() if held(data, pictures)}
    assert {"report.html", "report.json"} <= holding, "what is looked for in the masked run would be found"


def test_without_the_data_files_an_unmasked_report_says_that_its_pictures_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, folder = picture_toy.taught_run()
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "elsewhere" / "run"
    copied(folder, copy)
    shown = unmasked(report, copy)
    assert all(x.picture is not None and not x.picture.png for t in shown.excerpts for x in t.items)
    assert "Derive the report again where case.toml lies" in markdown(shown)
    assert "what color is the pet" in markdown(shown)


def test_a_changed_picture_is_not_shown_in_the_place_of_the_audited_one(tmp_path: Path) -> None:
    report, folder = picture_toy.taught_run()
    case, hashes = report.plan.case, report.plan.data_sha256
    copied(folder.parent / "images", tmp_path / "images")
    for name in ("forget.jsonl", "retain.jsonl"):
        (tmp_path / name).write_bytes((folder.parent / name).read_bytes())
    assert len(asked_pictures(case, hashes, [tmp_path / "nowhere", tmp_path])) == 56
    Image.fromarray(picture_toy.picture(99, "red")).save(tmp_path / "images" / "forget-3.png")
    assert not asked_pictures(case, hashes, [tmp_path])


def test_items_without_a_picture_are_quoted_without_one() -> None:
    report, folder = picture_toy.taught_run()
    mask, seed = Mask(key_of(folder)), report.plan.case.seed
    some = choose(report.evidence, folder, seed, mask, Imaged(lambda item: None))
    assert all(x.picture is None for table in some for x in table.items)
    mixed = report.model_copy(update={"excerpts": (report.excerpts[0], *some[1:])})
    assert "Image" in markdown(mixed) and html(mixed)
