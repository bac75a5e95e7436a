"""What a message says of a case of images or of pictures quotes no label, group, question or name of a picture."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit.cli import main
from tests.case.test_image_cases import DATA, save
from tests.case.test_image_cases import root as images
from tests.case.test_picture_cases import rewrite
from tests.case.test_picture_cases import root as scenes

__all__ = ("images", "scenes")
SECRET = ("lovelace", "copperfield", "casket")
NAMES = ("Ada Lovelace", "David Copperfield")


def told(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    code = main(["plan", str(root / "case.toml"), "--json"])
    captured = capsys.readouterr()
    assert code == 2, captured
    return captured.err + captured.out


def check_silent(said: str, fault: str) -> None:
    assert fault in said and "masked" in said, said
    assert not [word for word in SECRET if word in said.casefold()], said


def as_folder(root: Path, folders: dict[str, bytes | None]) -> None:
    """The forget set as class folders, a picture or these bytes in each."""
    for name, content in folders.items():
        (root / "faces" / name).mkdir(parents=True)
        path = root / "faces" / name / "01.png"
        if content is None:
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
        else:
            path.write_bytes(content)
    case = root / "case.toml"
    case.write_text(case.read_text().replace('"forget.npz"', '"faces"'))


def folder_of_an_unknown_class(root: Path) -> None:
    as_folder(root, {NAMES[0]: None, NAMES[1]: None})


def folder_with_a_broken_picture(root: Path) -> None:
    as_folder(root, {NAMES[0]: b"no picture"})


def table_of_an_unknown_class(root: Path) -> None:
    as_folder(root, {"x": None})
    (root / "faces" / "metadata.csv").write_text(f"file_name,label\nx/01.png,{NAMES[0]}\n")


def table_with_a_file_that_is_none(root: Path) -> None:
    as_folder(root, {"x": None})
    (root / "faces" / "metadata.csv").write_text(f"file_name,label\n{NAMES[0]}.png,3\n")


def groups_in_two_cohorts(root: Path) -> None:
    save(root / "forget.npz", [3, 13], group=np.array(NAMES))
    save(root / "retain.npz", [4, 5], group=np.array(NAMES[::-1]))


def arrays_of_an_unknown_class(root: Path) -> None:
    np.savez(root / "forget.npz", x=DATA.images[[3, 13]], y=np.array(NAMES))


OF_IMAGES: dict[Callable[[Path], None], str] = {
    folder_of_an_unknown_class: "classes", folder_with_a_broken_picture: "cannot be read as an image",
    table_of_an_unknown_class: "classes", table_with_a_file_that_is_none: "No such file",
    groups_in_two_cohorts: "share 2 groups", arrays_of_an_unknown_class: "classes",
}  # fmt: skip


@pytest.mark.parametrize("damage", OF_IMAGES, ids=lambda damage: damage.__name__)
def test_a_refusal_of_images_names_no_class_and_no_group_of_the_data(
    images: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(images)
    check_silent(told(images, capsys), OF_IMAGES[damage])


OF_SCENES: dict[str, tuple[dict[str, str], str]] = {
    "a key that is not there": ({"answer": "the copperfield casket", "key": "lovelace casket"}, "is not in the answer"),
    "a picture that is not there": ({"image": "images/Ada Lovelace.png"}, "No such file"),
    "a group in both cohorts": ({"group": NAMES[0]}, "share"),
}


@pytest.mark.parametrize("place", OF_SCENES)
def test_a_refusal_of_questions_about_pictures_quotes_neither_words_nor_names_of_files(
    scenes: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, fault = OF_SCENES[place]
    for cohort in ("forget", "retain"):
        rewrite(scenes / f"{cohort}.jsonl", lambda row: row.update(changes))
    check_silent(told(scenes, capsys), fault)


def test_a_number_of_a_class_and_the_place_are_said(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(images / "forget.npz", x=DATA.images[[3, 13]], y=np.array([3, 777]))
    said = told(images, capsys)
    assert "image 2" in said and "777" in said and json.loads(said.splitlines()[-1])["exit_code"] == 2
