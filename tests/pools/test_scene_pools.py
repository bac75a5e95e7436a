"""Worlds of drawn scenes through the pools: from a number to a file of scores, and to calibrations."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.calibration import InstalledBehaviours, read_library, read_world, stored, world_path, write_world
from audit.cli import main
from audit.edits import NPO, Edit, FineTune, GradAscent, GradDiff, HeadEdit, Refusal
from audit.pools import fit_images, kinds, renew, schedule, score_world
from audit.probing import behaviour_of
from audit.schema import AuditError
from audit.zoo import scene_mechanisms, scene_members
from audit.zoo.mechanisms import Mechanism
from audit.zoo.scene_members import SceneDrawn, scene_population
from audit.zoo.scene_recipes import SceneShape, SceneSizes
from tests import known_truth
from tests.known_truth import simulated
from tests.planted import KINDS, planted_behaviour, planted_package, write_probe

OF_SCENES = 'modalities=("text", "image+text")'
WORLD = 2001
QUICK = {"steps": 2, "batch": 8, "warmup_steps": 1}


def quick(edit: type[Edit], **settings: object) -> Edit:
    known = {name: value for name, value in QUICK.items() if name in edit.model_fields}
    return edit.model_validate({**known, **settings})


MICRO = {
    "grad_diff": Mechanism("unlearner", quick(GradDiff)), "npo": Mechanism("unlearner", quick(NPO)),
    "refusal": Mechanism("unlearner", quick(Refusal)), "fine_tune": Mechanism("unlearner", quick(FineTune)),
    "head_edit": Mechanism("fake", quick(HeadEdit)), "destroyed": Mechanism("destroyer", quick(GradAscent)),
}  # fmt: skip


def micro() -> SceneDrawn:
    """A world of few pictures that learns next to nothing."""
    shape = SceneShape(plain=60, wanted=20, forget=6, retain=6, holdout=6, edited=8)
    return SceneDrawn(WORLD, shape, SceneSizes(16, 2, 16, 2), (3, 2e-3), (2, 2e-3), ("fine_tune",))


@pytest.fixture
def _micro(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A quick kit, and probes with planted numbers, one of them of texts alone."""
    monkeypatch.setattr(scene_mechanisms, "SCENE_KIT", MICRO)
    monkeypatch.setattr(scene_members, "FIRST", 2)
    monkeypatch.setattr("audit.probing.recollection.RECALL_LIFT", -1.0)  # nothing is learned
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as package:
        for kind in KINDS:
            write_probe(package, kind, requires=OF_SCENES)
        write_probe(package, "context_texts")
        monkeypatch.setattr(score_world, "PROBES", package.name)
        monkeypatch.setattr(score_world, "behaviours", lambda name, _="": InstalledBehaviours(name, planted_behaviour))
        yield package


@pytest.mark.thorough
def test_a_world_of_scenes_is_made_audited_and_scored(_micro: Path, tmp_path: Path) -> None:
    drawn = micro()
    where = score_world.Places(tmp_path / "models", tmp_path / "work", tmp_path / "scores", panels=tmp_path / "panels")
    path = score_world.score_world(drawn, where, print)
    scores, members = read_world(path), scene_population(drawn).members
    assert [m.model for m in scores.models] == [m.model for m in members]
    assert {m.pool for m in scores.models} == {"clean", "knowing", "described", "destroyed"}
    for scored, member in zip(scores.models, members, strict=True):
        assert scored.audited == 6 and scored.kept == (6 if member.taught else 0)
        assert (scored.domain.architecture, scored.domain.null) == ("llava", "reference")
        assert scored.domain.forget_people == 6 and scored.domain.vocabulary > 40 and scored.scores
    assert set(scores.behaviours) == set(KINDS), "a probe of texts has no record of scenes"
    assert scores.recipe["kind"] == "colour" and score_world.is_current(path, drawn)


def test_worlds_of_scenes_are_of_their_kind_and_scored_into_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {kinds.kind_of(world).kind for world in (2000, 2019, 2023)} == {"vision_language"}
    assert kinds.KINDS["vision_language"].scores.parts[-2:] == ("vision_language_zoo", "scores")
    folders = ("--out", str(tmp_path), "--panels", str(tmp_path), "--work", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["pools", "--kind", "vision_language", "--worlds", "1000", *folders])
    with pytest.raises(AuditError, match="world 1000 is none of kind vision_language"):
        schedule.main()


@pytest.mark.thorough
def test_calibrations_of_scenes_come_from_their_pools_alone(tmp_path: Path) -> None:
    for number in (*scene_members.SCENE_WORLDS, 2020):
        write_world(world_path(tmp_path / "scores", number), simulated(number, known_truth.World()))
    renewed = fit_images(tmp_path / "out", tmp_path / "scores", "vision_language")
    shelf = read_library(tmp_path / "out")
    assert renewed.worlds == 20 and shelf.subjects is not None
    assert {s.world for s in shelf.subjects.subjects} == set(scene_members.SCENE_WORLDS)
    assert shelf.subjects.command == "residua calibrate --kind vision_language"
    assert shelf.subjects.name == "vision-language zoo" and stored("image+text").name == "vision_language"


def test_the_command_calibrates_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = list[object]()

    def score(worlds: tuple[int, ...], places: score_world.Places, *how: object) -> list[str]:
        asked.append((worlds, places.scores.parts[-2], *how))
        return ["stopped here"]

    monkeypatch.setattr(renew.zoo, "score", score)
    here = ("-o", str(tmp_path / "out"), "--work", str(tmp_path / "work"))
    assert main(["calibrate", "--kind", "vision_language", "--workers", "1", *here]) == 3
    assert asked == [(scene_members.SCENE_WORLDS, "vision_language_zoo", 1, None, ())]
    assert main(["calibrate", "--kind", "vision_language", "--quick", *here]) == 2
    assert "whole zoo" in capsys.readouterr().err


def test_a_probe_that_works_on_questions_about_pictures_has_a_behaviour_on_the_frozen_ones() -> None:
    with pytest.raises(AuditError, match=r"parallel_texts|there is no probe"):
        behaviour_of("probes", "parallel_texts", {}, "vision_language")
