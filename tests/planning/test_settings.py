"""What ``auto`` stands for: the device that is there, the type in which the weights lie."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audit import checkpoints
from audit.planning import RunSettings, make_bench
from audit.planning.settings import best_device
from audit.schema import Checkpoint, Source
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
