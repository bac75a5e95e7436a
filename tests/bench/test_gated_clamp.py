"""Clamping features where they are active: against a dictionary that decodes whole, bit for bit where nothing acts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audit.bench import Bench, GatedClamp, Start
from audit.checkpoints import write_edited
from audit.schema import AuditError, Read, Site
from saes import Moves, SparseCoder, gated_clamp
from tests import toy
from tests.saes.planted_rows import random_coder

ROWS = toy.rows(5)
SITE = Site(part="resid_out", block=1)
LOGITS = Read(site=Site(part="logits"), at="answer")
STATES = Read(site=SITE, at="all")
BENCH = Bench()


def coder(seed: int = 0, activation: str = "jumprelu") -> SparseCoder:
    return random_coder(activation, d=48, features=64, seed=seed)


def moves(features: list[int], slope: float = -1.0, offset: float = -3.0) -> Moves:
    n = len(features)
    return Moves(
        torch.tensor(features, dtype=torch.long), torch.zeros(n), torch.full((n,), slope), torch.full((n,), offset)
    )


def run(*writes: GatedClamp, start: Start | None = None) -> Tensor:
    return BENCH.run(toy.checkpoint("llama"), ROWS, [LOGITS], writes, start=start)[LOGITS]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.sampled_from(["jumprelu", "relu"]), st.booleans())
def test_a_clamp_is_the_whole_dictionary_decoded_again_with_the_error_put_back(
    seed: int, activation: str, ablates: bool
) -> None:
    g = torch.Generator().manual_seed(seed)
    full, states = random_coder(activation, d=6, features=10, seed=seed), torch.randn(4, 3, 6, generator=g)
    features = torch.randperm(10, generator=g)[:4]
    offset = torch.zeros(4) if ablates else -torch.rand(4, generator=g)
    write = gated_clamp(full, SITE, Moves(features, torch.zeros(4), torch.full((4,), -1.0), offset))
    x = states.double().numpy()
    w, b, d, c = (t.double().numpy() for t in (full.W_enc, full.b_enc, full.W_dec, full.b_dec))
    pre = (x - c) @ w + b
    level = np.zeros(10) if full.threshold is None else full.threshold.double().numpy()
    z = np.where(pre > level, pre, 0.0)
    new = z.copy()
    for column, to in zip(features.tolist(), offset.tolist(), strict=True):
        new[..., column] = np.where(z[..., column] > 0, to, 0.0)
    error = x - (z @ d + c)
    assert np.allclose(write.moved(states).numpy(), new @ d + c + error, atol=1e-4)


def test_no_features_or_no_strength_is_the_identity_bit_for_bit() -> None:
    nothing, weak = (gated_clamp(coder(), SITE, each) for each in (moves([]), moves([3, 5], slope=0.0, offset=0.0)))
    before = run()
    for write in (nothing, weak):
        assert not write.bites() and torch.equal(run(write), before)
    strong = gated_clamp(coder(), SITE, moves([3, 5]))
    assert strong.bites() and not torch.equal(run(strong), before)


def test_states_without_an_active_feature_keep_every_bit_even_a_minus_zero() -> None:
    write = gated_clamp(coder(), SITE, moves([1, 2]))
    states = torch.randn(3, 4, 48, generator=torch.Generator().manual_seed(1))
    states[0, 0] = -0.0
    write = GatedClamp(SITE, *(getattr(write, n) for n in ("features", "encoder", "bias")), torch.full((2,), 4.0),
                       write.decoder, write.slope, write.offset)  # fmt: skip
    quiet = (write.codes(states) == 0).all(-1)
    assert 0 < int(quiet.sum()) < quiet.numel() and bool(quiet[0, 0])
    bits, new = (t.view(torch.int32) for t in (states, write.moved(states)))
    assert torch.equal(bits[quiet], new[quiet]) and not torch.equal(bits[~quiet], new[~quiet])


def test_the_first_positions_that_lead_are_left() -> None:
    write = gated_clamp(coder(), SITE, moves(list(range(20))), leading=2)
    states = torch.randn(3, 4, 48, generator=torch.Generator().manual_seed(1))
    assert (write.moved(states) != states).any(-1).tolist() == [[False, False, True, True]] * 3


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99))
def test_disjoint_features_move_states_by_the_sum_of_what_each_moves(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(64, generator=g).tolist()
    states = torch.randn(2, 3, 48, generator=g)
    writes = [gated_clamp(coder(seed), SITE, moves(part)) for part in (order[:5], order[5:9], order[:9])]
    first, second, both = (w.moved(states) - states for w in writes)
    torch.testing.assert_close(both, first + second, atol=1e-4, rtol=1e-4)


def test_a_pass_resumed_from_moved_states_says_what_the_write_does() -> None:
    write = gated_clamp(coder(), SITE, moves([3, 5, 8]))
    states = BENCH.run(toy.checkpoint("llama"), ROWS, [STATES])[STATES]
    resumed = run(start=Start(SITE, write.moved(states)))
    torch.testing.assert_close(resumed, run(write), atol=1e-5, rtol=1e-5)


def test_a_stored_clamp_is_played_and_off_its_model_is_the_parent(tmp_path: Path) -> None:
    write, parent = gated_clamp(coder(), SITE, moves([3, 5, 8]), leading=1), toy.checkpoint("llama")
    before = run()
    edited = write_edited(tmp_path / "edited", parent, "sauce", {}, "gated_clamp", write.to_delta())
    played = BENCH.run(edited, ROWS, [LOGITS])[LOGITS]
    assert torch.equal(played, run(write)) and torch.equal(run(), before) and not torch.equal(played, before)
    assert edited.fingerprint == parent.fingerprint and edited.key != parent.key


def test_a_dictionary_of_another_width_is_refused_with_both_widths() -> None:
    with pytest.raises(AuditError, match="width 48.* width 6"):
        run(gated_clamp(random_coder("jumprelu"), SITE, moves([1])))


def test_half_precision_states_are_encoded_in_float32() -> None:
    write = gated_clamp(coder(), SITE, moves(list(range(8))))
    states = torch.randn(2, 3, 48, generator=torch.Generator().manual_seed(2)).bfloat16()
    new = write.moved(states)
    codes = write.codes(states.float())
    change = torch.where(codes != 0, -codes - 3.0, 0.0) @ write.decoder
    assert new.dtype == torch.bfloat16 and torch.equal(new, states + change.bfloat16())


@pytest.mark.parametrize("spoil", ["twice", "shapes", "leading"])
def test_a_spoilt_delta_is_refused_by_the_site(spoil: str) -> None:
    delta = gated_clamp(coder(), SITE, moves([3, 5])).to_delta()
    name = str(SITE)
    if spoil == "twice":
        delta[f"{name}.features"] = torch.tensor([3, 3])
    elif spoil == "shapes":
        delta[f"{name}.slope"] = torch.ones(3)
    else:
        delta[f"{name}.leading"] = torch.ones(2, dtype=torch.long)
    with pytest.raises(ValueError, match=name):
        GatedClamp.from_delta(delta)
