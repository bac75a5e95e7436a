"""A case of images, opened: rows of one target, disjoint cohorts, the checkpoint's own preprocessing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from audit.case import OpenCase, load_case, open_case
from audit.case.cohorts import Part
from audit.checkpoints import fingerprint
from audit.probing import n_blocks, width
from audit.schema import AuditError, Texts
from tests import image_toy

FORGET, RETAIN = Texts(cohort="forget"), Texts(cohort="retain")
DATA = image_toy.digits()


def save(path: Path, index: list[int], **others: object) -> None:
    np.savez(path, x=DATA.images[index], y=DATA.labels[index], **others)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A whole case in a folder, ready to be damaged."""
    for seed, role in enumerate(("base", "suspect", "reference")):
        shutil.copytree(image_toy.folder("vit", seed), tmp_path / role)
    save(tmp_path / "forget.npz", [3, 13, 23, 45])
    save(tmp_path / "retain.npz", list(range(4, 13)))
    (tmp_path / "case.toml").write_text(
        'name = "toy"\n[roles.base]\npath = "base"\n[roles.suspect]\npath = "suspect"\n'
        '[[roles.references]]\npath = "reference"\n[data]\nforget = "forget.npz"\nretain = "retain.npz"\n'
    )
    return tmp_path


def opened(root: Path) -> OpenCase:
    return open_case(load_case(root / "case.toml"), root, root / "out")


def test_an_image_is_a_row_of_one_target_with_its_pixels(root: Path) -> None:
    case = opened(root)
    rows, items = case.rows(FORGET), case.items(FORGET)
    assert [item.answer for item in items] == ["3"] * 4 and not any(item.question for item in items)
    assert rows.ids.tolist() == [[0, 3]] * 4 and bool(rows.mask.all())
    assert rows.answer_spans.tolist() == [[1, 2]] * 4 and rows.key.tolist() == [[False, True]] * 4
    expected = torch.from_numpy(DATA.images[[3, 13, 23, 45]] / 255 * 2 - 1).float()[:, None]
    torch.testing.assert_close(rows.extra["pixel_values"], expected)
    assert any("ViTImageProcessor" in note for note in case.notes)
    assert "forget: every image is a group of its own, so that 4 images count as 4" in case.notes
    assert n_blocks(case) == image_toy.N_BLOCKS and width(case.base) == image_toy.WIDTH


def test_other_classes_stand_against_an_image_s_own(root: Path) -> None:
    case = opened(root)
    others = [case.rows(texts) for texts in case.numbered(Texts(cohort="forget", answer="alternate"))]
    assert [rows.ids[:, 1].tolist() for rows in others] == [[n] * 4 for n in (4, 5, 6, 7)]
    assert all(torch.equal(r.extra["pixel_values"], case.rows(FORGET).extra["pixel_values"]) for r in others)
    assert case.items(RETAIN)[5].answer == "9" and case.items(RETAIN)[5].alternates == ("0", "1", "2", "3")
    again = case.rows_of(case.items(FORGET), ["8"] * 4)
    assert again.ids[:, 1].tolist() == [8] * 4


@pytest.mark.parametrize("part", ["audit", "calibration"])
def test_parts_and_folds_are_dealt_by_group(part: Part, root: Path) -> None:
    save(root / "forget.npz", [3, 13, 23, 45], group=["a", "a", "b", "b"])
    case = opened(root)
    assert len({item.group for item in case.items(FORGET, part)}) == 1
    assert [set(fold.group_ids) for fold in case.folds(FORGET, 2)] in ([{"a"}, {"b"}], [{"b"}, {"a"}])
    assert not any("group of its own" in note and note.startswith("forget") for note in case.notes)


def test_what_reads_texts_of_a_case_of_images_is_told_so(root: Path) -> None:
    with pytest.raises(AuditError, match="the items of this case are images, which no tokenizer reads"):
        _ = opened(root).tokenizer


def test_the_preprocessing_is_part_of_the_fingerprint(root: Path) -> None:
    before = fingerprint(root / "base").total
    path = root / "base" / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.5", "0.4"))
    assert fingerprint(root / "base").total != before


def test_class_names_of_the_config_are_the_answers(root: Path) -> None:
    for role in ("base", "suspect"):
        config = json.loads((root / role / "config.json").read_text())
        config["id2label"] = {str(n): f"digit {n}" for n in range(10)}
        config["label2id"] = {f"digit {n}": n for n in range(10)}
        (root / role / "config.json").write_text(json.dumps(config))
    case = opened(root)
    assert case.items(FORGET)[0].answer == "digit 3" and case.rows(FORGET).ids[0, 1] == 3
    np.savez(root / "forget.npz", x=DATA.images[[3]], y=["digit 3"])
    assert opened(root).rows(FORGET).ids[0, 1] == 3


# ---- faults ---------------------------------------------------------------------------------------------------------
def _edit(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def _toml(root: Path, old: str, new: str) -> None:
    (root / "case.toml").write_text((root / "case.toml").read_text().replace(old, new))


def _no_processor(root: Path) -> None:
    (root / "base" / "preprocessor_config.json").unlink()


def _other_size(root: Path) -> None:
    _edit(root / "base" / "preprocessor_config.json", size={"height": 6, "width": 6})


def _other_pixels(root: Path) -> None:
    _edit(root / "suspect" / "preprocessor_config.json", image_mean=[0.1])


def _unknown_processor(root: Path) -> None:
    _edit(root / "base" / "preprocessor_config.json", image_processor_type="NobodysProcessor")


def _fewer_classes(root: Path) -> None:
    shutil.rmtree(root / "suspect")
    net = image_toy.model("vit")
    net.config.num_labels, net.classifier = 3, torch.nn.Linear(image_toy.WIDTH, 3)
    net.save_pretrained(root / "suspect")
    image_toy.processor().save_pretrained(root / "suspect")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no processor": (_no_processor, "base: no image processor in base's folder"),
    "another size": (_other_size, r"makes images of \(1, 6, 6\), and the model takes \(1, 8, 8\)"),
    "other pixels": (_other_pixels, "suspect: its image processor makes other pixels than base's"),
    "unknown processor": (_unknown_processor, "base: its image processor cannot be loaded"),
    "other classes": (_fewer_classes, "suspect"),
    "class out of range": (
        lambda r: np.savez(r / "forget.npz", x=DATA.images[:2], y=[3, 10]),
        "forget.npz: image 2: '10' is none of the model's 10 classes",
    ),
    "image in two cohorts": (
        lambda r: save(r / "retain.npz", [4, 5, 13]), "forget and retain share 1 image .retain-3."
    ),
    "group in two cohorts": (
        lambda r: (save(r / "forget.npz", [3, 13], group=["a", "b"]), save(r / "retain.npz", [4], group=["b"])),
        "forget and retain share 1 group .b.",
    ),
    "rows as groups": (
        lambda r: _toml(r, 'retain = "retain.npz"', 'retain = "retain.npz"\ngroup_rows = 2'),
        "`group_rows` groups rows of texts",
    ),
    "a template": (
        lambda r: _toml(r, "[data]", '[template]\nprompt = "Q: {question}"\n[data]'),
        "words a prompt, and the items of this case are images",
    ),
    "a field of texts": (
        lambda r: _toml(r, 'retain = "retain.npz"', 'retain = "retain.npz"\n[data.fields]\nquestion = "q"'),
        "of images only id and answer .the label. can be named",
    ),
    "texts": (
        lambda r: ((r / "forget.jsonl").write_text("{}"), _toml(r, "forget.npz", "forget.jsonl")),
        "the model reads images, and the items of a case are texts",
    ),
    "an empty set": (
        lambda r: np.savez(r / "forget.npz", x=DATA.images[:0], y=DATA.labels[:0]), "the forget set is empty"
    ),
}  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_input_is_said_with_what_and_where(fault: str, root: Path) -> None:
    damage, words = FAULTS[fault]
    damage(root)
    with pytest.raises(AuditError, match=words) as caught:
        opened(root)
    assert caught.value.code == 2 and caught.value.do
    assert not (root / "out").exists()


def test_a_reference_without_a_processor_reads_base_s_pixels(root: Path) -> None:
    (root / "reference" / "preprocessor_config.json").unlink()
    assert len(opened(root).rows(FORGET)) == 4


def test_copies_of_an_image_under_several_groups_are_said(root: Path) -> None:
    save(root / "forget.npz", [3, 13, 3])
    assert "forget: 1 image is there before, in another group: what is one image counts twice" in opened(root).notes
