"""The committed results of REMIND on TOFU and on the zoo bear out what the page says of them."""

import json
from functools import cache
from statistics import median

import pytest

from audit.calibration import read_pool
from audit.pools import schedule
from audit.schema import Missing
from studies.remind_tofu import study

RESULTS = json.loads((study.HERE / "results.json").read_text(encoding="utf-8"))["suspects"]
PAGE = (study.HERE / "README.md").read_text(encoding="utf-8")

NAMES = {"base": "base", "head_edit": "head edit (fake)", "npo": "NPO, 150 steps", "r0": "r0, never taught"}


def short(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1)


@cache
def rises() -> dict[tuple[str, str], list[float]]:
    """The rise of every scored model of the zoo, by pool and mechanism."""
    found: dict[tuple[str, str], list[float]] = {}
    for world in read_pool(schedule.SCORES):
        for model in world.models:
            for score in model.scores:
                if score.name == "rise" and not isinstance(score.value, Missing):
                    found.setdefault((model.pool, model.mechanism), []).append(score.value)
    return found


def test_the_page_shows_the_committed_areas_and_effects() -> None:
    for suspect, name in NAMES.items():
        line, forest = RESULTS[suspect]["logistic"], RESULTS[suspect]["forest"]
        row = next(row for row in PAGE.splitlines() if row.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        told = f"{short(line['auroc_forget_holdout'])} ({short(forest['auroc_forget_holdout'])})"
        assert cells[0] == told and cells[1].startswith(short(line["baseline_forget_holdout"]))
        lo, hi = line["difference_lo"], line["difference_hi"]
        assert cells[2] == f"{short(line['difference'])} [{short(lo)}, {short(hi)}]"
        assert cells[3] == short(line["auroc_mean"])
        if suspect != "base":
            second = next(row for row in PAGE.splitlines()[::-1] if row.startswith(f"| {name} |"))
            for effect, cell in zip(("rise", "sharpness"), second.split("|")[2:-1], strict=True):
                assert cell.strip().startswith(f"{short(RESULTS[suspect][effect]['value'])} [")


def test_the_classifier_beats_the_texts_alone_wherever_authors_were_taught_and_nowhere_else() -> None:
    for suspect in ("base", "head_edit", "npo"):
        for kind in ("logistic", "forest"):
            assert RESULTS[suspect][kind]["difference_lo"] > 0.2
    for kind in ("logistic", "forest"):
        assert RESULTS["r0"][kind]["difference_lo"] < 0 < RESULTS["r0"][kind]["difference_hi"]


def test_three_classes_are_told_apart_in_a_model_that_never_knew_the_forgotten_ones() -> None:
    means = {suspect: found["logistic"]["auroc_mean"] for suspect, found in RESULTS.items()}
    assert means["r0"] > 0.89 and min(means, key=lambda s: means[s]) == "base"


def test_the_statistic_without_labels_finds_the_fake_and_npo_and_not_the_reference() -> None:
    for effect in ("rise", "sharpness"):
        assert all(RESULTS[suspect][effect]["p"] < 0.001 for suspect in ("base", "head_edit", "npo"))
        assert RESULTS["r0"][effect]["p"] > 0.05 and RESULTS["r0"][effect]["control_found"]


@pytest.mark.skipif(not rises(), reason="the zoo was scored again and remind_landscape has not been")
def test_on_the_zoo_honest_models_are_flat_and_over_unlearned_ones_below() -> None:
    honest = rises()["clean", "retrain"]
    assert abs(median(honest)) < 0.02 and len(honest) == 60 and max(honest) < 0.4
    below = {"grad_diff": -0.7, "npo": -1.08, "rmu_deep": -1.16, "rmu_shallow": -0.85}
    assert {name: round(median(rises()["described", name]), 2) for name in below} == below
    assert median(rises()["edited clean", "npo"]) < -0.7 and median(rises()["edited clean", "grad_diff"]) < -0.5
    assert abs(median(rises()["knowing", "head_edit"])) < 0.2
