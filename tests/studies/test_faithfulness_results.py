"""The committed results of the meta-evaluation: the page shows them, and they bear out what it says of them."""

import json

from scipy import stats as scipy_stats

from studies.faithfulness import figure, study, tables
from studies.faithfulness.metrics import COMPARED, UDS

RESULTS = json.loads((study.HERE / "results.json").read_text(encoding="utf-8"))
SHARED = [one.key for one in COMPARED]
OUTPUTS = ("extraction_strength", "exact_memorisation", "probability")


def areas(contrast: str) -> dict[str, dict[str, float]]:
    return RESULTS["scores"]["contrasts"][contrast]["metrics"]


def test_the_committed_table_and_figure_are_those_of_the_committed_results() -> None:
    page = (study.HERE / "README.md").read_text(encoding="utf-8")
    assert page.partition(study.BEGIN)[2].partition(study.END)[0].strip() == tables.markdown(RESULTS)
    assert (study.HERE / "figure.svg").read_text(encoding="utf-8") == figure.figure(RESULTS)


def test_every_shared_metric_separates_the_published_convention_and_the_control_turns_round() -> None:
    assert min(areas("published")[key]["auc"] for key in SHARED) >= 0.99
    assert areas("published")["retain"]["hi"] < 0.5


def test_fakes_hide_from_outputs_and_from_no_reading_of_the_inside() -> None:
    fakes, missed = areas("fakes"), RESULTS["scores"]["mechanisms"]
    for key in OUTPUTS:
        assert fakes[key]["versus_depth_score"]["gap"] < -0.2 and fakes[key]["p_holm"] < 0.01  # type: ignore[index]
        for name in ("head_edit", "last_layer"):
            assert missed[key]["knowing"][name]["above"] <= 0.1 * missed[key]["knowing"][name]["of"]
    for key in (UDS, "logit_lens", "depth_profile", "truth_ratio", "min_k_auc", "s_min_k"):
        assert fakes[key]["auc"] >= 0.97
    for key in ("depth_profile", "min_k_auc"):
        for name in ("head_edit", "last_layer", "logit_bias"):
            assert missed[key]["knowing"][name]["above"] == missed[key]["knowing"][name]["of"] > 0
    for key, name in (("logit_lens", "head_edit"), (UDS, "last_layer")):
        row = missed[key]["knowing"][name]
        assert 0.5 * row["of"] < row["above"] < row["of"]


def test_the_published_depth_score_comes_out_with_doses_and_the_order_roughly() -> None:
    everything = areas("everything")
    assert everything[UDS]["lo"] <= 0.971 <= everything[UDS]["hi"]
    for contrast in ("fakes", "everything"):
        ours = [areas(contrast)[one.key]["auc"] for one in COMPARED]
        theirs = [one.published.faithful for one in COMPARED if one.published]
        assert scipy_stats.spearmanr(ours, theirs).statistic > 0.5
    assert everything["logit_lens"]["auc"] >= everything[UDS]["auc"] and everything["truth_ratio"]["p_holm"] > 0.05


def test_relearning_is_what_no_metric_survives_and_rounding_is_what_all_do() -> None:
    robust = RESULTS["attacks"]["robustness"]["metrics"]
    for one in COMPARED:
        row = robust[one.key]["relearned"]["one_sided"]
        assert row["q"] > 0.85 and one.published is not None
        assert one.key == "truth_ratio" or row["r"] < 0.6 * one.published.relearned
    levels = robust["probability"]["relearned others"]["levels"]
    assert levels["relearned"] > 5 * levels["retrained_relearned"] and levels["before"] < 0.2


def test_people_are_alarmed_as_often_as_set_and_missed_as_the_page_says() -> None:
    found = RESULTS["attacks"]["people"]["metrics"]
    for key, row in found.items():
        wrong, n = row["false_positives"]
        assert wrong / n < 0.08, key
        strangers = row["alarmed"]["strangers"]
        assert strangers[0] / strangers[1] > wrong / n
    misses = {key: row["misses"][0] / row["misses"][1] for key, row in found.items()}
    assert misses["logit_lens"] < 0.1 and misses[UDS] < 0.1 and misses["extraction_strength"] > 0.4
