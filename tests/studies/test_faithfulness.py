"""The meta-evaluation: directions by hand-written examples, known answers on small tables, the command end to end."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score, roc_curve

from audit.calibration import Score, ScoredModel, WorldScores, world_path, write_world
from audit.schema import AuditError, Domain, Missing, Number, Overall, TruthLabel
from studies.faithfulness import faith, people, robustness, study, tables
from studies.faithfulness.contrasts import EVERYTHING, FAKED, PUBLISHED, Table, held, table
from studies.faithfulness.metrics import COMPARED, METRICS, NOT_COMPUTED, UDS, Metric, knowledge, metric
from studies.faithfulness.people import Items, Person
from studies.faithfulness.readings import AttackedWorld, Reading, State, path_of
from studies.faithfulness.robustness import Attacked, Change

DOMAIN = Domain(
    architecture="llama", parameters=1000, blocks=2, d=8, vocabulary=50, forget_people=4, references=2,
    null="reference", control_effect=0.9,
)  # fmt: skip
NONE = Missing(missing="not told here")

# How each raw number reads in a model that knows, and in one that never knew: from the methods' own definitions.
RAW: dict[tuple[str, str, str], tuple[float, float]] = {
    ("reverse_patch", UDS, "value"): (0.05, 0.95),  # 0 intact, 1 erased
    ("reverse_patch", UDS, "unclipped"): (0.05, 1.4),
    ("answer_lens", "lens_lift", "overall"): (0.9, 0.0),
    ("answer_lens", "lens_lift", "value"): (0.95, 0.05),
    ("answer_lens", "lens_lift", "top4_hit_lift_suspect"): (0.7, 0.0),
    ("answer_lens", "lens_lift", "largest_person"): (6.0, 1.0),
    ("forget_likelihood", "truth_ratio", "mean_suspect"): (0.8, 0.5),  # P_para / (P_para + P_pert)
    ("forget_likelihood", "extraction_strength", "mean_suspect"): (0.9, 0.1),
    ("forget_likelihood", "exact_memorisation", "mean_suspect"): (0.9, 0.2),
    ("forget_likelihood", "probability", "mean_suspect"): (0.9, 0.1),
    ("forget_likelihood", "probability_held_out_phrasing", "mean_suspect"): (0.8, 0.1),
    ("forget_likelihood", "probability_held_out_attribute", "mean_suspect"): (0.8, 0.1),
    ("forget_likelihood", "forget_quality", "value"): (0.8, 0.1),  # distance from the reference
    ("forget_likelihood", "forget_quality", "truth_ratio_closer_to_1_better_suspect"): (0.4, 0.9),  # P_pert / P_para
    ("forget_likelihood", "privacy_leakage", "value"): (-95.0, 4.0),  # -100: every member is told
    ("forget_likelihood", "privacy_leakage", "auc_suspect"): (0.98, 0.5),
    ("forget_likelihood", "privacy_leakage", "auc_null"): (0.5, 0.5),
    ("reverse_patch", "depth_profile_all", "overall"): (0.9, 0.0),
    ("reverse_patch", "depth_profile_all", "value"): (0.95, 0.1),
    ("reverse_patch", "depth_profile_all", "largest_person"): (9.0, 1.0),
    ("reverse_patch", "depth_profile_answer", "overall"): (0.9, 0.0),
    ("relearning_recovery", "recall_of_others", "overall"): (0.8, 0.0),
    ("relearning_recovery", "recall_of_others", "largest_person"): (5.0, 1.0),
    ("quantisation_recovery", "after_rounding", "overall"): (0.9, 0.0),
    ("quantisation_recovery", "recovery", "overall"): (0.4, 0.0),
    ("utility", "retain", "value"): (1.0, 0.9),
}


def scores(side: float, missing: tuple[str, ...] = ()) -> tuple[Score, ...]:
    """Every measurement of one model: ``side`` 1 reads as knowing, 0 as clean, in between in proportion."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for (probe, name, part), (high, low) in RAW.items():
        found.setdefault((probe, name), {})[part] = low + side * (high - low)
    return tuple(_score(probe, name, parts, name in missing) for (probe, name), parts in found.items())


def _score(probe: str, name: str, parts: dict[str, float], missing: bool) -> Score:
    value: Number = Missing(missing=f"no {name} here") if missing else parts.get("value", parts.get("overall", 0.5))
    overall = Overall(value=parts["overall"], ci95=NONE, floor=NONE) if "overall" in parts else NONE
    readings = {key: x for key, x in parts.items() if key not in ("value", "overall")}
    return Score(
        probe=probe, name=name, kind="context", value=value, ci95=NONE, p=NONE, p_below=NONE, floor=NONE,
        overall=overall, control_found=True, units=4, readings={} if missing else readings,
    )  # fmt: skip


def model(number: int, name: str, pool: TruthLabel, side: float, *, kept: int = 0, mechanism: str = "") -> ScoredModel:
    """One model of a synthetic world."""
    return ScoredModel(
        world=number, model=name, mechanism=mechanism or name, pool=pool, kept=kept, audited=4, domain=DOMAIN,
        scores=scores(side),
    )  # fmt: skip


def world(number: int) -> WorldScores:
    """A world in which every metric is a noisy reading of the truth, and outputs are blind to the head edit."""
    noise = np.random.default_rng(number).normal(0, 0.15, 12)
    models = [
        model(number, "base", "knowing", 1.0, kept=4),
        model(number, "paraphrased", "knowing", 0.8 + noise[0], kept=4),
        model(number, "head_edit", "knowing", 0.9 + noise[1], kept=4),
        model(number, "last_layer", "knowing", 0.5 + noise[2], kept=4),
        model(number, "dose_2", "knowing", 0.25, kept=1, mechanism="dose"),
        model(number, "dose_4", "knowing", 0.5, kept=2, mechanism="dose"),
        model(number, "dose_6", "knowing", 0.6, kept=3, mechanism="dose"),
        model(number, "reference_0", "clean", 0.0 + noise[3] / 10, mechanism="retrain"),
        model(number, "npo_of_others", "clean", 0.2 + noise[4], mechanism="npo"),
        model(number, "npo_of_facts", "edited clean", 0.1, mechanism="npo"),
        model(number, "npo", "described", 0.3, kept=4),
        model(number, "destroyed", "destroyed", 0.0, kept=4),
    ]
    return WorldScores(
        world=number, recipe={}, stages_cpu_s={"audit": 2.0, "audit.x": 1.0}, behaviours={}, models=tuple(models)
    )


@pytest.fixture(scope="module")
def levels() -> Table:
    return table([world(n) for n in range(4)])


# ---- directions ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("one", METRICS, ids=lambda one: one.key)
def test_every_metric_reads_higher_in_a_model_that_knows(one: Metric) -> None:
    knowing, clean = knowledge(one, scores(1.0)), knowledge(one, scores(0.0))
    assert isinstance(knowing, float) and isinstance(clean, float) and knowing > clean


def test_levels_are_what_the_methods_define() -> None:
    found = {key: knowledge(metric(key), scores(1.0)) for key in (UDS, "truth_ratio", "min_k_auc", "s_min_k")}
    assert found[UDS] == pytest.approx(1 - 0.05)
    assert found["truth_ratio"] == pytest.approx(0.8) and found["min_k_auc"] == pytest.approx(0.98)
    assert found["s_min_k"] == pytest.approx(abs(0.98 - 0.5) / 0.5)


def test_published_figures_agree_with_the_formula_of_their_parts() -> None:
    known = [*(one.published for one in METRICS if one.published), *NOT_COMPUTED.values()]
    assert len(known) == 17
    for p in known:
        assert p.robust == pytest.approx(statistics.harmonic_mean([p.quantised, p.relearned]), abs=0.0015)
        # To .0015 too, but for the truth ratio (.537 is printed, its parts give .541) and what rounding of .013 does.
        assert p.overall == pytest.approx(statistics.harmonic_mean([p.faithful, p.robust]), abs=0.005)


# ---- contrasts and missing numbers --------------------------------------------------------------------------------
def test_contrasts_hold_the_models_that_they_name(levels: Table) -> None:
    def names(holds: Callable[[ScoredModel], bool]) -> set[str]:
        return {m.model for m, inside in zip(levels.models, levels.where(holds), strict=True) if inside}

    assert names(PUBLISHED.knowing) == {"base", "paraphrased"} and names(PUBLISHED.clean) == {"reference_0"}
    assert names(FAKED.knowing) == {"head_edit", "last_layer"}
    assert names(FAKED.clean) == names(EVERYTHING.clean) == {"reference_0", "npo_of_others"}
    doses = {"dose_2", "dose_4", "dose_6"}
    assert names(EVERYTHING.knowing) == {"base", "paraphrased", "head_edit", "last_layer"} | doses


def test_a_model_without_a_number_is_named_and_left_out_never_given_one() -> None:
    worlds = [world(n) for n in range(4)]
    blind = worlds[1].models[7].model_copy(update={"scores": scores(0.0, missing=("depth_profile_all",))})
    models = tuple(blind if m.model == blind.model else m for m in worlds[1].models)
    found = table([worlds[0], worlds[1].model_copy(update={"models": models}), *worlds[2:]])
    assert [(a.world, a.model, a.reason) for a in found.absent["depth_profile"]] == [
        (1, "reference_0", "no depth_profile_all here")
    ]
    alone, both = held(found, FAKED, ["depth_profile"]), held(found, FAKED, [UDS, "depth_profile"])
    assert len(alone.row) == len(both.row) == len(held(found, FAKED, [UDS]).row) - 1
    assert np.isfinite(alone.data.score).all() and [a.model for a in both.absent] == ["reference_0"]
    assert not held(found, FAKED, [UDS]).absent
    row = faith.faithful(found, FAKED)["depth_profile"]
    assert row["clean"] == 7 and row["missing"]["models"] == 1  # type: ignore[index]


def test_a_measurement_that_was_not_made_is_missing_with_a_reason() -> None:
    found = knowledge(metric("relearning"), [s for s in scores(1.0) if s.probe != "relearning_recovery"])
    assert isinstance(found, Missing) and "not measured" in found.missing
    broken = [s.model_copy(update={"readings": {}}) for s in scores(1.0)]
    assert "no reading mean_suspect" in str(knowledge(metric("probability"), broken))
    assert "no AUROC of a retrained model" in str(knowledge(metric("s_min_k"), broken))


# ---- faithfulness -------------------------------------------------------------------------------------------------
def test_areas_and_differences_are_those_of_an_independent_computation(levels: Table) -> None:
    level = dict(levels.levels)
    level["probability"] = np.random.default_rng(0).permutation(level[UDS])
    found = faith.faithful(levels._replace(levels=level), FAKED)
    inside = levels.where(FAKED.knowing) | levels.where(FAKED.clean)
    truth = levels.where(FAKED.knowing)[inside]
    areas = {key: roc_auc_score(truth, level[key][inside]) for key in (UDS, "probability")}
    assert found[UDS]["auc"] == pytest.approx(areas[UDS], abs=1e-4)
    versus = found["probability"]["versus_depth_score"]
    assert versus["gap"] == pytest.approx(areas["probability"] - areas[UDS], abs=1e-4)  # type: ignore[index]
    assert "versus_depth_score" not in found[UDS] and found["probability"]["p_holm"] >= versus["p"]  # type: ignore


def test_the_cut_is_where_found_less_alarmed_is_largest() -> None:
    rng = np.random.default_rng(1)
    knows = np.repeat([True, False], 40)
    level = rng.normal(knows * 1.0, 1.0)
    alarmed, found, _ = roc_curve(knows, level, drop_intermediate=False)
    at = faith.cut(level, knows)
    assert (level[knows] > at).mean() - (level[~knows] > at).mean() == pytest.approx((found - alarmed).max())
    assert faith.cut(np.array([0.0, 1.0, 3.0, 4.0]), np.array([False, False, True, True])) == 2.0


def test_every_mechanism_is_counted_above_and_below_the_cut(levels: Table) -> None:
    found = faith.by_mechanism(levels, dict.fromkeys(levels.levels, 0.45))["probability"]
    above = {m.model: 0 for m in levels.models}
    for m, x in zip(levels.models, levels.levels["probability"], strict=True):
        above[m.model] += int(x > 0.45)
    assert found["knowing"]["head_edit"]["above"] == above["head_edit"] and found["knowing"]["head_edit"]["of"] == 4
    assert found["edited clean"]["npo"] == {"above": 0, "of": 4, "missing": 0}
    assert {kind for kind in found["knowing"] if kind.startswith("dose")} == {"dose 1", "dose 2", "dose 3"}
    assert set(found["clean"]) == {"retrain", "npo"} and found["knowing"]["base"]["auc"] == 1.0


def test_doses_are_ranked_within_worlds_without_base(levels: Table) -> None:
    found = faith.doses(levels, "probability")
    assert found is not None and found.rho == pytest.approx(1.0) and len(found.by_world) == 4
    rng = np.random.default_rng(2)
    noisy = levels._replace(levels={**levels.levels, "probability": rng.normal(size=len(levels.models))})
    moved = faith.doses(noisy, "probability")
    assert moved is not None
    kept = np.array([m.kept for m in levels.models])
    own = {w: np.flatnonzero((levels.world == w) & [m.mechanism in ("dose", "retrain") for m in levels.models])
           for w in range(4)}  # fmt: skip
    rho = [scipy_stats.spearmanr(kept[own[w]], noisy.levels["probability"][own[w]]).statistic for w in range(4)]
    ends = scipy_stats.t.interval(0.95, 3, np.mean(rho), scipy_stats.sem(rho))
    assert moved.rho == pytest.approx(np.mean(rho))
    np.testing.assert_allclose([moved.lo, moved.hi], np.clip(ends, -1, 1))
    flat = levels._replace(levels={**levels.levels, "probability": np.zeros(len(levels.models))})
    assert faith.doses(flat, "probability").rho == 0.0  # type: ignore[union-attr]
    assert faith.doses(table([world(0)]), "probability") is None


# ---- robustness ---------------------------------------------------------------------------------------------------
def test_only_a_rise_by_rounding_is_punished_in_the_published_form() -> None:
    rise, fall = Change(0.1, 0.2), Change(0.2, 0.1)
    assert robustness.quantised(rise) == pytest.approx(0.5) and robustness.quantised(fall) == 1.0
    for change in (rise, fall):
        assert robustness.quantised_both_ways(change) == pytest.approx(1 - 0.1 / 0.3, abs=1e-4)
    assert robustness.quantised(Change(0.0, 0.3)) == 0.0 and robustness.quantised(Change(-0.2, -0.1)) == 1.0


def test_what_comes_back_is_held_against_what_a_retrained_model_learns() -> None:
    unlearned, retrained = Change(0.1, 0.5), Change(0.1, 0.2)
    assert robustness.relearned(unlearned, retrained) == pytest.approx(0.25)
    assert robustness.relearned(retrained, unlearned) == 1.0
    assert robustness.relearned(Change(0.4, 0.3), retrained) == 1.0
    assert robustness.relearned(unlearned, Change(0.3, 0.2)) == 0.0
    for one, other in ((unlearned, retrained), (retrained, unlearned)):
        assert robustness.relearned_both_ways(one, other) == pytest.approx(1 - 0.3 / 0.5, abs=1e-4)


LEVEL = st.floats(0, 1)


@given(LEVEL, LEVEL, LEVEL, LEVEL)
def test_robustness_is_a_share_and_symmetric_forms_do_not_care_for_the_side(
    a: float, b: float, c: float, d: float
) -> None:
    one, other = Change(a, b), Change(c, d)
    for value in (robustness.relearned(one, other), robustness.quantised(one)):
        assert 0 <= value <= 1
    assert robustness.quantised_both_ways(one) == pytest.approx(robustness.quantised_both_ways(Change(b, a)))
    both = robustness.relearned_both_ways
    assert both(one, other) == pytest.approx(both(other, one)) and 0 <= both(one, other) <= 1


def attacked(utility: float, before: Number, after: Number = 0.5, world: int = 1) -> Attacked:
    return Attacked(world, "npo", utility, before, after, 0.2, 0.1, 0.2)


def test_only_useful_models_that_the_metric_calls_unlearned_count() -> None:
    models = [
        attacked(0.9, 0.1), attacked(0.79, 0.1), attacked(0.9, 0.31), attacked(0.8, 0.3, world=2),
        attacked(0.9, Missing(missing="gate")), attacked(0.9, 0.1, Missing(missing="gate")),
    ]  # fmt: skip
    found = robustness.robust(models, 0.3, "one_sided")
    assert (found.models, found.useful, found.passing, found.counting, found.unread) == (6, 5, 3, 2, 2)
    # rises of .4 and .2 against .1 in the retrained model; rounding takes .1 to .2 and .3 to .2
    assert found.r == pytest.approx((0.25 + 0.5) / 2) and found.q == pytest.approx((0.5 + 1.0) / 2)
    assert found.robust == pytest.approx(statistics.harmonic_mean([0.375, 0.75]))
    assert found.by_world[2] == pytest.approx((0.5, 1.0))
    row = robustness.robust_row(found, 0.9)
    assert row["overall"] == pytest.approx(statistics.harmonic_mean([0.9, 0.5]), abs=1e-4)


def test_without_a_model_that_counts_there_is_no_robustness() -> None:
    found = robustness.robust([attacked(0.1, 0.1)], 0.3, "symmetric")
    assert isinstance(found.r, Missing) and isinstance(found.robust, Missing)
    assert robustness.robust_row(found, 0.9)["overall"] == "no unlearned model counts"


# ---- people -------------------------------------------------------------------------------------------------------
def items(seed: int = 0) -> Items:
    """Three people with two items each, four layers."""
    rng = np.random.default_rng(seed)
    null = rng.uniform(0.01, 0.2, (6, 4))
    base = null + rng.uniform(0.2, 0.7, (6, 4))
    return Items(("a", "a", "b", "b", "c", "c"), base, null + 0.3 * (base - null), null)


def every(gap: np.ndarray) -> np.ndarray:
    return np.arange(len(gap))


def test_a_persons_effect_is_in_units_of_what_base_exceeds_the_null_by() -> None:
    found = people.effects(items(), every)
    assert np.mean(list(found.values())) == pytest.approx(0.3)
    known = items()._replace(suspect=items().base)
    assert np.mean(list(people.effects(known, every).values())) == pytest.approx(1.0)
    gap = (items().base - items().null)[:2].mean(0)
    assert found["a"] == pytest.approx(0.3 * gap.sum() / (items().base - items().null).mean(0).sum())
    assert people.effects(items(), lambda gap: np.zeros(0, int)) == {}


def test_a_persons_depth_score_is_one_where_nothing_is_lost_and_zero_where_all_is() -> None:
    one = items()
    assert set(people.depth_scores(one._replace(suspect=one.base), 0.05).values()) == {1.0}
    assert np.allclose(list(people.depth_scores(one._replace(suspect=one.null), 0.05).values()), 0.0)
    lost = np.log(one.base) - np.log(one.suspect)
    weight = np.log(one.base) - np.log(one.null)
    by_item = [sum(w * min(max(x / w, 0), 1) for x, w in zip(*row, strict=True)) / sum(row[1])
               for row in zip(lost, weight, strict=True)]  # fmt: skip
    found = people.depth_scores(one, 0.05)
    assert found["b"] == pytest.approx(1 - np.mean(by_item[2:4]))
    silent = one._replace(null=np.vstack([one.base[:2], one.null[2:]]))
    assert set(people.depth_scores(silent, 0.05)) == {"b", "c"}


def test_the_null_of_a_table_is_its_first_reference(tmp_path: Path) -> None:
    lines = [("i1", "a", role, x, layer) for role, x in (("base", 0.9), ("suspect", 0.5), ("reference", 0.1),
             ("reference", 0.3)) for layer in (0, 1)]  # fmt: skip
    names = ("item", "group", "role", "score", "axis_value")
    columns = {name: [line[i] for line in lines] for i, name in enumerate(names)}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    found = people.read_items(tmp_path / "t.parquet")
    assert found.person == ("a",) and found.null.tolist() == [[0.1, 0.1]] and found.suspect.tolist() == [[0.5, 0.5]]


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=200))
def test_at_most_five_per_cent_of_clean_people_exceed_the_threshold(effects: list[float]) -> None:
    values = np.array(effects)
    assert (values > people.threshold(values)).mean() <= 0.05


def test_people_are_judged_by_a_threshold_of_other_worlds() -> None:
    clean = {1: [0.0, 0.1, 0.2], 2: [0.1, 0.3, 0.5]}
    everyone = [Person(w, "retrain", False, x) for w, xs in clean.items() for x in xs]
    everyone += [Person(1, "head_edit", True, 0.4), Person(1, "head_edit", True, 0.6), Person(2, "base", True, 0.21)]
    found = people.mistakes(everyone)
    assert found is not None and found.by_world[1][0] == 0.5 and found.by_world[2][0] == 0.2
    assert found.false_positives == (2, 6) and found.misses == (1, 3)
    assert found.missed == {"head_edit": (1, 2), "base": (0, 1)} and found.alarmed == {"retrain": (2, 6)}
    assert people.mistakes([p for p in everyone if p.world == 1]) is None


# ---- from files of readings ---------------------------------------------------------------------------------------
def reading(
    name: str, pool: TruthLabel, state: State, level: float, who: dict[str, float], taught: tuple[str, ...]
) -> Reading:
    found = {"probability": who} if who else {}
    return Reading(
        model=name, mechanism={"reference_0": "retrain"}.get(name, name), pool=pool, state=state, taught=taught,
        utility=0.9, values={"probability": level, UDS: Missing(missing="blind")}, people=found,
    )  # fmt: skip


def readings(number: int) -> AttackedWorld:
    """A retrained model, a model that keeps one person, and an unlearned one that relearns fast."""
    at: dict[State, tuple[float, float]] = {
        "before": (0.1, 0.1), "relearned": (0.2, 0.5), "relearned others": (0.1, 0.3), "rounded": (0.1, 0.2)
    }  # fmt: skip
    clean, known = {"p": 0.0, "q": 0.1}, {"p": 0.9, "q": 0.0}
    found = [reading("dose_2", "knowing", "before", 0.5, known, ("p",))]
    for state, (retrained, unlearned) in at.items():
        own = clean if state == "before" else {}
        found.append(reading("reference_0", "clean", state, retrained, own, ()))
        found.append(reading("npo", "described", state, unlearned, {}, ("p", "q")))
    return AttackedWorld(world=number, recipe={}, code={}, attacks={}, cpu_s={"measure": 1.0}, readings=tuple(found))


def test_readings_of_attacked_models_become_changes_and_people() -> None:
    worlds = [readings(1), readings(2)]
    rows = robustness.robust_part(worlds, {one.key: 0.3 for one in METRICS}, {one.key: 0.9 for one in METRICS})
    by_lesson = rows["metrics"]["probability"]  # type: ignore[index]
    assert by_lesson["relearned"]["one_sided"]["r"] == pytest.approx(0.25)
    assert by_lesson["relearned others"]["one_sided"]["r"] == 0.0
    assert by_lesson["relearned"]["levels"] == {
        "before": 0.1, "relearned": 0.5, "rounded": 0.2, "retrained_before": 0.1, "retrained_relearned": 0.2,
    }  # fmt: skip
    assert by_lesson["relearned"]["one_sided"]["q"] == 0.5 and by_lesson["relearned"]["one_sided"]["counting"] == 2
    assert set(rows["metrics"]) == {"probability"}  # type: ignore[arg-type]
    found = people.people_part(worlds)["metrics"]["probability"]  # type: ignore[index]
    # q, whom the dosed model was not taught, is neither missed nor a false positive
    assert found["misses"] == [0, 2] and found["false_positives"] == [0, 4]


# ---- the command --------------------------------------------------------------------------------------------------
@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command on four synthetic worlds, with readings of two that are already there."""
    pool, out = tmp_path / "scores", tmp_path / "out"
    for n in range(4):
        write_world(world_path(pool, n), world(n))
    (out / "attacked").mkdir(parents=True)
    for n in (1, 2):
        path_of(out / "attacked", n).write_text(readings(n).canonical())
    (out / "README.md").write_text(f"before\n{study.BEGIN}\nold\n{study.END}\nafter\n")
    monkeypatch.setattr("sys.argv", ["study", "--parts", "scores", "--scores", str(pool), "--out", str(out)])
    assert study.main() == 0
    return out


def test_the_command_writes_results_a_table_and_a_figure(made: Path) -> None:
    results = json.loads((made / "results.json").read_text())
    assert results["scores"]["worlds"] == [0, 1, 2, 3] and results["scores"]["pools_cpu_s"] == 8.0
    assert results["scores"]["stamp"]["seed"] == faith.SEED and "--parts scores" in results["scores"]["command"]
    assert results["attacks"]["robustness"]["worlds"] == [1, 2] and str(made) not in (made / "results.json").read_text()
    page = (made / "README.md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in rows}) == 1
    shown = next(line for line in rows if line.startswith("| probability, content tokens |"))
    assert "| .816 |" in shown and ".642 / .250 / " in shown and "| 0/4 | 0/2 |" in shown
    assert next(line for line in rows if line.startswith("| ROUGE |")).split(" | ")[1:3] == [".722", "not computed"]
    drawing = ElementTree.fromstring((made / "figure.svg").read_text())
    words = "".join(drawing.itertext())
    assert all(one.words in words for one in METRICS) and "prefers-color-scheme:dark" in words
    shown = [(made / name).read_bytes() for name in ("README.md", "figure.svg")]
    study.render(made, results)
    assert [(made / name).read_bytes() for name in ("README.md", "figure.svg")] == shown


def test_agreement_is_spearmans_with_the_published_figures() -> None:
    order = sorted(COMPARED, key=lambda one: one.published.faithful)  # type: ignore[union-attr]
    rows = {one.key: {"auc": 0.5 + n / 100} for n, one in enumerate(order)}
    noisy = {one.key: {"auc": x} for one, x in zip(COMPARED, (0.9, 0.2, 0.7, 0.7, 0.1, 0.5, 0.3, 0.4), strict=True)}
    results = {"scores": {"contrasts": {"fakes": {"metrics": rows}, "everything": {"metrics": noisy}}}}
    published = [one.published.faithful for one in COMPARED if one.published]
    rho = scipy_stats.spearmanr(published, [row["auc"] for row in noisy.values()]).statistic
    assert scipy_stats.spearmanr(published, [rows[one.key]["auc"] for one in COMPARED]).statistic > 0.99
    words = tables.agreement(tables.parts_of(results))
    assert f"everything {rho:.3f}".replace("0.", ".") in words and "R –, Q –, overall –" in words


def test_without_scores_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["study", "--parts", "scores", "--scores", str(tmp_path), "--out", str(tmp_path)])
    assert study.main() == 2
    assert "audit.pools.schedule" in capsys.readouterr().out
    with pytest.raises(AuditError, match="holds no attacked models"):
        (tmp_path / "attacked").mkdir()
        path_of(tmp_path / "attacked", 1).write_text("{}")
        study.read_all(tmp_path / "attacked")
