"""The difficulty study's arithmetic, on worlds whose difficulty is planted."""

import numpy as np
import pytest
from scipy import stats

from studies.difficulty import tables
from studies.difficulty.fit import by, ranks
from studies.difficulty.measure import Measured
from studies.difficulty.study import shuffled
from studies.difficulty.tables import ALL, Anchored
from studies.difficulty.truth import METHODS, SEEDS, Course, Label, Levels, label

PEOPLE, FACTS = 12, 4
N = PEOPLE * FACTS


def world(number: int, noise: float = 0.5) -> Measured:
    """Difficulty is planted per item; ``p_good`` sees it, ``p_noise`` does not, the baseline sees half of it."""
    rng = np.random.default_rng(number)
    truth, half = rng.normal(size=N), rng.normal(size=N)
    y = truth + half

    def seen() -> np.ndarray:
        return y + noise * rng.normal(size=N)

    labels = {
        (name, seed): Label(seen(), seen(), seen(), seen(), seen(), rng.normal(size=5))
        for name in METHODS for seed in SEEDS
    }  # fmt: skip
    said = {f"p_{name}": half + 0.0 for name in tables.BASELINE}
    said |= {"p_good": truth, "p_noise": rng.normal(size=N), "person": np.repeat(np.arange(PEOPLE), FACTS)}
    said["c_partner_0"] = np.stack([y, np.ones(N), 0.1 * rng.normal(size=N)], 1)
    return Measured(number, said, labels)


WORLDS = [world(number) for number in range(4)]
TARGET = {w.number: tables.difficulty(w) for w in WORLDS}


def of(name: str) -> dict[int, np.ndarray]:
    return {w.number: w.arrays[f"p_{name}"] for w in WORLDS}


def test_rho_is_scipy_s_and_nought_where_nothing_varies() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 30).astype(float), rng.normal(size=30)
    assert tables.rho(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    a[3] = np.nan
    keep = np.isfinite(a)
    assert tables.rho(a, b) == pytest.approx(stats.spearmanr(a[keep], b[keep]).statistic)
    assert tables.rho(np.ones(30), b) == 0.0


def test_a_predictor_that_sees_difficulty_is_found_and_noise_is_not() -> None:
    good, noise = (tables.correlation(WORLDS, of(name), TARGET) for name in ("good", "noise"))
    assert good.lo > 0.3 and good.agree == 4 and noise.lo < 0 < noise.hi
    assert tables.permuted(WORLDS, of("good"), TARGET, 0) < 0.01
    assert tables.permuted(WORLDS, of("noise"), TARGET, 0) > 0.05


def test_what_is_added_to_length_and_loss_is_measured_in_worlds_held_out() -> None:
    base = {w.number: tables.features(w, tables.BASELINE) for w in WORLDS}

    def gained(name: str) -> tables.Estimate:
        wider = {w.number: tables.features(w, tables.BASELINE, (w.arrays[f"p_{name}"],)) for w in WORLDS}
        return tables.gain(WORLDS, base, wider, TARGET)

    assert gained("good").lo > 0.2
    assert gained("noise").value < 0.02 and gained("loss").value == pytest.approx(0, abs=1e-9)


def test_partial_values_are_free_of_length_and_loss() -> None:
    left = tables.partial(WORLDS[0], TARGET[0])
    scores = tables.normal_scores(WORLDS[0].arrays["p_loss"])
    assert abs(np.corrcoef(left, scores)[0, 1]) < 1e-9


def test_methods_are_compared_with_runs_that_had_no_part() -> None:
    asked = list[tuple[tuple[str, int], ...]]()
    tables.by_other_methods(WORLDS[0], lambda runs: asked.append(runs) or TARGET[0])
    assert [{m for m, _ in ALL} - {m for m, _ in runs} for runs in asked] == [{name} for name in METHODS]
    assert by("npo") == (("npo", 0), ("npo", 1))


def test_shuffled_labels_keep_people_whole_and_leave_an_anchored_score_nothing() -> None:
    moved = shuffled(WORLDS[0])
    before, after = (w.labels["npo", 0].steps.reshape(PEOPLE, FACTS) for w in (WORLDS[0], moved))
    assert sorted(map(tuple, before)) == sorted(map(tuple, after)) and (before != after).any()
    real = tables.agreement(WORLDS, lambda w: tables.by_other_methods(w, lambda r: tables.cud_of(w, r, Anchored())))
    null = tables.agreement(
        WORLDS, lambda w: tables.by_other_methods(w, lambda r: tables.cud_of(shuffled(w), r, Anchored()))
    )
    assert real.value > 0.5 and abs(null.value) < real.value / 2


def test_ranks_are_shares_and_leave_out_what_is_missing() -> None:
    assert ranks(np.array([3.0, np.nan, 1.0])).tolist()[::2] == [0.75, 0.25]
    assert np.isnan(ranks(np.array([3.0, np.nan, 1.0]))[1])


def test_an_item_counts_as_down_only_when_it_stays_down() -> None:
    probability = np.array([[0.9, 0.9, 0.9, 0.2], [0.1, 0.9, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1], [0.1, 0.9, 0.1, 0.1]])
    run = Course(
        probability, np.array([[1.0], [0.8], [0.6], [0.4]]), np.full((2, 4), 0.5), np.array([0.5, 0.9, 0.1, 0.5])
    )
    ends = Levels(
        base=probability[0], retained=np.array([1.0]), references=np.full((3, 4), 0.1),
        base_patched=np.full((2, 4), 0.9), reference_patched=np.full((2, 4), 0.1),
        reference_relearned=np.full(4, 0.1),
    )  # fmt: skip
    found = label(run, ends)
    assert found.steps[:3].tolist() == [3, 4, 1] and np.isnan(found.steps[3])
    np.testing.assert_allclose(found.cost[:3], [0.6, 0.6, 0.2])
    np.testing.assert_allclose(found.patch[:3], 0.5)
    np.testing.assert_allclose(found.relearn[:3], [0.5, 1.0, 0.0])
    np.testing.assert_allclose(found.left[:3], [0.0, 0.8, 0.0], atol=1e-12)
