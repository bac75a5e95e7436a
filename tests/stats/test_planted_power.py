"""Power by planting: it rises with the dose, with people and with less noise, and agrees with the test that is run."""

import numpy as np
import pytest

from audit.stats import Noise, Rule, max_t_decision, mean_max_t, planted_power
from audit.stats.planted_power import DRAWS, MOST_NUMBERS, NULL_DRAWS, SHARES, _draws, counts
from audit.stats.skewed_means import held_back

ALPHA, POWER = 0.01, 0.8


def least(n: int, sd: float, bar: float = 0.05, others: int = 0, layers: int = 3, level: float = 0.0):
    rng = np.random.default_rng(0)
    excess = 0.8 + 0.1 * rng.standard_normal((n, layers))
    held = sd * rng.standard_normal((others, layers)) if others else None
    sources = [Noise(sd * rng.standard_normal((n, layers)) + level, held, signed=True)]
    decide = max_t_decision(sources, (n, others), Rule(excess.mean(0), bar, ALPHA), 0)
    return planted_power(excess, sources, others, decide, POWER, 0)


def test_less_noise_and_more_people_find_less() -> None:
    by_noise = [least(32, sd).share for sd in (0.02, 0.2, 0.6)]
    assert None not in by_noise and by_noise == sorted(by_noise) and by_noise[0] < by_noise[-1]  # type: ignore[type-var]
    by_people = [least(n, 0.4).share for n in (64, 32, 16)]
    assert None not in by_people and by_people == sorted(by_people) and by_people[0] < by_people[-1]  # type: ignore[type-var]


@pytest.mark.parametrize("others", [0, 24])
def test_the_power_curve_rises_with_the_dose(others: int) -> None:
    rng = np.random.default_rng(1)
    excess, sources = np.ones((24, 2)), [Noise(0.4 * rng.standard_normal((48, 2)))]
    decide = max_t_decision(sources, (24, others), Rule(np.ones(2), 0.05, ALPHA), 0)
    found: list[float] = []

    def watched(people: np.ndarray, held: np.ndarray | None) -> np.ndarray:
        said = decide(people, held)
        found.append(float(said.mean()))
        return said

    planted_power(excess, sources, others, watched, POWER, 0)
    by_share, by_count = found[: len(SHARES)], found[len(SHARES) :]
    for curve in (by_share, by_count):
        assert all(after >= before - 0.05 for before, after in zip(curve, curve[1:], strict=False))
        assert curve[0] < 0.3 and curve[-1] == 1.0


@pytest.mark.sampled
@pytest.mark.parametrize("dose", [0.0, 0.15, 0.25, 0.6])
@pytest.mark.parametrize(("n", "others"), [(32, 0), (16, 16), (8, 0), (6, 9)])
def test_planted_draws_are_decided_as_the_test_of_each_would(n: int, others: int, dose: float) -> None:
    rng = np.random.default_rng(2)
    sources = [Noise(0.4 * rng.standard_normal((64, 3)))]
    decide = max_t_decision(sources, (n, others), Rule(np.ones(3), -np.inf, ALPHA), 0)
    planted = dose + 0.4 * rng.standard_normal((100, n, 3))
    held = 0.4 * rng.standard_normal((100, others, 3)) if others else None
    labels = np.arange(n + others) < n if others else None
    whole = planted if held is None else np.concatenate([planted, held], axis=1)
    by_test = [mean_max_t(x, 0, labels, draws=999).p < ALPHA for x in whole]
    assert decide(planted, held).mean() == pytest.approx(np.mean(by_test), abs=0.1)


@pytest.mark.parametrize("others", [0, 16])
def test_noise_is_seldom_found(others: int) -> None:
    rng = np.random.default_rng(3)
    sources = [Noise(rng.standard_t(3, (32, 4)))]
    decide = max_t_decision(sources, (16, others), Rule(np.ones(4), -np.inf, ALPHA), 0)
    held = rng.standard_t(3, (2000, others, 4)) if others else None
    assert decide(rng.standard_t(3, (2000, 16, 4)), held).mean() < 0.03


def test_few_people_of_many_move_a_mean_too_little() -> None:
    found = least(32, 0.02)
    assert found.share is not None and found.share <= 0.1 and found.people == 8


def test_a_floor_hides_what_lies_under_it_also_where_the_level_is_off_the_other_way() -> None:
    shares = [least(32, 0.02, bar=bar, level=level).share for bar, level in ((0.05, 0.0), (0.2, 0.0), (0.2, 0.15))]
    assert shares[0] is not None and shares[1] is not None and shares[2] is not None
    assert shares[0] < 0.2 <= shares[1] < shares[2]


def test_where_no_randomisation_reaches_the_level_nothing_is_found() -> None:
    assert least(16, 0.02, others=1) == (None, None) and least(16, 0.02, others=4).share is not None


def test_a_signed_difference_counts_holdout_people() -> None:
    rng = np.random.default_rng(4)
    sources = [Noise(0.02 * rng.standard_normal((16, 1)))]
    decide = max_t_decision(sources, (16, 16), Rule(np.ones(1), 0.05, ALPHA, differenced=True), 0)
    lifted = 0.02 * rng.standard_normal((50, 16, 1)) + 0.5
    assert not decide(lifted, lifted[::-1]).any() and decide(lifted, lifted[::-1] - 0.3).all()


def test_the_order_of_people_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    excess, noise, order = rng.random((16, 2)), 0.2 * rng.standard_normal((16, 2)), rng.permutation(16)
    results = []
    for x, rows in ((excess, noise), (excess[order], noise[order])):
        sources = [Noise(rows)]
        results.append(
            planted_power(x, sources, 0, max_t_decision(sources, (16, 0), Rule(x.mean(0), 0.05, ALPHA), 0), POWER, 0)
        )
    assert results[0] == results[1] and results[0].share is not None


@pytest.mark.parametrize(("n", "steps"), [(1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (20, (1, 2, 4, 8, 16, 20))])
def test_people_are_planted_by_doubling(n: int, steps: tuple[int, ...]) -> None:
    assert counts(n) == steps


class Counting(np.random.Generator):
    """Counts the numbers that are drawn, choices as far as they are made of integers."""

    drawn = 0

    def integers(self, *args, **changes):  # type: ignore[no-untyped-def]
        return self._counted(super().integers(*args, **changes))

    def random(self, *args, **changes):  # type: ignore[no-untyped-def]
        return self._counted(super().random(*args, **changes))

    def _counted(self, numbers: np.ndarray) -> np.ndarray:
        Counting.drawn += np.size(numbers)
        return numbers


def test_noise_is_drawn_once_for_all_doses_and_no_planted_draw_is_randomised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes it cheap: one null for the critical value and one set of draws, whatever the number of doses. To
    randomise each planted draw instead would take 9999 numbers a person, draw and dose."""
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Counting(np.random.PCG64(seed)))
    monkeypatch.setattr(Counting, "drawn", 0)
    people, others = 32, 32
    noise = np.random.default_rng(0).standard_normal((people + others, 4))
    sources = [Noise(noise[:people], noise[people:], signed=True)]
    decide = max_t_decision(sources, (people, others), Rule(np.ones(4), 0.05, ALPHA), 0)
    planted_power(np.ones((people, 4)), sources, others, decide, POWER, 0)
    by_null = NULL_DRAWS * (people + others)
    by_planting = DRAWS * (people + others + people + 1)  # who; who is planted in full; the sign
    assert 0 < Counting.drawn <= by_null + by_planting


# ---- draws --------------------------------------------------------------------------------------------------------
def test_what_is_planted_is_drawn_by_its_seed_and_into_the_same_noise_for_every_dose() -> None:
    rng = np.random.default_rng(4)
    rows, excess = rng.standard_normal((7, 2)), rng.standard_normal((4, 2))
    seen: list[tuple[np.ndarray, np.ndarray | None]] = []

    def watched(people: np.ndarray, held: np.ndarray | None) -> np.ndarray:
        seen.append((people, held))
        return np.zeros(len(people), bool)

    assert planted_power(excess, [Noise(rows)], 3, watched, POWER, 9) == (None, None)
    draw, ordered = np.random.default_rng([9, 2]), rows[np.lexsort(rows.T)]
    people, held = (ordered[draw.integers(0, 7, (DRAWS, n))] for n in (4, 3))
    rank = draw.random((DRAWS, 4)).argsort(1).argsort(1)
    full = excess[np.lexsort(excess.T)]
    planted = [share * full for share in SHARES] + [(rank < k)[:, :, None] * full for k in (1, 2, 4)]
    assert len(seen) == len(planted)
    for dose, (found, beside) in zip(planted, seen, strict=True):
        np.testing.assert_allclose(found, people + dose)
        np.testing.assert_array_equal(beside, held)


@pytest.mark.parametrize("others", [0, 16])
def test_the_critical_value_is_the_quantile_of_the_centred_noise(others: int) -> None:
    """Computed here from the same draws: what lies a hair above it is found, and what lies a hair below is not."""
    n, layers, rng = 16, 3, np.random.default_rng(6)
    rows = rng.exponential(1.0, (24, layers))
    decide = max_t_decision([Noise(rows)], (n, others), Rule(np.ones(layers), -np.inf, ALPHA), 3)
    draw, centred = np.random.default_rng([3, 1]), rows - rows.mean(0)
    ordered = centred[np.lexsort(centred.T)]
    null = ordered[draw.integers(0, 24, (NULL_DRAWS, n))]
    if others:
        beside = ordered[draw.integers(0, 24, (NULL_DRAWS, others))]
        t = (null.mean(1) - beside.mean(1)) / np.sqrt(null.var(1, ddof=1) / n + beside.var(1, ddof=1) / others)
    else:
        null = null * draw.choice([-1.0, 1.0], (NULL_DRAWS, n))[:, :, None]
        t = null.mean(1) / np.sqrt(null.var(1, ddof=1) / n)
    level = np.quantile(t.max(1), 1 - ALPHA)
    even = np.tile([1.0, -1.0], n // 2)[:, None] * np.ones(layers)  # no skewness to correct for
    error = np.sqrt(even.var(0, ddof=1) * (1 / n + (1 / others if others else 0))) / held_back(n)
    for factor in (1 - 1e-6, 1 + 1e-6):
        people = (level * factor * error + even)[None]
        assert decide(people, even[None] if others else None).tolist() == [factor > 1]


def test_only_a_rule_that_says_so_takes_the_holdout_peoples_mean_off_the_effect() -> None:
    """People at .06 beside others at .02, both without noise to speak of: .06 or .04 against a bar of .05."""
    rows = 1e-4 * np.random.default_rng(7).standard_normal((40, 1))
    people, others = 0.06 + rows[None, :16], 0.02 + rows[None, 16:32]
    said = [
        max_t_decision([Noise(rows)], (16, 16), Rule(np.ones(1), 0.05, ALPHA, differenced), 0)(people, others)[0]
        for differenced in (False, True)
    ]
    assert said == [True, False]


def test_doses_rise_to_everybody_and_no_fewer_than_a_hundred_draws_are_made_of_as_many_as_are_wanted() -> None:
    assert SHARES[-1] == 1.0 and list(SHARES) == sorted(set(SHARES)) and SHARES[0] > 0
    assert Rule(np.ones(1), 0.1, 0.05).draws == 9999
    assert [_draws(wanted, 10**6, 100) for wanted in (50, 100, 2000)] == [50, 100, 100]
    assert _draws(2000, 1, 1) == 2000
    between = MOST_NUMBERS // 500
    assert _draws(10**9, 100, 5) == between > 100
