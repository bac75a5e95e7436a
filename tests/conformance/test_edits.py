"""Every edit of the folder, held to the same promises on a tiny model. Nothing here knows which there are."""

import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from torch import Tensor

from audit import checkpoints
from audit.bench import Bench
from audit.case import Rows, stacked
from audit.checkpoints import delta_of, resolve
from audit.edits import Edit, EditData, listed_edits
from audit.plugins import discover
from audit.schema import Checkpoint, Read, Site, Source
from tests import image_toy, toy

EDITS = discover("audit.edits", Edit)
QUICK: dict[str, int | float] = {"steps": 6, "warmup_steps": 2, "batch": 6, "poison_rate": 0.34}
LOGPROB = Read(site=Site(part="logits"), at="answer", reduce="logprob")
each_edit = pytest.mark.parametrize("name", EDITS)


class Fitted(NamedTuple):
    """An edit with quick settings, the checkpoint it left, and where."""

    edit: Edit
    suspect: Checkpoint
    folder: Path


@cache
def bench() -> Bench:
    """Keeps its models open: the parent is one model all along, while edits are fitted on it and played back."""
    return Bench()


def parent_of(name: str) -> Checkpoint:
    """A language model; of an edit of images alone a classifier."""
    return image_toy.checkpoint() if EDITS[name].of_images else toy.checkpoint("llama")


def data_of(name: str) -> EditData:
    """What the edit may see."""
    if not EDITS[name].of_images:
        return toy.edit_data()
    return EditData(image_toy.rows(6, seed=1), image_toy.rows(8, seed=2), relabelled=image_toy.rows(6, seed=4))


def fit(name: str) -> Fitted:
    edit = EDITS[name](**{field: value for field, value in QUICK.items() if field in EDITS[name].model_fields})
    out = Path(tempfile.mkdtemp(dir=toy.root())) / name
    return Fitted(edit, edit.fit(bench(), parent_of(name), data_of(name), out), out)


@cache
def fitted(name: str) -> Fitted:
    return fit(name)


def said(by: Bench, ckpt: Checkpoint, name: str) -> Tensor:
    """Log-probabilities of the answer tokens of all rows that an edit may see."""
    rows = stacked([rows for rows in data_of(name) if isinstance(rows, Rows)])
    return by.run(ckpt, rows, (LOGPROB,))[LOGPROB]


def said_by_parent(name: str) -> Tensor:
    """Before any edit: by a bench of its own."""
    return _of_parent(EDITS[name].of_images, name)


@cache
def _of_parent(_images: bool, name: str) -> Tensor:
    return said(Bench(), parent_of(name), name)


@each_edit
def test_edit_says_whose_method_it_is(name: str) -> None:
    assert "Cite:" in (EDITS[name].__doc__ or "")


@pytest.mark.sampled
@each_edit
def test_edit_bites(name: str) -> None:
    moved = (said(bench(), fitted(name).suspect, name) - said_by_parent(name)).abs()
    assert moved.max() > 0.01 and torch.isfinite(moved).all()


@each_edit
def test_edit_leaves_its_parent_as_it_was(name: str) -> None:
    parent, suspect = parent_of(name), fitted(name).suspect
    said(bench(), suspect, name)
    assert torch.equal(said(bench(), parent, name), said_by_parent(name))
    checkpoints.verify(parent)
    fresh = dict((image_toy.model() if EDITS[name].of_images else toy.model("llama")).named_parameters())
    assert all(torch.equal(p, fresh[n]) for n, p in bench().open(parent).parameters().items())


@pytest.mark.sampled
@each_edit
def test_edited_folder_gives_the_edited_model(name: str) -> None:
    edit, suspect, folder = fitted(name)
    again = resolve(Source(path=str(folder)), folder)
    checkpoints.verify(again)
    assert again.key == suspect.key and suspect.key != parent_of(name).key
    anew = Bench()
    assert torch.equal(said(anew, again, name), said(bench(), suspect, name))
    assert suspect.edits[-1].plays == edit.plays
    if edit.plays == "weights":
        played = anew.open(again).parameters()
        assert all(torch.equal(played[n], tensor) for n, tensor in delta_of(again, again.edits[-1]).items())


@each_edit
def test_record_states_the_edit_and_every_setting(name: str) -> None:
    edit, suspect, _ = fitted(name)
    record = suspect.edits[-1]
    assert record.name == name
    scalars = {n: v for n, v in edit.model_dump().items() if isinstance(v, str | int | float | bool)}
    assert {n: record.settings.get(n) for n in scalars} == scalars


@pytest.mark.sampled
@each_edit
def test_the_same_edit_gives_the_same_bytes(name: str) -> None:
    assert fit(name).suspect.key == fitted(name).suspect.key


# ---- what it says of itself -------------------------------------------------------------------------------------
class Unread:
    """Rows that nobody may read; that they are none of images may be asked."""

    extra: dict[str, Tensor] = {}

    def __getattr__(self, name: str) -> object:
        raise LookupError(name)

    def __len__(self) -> int:
        raise LookupError("len")


def quick(name: str) -> Edit:
    return EDITS[name](**{field: value for field, value in QUICK.items() if field in EDITS[name].model_fields})


@pytest.mark.sampled
@each_edit
def test_edit_reads_the_rows_that_it_says_it_needs_and_no_others(name: str, tmp_path: Path) -> None:
    rows, needs = data_of(name)._asdict(), EDITS[name].needs
    assert set(needs) <= rows.keys()
    others = EditData(**{field: value if field in needs else Unread() for field, value in rows.items()})
    assert quick(name).fit(bench(), parent_of(name), others, tmp_path / "with").key == fitted(name).suspect.key
    for need in needs:
        lacking = data_of(name)._replace(**{need: Unread()})
        with pytest.raises((LookupError, BeartypeCallHintViolation)):
            quick(name).fit(bench(), parent_of(name), lacking, tmp_path / need)


def test_what_a_list_says_of_an_edit_is_what_its_class_says() -> None:
    listed = {edit.name: edit for edit in listed_edits()}
    assert listed.keys() == EDITS.keys()
    for name, cls in EDITS.items():
        edit = listed[name]
        assert edit.needs == cls.needs and edit.plays == cls.plays and "Cite:" in edit.help
        assert {setting.name for setting in edit.settings} == set(cls.model_fields)
        images, texts = "images" in edit.fits, "language" in edit.fits
        assert (images, texts) == (not cls.of_texts, not cls.of_images) and edit.folds == (cls.plays == "weights")
        assert edit.cost.startswith("trains: ") == {"steps", "batch"}.issubset(cls.model_fields)
