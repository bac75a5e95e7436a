"""Files that hold one tensor an expert, and files that hold all of them in one, stand beside one another by name."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audit.bench import Bench, Difference, Unpaired
from audit.bench.displacements import tensors_of
from audit.bench.weight_stream import Stored
from audit.checkpoints import resolve
from audit.schema import AuditError, Checkpoint, Source
from tests import expert_toy

NAME = "model.safetensors"


def rewritten(family: str, out: Path, weights: dict[str, Tensor]) -> Checkpoint:
    shutil.copytree(expert_toy.folder(family), out)
    save_file({name: t.contiguous().clone() for name, t in weights.items()}, out / NAME, {"format": "pt"})
    return resolve(Source(path=str(out)), out.parent)


def fused(family: str, out: Path, change: dict[str, Tensor] | None = None) -> Checkpoint:
    """The same model under the names of its modules: what other releases of the library write."""
    own = dict(expert_toy.model(family).named_parameters())
    return rewritten(family, out, {n: p.detach() for n, p in own.items()} | (change or {}))


@pytest.mark.parametrize("family", expert_toy.FAMILIES)
def test_tensors_of_the_files_are_the_parameters_of_the_opened_model(family: str) -> None:
    stored, opened = Stored(expert_toy.checkpoint(family)), expert_toy.model(family)
    own = dict(opened.named_parameters())
    assert stored.names == set(own) and stored.order == tuple(own)
    assert all(torch.equal(stored[name], p) for name, p in own.items())
    split = any(".experts.1." in name for name in load_file(expert_toy.folder(family) / NAME))
    assert split == (family in expert_toy.SPLIT)


@pytest.mark.parametrize("family", expert_toy.SPLIT)
def test_a_file_of_single_experts_pairs_with_one_of_fused_ones(family: str, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.experts.down_proj"
    moved = expert_toy.model(family).get_parameter(name).detach().clone()
    moved[2] += torch.outer(torch.linspace(-1, 1, moved.shape[1]), torch.linspace(1, 2, moved.shape[2]))
    base, suspect = expert_toy.checkpoint(family), fused(family, tmp_path / "fused", {name: moved})
    bench = Bench()
    pairs = list(bench.weight_differences(base, suspect))
    assert not any(isinstance(pair, Unpaired) for pair in pairs)
    differ = [d for d in pairs if isinstance(d, Difference) and d.changed]
    assert [(d.name, d.expert) for d in differ] == [(name, 2)]
    assert differ[0].spectrum is not None and differ[0].spectrum.rank == 1
    stream = {n: both for n, both in bench.weights(base, suspect)}
    assert [n for n, (a, b) in stream.items() if not torch.equal(a, b)] == [name]
    gram = bench.displacements(base, suspect, fused(family, tmp_path / "same"))
    plain = float((moved - expert_toy.model(family).get_parameter(name).detach()).double().square().sum())
    assert gram[1, 1] == pytest.approx(plain) and gram[2, 2] == gram[0, 0] == 0


def test_names_of_older_files_are_those_of_the_modules(tmp_path: Path) -> None:
    """Mixtral's release says ``block_sparse_moe`` and w1, w2, w3; its modules say ``mlp.experts``."""
    weights = load_file(expert_toy.folder("mixtral") / NAME)
    assert any("block_sparse_moe.experts.3.w1.weight" in name for name in weights)
    stored = Stored(fused("mixtral", tmp_path / "fused"))
    assert stored.names == Stored(expert_toy.checkpoint("mixtral")).names


def test_one_expert_too_few_is_an_error_and_no_shorter_tensor(tmp_path: Path) -> None:
    weights = load_file(expert_toy.folder("qwen2_moe") / NAME)
    lacking = {n: t for n, t in weights.items() if ".layers.1.mlp.experts.3.down_proj" not in n}
    with pytest.raises(AuditError, match=r"becomes a part of 'model.layers.1.mlp.experts.down_proj'") as caught:
        Stored(rewritten("qwen2_moe", tmp_path / "lacking", lacking))
    assert caught.value.code == 2


@pytest.mark.parametrize("family", expert_toy.SPLIT)
def test_no_model_is_opened_to_read_experts(family: str) -> None:
    def never(_: Checkpoint) -> object:
        raise AssertionError("files are enough")

    tensors = tensors_of(expert_toy.checkpoint(family), never)  # type: ignore[arg-type]
    assert "model.layers.1.mlp.experts.gate_up_proj" in tensors
