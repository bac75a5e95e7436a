"""The committed scores, calibrations and verdicts belong together, and to the probes as they are."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from audit.calibration import (
    JOINT,
    SUBJECTS,
    CalibrationLibrary,
    InstalledBehaviours,
    Joint,
    WorldScores,
    read,
    read_library,
    read_pool,
    read_records,
    stored,
    zoo_floors,
)
from audit.judging import Given, judge, verdict
from audit.pools import schedule
from audit.pools.fit import Pooled, calibrate, made_with, write_all
from audit.pools.kinds import measures
from audit.probing import behaviour_of
from audit.schema import Measurement, Missing, Overall
from audit.zoo import draw, pool_design
from studies.zoo import verdicts
from studies.zoo.verdicts import Verdicts, examine, markdown

BEHAVIOURS = InstalledBehaviours("probes", behaviour_of)
ROLES = Given(references=2, ancestor=True, holdout=True)


@cache
def worlds() -> tuple[WorldScores, ...]:
    return read_pool(schedule.SCORES)


@cache
def shelf() -> CalibrationLibrary:
    return read_library(stored())


@pytest.mark.thorough
def test_every_scored_world_is_of_the_design_and_scored_by_its_recipe_and_the_probes_as_they_are() -> None:
    """Where sources are others the frozen world is measured here, which `python -m studies.zoo.attest` spares."""
    records = read_records(schedule.SCORES)
    assert {record.behaviour.probe: BEHAVIOURS.moved(record) for record in records.values()} == {
        name: () for name in worlds()[0].behaviours
    }
    assert {w.world for w in worlds()} <= set(pool_design.POOL_WORLDS) and len(worlds()) >= 12
    for world in worlds():
        assert world.recipe == draw(world.world).recorded(), world.world
        mine = {d: record for d, record in records.items() if measures(record.behaviour.probe, world.world)}
        assert world.behaviours == {record.behaviour.probe: digest for digest, record in mine.items()}, world.world
        for record in mine.values():
            made = (world.versions[record.behaviour.probe], world.settings[record.behaviour.probe])
            assert made == (record.behaviour.version, record.behaviour.settings), world.world


@pytest.mark.thorough
def test_every_model_is_judged_again_to_the_word_that_its_audit_gave() -> None:
    """What a score keeps is all that the in-case ladder reads."""
    floors = zoo_floors()
    for world in worlds():
        for model in world.models:
            found = verdict([judge(score.restored(), floors) for score in model.scores], ROLES)
            assert found.word == model.verdict, (world.world, model.model)


def _alone(measurement: Measurement) -> Measurement:
    """As it would be with one reference, which has nobody to differ from."""
    absent, overall = Missing(missing="no second reference"), measurement.overall
    if isinstance(overall, Overall):
        overall = overall.model_copy(update={"floor": absent})
    return measurement.model_copy(update={"floor": absent, "overall": overall})


@pytest.mark.slow
def test_with_one_reference_most_clean_models_are_consistent_and_nothing_that_base_became_is() -> None:
    floors, roles = zoo_floors(), ROLES._replace(references=1)
    words: dict[str, list[str]] = {}
    for model in (m for world in worlds() for m in world.models):
        word = verdict([judge(_alone(score.restored()), floors) for score in model.scores], roles).word
        words.setdefault(model.pool, []).append(word)
    consistent = {pool: sum(word.startswith("CONSISTENT") for word in said) for pool, said in words.items()}
    assert consistent["clean"] >= 0.9 * len(words["clean"])
    assert 0.5 < consistent["edited clean"] / len(words["edited clean"]) < 0.6, "far below the only reference is open"
    assert consistent["described"] == 0 and not consistent["destroyed"]


def test_models_that_know_half_of_the_people_are_partial_with_their_number_and_one_of_32_is_seen() -> None:
    """Whichever half: drawn by the world's seed from all, or half of either part of a split."""
    floors = zoo_floors()
    half, single = list[str](), list[str]()
    for model in (model for world in worlds() for model in world.models if model.kept in (1, 16)):
        reached = verdict([judge(score.restored(), floors) for score in model.scores], ROLES)
        if model.kept == 16:
            assert reached.word == "PARTIAL" and not isinstance(reached.people, Missing), (model.world, model.model)
            ends = [round(32 * end) for end in reached.people.ci95.ends]
            assert ends[0] <= 16 <= ends[1] and 14 <= len(reached.people.named) <= 19, (model.world, model.model)
            half.append(reached.sentence)
        elif model.model == "some_1":
            single.append(reached.word)
    assert len(half) == 24 and sum("16 of 32 people" in sentence for sentence in half) >= 18
    assert len(single) == 12 and single.count("PARTIAL") >= 10


def test_the_calibrations_are_made_from_these_models_and_hold_for_these_probes() -> None:
    subjects = shelf().subjects
    assert subjects is not None and subjects.worlds == len(worlds())
    models = [(w.world, m.model, m.mechanism, m.pool, m.kept) for w in worlds() for m in w.models]
    assert [(s.world, s.model, s.mechanism, s.pool, s.kept) for s in subjects.subjects] == models
    made = worlds()[0]
    assert set(shelf().calibrations) <= set(made.behaviours)
    for name, calibration in shelf().calibrations.items():
        assert calibration.behaviour == made.behaviours[name]
        assert BEHAVIOURS.moved(shelf().records[calibration.behaviour]) == ()
        assert (calibration.version, calibration.settings) == (made.versions[name], made.settings[name])
    joint = read(stored() / JOINT, Joint)
    assert joint.made_from == {name: c.content_hash() for name, c in shelf().calibrations.items()}


def test_the_counted_verdicts_are_those_of_the_stored_calibrations() -> None:
    kept = Verdicts.model_validate_json(verdicts.RESULTS.read_bytes())
    subjects = shelf().subjects
    assert subjects is not None and kept.subjects == subjects.content_hash()
    again = examine(subjects, shelf().calibrations, kept.stamp, kept.command, scores=worlds())
    if subjects.made_with == made_with():
        assert again == kept
    assert (again.counts.false_alarms, again.counts.exceptions) == (kept.counts.false_alarms, kept.counts.exceptions)


@pytest.mark.skipif(not verdicts.RESULTS.is_file(), reason="no results are committed")
def test_the_committed_tables_are_those_of_the_committed_results() -> None:
    stored = Verdicts.model_validate_json(verdicts.RESULTS.read_bytes())
    assert markdown(stored) in Path(verdicts.README).read_text(encoding="utf-8")


def flat(document: object, place: str = "") -> dict[str, object]:
    """The leaves of a JSON document by their place."""
    parts = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    leaves = {place: document} if not isinstance(document, dict | list) else {}
    for key, part in parts:
        leaves |= flat(part, f"{place}/{key}")
    return leaves


@pytest.mark.slow
def test_the_same_scores_give_the_committed_calibrations_again(tmp_path: Path) -> None:
    """To nine digits with the same versions, on any processor; else thresholds within the spread of a rounding."""
    subjects = shelf().subjects
    assert subjects is not None
    records = read_records(schedule.SCORES)
    pool = Pooled(subjects.name, subjects.command, subjects.quick, subjects.draws, schedule.APART, records=records)
    write_all(tmp_path, calibrate(worlds(), pool))
    files = [SUBJECTS, JOINT, *(f"{name}.json" for name in shelf().calibrations)]
    if subjects.made_with == made_with():
        for name in files:
            new, old = (json.loads((folder / name).read_bytes()) for folder in (tmp_path, stored()))
            if name == JOINT:
                # Names of the calibrations by their content, of which the last digit may be the processor's.
                del new["made_from"], old["made_from"]
            leaves, stored_leaves = flat(new), flat(old)
            numbers = {place: value for place, value in stored_leaves.items() if isinstance(value, float)}
            assert leaves.keys() == stored_leaves.keys(), name
            assert all(leaves[place] == value for place, value in stored_leaves.items() if place not in numbers), name
            np.testing.assert_allclose([leaves[place] for place in numbers], [*numbers.values()], 1e-9, 1e-12)
    again = read_library(tmp_path).calibrations
    for name, calibration in shelf().calibrations.items():
        for old, new in zip(calibration.measurements, again[name].measurements, strict=True):
            assert (old.name, old.record) == (new.name, new.record)
            assert new.threshold == pytest.approx(old.threshold, abs=1e-4)
