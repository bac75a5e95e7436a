"""An audit of a classifier of images, from its case file to its report."""

from pathlib import Path

import pytest
from pyarrow import parquet

from audit.bench import Bench
from audit.case import CaseFile, open_case
from audit.engine import plan, run
from audit.forecasting import forecast
from audit.planning import RunSettings
from audit.schema import AuditError, Missing, Report
from probes.answer_lens import AnswerLens
from tests import image_toy

OF_IMAGES = {
    "answer_lens", "forget_likelihood", "quantisation_recovery", "relearning_recovery", "representation_similarity",
    "reverse_patch", "sae_restoration", "utility", "weight_difference",
}  # fmt: skip
REFUSED = {
    "works on models of text, not of image", "works on models of image+text, not of image",
    "the suspect carries no edit that acts on the way",
}  # fmt: skip


def audited(kind: str, suspect: str, out: Path) -> Report:
    return run(CaseFile.read(image_toy.digits_case(kind) / f"{suspect}.toml"), out, RunSettings(threads=1))


def values(report: Report) -> dict[str, float]:
    found = ((f"{e.measurement.probe}.{e.measurement.name}", e.measurement.value) for e in report.evidence)
    return {name: value for name, value in found if not isinstance(value, Missing)}


def check_written(report: Report, out: Path) -> None:
    """Nothing failed, nothing was left out in silence, and every page is there."""
    assert not report.failures
    assert {e.measurement.probe for e in report.evidence} == OF_IMAGES
    assert {skip.reason for skip in report.skips} == REFUSED
    assert {skip.probe for skip in report.skips} >= {"cross_sequence", "remind_landscape"}
    pages = {path.name for path in out.iterdir()}
    assert {"report.json", "report.html", "report.md"} <= pages
    assert any("no error rate is known for models of this kind" in limit for limit in report.verdict.limits)


def test_the_plan_of_images_runs_what_reads_a_class_and_says_why_it_runs_nothing_else(tmp_path: Path) -> None:
    planned = plan(CaseFile.read(image_toy.digits_case() / "head_bias.toml"), tmp_path, RunSettings(threads=1))
    assert {test.probe for test in planned.tests if test.will_run} == OF_IMAGES
    assert {test.reason for test in planned.tests if not test.will_run} == REFUSED


def test_a_forecast_of_images_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="this one reads images") as caught:
        forecast(image_toy.digits_case() / "head_bias.toml", tmp_path, RunSettings(threads=1))
    assert caught.value.code == 2


def test_a_class_hidden_by_the_head_alone_is_suppressed_and_found_inside() -> None:
    report, folder = image_toy.digits_run()
    check_written(report, folder)
    found = values(report)
    assert report.verdict.word == "SUPPRESSED"
    assert abs(found["forget_likelihood.probability"]) < 0.1, "the outputs say nothing"
    assert found["reverse_patch.depth_profile_all"] > 0.9, "base reads all of it in the suspect's states"
    assert found["utility.retain"] > 0.9


def test_the_lens_reads_a_network_from_the_first_block_of_the_heads_width_on_and_says_so(tmp_path: Path) -> None:
    file = CaseFile.read(image_toy.digits_case("resnet") / "head_bias.toml")
    case = open_case(file.case, file.root, tmp_path)
    (lens,) = AnswerLens().measure(Bench(), case)
    assert "blocks before block 1 are of a width that the head cannot read" in lens.notes
    assert {curve.x for curve in lens.curves} == {(1.0, 2.0, 3.0)}, "block 1, block 2, and the output itself"
    assert lens.layer in (1, 2) and lens.readings["layer_of_largest_effect"] == lens.layer
    assert not isinstance(lens.items, Missing)
    table = parquet.read_table(tmp_path / lens.items.path)
    assert set(table["axis_value"].to_pylist()) == {1, 2, 3} and len(table) == 3 * 3 * 40
    assert lens.value != 0 and not isinstance(lens.value, Missing)


@pytest.mark.slow
@pytest.mark.parametrize("kind", image_toy.KINDS)
def test_a_class_that_fine_tuning_on_the_others_left_in_place_is_stated(kind: str, tmp_path: Path) -> None:
    report = audited(kind, "tuned", tmp_path)
    check_written(report, tmp_path)
    assert report.verdict.word in ("INTACT", "SUPPRESSED"), "how much the outputs still say is an accident of training"
    assert values(report)["answer_lens.lens_lift"] > 0.5
