"""Two audits of one case: what differs beyond noise is found, what does not is left alone, and each says how."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from scipy import stats as scipy_stats

from audit.cli import main
from audit.cli.commands.compare import _cells
from audit.review import compare, read_side
from audit.review.comparison import Side
from audit.schema import AuditError, ExitCode, Missing, Overall, Report, Table
from tests import golden, run_store
from tests.backdoored import BACKDOORED, SHORT, recovery, strings, with_measurements

GROUPS, LAYERS = 24, 3
PLACE = 3
"""Which evidence of the golden report gets the item table."""


def side(folder: Path, suspect: np.ndarray, axis: str = "axis_value", **more: np.ndarray) -> Side:
    """A run with one item table: scores [group layer] of the suspect, of base (1) and of the null (0)."""
    folder.mkdir()
    scores = {"base": np.ones_like(suspect), "suspect": suspect, "reference": np.zeros_like(suspect), **more}
    lines = [
        (f"item{g}.{i}", f"group{g:02d}", role, float(values[g, layer]), layer)
        for role, values in scores.items()
        for g in range(len(values))
        for layer in range(values.shape[1])
        for i in range(2)
    ]
    names = ("item", "group", "role", "score", axis)
    path = folder / "t.parquet"
    parquet.write_table(pyarrow.table({n: [x[i] for x in lines] for i, n in enumerate(names)}), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    table = Table(path="t.parquet", sha256=digest, rows=len(lines), columns=names, axis="layer")
    report = golden.report("suppressed")
    found = [
        e.model_copy(update={"measurement": e.measurement.model_copy(update={"items": Missing(missing="none")})})
        for e in report.evidence
    ]
    whole = ((scores["base"] - scores["reference"]).mean(0)).sum()
    effect = float((suspect - scores["reference"]).mean(0).sum() / whole)
    stated = Overall(value=effect, ci95=Missing(missing="none"), floor=0.0)
    tabled = found[PLACE].measurement.model_copy(update={"items": table, "overall": stated})
    found[PLACE] = found[PLACE].model_copy(update={"measurement": tabled})
    return Side(report.model_copy(update={"evidence": tuple(found)}), folder)


def name_of(report: Report, place: int = PLACE) -> str:
    m = report.evidence[place].measurement
    return f"{m.probe}.{m.name}"


def scores(seed: int, level: float = 0.5, spread: float = 0.2) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, spread, (GROUPS, LAYERS))


def test_a_run_does_not_differ_from_itself(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", scores(0)), side(tmp_path / "b", scores(0))
    found = compare(a, b)
    assert found.differences and not any(one.differs for one in found.differences)
    assert found.plans == found.only_a == found.only_b == found.outcomes == ()
    paired = {one.measurement: one for one in found.differences}[name_of(a.report)]
    assert (paired.how, paired.change, paired.p, paired.groups) == ("paired", 0.0, 1.0, GROUPS)


def test_an_item_table_from_before_its_axis_was_named_is_paired_too(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", scores(0), axis="layer"), side(tmp_path / "b", scores(0) + 0.1)
    (one,) = [d for d in compare(a, b).differences if d.measurement == name_of(a.report)]
    assert (one.how, one.groups) == ("paired", GROUPS) and one.change == pytest.approx(0.1)


def test_a_planted_difference_is_found_and_is_as_large_as_it_was_planted(tmp_path: Path) -> None:
    same = scores(0)
    shift = np.random.default_rng(1).normal(0.1, 0.1, (GROUPS, LAYERS))
    a, b = side(tmp_path / "a", same), side(tmp_path / "b", same + shift)
    (one,) = [d for d in compare(a, b).differences if d.measurement == name_of(a.report)]
    assert one.differs and one.how == "paired"
    assert one.change == pytest.approx(shift.mean())
    half = 1.96 * shift.mean(1).std(ddof=1) / np.sqrt(GROUPS)
    assert one.ci95.lo == pytest.approx(shift.mean() - half, abs=0.3 * half)
    assert one.ci95.hi == pytest.approx(shift.mean() + half, abs=0.3 * half)


def test_a_layer_weighs_as_much_as_base_exceeds_the_null_there(tmp_path: Path) -> None:
    base = np.ones((GROUPS, LAYERS)) * [3.0, 1.0, 0.5]
    low, high = np.zeros((GROUPS, LAYERS)), np.zeros((GROUPS, LAYERS))
    high[:, 0] = np.linspace(0.5, 1.5, GROUPS)
    a, b = side(tmp_path / "a", low, base=base), side(tmp_path / "b", high, base=base)
    (one,) = [d for d in compare(a, b).differences if d.measurement == name_of(a.report)]
    assert one.change == pytest.approx(1.0 / 4.5)


@pytest.mark.thorough
def test_equal_models_measured_on_noise_seldom_differ(tmp_path: Path) -> None:
    alarms = 0
    for n in range(60):
        a, b = side(tmp_path / f"a{n}", scores(2 * n)), side(tmp_path / f"b{n}", scores(2 * n + 1))
        (one,) = [d for d in compare(a, b, seed=n).differences if d.measurement == name_of(a.report)]
        alarms += one.p < 0.05
    assert alarms <= scipy_stats.binom.ppf(0.99, 60, 0.07), (
        "7 %: percentile intervals over 24 groups are a little narrow"
    )


def test_without_tables_the_intervals_decide_and_that_is_called_approximate(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", scores(0)), side(tmp_path / "b", scores(0))
    other = golden.effect("reverse_patch", "x", "causal", 0.9, 0.1).model_copy(
        update={k: getattr(b.report.evidence[PLACE].measurement, k) for k in ("probe", "name", "items")}
    )
    (b.folder / "t.parquet").write_bytes(b"another table than the report states")
    changed = b.report.evidence[PLACE].model_copy(update={"measurement": other})
    evidence = (*b.report.evidence[:PLACE], changed, *b.report.evidence[PLACE + 1 :])
    b = Side(b.report.model_copy(update={"evidence": evidence}), b.folder)
    (one,) = [d for d in compare(a, b).differences if d.measurement == name_of(a.report)]
    first, second = a.report.evidence[PLACE].measurement, other
    assert not isinstance(first.ci95, Missing) and not isinstance(second.ci95, Missing)
    errors = [(m.ci95.hi - m.ci95.lo) / (2 * 1.959964) for m in (first, second)]
    z = (second.value - first.value) / np.sqrt(errors[0] ** 2 + errors[1] ** 2)
    assert one.how == "approximate"
    assert one.p == pytest.approx(2 * scipy_stats.norm.sf(abs(z)), rel=1e-5)


def test_a_table_that_does_not_give_the_stated_effect_is_not_paired(tmp_path: Path) -> None:
    """As where one table lies beside two statistics: what is compared must be what was stated."""
    a, b = side(tmp_path / "a", scores(0)), side(tmp_path / "b", scores(0) + 0.3)
    m = b.report.evidence[PLACE].measurement
    assert isinstance(m.overall, Overall)
    other = m.model_copy(update={"overall": m.overall.model_copy(update={"value": m.overall.value + 1e-3})})
    changed = b.report.evidence[PLACE].model_copy(update={"measurement": other})
    evidence = (*b.report.evidence[:PLACE], changed, *b.report.evidence[PLACE + 1 :])
    b = Side(b.report.model_copy(update={"evidence": evidence}), b.folder)
    (one,) = [d for d in compare(a, b).differences if d.measurement == name_of(a.report)]
    assert one.how == "approximate"


def test_a_layer_that_was_left_out_of_the_effect_is_left_out_here(tmp_path: Path) -> None:
    base = np.ones((GROUPS, LAYERS)) * [1.0, 1e-4, 1.0]
    noisy = scores(0)
    sides: list[Side] = []
    for name, values in (("a", noisy), ("b", noisy + [0.2, 50.0, 0.2])):
        one = side(tmp_path / name, values, base=base)
        m = one.report.evidence[PLACE].measurement
        assert isinstance(m.overall, Overall)
        kept = float(values[:, [0, 2]].mean(0).sum() / 2)
        other = m.model_copy(update={"overall": m.overall.model_copy(update={"value": kept})})
        changed = one.report.evidence[PLACE].model_copy(update={"measurement": other})
        evidence = (*one.report.evidence[:PLACE], changed, *one.report.evidence[PLACE + 1 :])
        sides.append(Side(one.report.model_copy(update={"evidence": evidence}), one.folder))
    (found,) = [d for d in compare(*sides).differences if d.measurement == name_of(sides[0].report)]
    assert found.how == "paired" and found.change == pytest.approx(0.2)


def test_other_items_are_not_paired(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", scores(0)), side(tmp_path / "b", scores(0)[:-1])
    (one,) = [d for d in compare(a, b).differences if d.measurement == name_of(a.report)]
    assert one.how == "approximate"


@pytest.mark.thorough
def test_all_compared_measurements_share_one_holm(tmp_path: Path) -> None:
    from statsmodels.stats.multitest import multipletests

    a, b = side(tmp_path / "a", scores(0)), side(tmp_path / "b", scores(0) + 0.01 + 0.02 * scores(5, 0.0, 1.0))
    found = compare(a, b).differences
    assert len(found) > 1
    expected = multipletests([one.p for one in found], method="holm")[1]
    assert [one.holm for one in found] == pytest.approx(expected.tolist())


def test_a_test_of_one_run_only_is_listed_and_a_changed_outcome_too(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", scores(0)), side(tmp_path / "b", scores(0))
    changed = b.report.evidence[0].model_copy(update={"outcome": "not run"})
    b = Side(b.report.model_copy(update={"evidence": (changed, *b.report.evidence[1:-1])}), b.folder)
    found = compare(a, b)
    assert found.only_a == (name_of(a.report, -1),) and found.only_b == ()
    assert [name for name, _, _ in found.outcomes] == [name_of(a.report, 0)]


def test_a_forecast_is_no_audit_to_compare_with(tmp_path: Path) -> None:
    for kind in ({"kind": "forecast", "schema_version": "1.0"}, {"kind": "forecast"}):
        (tmp_path / "report.json").write_text(json.dumps(golden.report().model_dump(mode="json") | kind))
        with pytest.raises(AuditError, match="no report of schema version 1: kind") as caught:
            read_side(tmp_path)
        assert caught.value.code == ExitCode.INTEGRITY


@pytest.mark.parametrize("what", ["base", "forget", "split"])
def test_audits_of_different_questions_are_refused_with_the_reason(what: str, tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", scores(0)), side(tmp_path / "b", scores(0))
    plan = b.report.plan
    data = plan.case.data.model_copy(update={"split_seed": 9})
    changes = {
        "base": {"plan": plan.model_copy(update={"fingerprints": {**plan.fingerprints, "base": "0" * 64}})},
        "forget": {"plan": plan.model_copy(update={"data_sha256": {**plan.data_sha256, "forget": "0" * 64}})},
        "split": {"plan": plan.model_copy(update={"case": plan.case.model_copy(update={"data": data})})},
    }
    words = {"base": "bases are different", "forget": "forget sets", "split": "split the items"}
    with pytest.raises(AuditError, match=words[what]) as caught:
        compare(a, Side(b.report.model_copy(update=changes[what]), b.folder))
    assert caught.value.code == ExitCode.INPUT


@pytest.mark.parametrize(("units", "least"), [(4, 2**-3), (6, 2**-5), (12, 2**-11), (16, 2e-4), (32, 2e-4), (0, 2e-4)])
def test_no_p_is_smaller_than_units_and_draws_allow_and_a_bound_is_shown_as_one(units: int, least: float) -> None:
    """Sixteen people cannot give a p of 1e-111, however far two intervals lie apart."""
    base = golden.report("suppressed")
    low, high = (golden.effect("p", "n", "causal", v, 0.001, units=units) for v in (0.0, 0.9))
    sides = [
        Side(base.model_copy(update={"evidence": (golden.judged(m, "silent", "b"),)}), Path("none"))
        for m in (low, high)
    ]
    (drawn,) = compare(*sides).differences
    assert drawn.p == drawn.holm == drawn.least == pytest.approx(least, rel=1e-3) and drawn.bounded
    assert _cells(drawn)[5].startswith("< ") and _cells(drawn)[1] == "effect"
    (same,) = compare(sides[0], sides[0]).differences
    assert same.p == 1.0 and not same.bounded and not _cells(same)[5].startswith("<")


def test_what_is_compared_has_the_name_that_it_has_in_the_report(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", scores(0)), side(tmp_path / "b", scores(0) + 0.3)
    (drawn,) = [d for d in compare(a, b).differences if d.measurement == name_of(a.report)]
    assert drawn.how == "paired" and drawn.number == "overall effect"
    base_report = golden.report("suppressed")
    (other,) = [
        d for d in compare(Side(base_report, tmp_path / "x"), Side(base_report, tmp_path / "y")).differences
        if d.measurement == name_of(base_report)
    ]  # fmt: skip
    m = base_report.evidence[PLACE].measurement
    assert isinstance(m.overall, Overall)
    assert other.number == "overall effect" and other.a == m.overall.value


def test_findings_that_differ_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unasked = BACKDOORED.model_copy(update={"holds": Missing(missing="no prompts")})
    plain = golden.report("suppressed")
    first = with_measurements(plain, recovery(SHORT), strings(BACKDOORED))
    others = {
        "not found within this budget": with_measurements(
            plain, recovery(SHORT), strings(BACKDOORED.model_copy(update={"holds": False}))
        ),
        "could not be asked": with_measurements(plain, recovery(SHORT), strings(unasked)),
        "not asked": with_measurements(plain, recovery(SHORT)),
    }
    run_store.issue(first, tmp_path / "a")
    for n, (said, other) in enumerate(others.items()):
        run_store.issue(other, tmp_path / f"b{n}")
        compared = compare(*(read_side(tmp_path / name) for name in ("a", f"b{n}")))
        assert compared.findings == (("backdoored (trigger_search.trigger)", "holds", said),)
        assert main(["compare", str(tmp_path / "a"), str(tmp_path / f"b{n}")]) == ExitCode.OK
        assert f"finding backdoored (trigger_search.trigger): A holds, B {said}" in capsys.readouterr().out
    same = compare(read_side(tmp_path / "a"), read_side(tmp_path / "a"))
    assert same.findings == ()
