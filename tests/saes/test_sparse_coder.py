"""The dictionary in memory: what edits leave in place, and what folding may not change."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audit.bench.writes.features import Dictionary, Features
from audit.schema import Site
from saes import SparseCoder, TensorActivations, measure, rescaled, standardised
from tests.saes.planted_rows import random_coder

ACTIVATIONS = ("topk", "jumprelu", "relu")


def states(n: int = 64, d: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * 2 + 3


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_code_is_what_the_formula_says(activation: str) -> None:
    coder, x = random_coder(activation), states()
    pre = (x.double() - coder.b_dec.double()) @ coder.W_enc.double() + coder.b_enc.double()
    if activation == "topk":
        least = pre.sort(descending=True).values[:, coder.k - 1 : coder.k]  # type: ignore[operator]
    else:
        least = torch.zeros(1) if coder.threshold is None else torch.nextafter(coder.threshold, torch.tensor(9.0))
    expected = pre.clamp_min(0) * (pre >= least)
    torch.testing.assert_close(coder.encode(x).double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        coder.decode(coder.encode(x)).double(), expected @ coder.W_dec.double() + coder.b_dec, atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_edit_moves_a_state_by_its_change_alone_and_no_change_leaves_every_bit(activation: str) -> None:
    coder, x = random_coder(activation), states()
    codes = coder.encode(x)
    assert torch.equal(coder.edited(x, torch.zeros_like(codes)), x)
    assert torch.equal(coder.edited(x.bfloat16(), torch.zeros_like(codes)), x.bfloat16())
    change = torch.randn_like(codes)
    by_hand = coder.decode(codes + change) + (x - coder.decode(codes))
    torch.testing.assert_close(coder.edited(x, change), by_hand, atol=1e-4, rtol=1e-5)


def test_half_precision_states_are_encoded_in_float32() -> None:
    coder, x = random_coder("topk"), states().bfloat16()
    assert coder.encode(x).dtype == torch.float32
    assert torch.equal(coder.encode(x), coder.encode(x.float()))


@given(seed=st.integers(0, 10**6), activation=st.sampled_from(ACTIVATIONS), centred=st.booleans())
def test_folding_a_standardisation_changes_no_active_set(seed: int, activation: str, centred: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    coder = replace(random_coder(activation, seed=seed), centred=centred)
    mean, sd = 20 * torch.randn(6, generator=g), torch.rand(6, generator=g) * 3 + 0.1
    x = mean + sd * torch.randn(40, 6, generator=g)
    folded = standardised(coder, mean, sd)
    z = (x.double() - mean.double()) / sd.double()
    codes, pre = coder.encode(z), coder.pre_activations(z)
    clear = _clear_rows(coder, pre)
    assert clear.sum() > 20
    assert torch.equal(folded.encode(x)[clear] > 0, codes[clear] > 0)
    torch.testing.assert_close(folded.encode(x)[clear], codes[clear], atol=2e-3, rtol=1e-3)
    back = coder.decode(codes).double() * sd + mean
    torch.testing.assert_close(folded.decode(codes).double(), back, atol=1e-3, rtol=1e-5)


def _clear_rows(coder: SparseCoder, pre: torch.Tensor) -> torch.Tensor:
    """Rows in which nothing lies within rounding of the border between active and not."""
    border = torch.zeros(1) if coder.threshold is None else coder.threshold
    near = (pre - border).abs().amin(1)
    if coder.k is not None:
        ordered = pre.sort(descending=True).values
        near = torch.minimum(near, ordered[:, coder.k - 1] - ordered[:, coder.k])
    return near > 2e-3


@given(scale=st.floats(0.01, 100), activation=st.sampled_from(ACTIVATIONS), centred=st.booleans())
def test_folding_an_input_scale_scales_the_decoders_bias_too(scale: float, activation: str, centred: bool) -> None:
    """sae_lens #354: without the bias, a state without an active feature is mapped to another scale."""
    coder = replace(random_coder(activation), centred=centred)
    folded = rescaled(coder, scale)
    nothing = torch.zeros(1, coder.features)
    torch.testing.assert_close(folded.decode(nothing) * scale, coder.decode(nothing), rtol=1e-5, atol=1e-5)
    x = states() / scale
    torch.testing.assert_close(folded.pre_activations(x), coder.pre_activations(x * scale), rtol=1e-3, atol=1e-3)


@given(scale=st.floats(0.05, 20), activation=st.sampled_from(ACTIVATIONS))
def test_explained_variance_compares_states_and_reconstructions_of_one_scale(scale: float, activation: str) -> None:
    """sae_lens #518: scaled inputs against unscaled reconstructions. A scale that is folded in changes no share."""
    coder, x = random_coder(activation), states(200)
    scaled = measure(coder, TensorActivations({"x": x * scale}), "x").fidelity
    raw = measure(rescaled(coder, scale), TensorActivations({"x": x}), "x").fidelity
    assert raw.fve == pytest.approx(scaled.fve, rel=1e-3, abs=1e-3) and abs(raw.l0 - scaled.l0) < 0.05


def test_a_dictionary_is_one_to_the_bench_and_its_name_is_its_content() -> None:
    coder = random_coder("topk")
    assert isinstance(coder, Dictionary)
    x = states(4).view(2, 2, 6)
    write = Features(Site(part="resid_out", block=0), coder, torch.tensor([1, 2]), 0.0, name=coder.name)
    codes = coder.encode(x)
    change = torch.zeros_like(codes)
    change[..., [1, 2]] = -codes[..., [1, 2]]
    torch.testing.assert_close(write._scaled(x), coder.edited(x, change), atol=1e-5, rtol=1e-5)
    assert coder.name == random_coder("topk").name
    others = [
        random_coder("topk", seed=1),
        random_coder("topk", k=4),
        random_coder("relu"),
        replace(coder, centred=False),
    ]
    assert len({coder.name, *(other.name for other in others)}) == 5


@pytest.mark.thorough
def test_encoding_needs_no_sae_lens() -> None:
    code = "import sys, torch\nfrom saes import SparseCoder, read_dictionary, measure, match_features\n"
    code += "print([m for m in ('sae_lens', 'transformer_lens', 'wandb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
