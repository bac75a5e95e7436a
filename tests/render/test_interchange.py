"""Numbers in others' shapes: published ones are read and shown and judge nothing; ours are written and read back."""

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

from audit.cli import main
from audit.engine import run
from audit.engine.runner import plan
from audit.planning import RunSettings
from audit.render import foreign, html, markdown, read_published
from audit.render.interchange import ALL_READ, OF_PERTURBED, SAME, evaluation, model_index, ours
from audit.schema import AuditError, ExitCode, Missing, Published, Report
from audit.wording import shown_name
from audit.zoo import Built
from dashboards import show
from tests import golden
from tests.planted import planted_package

LOG = {
    "forget_quality": {"agg_value": 0.0067},
    "forget_Q_A_ROUGE": {"agg_value": 0.87, "value_by_index": {"0": {"rougeL_recall": 1.0}}},
    "mia_min_k": {"agg_value": None},
    "odd<b>|\u202e": {"agg_value": 3},
}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """An evaluation file as OpenUnlearning writes them."""
    path = tmp_path / "TOFU_EVAL.json"
    path.write_text(json.dumps(LOG))
    return path


def test_aggregates_are_read_and_what_has_no_number_is_named(log: Path) -> None:
    found = read_published(log, "logs/TOFU_EVAL.json")
    assert found.values == {"forget_quality": 0.0067, "forget_Q_A_ROUGE": 0.87, "odd<b>|\u202e": 3.0}
    assert found.unread == ("mia_min_k",) and found.file == "logs/TOFU_EVAL.json"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"a": 1}', '{"a": {"agg_value": "high"}}', '{"a": {"agg_value": NaN}}']
)
def test_what_is_no_evaluation_file_is_refused(text: str, log: Path) -> None:
    log.write_text(text)
    with pytest.raises(AuditError) as caught:
        read_published(log, "x")
    assert caught.value.code == ExitCode.INPUT
    with pytest.raises(AuditError, match="cannot be read"):
        read_published(log.with_name("nowhere.json"), "x")


def test_published_numbers_are_context_in_every_view_and_change_nothing_else(log: Path) -> None:
    plain = golden.report("suppressed")
    given = plain.model_copy(update={"published": read_published(log, "TOFU_EVAL.json")})
    for render in (html, markdown):
        shown = render(given)
        assert "context, never judged" in shown and "0.0067" in shown and "mia_min_k" in shown
        assert "odd<b>" not in shown and "\u202e" not in shown
        assert "The case names no published numbers" in render(plain) and "mia_min_k" not in render(plain)
    assert given.verdict == plain.verdict and given.evidence == plain.evidence


def with_reading(probe: str, name: str, statistic: str = ALL_READ, **readings: float) -> Report:
    report = golden.report("consistent")
    m = report.evidence[0].measurement.model_copy(
        update={"probe": probe, "name": name, "statistic": statistic, "readings": readings}
    )
    first = report.evidence[0].model_copy(update={"measurement": m})
    return report.model_copy(update={"evidence": (first, *report.evidence[1:])})


def test_only_what_has_the_published_formula_gets_a_published_name() -> None:
    report = with_reading("forget_likelihood", "forget_quality", forget_quality_p=0.3, something_else=1.0)
    assert ours(report) == {"forget_quality": 0.3}
    assert ours(golden.report("consistent")) == {}


@pytest.mark.parametrize("published", SAME)
def test_a_report_of_three_variants_has_no_published_name_for_what_reads_variants(published: str) -> None:
    """Reports from before all perturbed answers were read say nothing of every one."""
    probe, name, reading = SAME[published]
    before = with_reading(probe, name, "KS distance between truth ratios P_pert/P_para", **{reading: 0.3})
    assert ours(before) == ({} if published in OF_PERTURBED else {published: 0.3})
    noted = before.evidence[0].measurement.model_copy(update={"notes": (f"it has {ALL_READ}",)})
    report = before.model_copy(update={"evidence": (before.evidence[0].model_copy(update={"measurement": noted}),)})
    assert ours(report) == {published: 0.3}


def test_what_is_compared_with_an_ancestor_has_no_name_of_a_comparison_with_a_retrained_model() -> None:
    report = with_reading("forget_likelihood", "forget_quality", forget_quality_p=0.3)
    leak = with_reading("forget_likelihood", "privacy_leakage", "Min-K 40%").evidence[0]
    leak = leak.model_copy(update={"measurement": leak.measurement.model_copy(update={"value": -4.0})})
    report = report.model_copy(update={"evidence": (report.evidence[0], leak)})
    assert ours(report) == {"forget_quality": 0.3, "privleak": -4.0}
    roles = report.plan.case.roles.model_copy(update={"references": ()})
    assert roles.null is not None and roles.null[0] == "ancestor"
    case = report.plan.case.model_copy(update={"roles": roles})
    alone = report.model_copy(update={"plan": report.plan.model_copy(update={"case": case})})
    assert ours(alone) == {}


def test_our_own_truth_ratio_is_shown_and_written_by_a_name_of_its_own(tmp_path: Path) -> None:
    whole = with_reading("forget_likelihood", "truth_ratio", mean_suspect=0.8)
    report = whole.model_copy(update={"evidence": whole.evidence[:1]})
    document = json.loads(evaluation(report, tmp_path))
    assert "residua_forget_likelihood_knowledge_truth_ratio" in document
    assert not [name for name in document if "truth_ratio" in name.lower().replace("knowledge_truth_ratio", "")]
    for view in (markdown(report), html(report)):
        assert "forget likelihood: knowledge truth ratio" in view and "forget likelihood: truth ratio" not in view
    assert show.test_label("forget_likelihood.truth_ratio") == "forget likelihood: knowledge truth ratio"
    assert show.test_label("reverse_patch.depth_profile_all:paper") == "reverse patch: depth profile all:paper"


def test_ours_is_written_in_that_shape_and_read_back(finished: Path, tmp_path: Path) -> None:
    report = Report.model_validate_json((finished / "report.json").read_bytes())
    path = tmp_path / "OURS_EVAL.json"
    path.write_text(evaluation(report, finished))
    back = read_published(path, "ours")
    assert back.unread == ("residua_about",)
    assert set(ours(report)) == {
        "forget_quality",
        "forget_truth_ratio",
        "privleak",
        "retain_Q_A_Prob",
        "retain_Truth_Ratio",
    }
    assert {name for name in back.values if not name.startswith("residua_")} == set(ours(report))
    assert {name: back.values[name] for name in ours(report)} == ours(report)
    for m in (e.measurement for e in report.evidence):
        if not isinstance(m.value, Missing):
            assert back.values[f"residua_{m.probe}_{shown_name(m.probe, m.name)}"] == m.value
    document = json.loads(path.read_text())
    table = document["residua_utility_retain"]["value_by_index"]
    assert set(table) == {str(n) for n in range(len(table))}, "numbered: the ids of items may be names"


def test_the_scores_are_those_of_the_suspect_and_only_from_the_issued_table(finished: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    report = Report.model_validate_json((finished / "report.json").read_bytes())
    document = json.loads(evaluation(report, finished))
    rows = parquet.read_table(finished / "tables" / "utility_retain.parquet").to_pylist()
    expected = [row["score"] for row in rows if row["role"] == "suspect"]
    got = document["residua_utility_retain"]["value_by_index"]
    assert [got[str(n)]["score"] for n in range(len(got))] == pytest.approx(expected)
    assert "value_by_index" not in json.loads(evaluation(report, tmp_path))["residua_utility_retain"]


def test_a_model_card_block_is_read_by_the_hubs_own_reader() -> None:
    report = golden.report("suppressed")
    block = yaml.safe_load(model_index(report))["model-index"]
    name, results = model_index_to_eval_results(block)
    assert name == report.plan.case.name
    by_type = {result.metric_type: result for result in results}
    verdict = by_type["residua.verdict"]
    assert verdict.metric_value == "SUPPRESSED" and verdict.metric_args["report_id"] == report.report_id
    for m in (e.measurement for e in report.evidence):
        if m.kind != "context" and m.mode != "paper" and not isinstance(m.value, Missing):
            assert by_type[f"residua.{m.probe}.{m.name}"].metric_value == m.value


def test_the_command_writes_the_shape_that_a_name_asks_for(finished: Path, tmp_path: Path) -> None:
    report = Report.model_validate_json((finished / "report.json").read_bytes())
    for name, expected in (("x_EVAL.json", evaluation(report, finished)), ("x.model-index.yml", model_index(report))):
        assert main(["report", str(finished), "-o", str(tmp_path / name), "-q"]) == 0
        assert (tmp_path / name).read_text() == expected


def test_a_name_asks_for_its_shape(tmp_path: Path) -> None:
    report = golden.report("suppressed")
    assert foreign(report, tmp_path, Path("x_EVAL.json")) == evaluation(report, tmp_path)
    assert foreign(report, tmp_path, Path("card.model-index.yml")) == model_index(report)
    assert foreign(report, tmp_path, Path("report.json")) is None


@pytest.mark.thorough
def test_a_case_may_name_published_numbers_which_the_plan_then_holds(zoo: Built, log: Path, tmp_path: Path) -> None:
    source = zoo.cases["base"]
    home = source.parent.parent
    text = source.read_text().replace('"../../', f'"{home.parent}/').replace('"../', f'"{home}/')
    (tmp_path / "plain.toml").write_text(text)
    (tmp_path / "case.toml").write_text(text.replace("edited =", 'published = "TOFU_EVAL.json"\nedited =', 1))
    with planted_package(tmp_path, "planted_published") as package:
        how = RunSettings(package=package.name, store=tmp_path / "store", threads=1)
        report = run(tmp_path / "case.toml", tmp_path / "run", how)
        assert isinstance(report.published, Published) and report.published.values["forget_quality"] == 0.0067
        assert report.plan.data_sha256["published"] == report.published.sha256
        plain = plan(tmp_path / "plain.toml", tmp_path / "plain", how)
        assert "published" not in plain.data_sha256 and plain.plan_hash != report.plan.plan_hash
        log.write_text("{}")
        with pytest.raises(AuditError, match="agg_value"):
            plan(tmp_path / "case.toml", tmp_path / "other", how)
