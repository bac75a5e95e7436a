"""Training: planted features are recovered, and a killed training ends with the weights of one that was not."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from audit.schema import AuditError
from audit.storage import write_tensors
from saes import (
    Architecture,
    StoredDictionary,
    TensorActivations,
    TrainingProgress,
    TrainingSettings,
    measure,
    read_dictionary,
    train,
)
from saes.lens_training import LensTraining, SiteTraining
from saes.stacked_training import StackedTraining
from saes.step_training import StepTraining
from saes.training import STATE
from tests.saes.planted_rows import mean_max_cosine, planted

ARCHITECTURES: tuple[Architecture, ...] = ("topk", "batchtopk", "jumprelu")
WORLD = planted(20_000)
STATES = WORLD.states
SHORT = TrainingSettings(features=20, k=3, rows=2_560, batch=64, checkpoint_rows=640, seed=4)


def sources(*names: str, chunk_rows: int = 700) -> tuple[TensorActivations, TensorActivations]:
    """The same rows at each named site, turned a little further at each, and others held out."""
    turned = {name: STATES.roll(n, 1) for n, name in enumerate(names)}
    return (
        TensorActivations({name: x[:-2000] for name, x in turned.items()}, chunk_rows),
        TensorActivations({name: x[-2000:] for name, x in turned.items()}, chunk_rows),
    )


def weights(stored: StoredDictionary) -> tuple[str, str]:
    """The dictionary's content, and that of its file."""
    assert stored.record is not None
    return stored.coder.name, stored.record.sha256["sae_weights.safetensors"]


# ---- what is learnt ---------------------------------------------------------------------------------------------
@pytest.mark.thorough
@pytest.mark.parametrize(("architecture", "fve", "cosine"), [("topk", 0.75, 0.85), ("batchtopk", 0.8, 0.85)])
def test_planted_features_are_mostly_recovered_in_little_time(
    architecture: Architecture, fve: float, cosine: float, tmp_path: Path
) -> None:
    """Their mean is ten times their spread: features that were not centred first would be dead from the start."""
    settings = TrainingSettings(architecture=architecture, features=64, k=3, rows=150_000, batch=128)
    (stored,) = train(*sources("x"), settings, tmp_path)
    assert stored.record is not None
    assert stored.record.held_out.fve > fve and stored.record.held_out.l0 == pytest.approx(3, abs=0.05)
    assert stored.record.held_out.dead < 32
    assert mean_max_cosine(WORLD.directions, stored.coder) > cosine


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("seed", range(2))
def test_planted_features_are_recovered(architecture: Architecture, seed: int, tmp_path: Path) -> None:
    world = planted(200_000, seed=seed)
    held = TensorActivations({"x": world.states[-5000:]})
    # planted rows have 3 features on average: a code of just 3 each would miss what is in the richer ones
    k = 4 if architecture == "topk" else 3
    settings = TrainingSettings(architecture=architecture, features=64, k=k, rows=1_500_000, batch=256, seed=seed)
    (stored,) = train(TensorActivations({"x": world.states[:-5000]}), held, settings, tmp_path)
    assert mean_max_cosine(world.directions, stored.coder) >= 0.9
    assert stored.record is not None and stored.record.held_out.fve > 0.85


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_stored_codes_raw_states_as_the_training_coded_standardised_ones(architecture: Architecture) -> None:
    from saes.activations import RowStream, moments

    source, _ = sources("x")
    settings = SHORT.model_copy(update={"architecture": architecture})
    training = SiteTraining(settings, moments(source)["x"], 0)
    batches = RowStream(source, 64, 0).batches()
    for _ in range(30):
        training.step(next(batches)["x"])
    x = STATES[:3000]
    z = ((x - training.moments.mean.float()) / training.moments.sd.float()).float()
    with torch.no_grad():
        sae = training.trainer.sae
        codes = sae.encode_with_hidden_pre(z)[1] if architecture == "batchtopk" else sae.encode(z)
        if architecture == "batchtopk":  # in training the whole batch has one threshold; what is saved has a number
            codes = codes.relu() * (codes > float(sae.topk_threshold))
        coder = training.coder()
        agree = (coder.encode(x) > 0) == (codes > 0)
        assert (codes > 0).any() and agree.float().mean() > 0.9999
        torch.testing.assert_close(coder.encode(x)[agree], codes[agree], atol=1e-3, rtol=1e-3)


def test_batchtopk_of_a_few_steps_has_as_many_active_features_as_asked(tmp_path: Path) -> None:
    """The threshold that sae_lens saves after so few steps is still near 0."""
    settings = TrainingSettings(architecture="batchtopk", features=40, k=3, rows=320, batch=64)
    (stored,) = train(*sources("x"), settings, tmp_path)
    assert stored.record is not None and stored.record.held_out.l0 == pytest.approx(3, abs=0.01)


def test_each_site_is_trained_as_if_it_were_alone(tmp_path: Path) -> None:
    both = train(*sources("a", "b"), SHORT, tmp_path / "both")
    (alone,) = train(*sources("a"), SHORT, tmp_path / "alone")
    assert both[0].coder.name == alone.coder.name != both[1].coder.name
    assert [each.folder.name for each in both] == ["a", "b"]


def test_progress_says_what_is_done_and_what_is_left(tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    (stored,) = train(*sources("x"), SHORT, tmp_path, watch=seen.append)
    on_disk = [step for step in seen if step.kept_on_disk]
    assert [step.done for step in on_disk] == [640, 1280, 1920, 2560] and on_disk[-1].total == 2560
    assert on_disk[0].left_s is not None and on_disk[0].rows_per_s > 0
    assert on_disk[-1].sites["x"].fve > on_disk[0].sites["x"].fve and on_disk[0].sites["x"].l0 == 3
    assert measure(stored.coder, sources("x")[1], "x").fidelity == (stored.record and stored.record.held_out)


# ---- killed -----------------------------------------------------------------------------------------------------
def die_after(checkpoints: int, out: Path, settings: TrainingSettings) -> None:
    """Train, and be killed some steps after a checkpoint: what lies between is lost."""
    way = LensTraining if settings.architecture == "jumprelu" else StackedTraining
    step: Callable[[StepTraining, Sequence[torch.Tensor]], None] = way.step
    seen = 0

    def stepping(self: StepTraining, batches: Sequence[torch.Tensor]) -> None:
        nonlocal seen
        if seen == 2 * (checkpoints * settings.checkpoint_steps + 3):
            os.kill(os.getpid(), signal.SIGKILL)
        seen += len(batches) // settings.draws
        step(self, batches)

    way.step = stepping  # type: ignore[method-assign]
    train(*sources("a", "b"), settings, out)


@pytest.mark.sampled
@pytest.mark.parametrize(("architecture", "draws"), [*((each, 1) for each in ARCHITECTURES), ("topk", 3)])
def test_a_killed_training_ends_with_the_very_weights_of_one_that_was_not(
    architecture: Architecture, draws: int, tmp_path: Path
) -> None:
    settings = SHORT.model_copy(update={"architecture": architecture, "draws": draws})
    through = train(*sources("a", "b"), settings, tmp_path / "through")
    for killed in (2, 1):
        child = multiprocessing.get_context("fork").Process(target=die_after, args=(killed, tmp_path / "x", settings))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    seen: list[TrainingProgress] = []
    resumed = train(*sources("a", "b"), settings, tmp_path / "x", watch=seen.append)
    # killed twice: three steps after the second checkpoint, then three after the third
    assert next(step.done for step in seen if step.kept_on_disk) == 2560, "no more than one interval was done again"
    assert list(map(weights, resumed)) == list(map(weights, through))
    assert not (tmp_path / "x" / STATE).exists()


def test_a_finished_training_is_read_and_another_one_is_refused(tmp_path: Path) -> None:
    (stored,) = train(*sources("x"), SHORT, tmp_path)
    seen: list[TrainingProgress] = []
    (again,) = train(*sources("x"), SHORT, tmp_path, watch=seen.append)
    assert not seen and weights(again) == weights(stored)
    with pytest.raises(AuditError, match="another|other rows, settings") as refused:
        train(*sources("x"), SHORT.model_copy(update={"seed": 5}), tmp_path)
    assert refused.value.code == 2 and str(tmp_path) in refused.value.what


def test_a_damaged_or_foreign_training_is_not_taken_up(tmp_path: Path) -> None:
    write_tensors(tmp_path / STATE, {"a": torch.ones(2)}, {"training": "another"})
    with pytest.raises(AuditError, match="other rows, settings") as refused:
        train(*sources("x"), SHORT, tmp_path)
    assert refused.value.code == 2


def test_a_dictionary_whose_weights_were_changed_afterwards_is_refused(tmp_path: Path) -> None:
    (stored,) = train(*sources("x"), SHORT, tmp_path)
    tensors = stored.coder.tensors()
    write_tensors(stored.folder / "sae_weights.safetensors", tensors | {"b_dec": tensors["b_dec"] + 1}, {})
    with pytest.raises(AuditError, match="not those that were written") as refused:
        read_dictionary(stored.folder)
    assert refused.value.code == 3


def test_settings_that_make_no_sparse_code_are_refused() -> None:
    for wrong in ({"k": 20}, {"k": 0}, {"rows": 0}, {"features": 1}, {"rate": 0.0}):
        with pytest.raises(ValueError):
            TrainingSettings.model_validate(SHORT.model_dump() | wrong)
    assert TrainingSettings(features=9, k=2, rows=5).batch_rows == 5
    assert TrainingSettings(features=9, k=2, rows=10_000_000).batch_rows == 4096
    assert 1000 <= TrainingSettings(features=9, k=2, rows=100_000).steps <= 4000


def test_states_that_break_a_training_down_are_told(tmp_path: Path) -> None:
    x = STATES[:500].clone()
    x[7, 3] = float("inf")
    with pytest.raises(AuditError) as refused:
        train(TensorActivations({"x": x}), TensorActivations({"x": STATES[:100]}), SHORT, tmp_path)
    assert refused.value.code == 3 and "x" in refused.value.what
