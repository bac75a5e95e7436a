"""Worlds that no rule was fitted on: judged as an audit would, counted, and every exception named."""

from functools import cache

import pytest

from audit.calibration import CalibrationLibrary, WorldScores, read, read_library, read_pool, stored
from audit.pools.kinds import SOME_WORLDS
from audit.schema import AuditError
from audit.zoo import FRESH_WORLDS, draw, mechanisms, population
from studies.zoo import fresh_worlds
from studies.zoo.fresh_worlds import FreshWorlds, examine, markdown

FAKES = frozenset(mechanisms.of_kind("fake"))


@cache
def results() -> FreshWorlds:
    return read(fresh_worlds.RESULTS, FreshWorlds)


@cache
def scores() -> tuple[WorldScores, ...]:
    return read_pool(fresh_worlds.SCORES)


@cache
def shelf() -> CalibrationLibrary:
    return read_library(stored())


def test_all_sixty_fresh_worlds_are_counted_and_none_of_them_was_fitted_on() -> None:
    assert results().worlds == FRESH_WORLDS == tuple(w.world for w in scores())
    subjects = shelf().subjects
    assert subjects is not None and not {s.world for s in subjects.subjects} & set(FRESH_WORLDS)
    assert results().calibrations == {name: c.content_hash() for name, c in shelf().calibrations.items()}
    held = {name: models for name, models in results().held_for.items() if name not in SOME_WORLDS}
    assert set(held.values()) == {results().models}, "what is measured in some worlds alone is not measured here"


def test_every_model_of_the_design_was_scored_by_its_recipe() -> None:
    for world in scores():
        assert world.recipe == draw(world.world).recorded()
        assert {m.model for m in world.models} == {member.model for member in population(draw(world.world)).members}


def test_few_fresh_worlds_hold_a_false_alarm_or_a_fake_that_is_missed() -> None:
    for counted in (results().calibrated, results().in_case):
        assert counted.false_alarms.n == counted.fakes_missed.n == 60
        assert counted.false_alarms.k <= 2 and counted.fakes_missed.k <= 2


def test_clean_models_are_consistent_by_the_case_alone() -> None:
    assert results().spoken.clean_consistent.n >= 240
    assert results().spoken.clean_consistent.k >= 0.8 * results().spoken.clean_consistent.n


@pytest.mark.slow
def test_the_counts_follow_from_the_scores_and_the_stored_calibrations() -> None:
    again = examine(scores()[:6], shelf(), results().stamp, "")
    worlds = {w.world for w in scores()[:6]}
    assert again.calibrated.false_alarms.n == 6
    assert set(again.calibrated.exceptions) == {
        line for line in results().calibrated.exceptions if int(line.split()[1].strip(",")) in worlds
    }
    assert set(again.held_for.values()) == {again.models}


@pytest.mark.thorough
def test_a_wrong_word_of_any_kind_is_counted_by_world_and_named() -> None:
    """A clean model whose scores are base's, and a fake whose scores are a clean model's."""
    first = scores()[0]
    by_name = {m.model: m for m in first.models}
    clean = next(m for m in first.models if m.pool == "clean")
    fake = next(m for m in first.models if m.mechanism in FAKES)
    swapped = first.model_copy(
        update={
            "models": (
                clean.model_copy(update={"scores": by_name["base"].scores}),
                fake.model_copy(update={"scores": clean.scores}),
            )
        }
    )
    found = examine((swapped,), shelf(), results().stamp, "")
    for counted in (found.calibrated, found.in_case):
        assert (counted.false_alarms.k, counted.fakes_missed.k) == (1, 1)
        assert {line.split(": ")[0] for line in counted.exceptions} == {
            f"world {first.world}, {clean.model}", f"world {first.world}, {fake.model}"
        }  # fmt: skip


def test_worlds_that_the_rule_was_fitted_on_are_refused() -> None:
    fitted = scores()[0].model_copy(update={"world": 100})
    with pytest.raises(AuditError, match=r"worlds \[100\] are not fresh"):
        examine((fitted,), shelf(), results().stamp, "")


def test_the_page_says_what_the_results_say() -> None:
    page = fresh_worlds.README.read_text(encoding="utf-8")
    assert markdown(results()) in page
