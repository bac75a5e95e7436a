"""Rounding against numpy that shares no code with it, against bitsandbytes where it is there, and on live models."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from audit.bench import Bench, CausalLearner, WrapperLearner
from audit.checkpoints import delta_of
from audit.edits import EditData, Quantise, matrices
from audit.edits.quantise import NF4_BLOCK, NF4_CODE, round_nf4, round_to_nearest
from audit.schema import AuditError, Read, Site
from tests import toy

LOGPROB = Read(site=Site(part="logits"), at="answer", reduce="logprob")
DATA = EditData(toy.rows(4, seed=1), toy.rows(4, seed=2))


def weight(out: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(out, n, generator=torch.Generator().manual_seed(seed))


def dense_rtn(w: np.ndarray, bits: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Row by row, group by group, in float32."""
    q, values, codes = 2 ** (bits - 1) - 1, np.zeros_like(w), np.zeros(w.shape, int)
    for row in range(w.shape[0]):
        for first in range(0, w.shape[1], group or w.shape[1]):
            part = slice(first, first + (group or w.shape[1]))
            largest = np.abs(w[row, part]).max()
            scale = np.float32(largest / np.float32(q))
            codes[row, part] = np.rint(w[row, part] / scale) if largest else 0
            values[row, part] = codes[row, part].astype(np.float32) * scale
    return values, codes


def dense_nf4(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Block by block, the nearest of the published values in double precision, times the block's largest."""
    table, flat = np.array(NF4_CODE), w.reshape(-1)
    values, codes = np.zeros_like(flat), np.zeros(len(flat), int)
    for first in range(0, len(flat), NF4_BLOCK):
        block = flat[first : first + NF4_BLOCK]
        largest = np.abs(block).max()
        found = np.abs(block[:, None].astype(float) / largest - table).argmin(1)
        codes[first : first + NF4_BLOCK] = found
        values[first : first + NF4_BLOCK] = table[found].astype(np.float32) * largest
    return values.reshape(w.shape), codes.reshape(w.shape)


# ---- the arithmetic ---------------------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 300), st.sampled_from([3, 4, 8]), st.sampled_from([0, 7, 64, 128]))
def test_round_to_nearest_is_the_dense_computation(out: int, n: int, bits: int, group: int) -> None:
    w = weight(out, n, seed=n)
    rounded, (values, codes) = round_to_nearest(w, bits, group), dense_rtn(w.numpy(), bits, group)
    assert np.array_equal(rounded.codes.numpy(), codes)
    np.testing.assert_allclose(rounded.values.numpy(), values, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.sampled_from([3, 4, 8]), st.floats(1e-20, 1e20))
def test_no_weight_moves_by_more_than_half_a_step(n: int, bits: int, size: float) -> None:
    w = weight(3, n, seed=n) * size
    largest = w.abs().amax(1, keepdim=True)
    step = largest / (2 ** (bits - 1) - 1)
    rounded = round_to_nearest(w, bits, 0)
    assert ((rounded.values - w).abs() <= 0.5001 * step).all()
    assert rounded.codes.abs().max() <= 2 ** (bits - 1) - 1
    assert torch.equal(round_to_nearest(-w, bits, 0).codes, -rounded.codes), "symmetric"


def test_the_last_group_is_shorter_and_has_a_scale_of_its_own() -> None:
    w = torch.tensor([[100.0, 50.0, -30.0, 0.5, -0.2]])
    rounded = round_to_nearest(w, 4, 3)
    assert rounded.codes.tolist() == [[7, 4, -2, 7, -3]]
    assert rounded.values[0, 3] == 0.5 and round_to_nearest(w, 4, 0).values[0, 3] == 0


def test_zeros_stay_zero_and_the_dtype_is_kept() -> None:
    w = torch.zeros(2, 70, dtype=torch.bfloat16)
    for rounded in (round_to_nearest(w, 4, 64), round_nf4(w)):
        assert rounded.values.dtype == torch.bfloat16 and not rounded.values.any()


def test_the_nf4_table_is_what_the_paper_says_of_it() -> None:
    """Normal quantiles, evenly spaced in probability on either side, an exact zero, both ends at one."""
    offset = 0.9677083
    above = stats.norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    below = -stats.norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    table = np.sort([*above, 0.0, *below])
    np.testing.assert_allclose(NF4_CODE, table / np.abs(table).max(), atol=2e-7)
    assert NF4_CODE[7] == 0 and NF4_CODE[0] == -1 and NF4_CODE[15] == 1
    assert all(float(np.float32(value)) == value for value in NF4_CODE), "published as float32"


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 200))
def test_nf4_takes_the_nearest_value_of_its_block(out: int, n: int) -> None:
    w = weight(out, n, seed=out * 1000 + n)
    rounded, (values, codes) = round_nf4(w), dense_nf4(w.numpy())
    assert np.array_equal(rounded.codes.numpy(), codes)
    np.testing.assert_array_equal(rounded.values.numpy(), values)


def test_nf4_gives_a_midpoint_to_the_lower_value() -> None:
    table = torch.tensor(NF4_CODE)
    w = torch.cat([(table[1:] + table[:-1]) / 2, torch.ones(1)])[None]
    assert round_nf4(w).codes[0, :15].tolist() == list(range(15))


@pytest.mark.sampled
@pytest.mark.parametrize("shape", [(64, 64), (48, 80), (7, 9), (1000, 1000)])
def test_nf4_is_bitsandbytes_to_the_bit(shape: tuple[int, int]) -> None:
    loader = pytest.importorskip(
        "bitsandbytes.functional", reason="bitsandbytes is not installed: the dense computation stands in for it"
    )
    w = weight(*shape, seed=5)
    flat = w.flatten()  # of a matrix its CPU kernel reads scales wrongly where rows are not whole blocks
    packed, state = loader.quantize_4bit(flat, blocksize=NF4_BLOCK, quant_type="nf4", compress_statistics=False)
    theirs = loader.dequantize_4bit(packed, state, blocksize=NF4_BLOCK, quant_type="nf4")
    assert torch.equal(round_nf4(w).values, theirs.view(shape))


# ---- on models --------------------------------------------------------------------------------------------------
def changed(family: str, edit: Quantise) -> set[str]:
    model = toy.model(family)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    edit.apply(CausalLearner(model), DATA)
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("family", toy.FAMILIES)
def test_only_the_blocks_matrices_are_rounded_unless_the_ends_are_asked_for(family: str) -> None:
    model = toy.model(family)
    inside = {name for name, p in model.named_parameters() if p.ndim == 2 and any(c.isdigit() for c in name)}
    assert changed(family, Quantise()) == inside
    ends = {name for name, p in model.named_parameters() if p.ndim == 2} - inside
    assert ends and changed(family, Quantise(ends=True)) == inside | ends


def test_output_channels_are_rows_whichever_way_a_family_stores_its_matrices() -> None:
    """GPT-2 keeps [in out]: there the scales go down the columns."""
    model = toy.model("gpt2")
    stored = model.get_parameter("transformer.h.0.mlp.c_fc.weight").detach().clone()
    Quantise(bits=4, group=16).apply(CausalLearner(model), DATA)
    live = model.get_parameter("transformer.h.0.mlp.c_fc.weight")
    np.testing.assert_allclose(live.detach().numpy(), dense_rtn(stored.T.numpy(), 4, 16)[0].T, rtol=1e-6)


def test_tied_weights_are_rounded_once() -> None:
    names = [m.name for m in matrices(CausalLearner(toy.model("qwen2")), ends=True)]
    assert len(names) == len(set(names)) and sum("embed" in n or "lm_head" in n for n in names) == 1


def test_packed_integer_and_eight_bit_weights_are_refused() -> None:
    for dtype in (torch.uint8, torch.int8, torch.float8_e4m3fn):
        model = toy.model("llama")
        layer = model.get_submodule("model.layers.1.mlp.up_proj")
        assert isinstance(layer, nn.Linear)
        layer.weight = nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8).to(dtype), requires_grad=False)
        with pytest.raises(AuditError, match="layers.1.mlp.up_proj.weight holds") as raised:
            Quantise().apply(CausalLearner(model), DATA)
        assert "dequantise" in raised.value.do
    marked = toy.model("llama")
    marked.config.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(AuditError, match="already"):
        Quantise().apply(CausalLearner(marked), DATA)


def test_a_backend_without_modules_is_refused() -> None:
    class Bare:
        def parameters(self) -> dict[str, Tensor]:
            return {}

        def answers(self, rows: toy.Rows) -> object:
            raise AssertionError("nothing is scored")

    with pytest.raises(AuditError, match="native backend"):
        matrices(Bare())  # type: ignore[arg-type]


def test_weights_on_their_grid_are_an_error_and_not_an_edit(tmp_path: Path) -> None:
    model = toy.model("llama")
    with torch.no_grad():
        for matrix in matrices(CausalLearner(model)):
            codes = round_to_nearest(matrix.weight, 8, 0).codes.float()
            matrix.weight.copy_(codes / 128)  # a power of two: every product is exact
    with pytest.raises(AuditError, match="no byte"):
        Quantise(bits=8, group=0).apply(CausalLearner(model), DATA)
    assert tmp_path


def test_nf4_of_other_than_four_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="4 bits"):
        Quantise(bits=8, nf4=True)


@pytest.mark.parametrize("edit", [Quantise(bits=3, group=16), Quantise(nf4=True)], ids=["int3", "nf4"])
def test_a_rounded_checkpoint_plays_back_what_the_live_edit_does(edit: Quantise, tmp_path: Path) -> None:
    bench, start, rows = Bench(), toy.checkpoint("gpt2"), toy.rows(5)
    before = {n: p.clone() for n, p in bench.open(start).parameters().items()}
    rounded = edit.fit(bench, start, DATA, tmp_path / "rounded")
    live = toy.model("gpt2")
    edit.apply(CausalLearner(live), DATA)
    with torch.no_grad():
        theirs = CausalLearner(live).answers(rows).logprob
    played = bench.run(rounded, rows, (LOGPROB,))[LOGPROB]
    torch.testing.assert_close(played, theirs, atol=1e-5, rtol=1e-5)
    assert (played - bench.run(start, rows, (LOGPROB,))[LOGPROB]).abs().max() > 1e-3
    names = {m.name for m in matrices(WrapperLearner(bench.open(start)))}
    assert set(delta_of(rounded, rounded.edits[-1])) == names
    assert rounded.edits[-1].name == "quantise" and rounded.edits[-1].settings["bits"] == edit.bits
    assert all(torch.equal(p, before[n]) for n, p in bench.open(start).parameters().items())
