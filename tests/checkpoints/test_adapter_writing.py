"""A trained adapter lies on disk as PEFT's own, and an audit opens it as the model that was trained."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from audit.bench import (
    AdapterStack,
    Bench,
    LowRankForm,
    StackedLesson,
    StackedRows,
    StackLearner,
    TrainingRecipe,
    descend_stacked,
)
from audit.checkpoints import AdapterShape, on_base, resolve, write_adapter
from audit.edits import nll
from audit.schema import AuditError, Checkpoint, Read, Site, Source
from tests import toy

FORM = LowRankForm(rank=4, alpha=8.0, first=1)


def trained(bench: Bench, ckpt: Checkpoint) -> StackedRows:
    recipe = TrainingRecipe("toy", lambda _, rows, *__: nll(rows), steps=5, lr=0.02, batch=4, warmup_steps=2)
    stack = AdapterStack(bench.open(ckpt), FORM, [0, 1])
    lessons = [StackedLesson(toy.rows(6, seed=n), recipe) for n in range(2)]
    rows = StackedRows(stack, [lesson.rows for lesson in lessons])
    descend_stacked(rows, lessons)
    return rows


def shape_of(stack: AdapterStack) -> AdapterShape:
    return AdapterShape(FORM.rank, FORM.alpha, tuple(each.name for each in stack.maps), stack.transposed)


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_written_opens_as_the_model_that_was_trained(family: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    bench, base = Bench(), toy.checkpoint(family)
    rows = trained(bench, base)
    written = write_adapter(tmp_path / "taught", base, shape_of(rows.stack), rows.stack.tensors(1))
    assert written == resolve(on_base(base, tmp_path / "taught"), tmp_path)
    assert written.fingerprint != base.fingerprint
    assert sorted(path.name for path in (tmp_path / "taught").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    index = torch.arange(6)
    with torch.no_grad():
        live = StackLearner(rows, 1).answers(index).logprob
    score = Read(site=Site(part="logits"), reduce="logprob", at="answer")
    opened = bench.run(written, toy.rows(6, seed=1), [score])[score]
    assert torch.allclose(live, opened, atol=1e-5)
    assert not torch.allclose(live, bench.run(base, toy.rows(6, seed=1), [score])[score], atol=1e-2)
    model = AutoModelForCausalLM.from_pretrained(toy.folder(family))
    with torch.no_grad():
        theirs = peft.PeftModel.from_pretrained(model, tmp_path / "taught")(input_ids=toy.rows(6, seed=1).ids).logits
        row, place = toy.rows(6, seed=1).targets("answer")
        ids = toy.rows(6, seed=1).ids[row, place]
        theirs = theirs[row, place - 1].log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    assert torch.allclose(live, theirs, atol=1e-5)


def test_an_untrained_adapter_and_a_taken_folder_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    base = toy.checkpoint("llama")
    stack = AdapterStack(Bench().open(base), FORM, [0])
    with pytest.raises(AuditError, match="changes nothing"):
        write_adapter(tmp_path / "new", base, shape_of(stack), stack.tensors(0))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("mine")
    moved = {name: value + 1 for name, value in stack.tensors(0).items()}
    with pytest.raises(AuditError, match="is there already"):
        write_adapter(tmp_path / "there", base, shape_of(stack), moved)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = toy.checkpoint("llama")
    stack = AdapterStack(Bench().open(base), FORM, [0])
    moved = {name: value + 1 for name, value in stack.tensors(0).items()}

    def refusing(*_: object) -> None:
        raise AuditError("no space left", "make room", 3)

    monkeypatch.setattr("audit.checkpoints.adapter_writing.write_atomic", refusing)
    with pytest.raises(AuditError, match="no space left"):
        write_adapter(tmp_path / "new", base, shape_of(stack), moved)
    assert not list(tmp_path.iterdir())


def test_a_base_with_an_adapter_or_edits_of_its_own_takes_none() -> None:
    base = toy.checkpoint("llama")
    with pytest.raises(AuditError, match="has an adapter of its own"):
        on_base(base.model_copy(update={"adapter": "/somewhere"}), Path("/here"))
    assert on_base(base, Path("/here")) == Source(path=base.source, adapter="/here")


def test_the_config_says_what_peft_must_know(tmp_path: Path) -> None:
    base = toy.checkpoint("gpt2")
    stack = AdapterStack(Bench().open(base), FORM, [0])
    moved = {name: value + 1 for name, value in stack.tensors(0).items()}
    write_adapter(tmp_path / "new", base, shape_of(stack), moved)
    config = json.loads((tmp_path / "new" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (4, 8.0, True)
    assert all(name.startswith(("transformer.h.1.", "transformer.h.2.")) for name in config["target_modules"])
