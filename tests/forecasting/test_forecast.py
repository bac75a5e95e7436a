"""A forecast end to end on the tiny world, the fitted ranking against known cases, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from audit.case.case_file import load_forecast
from audit.forecasting import Fitted, forecast, model, normal_scores, ridge
from audit.forecasting import forecaster as making
from audit.forecasting.model import predicted
from audit.forecasting.pilot import pilot_of
from audit.forecasting.stages import Stages
from audit.planning import RunSettings, Step
from audit.render import forecast_html, forecast_markdown, forecast_sections
from audit.render.wording.predictors import PREDICTORS
from audit.schema import AuditError, ForecastReport, Interval, Missing, Rate, forecast_id
from audit.zoo import Built
from tests.dashboards.test_pages import opened, told

LINE = Interval(lo=0.1, hi=0.2)
TIES = ("circuit_cosine", "gradient_cosine", "one_method")


def fitted(**update: object) -> Fitted:
    """A fit that believes in the loss alone."""
    made = Fitted(
        predictors=("loss",), weights=(-1.0,), error_lo=-0.3, error_hi=0.2, spearman=0.4, spearman_ci95=LINE,
        ceiling=0.7, ceiling_ci95=LINE, plain=0.3, plain_ci95=LINE, cud_gain=0.0,
        ties=dict.fromkeys(TIES, 0.1), ties_ci95=dict.fromkeys(TIES, LINE),
        cud_gain_ci95=Interval(lo=-0.01, hi=0.01), with_pilot=0.5, with_pilot_ci95=LINE, pilot_weight=2.0,
        pilot_error_lo=-0.1, pilot_error_hi=0.1, coverage=Rate(k=9, n=10, upper95=0.99),
        coverage_ci95=LINE, cost={"npo": LINE},
        worlds=(1, 2), methods=("npo",), seeds=(0,), items=10, parameters=Interval(lo=1e4, hi=1e6),
    )  # fmt: skip
    return made.model_copy(update=update)


@pytest.fixture(scope="module")
def case(zoo: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case of the tiny world that names no suspect: four forget and four retained people."""
    path = tmp_path_factory.mktemp("forecast") / "case.toml"
    for name in ("forget", "retain"):
        lines = zoo.data[name].read_text().splitlines()
        people = list(dict.fromkeys(json.loads(line)["group"] for line in lines))[:4]
        some = [line for line in lines if json.loads(line)["group"] in people]
        (path.parent / f"{name}.jsonl").write_text("\n".join(some) + "\n")
    data = f'forget = "forget.jsonl"\nretain = "retain.jsonl"\ngeneral = "{zoo.data["general"]}"'
    roles = f'[roles.base]\npath = "{zoo.models["base"]}"\n[roles.ancestor]\npath = "{zoo.models["ancestor"]}"'
    path.write_text(f'name = "tiny"\n{roles}\n[data]\n{data}\n')
    return path


def quiet(step: Step) -> None:
    """Nobody watches."""


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def made(case: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ForecastReport, Path, list[str]]:
    """A forecast that was killed in its third stage and started again, with one pilot."""
    out, said = tmp_path_factory.mktemp("out"), list[str]()

    def killing(step: Step) -> None:
        if step.stage == "measure" and step.detail == "circuits":
            raise Killed

    with pytest.raises(Killed):
        forecast(case, out, RunSettings(threads=1), killing, ("npo",))
    found = forecast(
        case, out, RunSettings(threads=1), lambda step: said.append(f"{step.stage} {step.detail}"), ("npo",)
    )
    return found, out, said


@pytest.mark.thorough
def test_a_killed_forecast_goes_on_where_it_was(made: tuple[ForecastReport, Path, list[str]]) -> None:
    report, out, said = made
    assert [line for line in said if line.startswith("reused")] == ["reused outputs", "reused gradients"]
    assert {"measured circuits", "measured pilot npo"} <= set(said)
    assert sorted(p.name for p in out.iterdir()) == ["forecast.html", "forecast.json", "forecast.md", "units"]
    assert forecast_id(report) == report.report_id


@pytest.mark.thorough
def test_a_finished_forecast_is_returned_and_another_is_refused(
    made: tuple[ForecastReport, Path, list[str]], case: Path
) -> None:
    report, out, _ = made
    assert forecast(case, out, RunSettings(threads=1), quiet, ("npo",)) == report
    with pytest.raises(AuditError, match="holds another forecast"):
        forecast(case, out, RunSettings(threads=1), quiet)
    changed = json.loads((out / "forecast.json").read_text()) | {"recall": 0.123}
    before = (out / "forecast.json").read_bytes()
    (out / "forecast.json").write_text(json.dumps(changed))
    with pytest.raises(AuditError, match="was changed"):
        forecast(case, out, RunSettings(threads=1), quiet, ("npo",))
    (out / "forecast.json").write_bytes(before)


@pytest.mark.thorough
def test_every_forget_item_is_ranked_once_and_groups_are_their_means(
    made: tuple[ForecastReport, Path, list[str]],
) -> None:
    report, _, _ = made
    n = report.cohorts["forget_items"]
    assert len({f.name for f in report.items}) == n == len(report.items)
    assert [f.rank for f in report.items] == sorted((f.rank for f in report.items), reverse=True)
    for group in report.groups:
        assert group.rank == pytest.approx(np.mean([f.rank for f in report.items if f.group == group.name]))
    assert set(report.order) == {g.name for g in report.groups}
    assert all(f.interval.lo <= f.rank <= f.interval.hi for f in report.items)
    assert all(not isinstance(e.damage, Missing) for e in report.entangled) and report.pilots[0].method == "npo"


@pytest.mark.thorough
def test_every_view_shows_every_section(made: tuple[ForecastReport, Path, list[str]]) -> None:
    report, out, _ = made
    assert (out / "forecast.html").read_text() == forecast_html(report)
    assert (out / "forecast.md").read_text() == forecast_markdown(report)
    for section in forecast_sections(report):
        assert f'id="{section.id}"' in forecast_html(report) and section.title in forecast_markdown(report)
    hostile = report.model_copy(update={"order": ("<script>alert(1)</script>",)})
    assert "<script>" not in forecast_html(hostile) and "<script>" not in forecast_markdown(hostile)


@pytest.mark.thorough
def test_groups_whose_intervals_overlap_are_not_put_in_an_order_and_every_predictor_is_described(
    made: tuple[ForecastReport, Path, list[str]],
) -> None:
    report, _, _ = made

    def with_intervals(*ends: tuple[float, float]) -> str:
        groups = tuple(
            group.model_copy(update={"interval": Interval(lo=lo, hi=hi)})
            for group, (lo, hi) in zip(report.groups, ends, strict=False)
        )
        return forecast_markdown(report.model_copy(update={"groups": groups}))

    overlap = with_intervals((0.2, 1.0), (0.1, 0.9))
    assert "cannot be ranked, so no order is recommended" in overlap and "No group is known to be harder" in overlap
    apart = with_intervals((0.6, 1.0), (0.1, 0.5))
    assert "The hardest group is" in apart and "Easy groups first" in apart
    assert "not described here" not in apart and set(report.predictors) <= set(PREDICTORS)


def test_every_predictor_that_a_fit_may_use_is_described() -> None:
    assert set(model.PREDICTORS) <= set(PREDICTORS)


@pytest.mark.thorough
def test_the_dashboard_has_a_page_that_shows_every_section_and_nothing_that_was_changed(
    made: tuple[ForecastReport, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    report, out, _ = made
    for folder, recall in (("whole", report.recall), ("changed", 0.123)):
        (tmp_path / "runs" / folder).mkdir(parents=True)
        document = json.loads((out / "forecast.json").read_text()) | {"recall": recall}
        (tmp_path / "runs" / folder / "forecast.json").write_text(json.dumps(document))
    at = opened(tmp_path / "runs", "forecast", forecast="whole")
    shown = told(at)
    assert all(section.title in shown for section in forecast_sections(report)[2:]) and report.report_id in shown
    assert len(at.get("plotly_chart")) == 1
    changed = told(opened(tmp_path / "runs", "forecast", forecast="changed"))
    assert "was changed after it was written" in changed and forecast_sections(report)[2].title not in changed


@pytest.mark.thorough
def test_circuits_between_anchors_are_said_to_add_nothing_where_they_do_not(
    made: tuple[ForecastReport, Path, list[str]],
) -> None:
    report, _, _ = made
    gain = Interval(lo=-0.01, hi=0.02)
    none = report.model_copy(update={"basis": report.basis.model_copy(update={"cud_gain_ci95": gain})})
    assert "is not used: beside length and loss they added" in forecast_markdown(none)
    some = none.model_copy(
        update={"basis": none.basis.model_copy(update={"cud_gain_ci95": Interval(lo=0.01, hi=0.02)})}
    )
    assert "is not used: they need items that were unlearned before" in forecast_markdown(some)


def test_a_case_without_a_suspect_is_a_forecast_s_case_and_faults_are_still_told(case: Path, tmp_path: Path) -> None:
    found = load_forecast(case)
    assert found.roles.suspect == found.roles.base and not found.roles.references
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(case.read_text().replace("[roles.base]", "[roles.bas]"))
    with pytest.raises(AuditError, match="did you mean `base`"):
        load_forecast(wrong)


def test_what_is_no_pilot_is_refused_before_anything_runs(case: Path, tmp_path: Path) -> None:
    for name in ("relearn", "refusal", "quantise", "nonsense"):
        with pytest.raises(AuditError, match="is no pilot"):
            forecast(case, tmp_path / "out", RunSettings(threads=1), quiet, (name,))
    assert pilot_of("graddiff").name == "grad_diff" and not (tmp_path / "out").exists()


# ---- the ranking ------------------------------------------------------------------------------------------------
def test_normal_scores_keep_order_and_know_nothing_of_scale() -> None:
    x = np.array([3.0, np.nan, 10.0, -1.0, 3.0])
    found = normal_scores(x)
    assert found[3] < found[0] == found[4] < found[2] and found[1] == 0
    np.testing.assert_array_equal(found, normal_scores(np.exp(x)))
    assert (normal_scores(np.ones(4)) == 0).all()


def test_ridge_equals_the_plain_solution_on_augmented_rows() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=50)
    y[7] = np.nan
    known = np.isfinite(y)
    wide = np.concatenate([x[known], np.sqrt(5.0) * np.eye(3)])
    expected = np.linalg.lstsq(wide, np.concatenate([y[known], np.zeros(3)]), rcond=None)[0]
    np.testing.assert_allclose(ridge(x, y, 5.0), expected)


def test_ranks_follow_the_weights_and_pilots_outweigh_them() -> None:
    loss = np.array([0.4, 0.1, 0.3, 0.2])
    plain = predicted(fitted(), {"loss": loss})
    assert plain.rank.tolist() == [0.125, 0.875, 0.375, 0.625]
    np.testing.assert_allclose(plain.hi, np.minimum(plain.rank + 0.2, 1))
    both = predicted(fitted(), {"loss": loss}, np.array([9.0, 1.0, 5.0, 3.0]))
    assert both.rank.tolist() == [0.875, 0.125, 0.625, 0.375]
    np.testing.assert_allclose(both.lo, np.maximum(both.rank - 0.1, 0))


def test_a_column_that_the_case_lacks_moves_nothing() -> None:
    wider = fitted(predictors=("loss", "other_words"), weights=(-1.0, 5.0))
    loss = {"loss": np.array([0.4, 0.1, 0.3])}
    assert predicted(wider, loss).rank.tolist() == predicted(fitted(), loss).rank.tolist()


def test_the_committed_fit_is_whole_and_says_how_well_it_does() -> None:
    found = model.load()
    assert len(found.weights) == len(found.predictors) and set(found.predictors) == set(model.PREDICTORS)
    assert found.spearman_ci95.lo <= found.spearman <= found.spearman_ci95.hi < found.ceiling
    assert 0.8 < found.coverage.k / found.coverage.n < 1


def test_stages_are_computed_once_under_one_identity(tmp_path: Path) -> None:
    calls = list[str]()

    def compute(name: str) -> Callable[[], dict[str, np.ndarray]]:
        def run() -> dict[str, np.ndarray]:
            calls.append(name)
            return {"x": np.arange(3.0)}

        return run

    for identity in ("a", "a", "b"):
        found = Stages(tmp_path, identity, ("one",), quiet).keep("one", compute(identity))
        assert found["x"].tolist() == [0, 1, 2]
    assert calls == ["a", "b"]
    assert making.REPORT == "forecast.json"
