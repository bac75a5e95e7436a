"""Before anything is audited, base must recall: more than the null does, else more than never-trained alternates."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.probing import check_recall, recall
from audit.probing.recollection import item_probabilities
from audit.probing.template_search import SCORE
from audit.schema import RECALL_LIFT, AuditError, Case, ExitCode, Roles, Source, Texts
from tests import planted_world, scene_case, toy


def opened(case: Case, tmp_path: Path) -> OpenCase:
    return open_case(case, planted_world.root(), tmp_path)


def with_roles(base: str, *references: str) -> Case:
    """A case with another base; nobody looks at the suspect here."""
    roles = Roles(
        base=Source(path=base), suspect=Source(path="floor"), references=tuple(Source(path=r) for r in references)
    )
    return planted_world.case("floor").model_copy(update={"roles": roles})


def nearly_base() -> str:
    """Base with one weight moved by a hair: another model to the hash, and it knows all that base knows."""
    folder = planted_world.root() / "nearly_base"
    if not folder.exists():
        shutil.copytree(planted_world.root() / "base", folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["lm_head.weight"][0, 0] += 1e-4
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder.name


def test_base_recalls_more_than_the_null(tmp_path: Path) -> None:
    found = check_recall(Bench(), opened(planted_world.case("clean"), tmp_path))
    assert found.base > 0.8 and found.against < 0.4 and found.what == "the null (reference)"


def test_without_a_null_alternates_stand_in(tmp_path: Path) -> None:
    found = check_recall(Bench(), opened(planted_world.case("clean", references=()), tmp_path))
    assert found.base > 0.8 and found.against < 0.1 and "alternates" in found.what


def test_an_item_counts_by_the_mean_over_its_keys_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, token by token: a key of three tokens is no less probable than one of one for having three."""
    rows = toy.rows()
    scores = -torch.rand(int(rows.key.sum()), generator=torch.Generator().manual_seed(0)) * 3
    assert len(set(rows.key.sum(1).tolist())) > 1, "keys of several lengths"
    monkeypatch.setattr(OpenCase, "rows", lambda *_: rows)
    monkeypatch.setattr(Bench, "run", lambda *_: {SCORE: scores})
    case, given = opened(planted_world.case("clean"), tmp_path), iter(scores.tolist())
    keys = ([next(given) for _ in range(n)] for n in rows.key.sum(1).tolist())
    expected = [math.exp(sum(tokens) / len(tokens)) for tokens in keys]
    assert item_probabilities(Bench(), case.base, case, Texts(cohort="forget")) == pytest.approx(expected)


@pytest.mark.parametrize(("base", "reference"), [("clean", "null"), ("base", "nearly_base")])
def test_a_base_that_recalls_no_more_than_the_null_is_blind_here(base: str, reference: str, tmp_path: Path) -> None:
    """A base that never knew; and one that knows, beside a reference that was not trained without the facts at all."""
    nearly_base()
    bench, case = Bench(), opened(with_roles(base, reference), tmp_path)
    with pytest.raises(AuditError, match="blind here") as caught:
        check_recall(bench, case)
    assert caught.value.code == ExitCode.UNDECIDED
    found = recall(bench, case)
    assert found.base - found.against < RECALL_LIFT
    assert (found.base > 0.8) == (base == "base")


def test_untrained_models_recall_nothing_of_pictures_and_no_other_template_is_tried() -> None:
    """A picture stands in the prompt, which templates are not searched for."""
    with pytest.raises(AuditError, match="blind here") as caught:
        check_recall(Bench(), scene_case.opened("llava_clip"))
    assert caught.value.code == ExitCode.UNDECIDED and "most likely trained with" not in caught.value.do
