"""Explained variance, active and dead features, thresholds and matches, against plain sums over all rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audit.schema import AuditError
from saes import Fidelity, SparseCoder, TensorActivations, match_features, measure, validity, with_active
from tests.saes.planted_rows import random_coder

X = torch.randn(300, 6, generator=torch.Generator().manual_seed(5)) + 4


@given(seed=st.integers(0, 999), chunk=st.integers(1, 300), activation=st.sampled_from(["topk", "jumprelu", "relu"]))
def test_what_is_measured_chunk_by_chunk_is_what_all_rows_say(seed: int, chunk: int, activation: str) -> None:
    coder = random_coder(activation, seed=seed)
    measured = measure(coder, TensorActivations({"x": X}, chunk), "x")
    codes = coder.encode(X)
    missed = (X - coder.decode(codes)).double().square().sum()
    expected = 1 - missed / (X.double() - X.double().mean(0)).square().sum()
    assert measured.fidelity.fve == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(measured.firing_rates, (codes > 0).double().mean(0).float())
    assert measured.fidelity.l0 == pytest.approx(float((codes > 0).sum(1).double().mean()))
    assert measured.fidelity.dead == int((~(codes > 0).any(0)).sum()) and measured.fidelity.rows == 300


def test_states_of_another_width_or_without_variation_are_refused() -> None:
    with pytest.raises(AuditError, match="width 4") as refused:
        measure(random_coder("topk"), TensorActivations({"x": torch.zeros(9, 4)}), "x")
    assert refused.value.code == 2
    with pytest.raises(AuditError, match="do not vary") as refused:
        measure(random_coder("topk"), TensorActivations({"x": torch.ones(9, 6)}), "x")
    assert refused.value.code == 4


def fidelity(fve: float) -> Fidelity:
    return Fidelity(fve=fve, l0=3, dead=0, features=10, rows=100)


@pytest.mark.parametrize(
    ("base", "other", "valid"),
    [(0.8, 0.72, True), (0.799, 0.9, False), (0.9, 0.809, False), (0.9, 0.811, True), (0.95, -3, False), (1, 1, True)],
)
def test_a_dictionary_is_valid_where_it_explains_enough_of_base_and_nearly_as_much_of_the_other(
    base: float, other: float, valid: bool
) -> None:
    record = validity(fidelity(base), fidelity(other))
    assert record.valid is valid and f"{(base if base < 0.8 else other):.3f}" in record.because
    assert type(record).model_validate_json(record.model_dump_json()) == record


# ---- thresholds -------------------------------------------------------------------------------------------------
@pytest.mark.thorough
@given(seed=st.integers(0, 999), k=st.integers(1, 4), chunk=st.integers(1, 300), start=st.floats(0, 2))
def test_a_threshold_set_on_held_out_rows_lets_k_features_a_row_through(
    seed: int, k: int, chunk: int, start: float
) -> None:
    """BatchTopK after few steps has a threshold near 0, and lets most of what is positive through."""
    coder = replace(random_coder("jumprelu", seed=seed), threshold=torch.full((10,), start))
    source = TensorActivations({"x": X}, chunk)
    calibrated = with_active(coder, source, "x", k)
    most = float((coder.pre_activations(X) > 0).sum(1).float().mean())
    assert measure(calibrated, source, "x").fidelity.l0 == pytest.approx(min(k, most), abs=0.01)
    assert torch.equal(calibrated.W_enc, coder.W_enc)


def test_a_dictionary_without_a_positive_feature_has_no_threshold() -> None:
    coder = replace(random_coder("jumprelu"), b_enc=torch.full((10,), -1e3))
    with pytest.raises(AuditError, match="no feature is positive"):
        with_active(coder, TensorActivations({"x": X}), "x", 2)


# ---- matches ----------------------------------------------------------------------------------------------------
@given(seed=st.integers(0, 999), extra=st.integers(0, 4))
def test_a_permuted_dictionary_is_matched_feature_by_feature(seed: int, extra: int) -> None:
    coder = random_coder("topk", d=12, seed=seed)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
    scales = torch.rand(10, generator=torch.Generator().manual_seed(seed + 1)) + 0.1
    more = torch.randn(extra, 12, generator=torch.Generator().manual_seed(seed + 2))
    other = _decoding(torch.cat([(coder.W_dec * scales[:, None])[order], more]))
    rates, other_rates = torch.rand(10), torch.rand(10 + extra)
    match = match_features(coder, other, rates, other_rates)
    place = {int(old): new for new, old in enumerate(order.tolist())}
    assert [place[int(n)] for n in match.first] == match.second.tolist()
    np.testing.assert_allclose(match.cosine, 1, atol=1e-6)
    assert match.mean_max_cosine == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(match.first_rate, rates.double().numpy()[match.first])
    np.testing.assert_allclose(match.second_rate, other_rates.double().numpy()[match.second])


def _decoding(W_dec: torch.Tensor) -> SparseCoder:
    m, d = W_dec.shape
    return SparseCoder(torch.zeros(d, m), torch.zeros(m), W_dec, torch.zeros(d), "relu")


def test_two_features_alike_are_given_two_partners_and_a_feature_of_zeros_is_like_nothing() -> None:
    first = _decoding(torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.0, 0.0]]))
    second = _decoding(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    match = match_features(first, second, torch.ones(3), torch.ones(3))
    assert len(set(match.second.tolist())) == 3
    assert match.cosine[list(match.first).index(2)] == 0
    assert match.mean_max_cosine == pytest.approx((1 / 1.01**0.5 + 1 + 0) / 3)
    with pytest.raises(AuditError, match="widths 2 and 3"):
        match_features(first, _decoding(torch.ones(2, 3)), torch.ones(3), torch.ones(2))
