"""The coverage study: its table is what the code relies on, its seeds reproduce it, its targets are what is seen."""

import json

import numpy as np
import pytest

from audit.stats import approximate
from audit.stats.interval_coverage import ENOUGH_UNITS
from studies.coverage import study

RESULTS = json.loads((study.HERE / "results.json").read_text(encoding="utf-8"))
ROWS = {(c["of"], c["design"], c["truth"], c["n"], c["units"], c["method"]): c["coverage"] for c in RESULTS["cells"]}


def test_every_method_that_the_code_knows_is_labelled_by_the_committed_table() -> None:
    for method, enough in ENOUGH_UNITS.items():
        assert RESULTS["enough_units"][method] == enough
        least: dict[int, float] = {}
        for key, share in ROWS.items():
            if key[-1] == method:
                least[key[-2]] = min(least.get(key[-2], 1.0), share)
        for units, share in least.items():
            assert approximate(method, units) or share >= study.NEEDED
            assert not approximate(method, units) or min(v for u, v in least.items() if u >= units) < study.NEEDED


def test_the_committed_table_is_whole() -> None:
    found = {key[:-1] for key in ROWS if key[0] == "auroc"}
    assert len(found) == 2 * len(study.AUCS) * len(study.MODELS) * len(study.CLUSTERS)
    assert RESULTS["simulations"] >= 1000 and RESULTS["needed"] == study.NEEDED
    assert RESULTS["worst"] == json.loads(json.dumps(study.worst([study.Cell(**c) for c in RESULTS["cells"]])))


def test_a_cell_over_people_comes_out_again() -> None:
    for cell in study.effect("exponential", 4, RESULTS["simulations"]):
        assert cell.coverage == pytest.approx(ROWS["effect", "exponential", 0.3, 4, 4, cell.method], abs=0.002)


@pytest.mark.slow
def test_a_cell_over_clusters_comes_out_again() -> None:
    for cell in study.area("worlds", 0.97, (30, 4), RESULTS["simulations"], study.SEED):
        assert cell.coverage == pytest.approx(ROWS["auroc", "worlds", 0.97, 30, 4, cell.method], abs=0.002)


@pytest.mark.parametrize("design", ["worlds", "recipes"])
def test_the_target_is_what_samples_of_this_design_show_on_average(design) -> None:  # type: ignore[no-untyped-def]
    rng, shown = np.random.default_rng(0), []
    for _ in range(1500):
        data = study.sample(design, 0.9, 20, 4, rng)
        shown.append(np.greater.outer(data.score[data.knows], data.score[~data.knows]).mean())
    target = study.target(design, 0.9, 20, 4)
    assert np.mean(shown) == pytest.approx(target, abs=4 * np.std(shown) / np.sqrt(1500))
    assert (target > 0.9) == (design == "worlds")
