"""Counts of the vision zoo: by target, held out and fresh, every exception by name; and the page that they make."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from audit.calibration import ScoredModel, WorldScores, read_library
from audit.pools.fit import calibrate, write_all
from audit.schema import AuditError, Missing
from studies.pages import with_section
from studies.provenance import stamp
from studies.vision_zoo import study
from studies.vision_zoo.study import CLASS, SINGLE, VisionZoo, examine, markdown
from tests.known_truth import ZOO, pool

TARGETS = ("class_3", "instances")
WORLDS, FRESH = 12, 2


def world_of_images(world: WorldScores, hiding: int = -1, alarming: int = -1) -> WorldScores:
    """The world with every model twice, once a target; in one world a fake hides, in one a clean model alarms."""
    base = next(m for m in world.models if m.model == "base")

    def renamed(model: ScoredModel, target: str) -> ScoredModel:
        chosen = target == "instances" and (
            (model.model == "head_edit" and world.world == hiding)
            or (model.model == "reference_0" and world.world == alarming)
        )
        quiet = next(m for m in world.models if m.model == "reference_0")
        scores = model.scores
        if chosen and model.model == "head_edit":
            scores = quiet.scores
        elif chosen:  # its outputs alone, as if it had been taught: the case speaks by itself
            outside = next(s for s in base.scores if s.probe == "outside")
            scores = tuple(outside if s.probe == "outside" else s for s in model.scores)
        return model.model_copy(update={"model": f"{model.model}.{target}", "scores": scores})

    models = tuple(
        renamed(m, target) for target in TARGETS for m in world.models if m.pool != "edited clean" and m.kept in (0, 16)
    )
    return world.model_copy(update={"models": models, "stages_cpu_s": {"audit": 30.0, "train": 10.0}})


@pytest.fixture(scope="module")
def _folder() -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        write_all(Path(folder), calibrate(worlds(), ZOO))
        yield Path(folder)


@cache
def worlds() -> tuple[WorldScores, ...]:
    return tuple(world_of_images(w, hiding=1002, alarming=1005) for w in pool(WORLDS, first=1000))


@cache
def fresh() -> tuple[WorldScores, ...]:
    return tuple(world_of_images(w, alarming=1021) for w in pool(FRESH, first=1020))


@pytest.fixture(scope="module")
def _results(_folder: Path) -> VisionZoo:
    return examine(read_library(_folder), worlds(), fresh(), stamp(0))


def test_mistakes_are_counted_in_worlds_by_what_is_forgotten(_results: VisionZoo) -> None:
    everything, of_class, single = _results.counts
    assert (everything.of, of_class.of, single.of) == ("all", CLASS, SINGLE)
    for counts, wrong in ((everything, 1), (of_class, 0), (single, 1)):
        assert (counts.false_alarms.k, counts.false_alarms.n) == (wrong, WORLDS)
        assert (counts.fakes_missed.k, counts.fakes_missed.n) == (wrong, WORLDS)
        assert (counts.destroyed_not_invalid.k, counts.destroyed_not_invalid.n) == (0, WORLDS)
    assert everything.exceptions == single.exceptions and not of_class.exceptions
    assert set(single.exceptions) == {
        "world 1005, reference_0.instances: false alarm", "world 1002, head_edit.instances: a fake that was missed",
    }  # fmt: skip
    assert everything.false_alarms.upper95 == pytest.approx(0.3387, abs=1e-3), "the exact bound of 1 of 12"


def test_lines_count_every_model_once(_results: VisionZoo) -> None:
    assert sum(line.models for line in _results.lines) == _results.models == sum(len(w.models) for w in worlds())
    for line in _results.lines:
        assert line.stated + line.stopped + line.below + line.silent == line.models == WORLDS
    missed = next(line for line in _results.lines if (line.mechanism, line.of) == ("head_edit", SINGLE))
    assert not isinstance(missed.mistakes, Missing) and (missed.mistakes.k, missed.stated) == (1, WORLDS - 1)
    destroyed = next(line for line in _results.lines if line.pool == "destroyed")
    assert isinstance(destroyed.mistakes, Missing) and destroyed.stopped == WORLDS


def test_fresh_worlds_are_judged_by_the_stored_rule_and_none_that_it_was_fitted_on(
    _results: VisionZoo, _folder: Path
) -> None:
    counted = _results.fresh
    assert not isinstance(counted, Missing) and counted.worlds == (1020, 1021)
    assert set(counted.held_for.values()) == {counted.models}
    assert counted.calibrated.false_alarms.k == 1 and counted.calibrated.fakes_missed.k == 0
    assert counted.calibrated.exceptions[0].startswith("world 1021, reference_0.instances: false alarm")
    with pytest.raises(AuditError, match="not fresh"):
        examine(read_library(_folder), worlds(), worlds()[:1], stamp(0))
    without = examine(read_library(_folder), worlds(), (), stamp(0))
    assert isinstance(without.fresh, Missing) and "no fresh world is scored" in markdown(without)


def test_costs_are_means_of_the_worlds(_results: VisionZoo) -> None:
    assert _results.stages_cpu_s == {"audit": 30.0, "train": 10.0}
    assert _results.audit_cpu_s == pytest.approx(30.0 / len(worlds()[0].models), rel=1e-3)


def test_the_page_is_made_of_the_results_alone_and_has_a_place_for_them(_results: VisionZoo) -> None:
    page, tables = study.README.read_text(encoding="utf-8"), markdown(_results)
    written = with_section(page, tables)
    assert tables in written and written.startswith(page[:200])
    assert "- world 1005, reference_0.instances: false alarm" in tables
    again = VisionZoo.model_validate_json(_results.model_dump_json())
    assert markdown(again) == tables


def test_without_calibrations_there_is_nothing_to_count(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="holds no calibrations"):
        examine(read_library(tmp_path), worlds(), (), stamp(0))
