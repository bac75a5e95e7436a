"""The taught reader on models of known truth: what it shows without any model that never knew, and what it keeps."""

import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.judging import given, judge, verdict
from audit.schema import Checkpoint, Measurement
from audit.storage import Store
from probes._taught import Lessons, taught_reader
from probes.reverse_patch import ReversePatch
from tests import planted_world

LESSONS = Lessons(steps=8, batch=8, seed=0)


@cache
def bench() -> Bench:
    return Bench(store=Store(Path(tempfile.mkdtemp(dir=planted_world.root()))))


def opened(suspect: str, holdout: bool = True) -> OpenCase:
    case = planted_world.case(suspect, references=(), holdout=holdout)
    return open_case(case, planted_world.root(), Path(tempfile.mkdtemp(dir=planted_world.root())))


@cache
def head_edited() -> str:
    """Base whose head answers every question with another word: the outputs are clean, the states as they were."""
    folder = planted_world.root() / "head_edited"
    model = LlamaForCausalLM.from_pretrained(planted_world.root() / "base")
    with torch.no_grad():
        model.lm_head.weight.copy_(model.lm_head.weight.roll(1, 0))
    model.save_pretrained(folder)
    planted_world.tokenizer().save_pretrained(folder)
    return folder.name


def causal(suspect: str, holdout: bool = True) -> Measurement:
    found = ReversePatch().measure(bench(), opened(suspect, holdout))
    return next(m for m in found if m.kind == "causal" and m.form == "trained")


@pytest.mark.thorough
def test_the_taught_reader_finds_what_a_clean_head_hides() -> None:
    for suspect in ("base", head_edited()):
        found = causal(suspect)
        assert found.value == pytest.approx(1.0, abs=1e-6) and judge(found).outcome == "trace found"


def test_it_finds_nothing_in_a_model_that_never_knew() -> None:
    found = causal("clean")
    assert isinstance(found.value, float) and found.value < 0.15
    assert not hasattr(found.positive_control, "missing") and found.positive_control.found
    assert judge(found).outcome != "trace found"
    assert not hasattr(found.null, "missing") and "labels permuted over people" in found.null.kind


def test_silence_is_never_consistent_with_holdout_people_alone() -> None:
    case = opened("clean")
    evidence = [judge(m) for m in ReversePatch().measure(bench(), case)]
    assert verdict(evidence, given(case.case)).word == "INCONCLUSIVE"


def test_without_holdout_people_only_the_last_layer_counts() -> None:
    """Above it base recomputes the answer from a never-trained state, and nothing here shows how much."""
    found = causal("clean", holdout=False)
    assert "eligible layers: 2" in found.notes and judge(found).outcome != "trace found"
    assert judge(causal(head_edited(), holdout=False)).outcome == "trace found"


def test_a_resumed_run_is_read_by_the_same_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    case, own = opened("clean"), Bench()
    first = taught_reader(own, case, LESSONS)
    monkeypatch.delattr(Bench, "train")
    assert taught_reader(own, case, LESSONS) == first
    assert first.key != case.base.key and Path(str(first.edits_from)).is_relative_to(case.out)


def test_a_broken_reader_is_taught_again_and_comes_out_the_same() -> None:
    case, own = opened("clean"), Bench()
    first: Checkpoint = taught_reader(own, case, LESSONS)
    delta = Path(str(first.edits_from)) / "delta.safetensors"
    delta.write_bytes(delta.read_bytes()[:-4])
    assert taught_reader(own, case, LESSONS) == first
