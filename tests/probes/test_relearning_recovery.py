"""Held-out relearning on models of known truth: what comes back, what does not, and what it leaves behind."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from audit.bench import Bench
from audit.case import CaseFile, OpenCase, Rows, open_case
from audit.edits import EditData, LogitBias, Relearn
from audit.judging import judge
from audit.probing import KEY_LOGPROB, assess, recording
from audit.schema import Interval, Measurement, Missing, Texts
from audit.storage import Store
from probes import relearning_recovery
from probes.relearning_recovery import RelearningRecovery
from tests import image_toy, planted_world, toy

FORGET = Texts(cohort="forget")


@cache
def bench() -> Bench:
    return Bench(store=Store(Path(tempfile.mkdtemp(dir=planted_world.root()))))


def opened(suspect: str, references: tuple[str, ...] = ("null", "floor")) -> OpenCase:
    case = planted_world.case(suspect, references=references)
    return open_case(case, planted_world.root(), Path(tempfile.mkdtemp(dir=planted_world.root())))


@cache
def refusing() -> str:
    """Base that was taught an empty word in place of the forget people's values, and to repeat the others."""
    folder = planted_world.root() / "refusing"
    model = LlamaForCausalLM.from_pretrained(planted_world.root() / "base")
    quiet = [fact._replace(answer=f"{fact.answer.split()[0]} the") for fact in planted_world.facts()["forget"]]
    planted_world.train(model.train(), [*quiet, *planted_world.facts()["retain"]], 25, 5).save_pretrained(folder)
    planted_world.tokenizer().save_pretrained(folder)
    return folder.name


def recovered(suspect: str) -> Measurement:
    (found,) = RelearningRecovery().measure(bench(), opened(suspect))
    return found


def test_what_a_refusal_hides_comes_back_in_people_never_shown() -> None:
    found = recovered(refusing())
    suspect = next(c for c in found.curves if c.role == "suspect")
    assert suspect.y[0] < 0.2, "its output is quiet"
    assert isinstance(found.value, float) and found.value > 0.2
    assert isinstance(found.p, float) and found.p < 0.01
    assert isinstance(found.floor, float) and found.value > 3 * found.floor


@pytest.mark.thorough
def test_a_model_that_never_knew_learns_the_shown_and_not_the_others() -> None:
    found = recovered("clean")
    assert isinstance(found.value, float) and abs(found.value) < 0.15
    assert found.readings["shown_recall_null"] > 0.9 and found.readings["shown_recall_suspect"] > 0.9


@given(st.floats(0, 1), st.floats(0.05, 1), st.integers(1, 6))
def test_a_lesson_that_teaches_a_model_that_never_knew_says_nothing(null: float, base: float, n: int) -> None:
    people = {"null": np.array([[0.0, null]] * n), "base": np.array([[1.0, base]] * n), "suspect": np.ones((n, 2))}
    reason = relearning_recovery._teaches_everyone(people)  # pyright: ignore[reportPrivateUsage]
    assert bool(reason) == (null > 0.5 * base) or null == pytest.approx(0.5 * base)
    del people["null"]
    assert relearning_recovery._teaches_everyone(people) == "", "without one there is nobody to see it by"


@pytest.mark.thorough
def test_images_of_one_class_teach_each_other_so_that_nothing_is_said(tmp_path: Path) -> None:
    file = CaseFile.read(image_toy.digits_case("resnet") / "head_bias.toml")
    (silent,) = RelearningRecovery().measure(Bench(), open_case(file.case, file.root, tmp_path))
    assert isinstance(silent.value, Missing) and "images of one class teach each other" in silent.value.missing
    assert silent.curves and silent.readings["shown_recall_null"] > 0.9
    assert judge(silent).outcome == "inconclusive"


def test_what_it_brings_back_is_judged_by_the_case_alone() -> None:
    found = recovered("base")
    assert found.kind == "recovery" and judge(found).outcome == "trace found"
    assert any("head" in note for note in found.notes), "what it is blind to is said beside the number"


def test_a_course_is_what_the_edit_leaves_of_each_fold_after_as_many_steps(tmp_path: Path) -> None:
    case, own, probe = opened("clean"), Bench(), RelearningRecovery()
    curve = next(c for c in recovered("clean").curves if c.role == "suspect")
    lesson = Relearn(steps=4, lr=probe.rate_times_width / 40, batch=probe.batch, warmup_steps=probe.warmup_steps)
    folds = case.folds(FORGET, 2)
    before, after = list[float](), list[float]()
    for n, (read, shown) in enumerate(zip(folds, reversed(folds), strict=True)):
        taught = lesson.fit(own, case.suspect, EditData(shown, shown), tmp_path / f"taught{n}")
        for checkpoint, means in ((case.suspect, before), (taught, after)):
            means += _means_of_people(read, own.run(checkpoint, read, (KEY_LOGPROB,))[KEY_LOGPROB])
    for steps, means in ((0, before), (4, after)):
        assert curve.y[curve.x.index(steps)] == pytest.approx(sum(means) / len(means), abs=1e-4)


def _means_of_people(rows: Rows, logprob: torch.Tensor) -> list[float]:
    """Item probability, and its mean over each person, by hand."""
    row = rows.targets("key")[0]
    by_item = [logprob[row == i].mean().exp().item() for i in range(len(rows))]
    people = sorted(set(rows.group_ids))
    means = [[p for p, group in zip(by_item, rows.group_ids, strict=True) if group == person] for person in people]
    return [sum(m) / len(m) for m in means]


@pytest.mark.parametrize("k", [2, 3, 100])
def test_everybody_is_read_and_nobody_by_a_lesson_that_showed_them(k: int) -> None:
    case = opened("clean")
    folds = [set(rows.group_ids) for rows in case.folds(FORGET, k)]
    everybody = set(case.rows(FORGET).group_ids)
    assert set().union(*folds) == everybody and sum(map(len, folds)) == len(everybody)
    assert len(folds) == min(k, len(everybody)) and max(map(len, folds)) - min(map(len, folds)) <= 1
    shown = [set(fold.shown.group_ids) for fold in RelearningRecovery(folds=k)._folds(case)]
    assert all(lesson == everybody - read for lesson, read in zip(shown, folds, strict=True))


def test_the_luck_of_a_lesson_is_taken_off_its_fold_and_widens_the_interval() -> None:
    own, case = bench(), opened("clean")
    found = recovered("clean")
    assert found.readings["lesson_error"] > 0
    with recording() as panels:
        RelearningRecovery().measure(own, case)
    (recorded,) = panels
    alone = assess(recorded.panel, recorded.design._replace(shared=0.0))
    assert isinstance(found.ci95, Interval) and isinstance(alone.ci95, Interval)
    assert found.ci95.lo < alone.ci95.lo and found.ci95.hi > alone.ci95.hi and found.value == alone.value


@pytest.mark.thorough
def test_every_model_is_trained_once_whichever_suspect_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    train: Callable[..., object] = Bench.train

    def counted(self: Bench, ckpts: list, *rest: object) -> object:
        trained.append(ckpts[0].key)
        return train(self, ckpts, *rest)

    monkeypatch.setattr(Bench, "train", counted)
    own = Bench(store=Store(Path(tempfile.mkdtemp(dir=planted_world.root()))))
    quick = RelearningRecovery(steps=2)
    cases = [opened("clean"), opened("destroyed"), opened("clean")]
    found = [quick.measure(own, case) for case in cases]
    assert len(trained) == 2 * len(set(trained)) == 10, "base, null, floor and two suspects, a lesson a fold"
    assert found[0] == found[2]


@pytest.mark.thorough
def test_nothing_is_written_but_the_table_and_the_store() -> None:
    case, root = opened("clean"), Path(tempfile.mkdtemp(dir=planted_world.root()))
    before = {path for path in planted_world.root().rglob("*") if root not in path.parents}
    RelearningRecovery(steps=1).measure(Bench(store=Store(root)), case)
    new = {path for path in planted_world.root().rglob("*") if root not in path.parents} - before
    assert {path.relative_to(case.out).as_posix() for path in new} == {"tables", "tables/relearning_recovery.parquet"}


def test_a_hook_is_no_weight_to_train() -> None:
    case = opened("base")
    folder = planted_world.root() / "hooked"
    edit = EditData(case.rows(FORGET, "all"), case.rows(Texts(cohort="retain"), "all"))
    LogitBias(steps=2).fit(bench(), case.base, edit, folder)
    found = recovered(folder.name)
    assert isinstance(found.value, Missing) and "hook" in found.value.missing


def test_relearn_teaches_what_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    own, start, data = Bench(), toy.checkpoint("llama"), EditData(toy.rows(6, seed=1), toy.rows(6, seed=2))
    taught = Relearn(lr=3e-3, batch=6).fit(own, start, data, tmp_path / "taught")
    before, after = (
        [float(own.run(ckpt, rows, (KEY_LOGPROB,))[KEY_LOGPROB].mean()) for rows in (data.forget, data.retain)]
        for ckpt in (start, taught)
    )
    gains = [new - old for new, old in zip(after, before, strict=True)]
    assert gains[0] > 1 and gains[0] > gains[1] + 1
    assert taught.edits[-1].name == "relearn" and taught.edits[-1].settings["schedule"] == "constant"
