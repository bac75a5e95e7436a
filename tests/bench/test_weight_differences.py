"""What two checkpoints differ by, read from their files: norms, entries, singular values, and what rounding hides."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from audit.bench import Bench, Difference, Unpaired
from audit.bench.weight_differences import RANK, SMALL, difference, differences
from audit.checkpoints import resolve, write_edited
from audit.probing import SPIKE
from audit.schema import Checkpoint, Source
from audit.wrappers import Wrapper
from tests import toy

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def matrix(shape: tuple[int, int], seed: int, rank: int = 0) -> Tensor:
    """Normal entries, or a product of two such factors, of norm 1."""
    draws = torch.Generator().manual_seed(seed)
    if rank == 0:
        x = torch.randn(shape, generator=draws)
    else:
        x = torch.randn(shape[0], rank, generator=draws) @ torch.randn(rank, shape[1], generator=draws)
    return x / x.norm()


def changed(dtype: torch.dtype, shape: tuple[int, int], rank: int, size: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix as stored, and itself with a change of that rank (0: full) and relative size, stored again."""
    base = (0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)
    return base, (base.float() + size * base.float().norm() * matrix(shape, seed + 1, rank)).to(dtype)


# ---- one matrix -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(48, 96), (300, 260)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1.0, 0.1, 0.01])
def test_one_direction_is_a_spike_whatever_the_stored_type_rounds_off(
    dtype: torch.dtype, shape: tuple[int, int], size: float
) -> None:
    base, suspect = changed(dtype, shape, 1, size)
    spectrum = difference("w", base, suspect).spectrum
    assert spectrum is not None and spectrum.spike >= SPIKE and spectrum.rank == 1
    _, _, right = np.linalg.svd(matrix(shape, 1, 1).numpy())
    assert abs(float(spectrum.right @ torch.from_numpy(right[0]))) > 0.98, "its direction is that of the change"


def test_without_regard_to_rounding_a_spike_in_half_precision_would_be_missed() -> None:
    base, suspect = changed(torch.bfloat16, (48, 96), 1, 0.003)
    d = difference("w", base, suspect)
    assert d.spectrum is not None
    assert d.spectrum.values[0] ** 2 / d.moved_sq < 0.9 and d.spectrum.spike >= SPIKE


@pytest.mark.parametrize("shape", [(48, 96), (300, 260)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1.0, 0.1, 0.01, 0.001])
def test_a_full_change_is_of_no_low_rank_and_no_spike(dtype: torch.dtype, shape: tuple[int, int], size: float) -> None:
    base, suspect = changed(dtype, shape, 0, size)
    spectrum = difference("w", base, suspect).spectrum
    assert spectrum is not None and spectrum.rank is None and spectrum.spike < 0.2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [2, 4, 8])
@pytest.mark.parametrize("size", [1.0, 0.1, 0.03])
def test_the_rank_of_a_change_is_read_through_rounding(dtype: torch.dtype, rank: int, size: float) -> None:
    base, suspect = changed(dtype, (80, 200), rank, size)
    spectrum = difference("w", base, suspect).spectrum
    assert spectrum is not None and spectrum.rank == rank and spectrum.spike < SPIKE


@settings(deadline=None, max_examples=25)
@given(
    st.integers(2, 40), st.integers(2, 40), st.integers(0, 1000), st.sampled_from(DTYPES),
    st.floats(1e-3, 1), st.floats(0, 1),
)  # fmt: skip
def test_norms_entries_and_singular_values_are_those_of_numpy(
    rows: int, columns: int, seed: int, dtype: torch.dtype, size: float, untouched: float
) -> None:
    draws = torch.Generator().manual_seed(seed)
    base = torch.randn(rows, columns, generator=draws).to(dtype)
    change = (
        size * torch.randn(rows, columns, generator=draws) * (torch.rand(rows, columns, generator=draws) > untouched)
    )
    suspect = (base.float() + change).to(dtype)
    d, exact = difference("w", base, suspect), suspect.double().numpy() - base.double().numpy()
    assert d.changed == np.count_nonzero(exact) and d.entries == exact.size
    assert d.moved_sq == pytest.approx(float((exact**2).sum()), rel=1e-4, abs=1e-12)
    assert d.base_sq == pytest.approx(float((base.double() ** 2).sum()), rel=1e-4)
    if d.changed:
        assert d.spectrum is not None and d.spectrum.exact
        np.testing.assert_allclose(d.spectrum.values, np.linalg.svd(exact)[1], rtol=1e-3, atol=1e-4)


def test_of_a_large_matrix_the_largest_values_are_bounds_from_below_and_close_where_few_hold_it() -> None:
    shape = (SMALL + 60, SMALL + 90)
    base = torch.zeros(shape)
    moved = matrix(shape, 1, 5) + 0.02 * matrix(shape, 2)
    d, exact = difference("w", base, moved), np.linalg.svd(moved.double().numpy())[1]
    assert d.spectrum is not None and not d.spectrum.exact and len(d.spectrum.values) == RANK
    assert all(a <= b * (1 + 1e-5) for a, b in zip(d.spectrum.values, exact, strict=False))
    np.testing.assert_allclose(d.spectrum.values[:5], exact[:5], rtol=1e-3)


def test_a_matrix_cast_to_another_type_has_not_changed() -> None:
    base = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.bfloat16, torch.float16):
        assert difference("w", base, base.to(dtype)).changed == 0
        assert difference("w", base.to(dtype), base).changed == 0


# ---- checkpoints ------------------------------------------------------------------------------------------------
def never(_: Checkpoint) -> Wrapper:
    raise AssertionError("no model is built")


def by_name(base: Checkpoint, suspect: Checkpoint) -> dict[str, Difference]:
    return {d.name: d for d in differences(base, suspect, never) if isinstance(d, Difference)}


@pytest.mark.parametrize("family", toy.FAMILIES)
def test_an_edit_is_read_from_its_delta_and_no_model_is_built(family: str, tmp_path: Path) -> None:
    base = toy.checkpoint(family)
    tensors = load_file(toy.folder(family) / "model.safetensors")
    stored = next(name for name, x in sorted(tensors.items()) if x.ndim == 2 and ".1." in name)
    names = by_name(base, base)
    name = next(n for n in names if n.endswith(stored.split(".1.")[1]) and ".1." in n)
    suspect = write_edited(
        tmp_path / "edited", base, "more", {}, "weights", {name: tensors[stored] + matrix(tensors[stored].shape, 3, 1)}
    )
    read = by_name(base, suspect)
    assert {n for n, d in read.items() if d.changed} == {name}
    assert read[name].moved_sq == pytest.approx(1.0, rel=1e-3) and not any(d.changed for d in names.values())


def test_shards_are_read_as_one_file(tmp_path: Path) -> None:
    folder, out = toy.folder("llama", 1), tmp_path / "sharded"
    toy.model("llama", 1).save_pretrained(out, max_shard_size="40KB")
    toy.tokenizer().save_pretrained(out)
    assert len(list(out.glob("model-*.safetensors"))) > 1
    one_file, parts = (resolve(Source(path=str(path)), tmp_path) for path in (folder, out))
    assert not any(d.changed for d in by_name(one_file, parts).values())
    base = toy.checkpoint("llama", 0)
    sharded, joint = by_name(base, parts), by_name(base, one_file)
    assert sharded.keys() == joint.keys() and all(sharded[n].moved_sq == joint[n].moved_sq for n in sharded)


def test_parameters_of_other_shapes_are_told_and_not_compared(tmp_path: Path) -> None:
    base, out = toy.checkpoint("llama"), tmp_path / "wider"
    config = toy.config("llama")
    config.intermediate_size = 96  # pyright: ignore[reportAttributeAccessIssue]
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_config(config).save_pretrained(out)
    toy.tokenizer().save_pretrained(out)
    pairs = list(differences(base, resolve(Source(path=str(out)), tmp_path), never))
    assert len([p for p in pairs if isinstance(p, Unpaired)]) == 3 * toy.N_BLOCKS


def test_an_adapter_is_compared_as_it_is_merged(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    peft = get_peft_model(toy.model("llama"), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    peft.save_pretrained(tmp_path / "adapter")
    source = Source(path=str(toy.folder("llama")), adapter=str(tmp_path / "adapter"))
    pairs = list(Bench().weight_differences(toy.checkpoint("llama"), resolve(source, tmp_path)))
    moved = {d.name: d.spectrum for d in pairs if isinstance(d, Difference) and d.changed}
    assert len(moved) == toy.N_BLOCKS and all("q_proj" in name for name in moved)
    assert {spectrum.rank for spectrum in moved.values() if spectrum is not None} == {2}


def test_fused_experts_are_compared_one_by_one(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=toy.VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MixtralForCausalLM(config)
    folders = [tmp_path / "base", tmp_path / "suspect"]
    for n, folder in enumerate(folders):
        if n:
            fused = next(p for name, p in model.named_parameters() if ".experts." in name and p.ndim == 3)
            with torch.no_grad():
                fused[2].add_(torch.outer(torch.randn(fused.shape[1]), torch.randn(fused.shape[2])))
        model.save_pretrained(folder)
        toy.tokenizer().save_pretrained(folder)
    base, suspect = (resolve(Source(path=str(folder)), tmp_path) for folder in folders)
    moved = [d for d in Bench().weight_differences(base, suspect) if isinstance(d, Difference) and d.changed]
    assert [d.expert for d in moved] == [2]
    assert moved[0].spectrum is not None and moved[0].spectrum.spike >= SPIKE
