"""What the error rates rest on: models that were made, those that were missed, and curves, on page and report."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from audit.calibration import read_library, stored
from audit.render import html, misled_lines, ratio_scores
from audit.schema import Missing
from dashboards import known
from tests import golden, run_store
from tests.dashboards.test_pages import opened, told


def figures(page: object) -> list[dict[str, dict[str, dict[str, object]]]]:
    return [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]  # type: ignore[attr-defined]


def test_a_calibration_of_its_own_kind_shows_its_decoys_what_was_missed_and_the_curves(tmp_path: Path) -> None:
    report = run_store.issue(golden.own_kind(), tmp_path / "w" / "own")
    at = opened(tmp_path, "validity", run="own")
    shown, page = told(at), html(report)
    for words in (
        "Head edit was missed in 2 of 19 worlds. A suspect that keeps quiet in this way can pass as one",
        "taught 20 invented people (40 questions)", "false alarm in 1", "could not be made of this model",
        "False alarms are then at most 29 %", "What was made, and in how many held-out worlds a trace was stated",
    ):  # fmt: skip
        assert words in shown and words in page, words
    assert "Dose" not in "".join(misled_lines(report.validation))  # type: ignore[arg-type]
    axes = [figure["layout"]["xaxis"] for figure in figures(at)]
    assert len(axes) == 3 and axes[0]["type"] == "log" and "likelihood ratio" in str(axes[1]["title"])
    assert "ROC of the ratios" in page and page.index("ROC of the ratios") > page.index("Head edit was missed")
    assert "ROC of the ratios" not in html(golden.report("calibrated"))


def test_the_zoo_s_calibration_has_the_same_page_and_an_in_case_verdict_says_why_it_has_no_rate(tmp_path: Path) -> None:
    run_store.fill(tmp_path, ("calibrated", "suppressed"))
    shown = told(opened(tmp_path, "validity", run="calibrated"))
    assert "60 worlds" in shown and "Every kind of model that knows was found in every world." in shown
    at = opened(tmp_path, "validity", run="suppressed")
    assert "No error rate is known for this verdict" in told(at)
    assert any("residua calibrate --on" in code.value for code in at.code)


@pytest.mark.parametrize(("clean", "knowing"), [(3, 8), (19, 57), (101, 101)])
def test_ratios_read_back_from_their_quantiles_are_those_that_were_stored(clean: int, knowing: int) -> None:
    random = np.random.default_rng(0)
    drawn = (np.sort(random.normal(-1, 1, clean)), np.sort(random.normal(1, 1, knowing)))
    quantiles = [tuple(np.quantile(each, np.linspace(0, 1, 101))) for each in drawn]
    held = golden.own_kind().validation
    assert not isinstance(held, Missing)
    bands = ((-1.0, 0.0, knowing // 2, clean), (1.0, 0.0, knowing - knowing // 2, 0))
    reliability = held.reliability.model_copy(update={"clean": quantiles[0], "knowing": quantiles[1], "bands": bands})
    back = ratio_scores(reliability)
    for each, scores in zip(back, drawn, strict=True):
        assert len(each) == len(scores) and math.isclose(each[0], scores[0]) and math.isclose(each[-1], scores[-1])
        assert np.max(np.abs(np.array(each) - scores)) < 0.15


@pytest.mark.thorough
def test_a_threshold_to_try_counts_models_and_their_worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = read_library(stored())
    calibrated = library.calibrations["forget_likelihood"].measurements[0]
    assert library.subjects is not None
    subjects = library.subjects
    monkeypatch.setattr(known, "of", lambda *_: known.Known(subjects, calibrated))
    run_store.fill(tmp_path, ("calibrated",))
    shown = told(opened(tmp_path, "test_detail", run="calibrated"))
    clean = [s for s in subjects.subjects if s.kept == 0 and s.pool == "clean"]
    worlds = len({s.world for s in clean})
    assert re.search(rf"\d+ of {len(clean)} clean models, in \d+ of {worlds} worlds", shown), shown[-3000:]
    assert re.search(r"\d+ of \d+ knowing models, in \d+ of \d+ worlds", shown)


def test_a_world_counts_once_however_many_of_its_models_were_judged_wrongly() -> None:
    assert known.counted("clean", [1, 1, 2, 3], [True, True, False, False]) == "2 of 4 clean models, in 1 of 3 worlds"
