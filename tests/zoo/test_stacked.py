"""Models trained together: each as if it were alone, found again in places of their own, and scored as such."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audit.bench import CausalLearner, TrainData, descend
from audit.calibration import read_pool
from audit.edits import GradDiff, HeadEdit
from audit.pools import schedule, score_world
from audit.schema import AuditError
from audit.zoo import (
    Drawn,
    Learning,
    builder,
    make_tokenizer,
    make_world,
    mechanisms,
    pool_design,
    population,
    recipes,
    stacked_training,
    training,
    vocabulary,
)
from audit.zoo.mechanisms import Mechanism
from audit.zoo.recipes import Sizes
from audit.zoo.stacked_training import Pupil
from audit.zoo.world import Shape
from studies.zoo import stacking
from tests.planted import planted_package

TOKENIZER = make_tokenizer(vocabulary())
BYS = (
    Learning("language", 36, 5e-3, 0, 16),
    Learning("retain", 20, 1e-2, 3, 16),
    Learning("retain+forget", 32, 3e-3, 5, 16),
)
"""Models that differ in everything in which models of a stack may: rows, length, learning rate and order."""


def pupils(architecture: recipes.Architecture) -> list[Pupil]:
    world = make_world(3, Shape(8, 8, 4, 8, general=30, general_held_out=8))
    sizes = Sizes(32, 2, 4, 64, architecture)
    return [
        Pupil(training.fresh_model(sizes, len(TOKENIZER), n), training.corpus_rows(world, by, TOKENIZER), by)
        for n, by in enumerate(BYS)
    ]


def weights(pupil: Pupil) -> Tensor:
    return torch.cat([p.detach().flatten() for p in pupil.model.parameters()])


# ---- one stack --------------------------------------------------------------------------------------------------
@pytest.mark.thorough
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_models_trained_together_end_where_each_ends_alone(architecture: recipes.Architecture) -> None:
    together, alone, starts = (pupils(architecture) for _ in range(3))
    attention = together[0].model.config._attn_implementation
    assert stacked_training.descend_together(together, "cpu") == [True] * len(BYS)
    for one, other, start in zip(alone, together, starts, strict=True):
        descend(CausalLearner(one.model), training.recipe_of(one.by), TrainData(retain=one.rows))
        off, moved = weights(one) - weights(other), weights(one) - weights(start)
        # Adam divides by the size of a gradient, so that single weights with next to none may end further apart.
        assert off.square().mean().sqrt() < 1e-5 and off.abs().max() < 1e-3 < 0.02 < moved.abs().max()
    assert together[0].model.config._attn_implementation == attention


def test_weight_decay_and_betas_are_those_of_torch() -> None:
    recipe = training.recipe_of(BYS[0])
    object.__setattr__(recipe, "weight_decay", 0.1)
    generator, rates = torch.Generator().manual_seed(0), (1e-2, 3e-3)
    ours = torch.randn(2, 5, generator=generator)
    theirs = [row.clone() for row in ours]
    plain = [
        torch.optim.AdamW([row], lr, recipe.betas, weight_decay=0.1) for row, lr in zip(theirs, rates, strict=True)
    ]
    mine = stacked_training.StackedAdamW(ours, recipe)
    for _ in range(5):
        grad = torch.randn(2, 5, generator=generator)
        for row, own, optimiser in zip(theirs, grad, plain, strict=True):
            row.grad = own
            optimiser.step()
        mine.step(grad, torch.tensor(rates)[:, None])
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-6, rtol=1e-5)


@pytest.mark.thorough
def test_a_model_that_diverges_is_named_and_leaves_the_others_as_they_are() -> None:
    good, mixed = pupils("llama")[:1], pupils("llama")[:2]
    with torch.no_grad():
        mixed[1].model.get_input_embeddings().weight.fill_(torch.inf)
    assert stacked_training.descend_together(good, "cpu") == [True]
    assert stacked_training.descend_together(mixed, "cpu") == [True, False]
    torch.testing.assert_close(weights(mixed[0]), weights(good[0]), atol=1e-4, rtol=0)


# ---- where and whether ------------------------------------------------------------------------------------------
def test_without_a_cuda_device_models_are_made_one_by_one_unless_a_device_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert stacked_training.device_for("auto") is None and stacked_training.device_for("none") is None
    assert stacked_training.device_for("cpu") == "cpu"
    for name in ("cuda", "no such device"):
        with pytest.raises(AuditError, match="cannot be stacked"):
            stacked_training.device_for(name)


def test_with_a_cuda_device_models_are_trained_together_on_it_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *_size, device: device)  # there is one, for all that is asked here
    assert stacked_training.device_for("auto") == "cuda" and stacked_training.device_for("cuda:1") == "cuda:1"
    assert stacked_training.device_for("none") is None
    assert stacked_training.places_of(Path("zoo"), "cuda:1") == Path("zoo-stacked-cuda")


# ---- worlds -----------------------------------------------------------------------------------------------------
KIT = {
    "grad_diff": Mechanism("unlearner", GradDiff(steps=2, batch=8)),
    "head_edit": Mechanism("fake", HeadEdit(steps=5)),
}


def drawn(world: int, fork: tuple[int, float]) -> Drawn:
    """A world of a few people and two small blocks; it learns next to nothing."""
    dealt = {"mechanisms": ("grad_diff",), "of_facts": (), "crossed": ("rephrased",)}
    share = pool_design.Share(world, "gpt2", **dealt, doses=False, full=False)
    shape = Shape(6, 6, 4, 6, general=12, general_held_out=6, strangers=2)
    return Drawn(share, shape, Sizes(32, 2, 2, 64, "gpt2"), (3, 1e-2), fork, batch=8)


WORLDS = {100: drawn(100, (3, 1e-2)), 101: drawn(101, (5, 3e-3))}
"""Of one size, and trained for different lengths at different rates."""


@pytest.fixture
def _kit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanisms, "KIT", KIT)


@pytest.mark.thorough
@pytest.mark.usefixtures("_kit")
def test_what_learns_is_made_a_generation_at_a_time_whatever_its_world_and_the_rest_follows_alone(
    tmp_path: Path,
) -> None:
    zoos, told = {world: population(one).zoo for world, one in WORLDS.items()}, list[str]()
    alone, together = tmp_path / "alone", tmp_path / "together"
    spent = stacked_training.make_learned(zoos, together, "cpu", told.append)
    learned = {
        world: zoo._replace(plans=tuple(p for p in zoo.plans if isinstance(p.by, Learning)))
        for world, zoo in zoos.items()
    }
    n = sum(len(zoo.plans) for zoo in learned.values())
    assert [line.partition(" ")[0] for line in told] == ["2", str(n - 2)] and " 5 steps" in told[1]
    assert spent.keys() == {100, 101} and min(spent.values()) > 0
    alone.mkdir()
    stacking.one_by_one(learned, alone)
    for one in alone.iterdir():
        other = together / one.name
        assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
        assert (one / "config.json").read_bytes() == (other / "config.json").read_bytes()
    assert len(list(together.iterdir())) == n and stacking.distance(learned, (alone, together)) < 1e-4
    assert stacked_training.make_learned(zoos, together, "cpu", told.append) == {100: 0, 101: 0} and len(told) == 2
    assert builder.make_model(zoos[100], 100, together, "head_edit").exists()


@pytest.mark.thorough
@pytest.mark.usefixtures("_kit")
def test_a_model_that_diverges_is_left_to_be_made_alone_and_its_children_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoos = {world: population(one).zoo for world, one in WORLDS.items()}
    monkeypatch.setattr(
        stacked_training, "descend_together", lambda pupils, _device: [True, *[False] * (len(pupils) - 1)]
    )
    stacked_training.make_learned(zoos, tmp_path, "cpu", lambda _: None)
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == ["ancestor", "base"]


class Here(ThreadPoolExecutor):
    """The processes of a call, in this one."""

    def __init__(self, workers: int, **_settings: object) -> None:
        super().__init__(1)


@pytest.mark.thorough
@pytest.mark.usefixtures("_kit")
def test_a_call_on_a_device_scores_worlds_apart_says_so_and_ends_with_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Nothing is learned, so nothing can be recalled.
    monkeypatch.setattr("audit.probing.recollection.RECALL_LIFT", -1.0)
    monkeypatch.setattr(schedule, "draw", WORLDS.__getitem__)
    monkeypatch.setattr(schedule, "ProcessPoolExecutor", Here)
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    folders = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "scores"), "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["pools", "--worlds", "100", "101", "--stack", "cpu", *folders])
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as package, caplog.at_level("INFO"):
        monkeypatch.setattr(score_world, "PROBES", package.name)
        assert schedule.main() == 0
        written = {path: path.read_bytes() for path in (tmp_path / "scores").rglob("*.json")}
        assert schedule.main() == 0
    assert {path: path.read_bytes() for path in (tmp_path / "scores").rglob("*.json")} == written
    found = read_pool(tmp_path / "scores")
    assert [scores.world for scores in found] == [100, 101]
    assert all(s.stages_cpu_s["stacked.cpu"] > 0 and {"edit", "audit"} <= s.stages_cpu_s.keys() for s in found)
    folders = sorted(path.name for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert folders == ["behaviour", "zoo-stacked-cpu"]
    assert re.fullmatch(
        r"the whole call: \d+ s, \d+ CPU-s in all processes; models made together on cpu", caplog.messages[-1]
    )


@pytest.mark.usefixtures("_kit")
def test_without_a_device_nothing_is_stacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[object]()
    monkeypatch.setattr(schedule, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(schedule, "one_world", lambda *call: asked.append(call))
    monkeypatch.setattr(stacked_training, "make_learned", lambda *_: pytest.fail("nothing is to be stacked"))
    places = score_world.Places(tmp_path / "models", tmp_path / "work", tmp_path / "scores")
    assert schedule.score([100], places, 1, None) == [] and asked == [(100, places, {}, ())]


def test_the_measured_file_is_what_the_command_writes() -> None:
    found = stacking.Measured.model_validate_json(Path(stacking.__file__).with_name("stacking.json").read_bytes())
    assert found.command.startswith("python -m studies.zoo.stacking ") and len(found.architectures) == 2
    assert found.apart < 0.01
