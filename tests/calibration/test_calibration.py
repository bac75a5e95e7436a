"""Calibrations from pools whose truth is simulated: the counted mistakes are the true ones, nothing is overstated."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import stats
from audit.calibration import (
    JOINT,
    SUBJECTS,
    Calibration,
    CalibrationLibrary,
    Feature,
    Joint,
    ProbeIdentity,
    ScoredModel,
    WorldScores,
    features,
    fit_joint,
    rate,
    read,
    read_library,
    reliability,
    table_of,
    threshold,
    use_of,
    zoo_floors,
)
from audit.calibration.behaviour import Attested, attested, write_record
from audit.calibration.evidence_features import full_name
from audit.calibration.joint_rule import ActiveEvidence, apply, is_sufficient, judged_apart
from audit.judging.calibrated import ratio_of
from audit.pools.fit import calibrate, write_all
from audit.schema import AuditError, ExitCode, Interval, Missing
from audit.stats import clustered, likelihood_ratio
from tests.known_truth import DIGESTS, DOMAIN, KINDS, RECORDS, ZOO, World, made, other, pool, same


def row(model: ScoredModel) -> dict[Feature, float]:
    return {Feature(full_name(s), name): value for s in model.scores for name, value in features(s).items()}


# ---- rates ------------------------------------------------------------------------------------------------------
def fresh(worlds: tuple[WorldScores, ...], joint: Joint, which: str) -> tuple[int, int]:
    """Verdicts that wrongly state a trace (none) on worlds that no fit has seen, counted here by hand.

    A trace is stated by the joint rule, or by outputs of at least a tenth of base.
    """
    wrong = 0
    for world in worlds:
        models = [m for m in world.models if m.mechanism != "base" and m.pool == which]
        models = [m for m in models if which == "clean" or m.kept == m.audited]
        found = [apply(joint, row(m)).found or row(m)[Feature("outside.effect", "effect")] >= 0.1 for m in models]
        wrong += any(found) if which == "clean" else not all(found)
    return wrong, len(worlds)


@pytest.mark.thorough
def test_held_out_rates_are_those_of_fresh_worlds() -> None:
    noisy = World(noise=0.35, visible=0.9)
    joint = calibrate(pool(30, noisy), ZOO).joint
    others = pool(200, noisy, first=5000)
    for which, found in (("clean", joint.record.false_alarms), ("knowing", joint.record.misses)):
        k, n = fresh(others, joint, which)
        lo, hi = stats.clopper_pearson(found.k, found.n, 0.99).ends
        true_lo, true_hi = stats.clopper_pearson(k, n, 0.99).ends
        assert lo <= true_hi and true_lo <= hi, (which, found, k, n)
    assert joint.record.misses.k > 0, "a pool without mistakes would show nothing"


@pytest.mark.thorough
def test_a_mechanism_that_no_rule_was_fitted_on_is_judged_without_it() -> None:
    """A clean mechanism that alone looks like knowledge is a false alarm in every world: its own scores set no bar."""
    worlds = []
    for world in pool(8):
        loud = next(m for m in world.models if m.mechanism == "last_layer")
        odd = loud.model_copy(update={"mechanism": "odd", "pool": "clean", "kept": 0, "model": "odd"})
        worlds.append(world.model_copy(update={"models": (*world.models, odd)}))
    record = calibrate(worlds, ZOO).calibrations["inside"].measurements[0].record
    assert (record.false_alarms.k, record.false_alarms.n) == (8, 8)
    assert "world 100, odd: false alarm" in record.exceptions
    assert next(c for c in record.counted if c.mechanism == "odd").found == 8


@pytest.mark.thorough
def test_the_joint_record_counts_verdicts_whichever_rung_stated_the_trace() -> None:
    """Outputs that show it alarm where the joint rule is silent; whatever the gate stops says nothing."""
    worlds = pool(8)
    of = {"shown": 0, "stopped": 1}

    def changed(place: int, model: ScoredModel) -> ScoredModel:
        if place == of["shown"] and model.model == "npo_of_others":
            shown = {"value": 0.3, "ci95": Interval(lo=0.2, hi=0.4), "p": 0.001}
            loud = [s.model_copy(update=shown) if s.kind == "output" else s for s in model.scores]
            return model.model_copy(update={"scores": tuple(loud)})
        if place == of["stopped"] and model.model == "head_edit":
            broken = [s.model_copy(update={"value": 0.2}) if s.kind == "gate" else s for s in model.scores]
            return model.model_copy(update={"scores": tuple(broken)})
        return model

    odd = [w.model_copy(update={"models": tuple(changed(n, m) for m in w.models)}) for n, w in enumerate(worlds)]
    before, after = calibrate(worlds, ZOO), calibrate(odd, ZOO)
    assert (before.joint.record.false_alarms.k, before.joint.record.misses.k) == (0, 0)
    assert (after.joint.record.false_alarms.k, after.joint.record.misses.k) == (1, 1)
    assert set(after.joint.record.exceptions) == {"world 100, npo: false alarm", "world 101, head_edit: missed"}
    alone = {(s.world, s.model): s.alone for s in after.subjects.subjects}
    assert (alone[100, "npo_of_others"], alone[101, "head_edit"]) == ("shown", "stopped")
    assert alone[100, "destroyed"] == "stopped" and alone[102, "head_edit"] == "quiet"


def test_edited_clean_models_are_counted_apart_and_base_not_at_all() -> None:
    record = made().joint.record
    assert record.edited_clean.n == 16
    assert {c.mechanism for c in record.counted if c.pool == "knowing"} == {
        "head_edit", "last_layer", "logit_bias", "dose"
    }  # fmt: skip
    assert not [c for c in record.counted if c.pool == "destroyed"]


def test_a_rate_has_the_exact_one_sided_bound() -> None:
    assert rate(0, 59).upper95 == pytest.approx(1 - 0.05 ** (1 / 59), rel=1e-3)
    assert rate(0, 59).upper95 < 0.05 < rate(0, 58).upper95
    assert rate(0, 0).upper95 == 1.0


@given(st.lists(st.tuples(st.integers(0, 80), st.floats(-1, 1)), min_size=1, max_size=200))
def test_a_threshold_lets_at_most_two_in_a_hundred_worlds_alarm(rows: list[tuple[int, float]]) -> None:
    world, score = np.array([w for w, _ in rows]), np.array([s for _, s in rows])
    bar = threshold(score, world)
    alarming = np.unique(world[score > bar])
    assert len(alarming) <= 0.02 * len(np.unique(world))
    assert bar in score


# ---- doses ------------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_doses_give_a_power_that_never_falls_and_the_limit_is_the_first_that_suffices() -> None:
    for found in (made(), made(noise=0.2)):
        record = found.joint.record
        powers = [dose.power for dose in record.doses]
        assert [dose.kept for dose in record.doses] == [1, 2, 4, 8]
        assert powers == sorted(powers)
        if not isinstance(record.limit, Missing):
            enough_power = [dose.kept for dose in record.doses if dose.power >= 0.8]
            assert record.limit.kept == enough_power[0]
            assert record.limit.n == 16


@pytest.mark.thorough
def test_without_doses_the_detection_limit_is_unknown_and_says_why() -> None:
    limit = calibrate(pool(6, World(doses=False)), ZOO).joint.record.limit
    assert isinstance(limit, Missing) and "kept a part" in limit.missing


# ---- ratios -----------------------------------------------------------------------------------------------------
tables = st.lists(
    st.tuples(st.floats(-5, 5), st.booleans(), st.integers(0, 9)), min_size=6, max_size=60
)  # fmt: skip


@settings(max_examples=25)
@given(tables, st.floats(-1e3, 1e3))
def test_no_ratio_lies_beyond_what_the_number_of_worlds_supports(
    rows: list[tuple[float, bool, int]], score: float
) -> None:
    clean = {w for _, knows, w in rows if not knows}
    knowing = {w for _, knows, w in rows if knows}
    if min(len(clean), len(knowing)) < 2:
        return
    data = clustered.labelled(*([r[i] for r in rows] for i in range(3)))
    scale = likelihood_ratio.fit_scale(data, 0, draws=10)
    found = ratio_of(scale, score, made().joint.record, "c")
    assert found.ceiling <= (len(clean) + 1) * 1.001
    assert found.floor >= 0.999 / (len(knowing) + 1)
    for value in (found.value, found.ci95.lo, found.ci95.hi):
        assert found.floor <= value <= found.ceiling
    reached = {"weak": 2, "moderate": 10, "moderately": 100, "strong": 1000}
    asked = reached.get(found.words.split()[0], 1)
    assert max(found.ceiling, 1 / found.floor) >= asked


@pytest.mark.thorough
def test_perfectly_calibrated_scores_have_a_gap_inside_the_envelope() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(5):
        score = np.r_[rng.normal(-2, 2, 60), rng.normal(2, 2, 60)] / np.log(10)
        data = clustered.labelled(score.tolist(), [False] * 60 + [True] * 60, [*range(60), *range(60)])
        found = reliability(data, 0, 60)
        inside += found.gap <= found.envelope
    assert inside >= 4


# ---- the joint rule ---------------------------------------------------------------------------------------------
def test_a_trace_takes_two_classes_one_of_them_inside_or_a_causal_effect_beyond_its_floor() -> None:
    lens, few = ActiveEvidence("decoding", "a"), ActiveEvidence("causal", "b", few=True)
    assert not is_sufficient([lens], []) and not is_sufficient([], ["a"])
    assert not is_sufficient([lens, ActiveEvidence("output", "a", few=True)], [])
    assert not is_sufficient([lens, ActiveEvidence("decoding", "b")], []), "two measurements of one class"
    assert is_sufficient([lens, ActiveEvidence("output", "b", few=True)], [])
    assert not is_sufficient([ActiveEvidence("output", "a", few=True), ActiveEvidence("recovery", "b")], [])
    assert not is_sufficient([ActiveEvidence("causal", "a")], [])
    assert is_sufficient([ActiveEvidence("causal", "a")], ["a"])
    assert not is_sufficient([few], ["b"]) and is_sufficient([few, lens], [])


def test_an_effect_above_its_bar_is_no_evidence_where_its_own_test_does_not_find_it() -> None:
    """A model that learned other people of the same kind lies above models that did not, and so do untaught people."""
    joint = made().joint
    loud = {column: 1.0 for column in joint.columns if column.feature in ("effect", "over_floor")}
    quiet = dict.fromkeys(joint.columns, 0.0)
    tested = loud | {column: 3.0 for column in joint.columns if column.feature == "tail"}
    assert {x.kind for x in apply(joint, quiet | tested).lit} == {"causal", "decoding"}
    assert not apply(joint, quiet | loud).lit and not apply(joint, quiet | loud).found
    assert apply(joint, quiet | tested).found


@pytest.mark.thorough
def test_the_joint_score_is_0_at_the_threshold_and_minus_1_in_the_median_clean_model() -> None:
    worlds = pool(12, World(noise=0.2))
    joint = calibrate(worlds, ZOO).joint
    clean = [(w.world, apply(joint, row(m)).score) for w in worlds for m in w.models if m.pool == "clean"]
    assert np.median([s for _, s in clean]) == pytest.approx(-1, abs=1e-3)
    assert max(s for _, s in clean) == pytest.approx(0, abs=1e-3)


@pytest.mark.thorough
def test_the_stored_joint_rule_is_the_one_that_a_refit_gives() -> None:
    found = made()
    wanted = table_of(found.subjects, found.calibrations, None).columns
    assert fit_joint(found.subjects, found.calibrations, wanted) == found.joint


@pytest.mark.thorough
def test_fewer_measurements_give_a_rule_of_their_own_with_its_own_mistakes() -> None:
    found = made(noise=0.2)
    columns = table_of(found.subjects, found.calibrations, None).columns
    inside = tuple(column for column in columns if column.measurement == "inside.effect")
    alone = fit_joint(found.subjects, found.calibrations, inside)
    assert {w.measurement for w in alone.weights} == {"inside.effect"}
    assert alone.record != found.joint.record


@pytest.mark.thorough
@pytest.mark.parametrize("unit", [1e-3, 50.0])
def test_the_joint_rule_does_not_depend_on_the_unit_of_a_feature(unit: float) -> None:
    found = made(noise=0.2)
    table = table_of(found.subjects, found.calibrations, None)
    scaled = table._replace(x=table.x * np.where(np.arange(table.x.shape[1]) % 2, unit, 1.0))
    plain, changed = judged_apart(table), judged_apart(scaled)
    np.testing.assert_allclose(plain.score, changed.score, atol=2e-3)
    assert np.ptp(plain.score) > 1


@pytest.mark.thorough
def test_a_feature_that_few_models_have_stays_out() -> None:
    worlds = pool(6)
    few = []
    for world in worlds:
        models = tuple(
            m if m.mechanism == "dose" else m.model_copy(
                update={"scores": tuple(s.model_copy(update={"readings": {}}) for s in m.scores)}
            )
            for m in world.models
        )  # fmt: skip
        few.append(world.model_copy(update={"models": models}))
    assert "largest_person" not in {w.feature for w in calibrate(few, ZOO).joint.weights}


# ---- files ------------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_the_same_scores_give_the_same_bytes_and_are_read_back(tmp_path: Path) -> None:
    found = [calibrate(pool(6), ZOO) for _ in range(2)]
    for name, one in zip("ab", found, strict=True):
        write_all(tmp_path / name, one)
    names = sorted(path.name for path in (tmp_path / "a").glob("*.json"))
    assert names == ["inside.json", JOINT, "lens.json", "outside.json", SUBJECTS]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    shelf = read_library(tmp_path / "a")
    assert shelf.calibrations == found[0].calibrations
    assert read(tmp_path / "a" / JOINT, Joint) == found[0].joint


def test_the_file_of_a_probe_that_is_not_calibrated_any_more_goes_and_others_stay(tmp_path: Path) -> None:
    write_all(tmp_path, made())
    gone = made().calibrations["lens"].model_copy(update={"probe": "gone"})
    (tmp_path / "gone.json").write_text(gone.canonical())
    (tmp_path / "floors.json").write_text('{"floors": {}}')
    write_all(tmp_path, made())
    assert not (tmp_path / "gone.json").exists() and (tmp_path / "floors.json").exists()


def test_a_calibration_of_other_models_is_refused(tmp_path: Path) -> None:
    write_all(tmp_path, made())
    other = made().calibrations["lens"].model_copy(update={"subjects": "0" * 64})
    (tmp_path / "lens.json").write_text(other.canonical())
    with pytest.raises(AuditError, match=r"lens\.json was made from other models"):
        read_library(tmp_path)


def test_worlds_scored_by_probes_of_different_behaviour_are_not_mixed() -> None:
    first, second, *rest = pool(6)
    changed = second.model_copy(update={"behaviours": {**second.behaviours, "lens": "f" * 64}})
    with pytest.raises(AuditError, match="scored by lens of different behaviour"):
        calibrate((first, changed, *rest), ZOO)


def test_too_small_a_pool_is_an_error_that_says_what_is_needed() -> None:
    with pytest.raises(AuditError, match="holds no worlds"):
        calibrate((), ZOO)
    with pytest.raises(AuditError):
        calibrate(pool(1), ZOO)


# ---- does it hold? ----------------------------------------------------------------------------------------------
def shelf() -> CalibrationLibrary:
    return CalibrationLibrary(Path(), made().subjects, made().calibrations, ZOO.records)


def test_a_calibration_holds_for_the_same_probe_and_a_like_audit() -> None:
    use = use_of(shelf(), "lens", ProbeIdentity(1, {}), DOMAIN, same)
    assert (use.status, use.renew, use.worlds) == ("holds", "", 16)
    assert "not for audits outside these" in use.because


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"parameters": 7_000_000_000}, "parameters 7e+09"), ({"architecture": "gpt2"}, "architecture gpt2"),
        ({"blocks": 32}, "blocks 32"), ({"vocabulary": 50_000}, "vocabulary 50000"),
        ({"forget_people": 400}, "forget people 400"), ({"null": "ancestor"}, "null ancestor"),
        ({"control_effect": 0.3}, "control effect 0.3"), ({"references": 0}, "references 0"),
    ],
)  # fmt: skip
def test_outside_its_domain_a_calibration_does_not_judge_and_says_why(change: dict[str, object], word: str) -> None:
    use = use_of(shelf(), "lens", ProbeIdentity(1, {}), DOMAIN.model_copy(update=change), other)
    assert use.status == "outside" and word in use.because and use.renew == "residua calibrate"
    assert "context only" in use.because


def test_a_changed_behaviour_version_or_setting_does_not_judge_and_names_the_command() -> None:
    for asked, moved, status, words in (
        (ProbeIdentity(1, {}), other, "stale", "others than when it was calibrated: effect, value: 3 → 4"),
        (ProbeIdentity(2, {}), same, "stale", "calibrated as version 1, and it is version 2 now"),
        (ProbeIdentity(1, {"top_k": 3}), same, "outside", "calibrated with other settings"),
    ):
        use = use_of(shelf(), "lens", asked, DOMAIN, moved)
        assert (use.status, use.renew) == (status, "residua calibrate") and words in use.because
    assert use_of(shelf(), "absent", ProbeIdentity(1, {}), DOMAIN, same).status == "none"
    bare = shelf()._replace(records={})
    use = use_of(bare, "lens", ProbeIdentity(1, {}), DOMAIN, same)
    assert use.status == "stale" and "no record lies beside its calibration" in use.because


def test_a_behaviour_is_looked_at_only_where_all_else_holds() -> None:
    def never(record: Attested) -> tuple[str, ...]:
        raise AssertionError(record.behaviour.probe)

    far = DOMAIN.model_copy(update={"blocks": 32})
    for probe, asked, domain in (
        ("absent", ProbeIdentity(1, {}), DOMAIN), ("lens", ProbeIdentity(2, {}), DOMAIN), ("lens", ProbeIdentity(1,
        {"k": 1}), DOMAIN), ("lens", ProbeIdentity(1, {}), far),
    ):  # fmt: skip
        assert use_of(shelf(), probe, asked, domain, never).status != "holds"


def test_a_folder_keeps_the_records_of_its_calibrations_and_no_others(tmp_path: Path) -> None:
    write_record(tmp_path, attested(RECORDS["usable"].behaviour, RECORDS["usable"].installed))
    write_all(tmp_path, made())
    found = read_library(tmp_path)
    assert found.records == {DIGESTS[probe]: RECORDS[probe] for probe in KINDS}
    assert {c.behaviour for c in found.calibrations.values()} == set(found.records)


def test_every_calibration_round_trips() -> None:
    for probe in KINDS:
        found = made().calibrations[probe]
        assert Calibration.model_validate_json(found.canonical()) == found


@pytest.mark.thorough
def test_a_probe_that_stays_out_of_the_joint_rule_may_be_measured_in_some_worlds() -> None:
    worlds = pool(6)

    def without(world: WorldScores) -> WorldScores:
        models = tuple(
            m.model_copy(update={"scores": tuple(s for s in m.scores if s.probe != "lens")}) for m in world.models
        )
        behaviours = {name: digest for name, digest in world.behaviours.items() if name != "lens"}
        return world.model_copy(update={"models": models, "behaviours": behaviours})

    some = (without(worlds[0]), *worlds[1:])
    with pytest.raises(AuditError, match="scored by lens of different behaviour"):
        calibrate(some, ZOO)
    fitted = calibrate(some, ZOO._replace(single=("lens",)))
    [whole], [fewer] = (
        [m for m in made.calibrations["lens"].measurements][:1]
        for made in (calibrate(worlds, ZOO._replace(single=("lens",))), fitted)
    )
    assert fewer.record.false_alarms.n == whole.record.false_alarms.n - 1, (
        "the bounds rest on the worlds it was measured in"
    )


@pytest.mark.parametrize("content", ["no JSON", "{}", "[]", '{"floors": [1]}', '{"floors": {"a.b": null}}'])
def test_floors_that_are_none_are_an_integrity_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "floors.json").write_text(content)
    with pytest.raises(AuditError, match=r"floors\.json is not a floors file") as caught:
        zoo_floors(tmp_path)
    assert caught.value.code == ExitCode.INTEGRITY
    (tmp_path / "floors.json").write_text('{"floors": {"a.b": 0.5}}')
    assert zoo_floors(tmp_path) == {"a.b": 0.5} and zoo_floors(tmp_path / "nowhere") == {}
