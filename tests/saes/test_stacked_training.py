"""Autoencoders trained at once: what sae_lens's trainer learns of the same rows, and what each learns by itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saes import Architecture, TensorActivations, TrainingSettings, train
from saes.activations import Moments, RowStream, moments
from saes.lens_training import SiteTraining
from saes.stacked_training import StackedTraining, rate_at
from tests.saes.planted_rows import planted

STATES = planted(20_000).states
NAMES = ("a", "b", "c")
TURNED = {name: STATES.roll(n, 1) for n, name in enumerate(NAMES)}
STACKED: tuple[Architecture, ...] = ("topk", "batchtopk")


def of(architecture: Architecture = "topk", **changes: int) -> TrainingSettings:
    plain = TrainingSettings(architecture=architecture, features=48, k=3, rows=64 * 400, batch=64)
    return plain.model_copy(update=changes)


def batches(source: TensorActivations, of_what: TrainingSettings) -> Iterator[dict[str, Tensor]]:
    return RowStream(source, of_what.batch_rows, of_what.seed).batches()


@pytest.mark.thorough
@pytest.mark.parametrize("architecture", STACKED)
def test_steps_are_those_of_sae_lens_and_dead_features_are_revived_as_there(architecture: Architecture) -> None:
    source, wanted = TensorActivations(TURNED), of(architecture)
    by_site = moments(source)
    theirs = [SiteTraining(wanted, by_site[name], seed) for seed, name in enumerate(NAMES)]
    ours = StackedTraining(wanted, list(by_site.values()), range(3))
    stream, most_dead = batches(source, wanted), 0
    for step in range(250):
        states = next(stream)
        assert theirs[0].trainer.optimizer.param_groups[0]["lr"] == pytest.approx(rate_at(wanted, step), rel=1e-9)
        ours.step([states[name] for name in NAMES])
        for name, training in zip(NAMES, theirs, strict=True):
            training.step(states[name])
        if step in (0, 30, 249):
            for n, training in enumerate(theirs):
                expected = training.trainer.sae.state_dict()
                held = {name: tensor for name, tensor in ours.tensors(n).items() if name.startswith("weights/")}
                assert held.keys() == {f"weights/{name}" for name in expected}
                for name, tensor in expected.items():
                    torch.testing.assert_close(held[f"weights/{name}"], tensor, atol=2e-6, rtol=1e-5)
        for training, glimpse in zip(theirs, ours.glimpses(), strict=True):
            most_dead = max(most_dead, glimpse.dead)
            assert glimpse == pytest.approx(training.glimpse(), abs=1e-4)
    assert most_dead > 2, "features died, and were trained on what the others left"
    x = STATES[:2000]
    codes, expected_codes = ours.coder(0).encode(x), theirs[0].coder().encode(x)
    assert ((codes > 0) == (expected_codes > 0)).float().mean() > 0.9999
    torch.testing.assert_close(codes, expected_codes, atol=1e-3, rtol=1e-3)


def test_gradients_are_clipped_where_sae_lens_clips_them() -> None:
    """Rows of unlike sizes: Adam would not see one factor of all steps."""
    unit, wanted = Moments(torch.zeros(32).double(), torch.ones(32).double()), of()
    theirs, ours = SiteTraining(wanted, unit, 3), StackedTraining(wanted, [unit], [3])
    g = torch.Generator().manual_seed(0)
    for step in range(30):
        x = torch.randn(64, 32, generator=g) * (2.0, 0.05, 0.2)[step % 3]
        ours.step([x])
        theirs.step(x.clone())
    for name, tensor in theirs.trainer.sae.state_dict().items():
        torch.testing.assert_close(ours.tensors(0)[f"weights/{name}"], tensor, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("d", "m"), [(32, 48), (7, 30), (64, 16)])
def test_first_weights_are_those_that_sae_lens_draws(d: int, m: int, seed: int) -> None:
    wanted, unit = of(features=m), Moments(torch.zeros(d).double(), torch.ones(d).double())
    expected = SiteTraining(wanted, unit, seed).trainer.sae.state_dict()
    stacked = StackedTraining(wanted, [unit, unit], [99, seed])
    stacked.step([torch.zeros(64, d)] * 2)  # a state at the mean teaches nothing, and makes what is to be kept
    held = stacked.tensors(1)
    assert all(torch.equal(held[f"weights/{name}"], tensor) for name, tensor in expected.items())


@given(rows=st.integers(1, 4000), batch=st.integers(1, 40))
def test_rates_rise_stay_and_fall_to_nothing(rows: int, batch: int) -> None:
    wanted = of(rows=rows, batch=batch)
    rates = [rate_at(wanted, step) for step in range(wanted.steps)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(wanted.rate) and min(rates) > 0
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.thorough
@settings(max_examples=25, deadline=None)
@given(
    members=st.integers(1, 5), d=st.integers(2, 40), m=st.integers(3, 60), batch=st.integers(1, 70),
    architecture=st.sampled_from(STACKED), data=st.data(),
)  # fmt: skip
def test_each_member_learns_what_it_learns_by_itself(
    members: int, d: int, m: int, batch: int, architecture: Architecture, data: st.DataObject
) -> None:
    k, seed = data.draw(st.integers(1, m - 1)), data.draw(st.integers(0, 99))
    wanted = of(architecture, features=m, k=k, rows=batch * 30, batch=batch)
    g = torch.Generator().manual_seed(seed)
    states = [torch.randn(batch, d, generator=g) * (n + 1) + n for n in range(members)]
    units = [Moments(x.double().mean(0), torch.full((d,), 1.0 + n).double()) for n, x in enumerate(states)]
    stacked = StackedTraining(wanted, units, range(members))
    singles = [StackedTraining(wanted, [unit], [n]) for n, unit in enumerate(units)]
    for _ in range(12):
        stacked.step(states)
        for training, x in zip(singles, states, strict=True):
            training.step([x])
    for n, training in enumerate(singles):
        for name, tensor in training.tensors(0).items():
            torch.testing.assert_close(stacked.tensors(n)[name], tensor, atol=1e-5, rtol=1e-5)


def test_draws_of_a_site_see_the_same_rows_and_each_is_as_if_alone(tmp_path: Path) -> None:
    source = TensorActivations({name: x[:-1000] for name, x in TURNED.items()}, 700)
    held_out = TensorActivations({name: x[-1000:] for name, x in TURNED.items()})
    wanted = of(rows=64 * 40, draws=2, seed=5)
    stored = train(source, held_out, wanted, tmp_path)
    assert [each.folder.name for each in stored] == [f"{name}.draw{n}" for n in (0, 1) for name in NAMES]
    assert len({each.coder.name for each in stored}) == 6
    lone = StackedTraining(wanted, [moments(source)["b"]], [5 + 1 + 3])
    stream = batches(source, wanted)
    for _ in range(wanted.steps):
        lone.step([next(stream)["b"]])
    torch.testing.assert_close(stored[4].coder.W_dec, lone.coder(0).W_dec, atol=1e-5, rtol=1e-5)


def test_sites_of_different_widths_are_trained_side_by_side(tmp_path: Path) -> None:
    states = {"wide": STATES, "narrow": STATES[:, :20].contiguous(), "wide too": STATES.roll(1, 1)}
    source, wanted = TensorActivations(states), of(rows=64 * 40)
    stored = train(source, source, wanted, tmp_path / "all")
    assert [each.coder.width for each in stored] == [32, 20, 32]
    for n, name in enumerate(states):
        lone = StackedTraining(wanted, [moments(source)[name]], [n])
        stream = batches(source, wanted)
        for _ in range(wanted.steps):
            lone.step([next(stream)[name]])
        torch.testing.assert_close(stored[n].coder.W_enc, lone.coder(0).W_enc, atol=1e-5, rtol=1e-5)


@pytest.mark.thorough
def test_how_many_are_stepped_at_once_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, wanted = TensorActivations(TURNED), of(rows=64 * 30, draws=2)
    together = train(source, source, wanted, tmp_path / "together")
    for codes in (1, 4 * 64 * 48):
        monkeypatch.setattr("saes.training._CODES_AT_ONCE", codes)
        parted = train(source, source, wanted, tmp_path / str(codes))
        for first, second in zip(together, parted, strict=True):
            torch.testing.assert_close(first.coder.W_enc, second.coder.W_enc, atol=1e-6, rtol=1e-5)
            assert first.folder.name == second.folder.name and first.record is not None and second.record is not None
            assert first.record.weights_seed == second.record.weights_seed


@pytest.mark.thorough
def test_training_topk_needs_no_sae_lens(tmp_path: Path) -> None:
    """Its import takes longer than many a training."""
    import subprocess
    import sys

    program = (
        "import sys, torch\nfrom pathlib import Path\nfrom saes import TensorActivations, TrainingSettings, train\n"
        "x = TensorActivations({'x': torch.randn(300, 6)})\n"
        f"train(x, x, TrainingSettings(features=9, k=2, rows=640), Path({str(tmp_path)!r}))\n"
        "print('sae_lens' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
