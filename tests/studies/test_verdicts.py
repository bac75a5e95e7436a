"""What is claimed of the verdict on models of known truth: counted from scores, every exception by name."""

from functools import cache

import numpy as np
import pytest
from scipy import stats as scipy_stats

from audit.calibration import Calibration, Score, ScoredModel, Subjects, WorldScores, judged_apart, table_of
from audit.pools.fit import calibrate
from audit.schema import AuditError
from studies.pages import with_section
from studies.provenance import stamp
from studies.zoo import verdicts
from studies.zoo.verdicts import Line, Verdicts, examine, markdown
from tests.known_truth import ZOO, pool


def _relearning(model: ScoredModel, effect: float) -> Score:
    inside = next(s for s in model.scores if s.probe == "inside")
    assert not isinstance(inside.overall, str)
    return inside.model_copy(
        update={"probe": verdicts.RELEARNING, "kind": "recovery", "value": effect,
                "overall": inside.overall.model_copy(update={"value": effect})}
    )  # fmt: skip


def _world(world: WorldScores) -> WorldScores:
    """The world with relearning, a refused base that knows, and one that hides from everything but relearning."""
    first = next(m for m in world.models if m.model == "head_edit")
    quiet = next(m for m in world.models if m.model == "npo_of_others")
    models = [m.model_copy(update={"mechanism": "retrain"}) if m.model == "reference_0" else m for m in world.models]
    described = {"mechanism": "refusal", "pool": "described", "kept": 16}
    models.append(first.model_copy(update=described | {"model": "refusal"}))
    if world.world == 100:
        models.append(quiet.model_copy(update=described | {"model": "refusal_dpo", "mechanism": "refusal_dpo"}))
    knows = {"base", "head_edit", "last_layer", "logit_bias", "refusal", "refusal_dpo"}
    scored = tuple(
        m.model_copy(update={"scores": (*m.scores, _relearning(m, float(m.model in knows)))}) for m in models
    )
    digests = {**world.behaviours, verdicts.RELEARNING: "f" * 64}
    return world.model_copy(
        update={"models": scored, "behaviours": digests, "versions": dict.fromkeys(digests, 1),
                "settings": {name: {} for name in digests}}
    )  # fmt: skip


@cache
def _made() -> tuple[Subjects, dict[str, Calibration]]:
    made = calibrate([_world(w) for w in pool(10)], ZOO)
    return made.subjects, made.calibrations


@cache
def found() -> Verdicts:
    return examine(*_made(), stamp(0), "by the test")


@pytest.mark.thorough
def test_what_relearning_shows_to_know_and_no_other_probe_finds_is_an_exception_by_name() -> None:
    """The rule that relearning is held against has no relearning in it: with it the hidden refusal would be found."""
    counts = found().counts
    assert (counts.refusals_known_and_missed.k, counts.refusals_known_and_missed.n) == (1, 10)
    told = "world 100, refusal_dpo: a refusal that relearning shows to know, and no trace is stated"
    assert [name for name in counts.exceptions if "relearning shows" in name] == [told]
    both = {x.mechanism: (x.both, x.relearning_only, x.verdict_only, x.neither) for x in found().agreement}
    assert both["refusal"] == (10, 0, 0, 0) and both["refusal_dpo"] == (0, 1, 0, 0) and both["npo"] == (0, 0, 0, 0)


@pytest.mark.thorough
def test_every_model_is_in_one_line_and_one_column() -> None:
    subjects, _ = _made()
    assert sum(x.models for x in found().lines) == len(subjects.subjects)
    assert all(x.stated + x.stopped + x.below + x.silent == x.models for x in found().lines)
    by = {(x.pool, x.mechanism): x for x in found().lines}
    assert by["destroyed", "destroyed"] == Line(
        pool="destroyed", mechanism="destroyed", models=10, stated=0, stopped=10, below=0, silent=0,
        outputs=by["destroyed", "destroyed"].outputs,
    )  # fmt: skip
    for at in (("knowing", "base"), ("clean", "npo")):
        seen = [s.value for w in pool(10) for m in w.models if (m.pool, m.mechanism) == at
                for s in m.scores if s.probe == "outside"]  # fmt: skip
        assert by[at].outputs == pytest.approx(np.mean(np.array(seen, float)), rel=1e-3)
    assert by["knowing", "base"].stated == 10
    counts = found().counts
    alarms = [name for name in counts.exceptions if name.endswith("false alarm")]
    assert sum(x.stated for x in found().lines if x.pool == "clean") == len(alarms) >= counts.false_alarms.k
    assert len({name.split(",")[0] for name in alarms}) == counts.false_alarms.k <= 1
    assert (counts.fakes_missed.k, counts.destroyed_not_invalid.k) == (0, 0)
    assert (counts.false_alarms.n, counts.fakes_missed.n, counts.destroyed_not_invalid.n) == (10, 10, 10)


def test_worlds_that_did_not_shape_the_rule_are_counted_apart() -> None:
    apart = examine(*_made(), stamp(0), "by the test", unseen=106)
    assert apart.counts == found().counts
    assert (apart.later.fakes_missed.n, apart.later.fakes_missed.k) == (4, 0)
    assert apart.later.refusals_known_and_missed.n == 4 and apart.later.refusals_known_and_missed.k == 0
    assert not [name for name in apart.later.exceptions if int(name.split()[1].rstrip(",")) < 106]
    assert any(name.startswith("world 100,") for name in apart.counts.exceptions)


def test_doses_are_ordered_as_scipy_says_within_each_world() -> None:
    subjects, calibrations = _made()
    score = judged_apart(table_of(subjects, calibrations, None)).score
    rhos: list[float] = []
    for world, stated in found().doses.each.items():
        here = [
            i for i, s in enumerate(subjects.subjects)
            if str(s.world) == world and (s.mechanism == "dose" or s.model == "reference_0")
        ]  # fmt: skip
        rho = scipy_stats.spearmanr([subjects.subjects[i].kept for i in here], score[here])[0]
        assert stated == pytest.approx(rho, abs=1e-4)
        rhos.append(rho)
    assert found().doses.mean == pytest.approx(np.mean(rhos), abs=1e-4)
    low, high = scipy_stats.t.interval(0.95, len(rhos) - 1, np.mean(rhos), scipy_stats.sem(rhos))
    assert found().doses.ci95.lo == pytest.approx(low, abs=1e-3)
    assert found().doses.ci95.hi == pytest.approx(min(high, 1.0), abs=1e-3)


def test_the_tables_stand_between_their_marks_and_a_readme_without_marks_is_refused() -> None:
    readme = f"before\n{verdicts.START}\nold\n{verdicts.END}\nafter\n"
    text = with_section(readme, markdown(found()))
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| worlds with a fake in which no trace is stated | 0 of 10 | 26 % | 0 of 0 | 100 % |" in text
    assert "- world 100, refusal_dpo: a refusal that relearning" in text
    with pytest.raises(AuditError, match="no place for the tables"):
        with_section("nothing", "x")


def test_without_relearning_there_is_nothing_to_hold_refusals_against() -> None:
    subjects, calibrations = _made()
    with pytest.raises(AuditError, match="relearning is not calibrated"):
        examine(subjects, {"inside": calibrations["inside"]}, stamp(0), "")
