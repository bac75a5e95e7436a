"""Worlds of images through the pools: from a number to a file of scores, and from such files to calibrations."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.calibration import InstalledBehaviours, kind_for, read_library, read_world, stored, world_path, write_world
from audit.cli import main
from audit.edits import (
    SCRUB,
    SSD,
    Edit,
    FineTune,
    GradAscent,
    HeadEdit,
    LastLayer,
    LogitBias,
    MUMis,
    RandomLabel,
    SalUn,
)
from audit.engine import runner
from audit.planning import Meter
from audit.pools import add_probe, fit_images, kinds, renew, schedule, score_world
from audit.probing import behaviour_of
from audit.schema import AuditError
from audit.zoo import image_mechanisms, image_members
from audit.zoo.image_members import ImageDrawn, image_population
from audit.zoo.image_recipes import ImageSizes
from audit.zoo.image_world import INSTANCES, ImageShape, ImageWorld
from audit.zoo.mechanisms import Mechanism
from tests import known_truth
from tests.known_truth import simulated
from tests.planted import KINDS, planted_behaviour, planted_package, write_probe

BOTH = 'modalities=("text", "image")'
WORLD = 1000
QUICK = {"steps": 3, "batch": 8, "warmup_steps": 1}


def quick(edit: type[Edit], **settings: object) -> Edit:
    known = {name: value for name, value in QUICK.items() if name in edit.model_fields}
    return edit.model_validate({**known, **settings})


MICRO = {
    "random_label": Mechanism("unlearner", quick(RandomLabel)), "salun": Mechanism("unlearner", quick(SalUn)),
    "scrub": Mechanism("unlearner", quick(SCRUB)), "fine_tune": Mechanism("unlearner", quick(FineTune)),
    "grad_ascent": Mechanism("unlearner", quick(GradAscent)), "ssd": Mechanism("unlearner", SSD(alpha=1.1, sample=8)),
    "mu_mis": Mechanism("unlearner", quick(MUMis)), "last_layer": Mechanism("fake", quick(LastLayer)),
    "logit_bias": Mechanism("fake", quick(LogitBias)), "head_edit": Mechanism("fake", quick(HeadEdit)),
    "destroyed": Mechanism("destroyer", quick(GradAscent, lr=1e-2)),
}  # fmt: skip


def micro() -> ImageDrawn:
    """A world of few images that learns next to nothing, with every pool in it."""
    hands = (("fine_tune", "scrub"),) * 4 + (("scrub", "fine_tune"),)
    shape = ImageShape(train=20, instances=8, repeated=1, forget=6, retain=6, holdout=6)
    return ImageDrawn(WORLD, shape, ImageSizes(16, 2, 32, "resnet"), (8, 5e-3), hands)


def two_targets(world: ImageWorld) -> tuple[str, ...]:
    return (f"class_{world.targets[0]}", INSTANCES)


@pytest.fixture
def _micro(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A quick kit, two targets, and probes with planted numbers, one of them of texts alone."""
    monkeypatch.setattr(image_mechanisms, "IMAGE_KIT", MICRO)
    monkeypatch.setattr(image_members, "targets_of", two_targets)
    monkeypatch.setattr(kinds, "targets_of", two_targets)
    monkeypatch.setattr("audit.probing.recollection.RECALL_LIFT", -1.0)  # nothing is learned
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as package:
        for kind in KINDS:
            write_probe(package, kind, requires=BOTH)
        write_probe(package, "context_texts")
        monkeypatch.setattr(score_world, "PROBES", package.name)
        monkeypatch.setattr(score_world, "behaviours", lambda name, _="": InstalledBehaviours(name, planted_behaviour))
        yield package


def places(tmp_path: Path) -> score_world.Places:
    return score_world.Places(tmp_path / "models", tmp_path / "work", tmp_path / "scores", panels=tmp_path / "panels")


@pytest.mark.thorough
def test_a_world_of_images_is_scored_killed_and_resumed_and_added_to(
    _micro: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, where, measured = micro(), places(tmp_path), list[str]()
    run = runner.Run._measure

    def watched(self: runner.Run, meter: Meter) -> object:
        measured.append(self.case.case.name)
        if len(measured) == 4:
            raise KeyboardInterrupt
        return run(self, meter)

    monkeypatch.setattr(runner.Run, "_measure", watched)
    with pytest.raises(KeyboardInterrupt):
        score_world.score_world(drawn, where, print)
    path = score_world.score_world(drawn, where, print)
    target = two_targets(drawn.dealt())[0]
    assert measured[0] == f"base.{target}" and Counter(measured)[measured[3]] == 2
    assert all(times == 1 for name, times in Counter(measured).items() if name != measured[3])
    scores = read_world(path)
    members = image_population(drawn).members
    assert [m.model for m in scores.models] == [m.model for m in members]
    assert {m.pool for m in scores.models} == {"clean", "knowing", "described", "destroyed"}
    for scored, member in zip(scores.models, members, strict=True):
        assert scored.audited == 6 and scored.kept == (6 if member.taught else 0)
        assert (scored.domain.architecture, scored.domain.vocabulary) == ("resnet", 10)
        assert scored.domain.forget_people == 6 and scored.scores
    assert set(scores.behaviours) == set(KINDS), "a probe of texts has no record of images"
    assert score_world.is_current(path, drawn) and not list((tmp_path / "work").glob("*"))
    write_probe(_micro, "decoding_later", requires=BOTH, value=0.25)
    assert add_probe.addable(path, drawn) == ("decoding_later",) and not score_world.is_current(path, drawn)
    add_probe.add_scores(drawn, where, print)
    grown = read_world(path)
    assert score_world.is_current(path, drawn)
    for before, after in zip(scores.models, grown.models, strict=True):
        assert len(after.scores) == len(before.scores) + 1
        assert [s for s in after.scores if s.probe != "decoding_later"] == list(before.scores)


def test_worlds_are_of_the_kind_that_their_numbers_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {kinds.kind_of(world).kind for world in (100, 159, 219)} == {"causal_lm"}
    assert {kinds.kind_of(world).kind for world in (1000, 1019, 1023)} == {"image_classifier"}
    assert kinds.KINDS["image_classifier"].scores.parts[-2:] == ("vision_zoo", "scores")
    folders = ("--out", str(tmp_path), "--panels", str(tmp_path), "--work", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["pools", "--kind", "image_classifier", "--worlds", "100", *folders])
    with pytest.raises(AuditError, match="world 100 is none of kind image_classifier"):
        schedule.main()


@pytest.mark.thorough
def test_the_worlds_of_a_kind_are_scored_into_its_own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = list[tuple[list[int], Path]]()

    def score(worlds: list[int], places: score_world.Places, *_: object) -> list[str]:
        asked.append((list(worlds), places.scores))
        return []

    monkeypatch.setattr(schedule, "score", score)
    monkeypatch.setattr(sys, "argv", ["pools", "--kind", "image_classifier", "--panels", str(tmp_path)])
    assert schedule.main() == 0
    assert asked == [(list(image_members.IMAGE_WORLDS), kinds.KINDS["image_classifier"].scores.resolve())]


# ---- calibrations -------------------------------------------------------------------------------------------------
def test_models_of_images_have_calibrations_of_their_own() -> None:
    assert stored("image").name == "image_classifier" and stored().name == "causal_lm"
    assert kind_for("image") == "image_classifier" and kind_for("text") == "causal_lm"
    assert kind_for("image+text") == "vision_language" == stored("image+text").name


def pool_of_images(folder: Path) -> None:
    """Scores of twenty worlds of the pools, and of one that is fresh."""
    for number in (*image_members.IMAGE_WORLDS, 1020):
        write_world(world_path(folder, number), simulated(number, known_truth.World()))


@pytest.mark.thorough
def test_calibrations_of_images_come_from_their_pools_alone_with_floors_of_their_own(tmp_path: Path) -> None:
    pool_of_images(tmp_path / "scores")
    path = world_path(tmp_path / "scores", 1003)
    world = read_world(path)
    scores = tuple(s.model_copy(update={"floor": 0.4321}) if s.probe == "inside" else s for s in world.models[2].scores)
    third = world.models[2].model_copy(update={"scores": scores})
    write_world(path, world.model_copy(update={"models": (*world.models[:2], third, *world.models[3:])}))
    renewed = fit_images(tmp_path / "out", tmp_path / "scores")
    shelf = read_library(tmp_path / "out")
    assert renewed.worlds == 20 and shelf.subjects is not None
    assert {s.world for s in shelf.subjects.subjects} == set(image_members.IMAGE_WORLDS)
    assert shelf.subjects.command == "residua calibrate --kind image_classifier"
    stated = json.loads((tmp_path / "out" / "floors.json").read_text())
    assert stated["worlds"] == 20 and stated["floors"]["inside.effect"] == 0.4321, "the largest of all"
    assert not {name for name in stated["floors"] if name.startswith(("output", "gate"))}


def test_the_command_calibrates_images_and_refuses_what_they_do_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = list[object]()

    def score(worlds: tuple[int, ...], places: score_world.Places, *how: object) -> list[str]:
        asked.append((worlds, *how))
        return ["stopped here"]

    monkeypatch.setattr(renew.zoo, "score", score)
    here = ("-o", str(tmp_path / "out"), "--work", str(tmp_path / "work"))
    assert main(["calibrate", "--kind", "image_classifier", "--workers", "1", *here]) == 3
    assert asked == [(image_members.IMAGE_WORLDS, 1, None, ())]
    assert "stopped here" in capsys.readouterr().err
    for other in (("--quick",), ("--pool", "pool.toml")):
        assert main(["calibrate", "--kind", "image_classifier", *other, *here]) == 2
        assert "whole zoo" in capsys.readouterr().err


def test_a_probe_of_texts_alone_has_no_behaviour_on_images() -> None:
    with pytest.raises(AuditError, match="cross_sequence does not work on models of image") as caught:
        behaviour_of("probes", "cross_sequence", {}, "image_classifier")
    assert caught.value.code == 2
