"""What people see of an audit of images: its nouns, its marks, and small pictures only where they are asked for."""

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray
from PIL import Image
from pyarrow import parquet
from rich.console import Console

from audit.case import load_case, open_case, stored_pictures
from audit.planning import Planner
from audit.probing import Op
from audit.render import html, markdown, summary
from audit.review import verify_run
from audit.runs import Mask, Wanted, export, key_of, thumbnail, unmasked
from audit.schema import DataFiles, Pictured, Report, Shown
from audit.wording import GROUP, IMAGE
from tests import image_toy

OF_PEOPLE = re.compile(r"[^\n.|]*\b(?:people|persons?|nobody|everybody)\b[^\n.|]*", re.IGNORECASE)
OF_OTHERS = ("who answer for this report", "shared by learned texts", "nobody knew", "a person or a law")
"""Where people are meant: those who sign, those who ask, and a probe of texts that did not run."""


@pytest.fixture(scope="module")
def images() -> dict[str, ndarray]:
    """The forget images by item."""
    pixels = np.load(image_toy.digits_case() / "forget.npz")["x"]
    return {f"forget-{n}": image for n, image in enumerate(pixels, 1)}


def terminal(report: Report) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(summary(report))
    return console.export_text()


# ---- words ------------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_no_page_of_an_audit_of_images_speaks_of_people() -> None:
    report, _ = image_toy.digits_run()
    for page in (markdown(report), html(report).partition("<script")[0], terminal(report)):
        left = [x for x in OF_PEOPLE.findall(page) if not any(words in x for words in OF_OTHERS)]
        assert not left
    assert "40 of 40 images of the forget set" in terminal(report)
    assert {e.measurement.unit_of_replication for e in report.evidence} <= {"image", "sequence", "parameter"}
    assert "{question}" not in markdown(report).replace("\\", "") and "Forward patches" in markdown(report)
    assert "sign flips over images" in markdown(report)


def test_verification_judges_images_by_their_own_floors() -> None:
    assert not verify_run(image_toy.digits_run().folder).problems


def test_images_that_come_in_groups_are_counted_as_groups(tmp_path: Path) -> None:
    case_file = image_toy.digits_case() / "head_bias.toml"
    case = load_case(case_file)
    assert open_case(case, case_file.parent, tmp_path).replicate is IMAGE
    data = {cohort: np.load(case_file.parent / f"{cohort}.npz") for cohort in ("forget", "retain")}
    for cohort, arrays in data.items():
        names = [f"{cohort} {n // 2}" for n in range(len(arrays["x"]))]
        np.savez(tmp_path / f"{cohort}.npz", x=arrays["x"], y=arrays["y"], group=np.array(names))
    files = {cohort: str(tmp_path / f"{cohort}.npz") for cohort in data}
    grouped = open_case(case.model_copy(update={"data": DataFiles.model_validate(files)}), case_file.parent, tmp_path)
    assert grouped.replicate is GROUP
    questions = {test.probe: test.question for test in Planner(grouped, frozenset(Op)).plan.tests}
    assert "classes of some groups" in questions["relearning_recovery"]


# ---- masks ------------------------------------------------------------------------------------------------------
def held(data: bytes, images: dict[str, ndarray]) -> list[str]:
    """The images that some bytes hold: as pixels, as floats, as decimals, or as a small picture."""
    present: list[str] = []
    for name, image in images.items():
        flat = image.reshape(-1)
        floats = (flat / 255 * 2 - 1).astype(np.float32)
        forms = (
            flat.tobytes(), floats.tobytes(), floats.astype(np.float64).tobytes(), flat.tobytes().hex().encode(),
            ",".join(map(str, flat)).encode(), ", ".join(map(str, flat)).encode(),
            thumbnail(image).partition(",")[2].encode(), base64.b64decode(thumbnail(image).partition(",")[2]),
            base64.b64encode(flat.tobytes()).rstrip(b"="),
        )  # fmt: skip
        present += [name] if any(form in data for form in forms) else []
    return present


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path; tables as their columns too, which are packed in the file."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in [name for name in files if name.endswith(".parquet")]:
        files[f"{name} unpacked"] = repr(parquet.read_table(folder / name).to_pydict()).encode()
    return files


@pytest.mark.thorough
def test_no_file_of_a_masked_run_holds_a_forget_image_in_any_form(images: dict[str, ndarray]) -> None:
    report, folder = image_toy.digits_run()
    files = files_of(folder)
    assert len(files) > 20 and {"report.html", "report.md", "report.json", "plan.json"} <= files.keys()
    assert not {name: seen for name, data in files.items() if (seen := held(data, images))}
    assert not any(b"data:image/png" in data for data in files.values())
    prompts = [x.prompt for table in report.excerpts for x in table.items]
    assert prompts and all(isinstance(prompt, Pictured) and not prompt.png for prompt in prompts)


def test_a_masked_image_shows_a_mark_of_its_pixels_and_its_class_but_no_id(images: dict[str, ndarray]) -> None:
    report, folder = image_toy.digits_run()
    mask = Mask(key_of(folder))
    marks = {mask.image(image).mark for image in images.values()}
    assert len(marks) == len({image.tobytes() for image in images.values()})
    table = next(x for x in report.excerpts if "utility" not in x.table)
    assert {x.prompt.mark for x in table.items if isinstance(x.prompt, Pictured)} <= marks
    assert {x.target for x in table.items} == {Shown(text=str(image_toy.FORGOTTEN))}
    assert not re.search(r"forget-\d", markdown(report)), "an id is masked, as it is in texts"


@pytest.mark.thorough
def test_an_unmasked_report_shows_each_image_as_it_is(
    images: dict[str, ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, folder = image_toy.digits_run()
    monkeypatch.chdir(image_toy.digits_case())
    shown = unmasked(report, folder)
    seen = {x.item.text: x.prompt.png for table in shown.excerpts for x in table.items
            if isinstance(x.item, Shown) and isinstance(x.prompt, Pictured)}  # fmt: skip
    retained = np.load("retain.npz")["x"]
    everything = images | {f"retain-{n}": image for n, image in enumerate(retained, 1)}
    assert any(name.startswith("retain") for name in seen) and any(name.startswith("forget") for name in seen)
    for name, png in seen.items():
        decoded = np.array(Image.open(BytesIO(base64.b64decode(png.partition(",")[2]))))
        np.testing.assert_array_equal(decoded, everything[name])
    export(shown, tmp_path / "derived", Wanted())
    holding = {name for name, data in files_of(tmp_path / "derived").items() if held(data, images)}
    assert {"report.html", "report.json"} <= holding, "what is looked for in the masked run would be found"
    assert "images of the data that a person or a law asked to be forgotten" in html(shown)


def test_without_the_data_files_an_unmasked_report_says_that_its_images_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, _ = image_toy.digits_run()
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "elsewhere" / "run"
    copied(image_toy.digits_run().folder, copy)
    shown = unmasked(report, copy)
    assert not any(x.prompt.png for t in shown.excerpts for x in t.items if isinstance(x.prompt, Pictured))
    assert "Derive the report again where case.toml lies" in markdown(shown)


def copied(source: Path, target: Path) -> None:
    for name, data in ((p.relative_to(source), p.read_bytes()) for p in source.rglob("*") if p.is_file()):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)


@pytest.mark.parametrize("side", [1, 8, 63, 64, 65, 200])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_a_small_picture_has_at_most_64_pixels_a_side(side: int, channels: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, 2 * side, *channels), dtype=np.uint8)
    small = Image.open(BytesIO(base64.b64decode(thumbnail(pixels).partition(",")[2])))
    assert max(small.size) == min(2 * side, 64) and small.format == "PNG"


# ---- images found again -----------------------------------------------------------------------------------------
def test_images_found_again_have_the_ids_of_the_case(tmp_path: Path) -> None:
    case_file = image_toy.digits_case() / "head_bias.toml"
    pixels = np.load(case_file.parent / "forget.npz")["x"]
    for cohort, chosen in (("forget", slice(0, 4)), ("retain", slice(4, 9))):
        these = pixels[chosen]
        ids = np.array([f"n{n}" for n in range(len(these))])
        np.savez(tmp_path / f"{cohort}.npz", x=these, y=np.full(len(these), 3), id=ids)
    data = DataFiles(forget="forget.npz", retain="retain.npz")
    case = load_case(case_file)
    absolute = {"forget": str(tmp_path / "forget.npz"), "retain": str(tmp_path / "retain.npz")}
    moved = case.model_copy(update={"data": DataFiles.model_validate(absolute)})
    opened = open_case(moved, case_file.parent, tmp_path / "out")
    again = stored_pictures(data, dict(opened.data_sha256), [tmp_path / "nowhere", tmp_path])
    assert again.keys() == opened.pictures.keys() and "retain-n0" in again
    assert all((again[name] == opened.pictures[name]).all() for name in again)


def test_only_data_that_hash_as_stated_are_found_and_none_outside_where_that_is_asked(tmp_path: Path) -> None:
    source = image_toy.digits_case()
    (tmp_path / "runs").mkdir()
    for cohort in ("forget", "retain"):
        (tmp_path / f"{cohort}.npz").write_bytes((source / f"{cohort}.npz").read_bytes())
    report, _ = image_toy.digits_run()
    data, sha256 = DataFiles(forget="../forget.npz", retain="../retain.npz"), report.plan.data_sha256
    assert stored_pictures(data, sha256, [tmp_path / "runs"])
    assert not stored_pictures(data, sha256, [tmp_path / "runs"], inside=True)
    (tmp_path / "runs" / "forget.npz").symlink_to(tmp_path / "forget.npz")
    (tmp_path / "runs" / "retain.npz").symlink_to(tmp_path / "retain.npz")
    linked = DataFiles(forget="forget.npz", retain="retain.npz")
    assert not stored_pictures(linked, sha256, [tmp_path / "runs"], inside=True)
    assert not stored_pictures(linked, {**sha256, "forget": "0" * 64}, [tmp_path])
