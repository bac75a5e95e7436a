"""What ``auto`` stands for: the device that is there, the type in which the weights lie."""

import logging
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audit import checkpoints
from audit.planning import RunSettings, make_bench
from audit.planning.settings import Step, best_device, unwatched
from audit.schema import AuditError, Checkpoint, ExitCode, Source
from tests import toy


def saved_as(folder: Path, dtype: torch.dtype, norms: torch.dtype) -> Checkpoint:
    """The toy llama with its matrices in one type and its vectors in another."""
    toy.model("llama", 0, dtype).save_pretrained(folder)
    file = folder / "model.safetensors"
    tensors = {n: t.to(dtype if t.ndim > 1 else norms) for n, t in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    return checkpoints.resolve(Source(path=str(folder)), folder)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_opened_in_the_type_in_which_they_lie(stored: torch.dtype) -> None:
    bench = make_bench(RunSettings(), [toy.checkpoint("llama", 0, stored)])
    wrapper = bench.open(toy.checkpoint("llama", 0, stored))
    assert bench.dtype == str(stored).removeprefix("torch.") and wrapper.dtype == stored
    file = load_file(toy.folder("llama", 0, stored) / "model.safetensors")
    assert all(torch.equal(wrapper.parameters()[name], tensor) for name, tensor in file.items())


def test_models_in_different_types_are_opened_in_one_that_rounds_none_of_them() -> None:
    half = (toy.checkpoint("llama", 0, torch.bfloat16), toy.checkpoint("llama", 1, torch.float16))
    assert RunSettings().settled(half).dtype == "float32"
    assert RunSettings().settled((*half[:1], toy.checkpoint("llama"))).dtype == "float32"
    assert RunSettings().settled().dtype == "float32"
    assert RunSettings(dtype="float16").settled(half).dtype == "float16"


def test_norms_that_are_kept_wider_do_not_widen_the_matrices(tmp_path: Path) -> None:
    assert RunSettings().settled([saved_as(tmp_path, torch.bfloat16, torch.float32)]).dtype == "bfloat16"


def test_what_is_recorded_is_what_was_chosen() -> None:
    settled = RunSettings().settled([toy.checkpoint("llama", 0, torch.bfloat16)])
    assert settled.conditions == ["native", best_device(), "bfloat16", "default"]
    assert pickle.loads(pickle.dumps(settled)) == settled
    bench = make_bench(RunSettings())
    assert (bench.device, bench.dtype) == (best_device(), "float32")
    assert RunSettings().of_bench(bench).conditions == [*bench.settings]


def test_what_trains_in_half_precision_loses_no_small_steps() -> None:
    """A copy to be trained holds the weights in float32; what is written is in the type of the model."""
    ckpt = toy.checkpoint("llama", 0, torch.bfloat16)
    bench = make_bench(RunSettings(), [ckpt])
    fresh = bench.pool.fresh(ckpt)
    assert fresh.dtype == torch.float32
    assert all(torch.equal(p, fresh.parameters()[n].bfloat16()) for n, p in bench.open(ckpt).parameters().items())


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, False, "cuda")],
)
def test_the_best_device_is_the_first_that_is_there(
    cuda: bool, mps: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device() == RunSettings().settled().device == device
    assert RunSettings(device="meta").settled().device == "meta"


def test_a_device_that_is_not_there_is_refused_with_the_first_line_of_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(*_: object, **how: object) -> None:
        raise RuntimeError(f"no {how['device']}\nand a long story")

    monkeypatch.setattr(torch, "empty", absent)
    with pytest.raises(AuditError, match=r"there is no device 'mtia' here: no mtia;|here: no mtia$|no mtia") as caught:
        make_bench(RunSettings(device="mtia"))
    assert "long story" not in str(caught.value) and caught.value.code == ExitCode.INPUT


def test_memory_needs_something_that_spreads_and_a_map_needs_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuditError, match="nothing spreads them"):
        RunSettings(device="cpu", max_memory="2G").placement()
    spread = RunSettings(device="cpu", max_memory="2G", device_map="auto").placement()
    assert (spread.device_map, spread.memory, spread.ranks) == ("auto", (("cpu", 2_000_000_000),), 1)
    assert RunSettings(device="cpu", device_map="auto").placement().memory == ()
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(AuditError, match="torchrun over ranks"):
        RunSettings(device="cpu", device_map="auto").placement()
    assert RunSettings(device="cpu").placement().ranks == 2


def test_nothing_is_fetched_forced_or_forgiven_unasked() -> None:
    plain = RunSettings()
    assert plain.conditions == ["native", "auto", "auto", "default"]
    assert not (plain.online or plain.force_new or plain.demo or plain.allow_undecided)
    assert plain.store is plain.threads is plain.max_time is plain.max_mem is plain.calibrations is None


def test_where_models_lie_is_settled_by_the_first_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def settled(placement: object, checkpoint: Checkpoint, dtype: str) -> object:
        asked.append((checkpoint, dtype))
        return placement

    monkeypatch.setattr("audit.wrappers.settled_placement", settled)
    base, other = toy.checkpoint("llama", 0), toy.checkpoint("llama", 1)
    make_bench(RunSettings(device="cpu", dtype="float32"), [base, other])
    make_bench(RunSettings(device="cpu", dtype="float32"))
    assert asked == [(base, "float32")]


def test_a_step_is_unfinished_unless_it_says_so_and_is_logged_where_nobody_looks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    step = Step("reads", "base", 2, 5)
    assert not step.finished and step.left is None
    with caplog.at_level(logging.DEBUG):
        unwatched(step)
    assert caplog.messages == ["reads base 2/5"]
