"""Who is known: counts of people against a direct sum over sets, planted mixtures, and the rate of false names."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats

from audit.stats import Mixture, NullPeople, mixture, null_people, standing_out
from audit.stats.people_mixture import FDR, LEVELS, _log_count, p_above

SHAPES = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "t3": lambda rng, n: rng.standard_t(3, n),
    "exponential": lambda rng, n: rng.exponential(1, n) - 1,
    "exponential down": lambda rng, n: 1 - rng.exponential(1, n),
    "tied at 0": lambda rng, n: np.where(rng.random(n) < 0.6, 0, rng.standard_normal(n)),
    "a fifth wide": lambda rng, n: np.where(rng.random(n) < 0.2, 3, 0.5) * rng.standard_normal(n),
}


def base(n: int) -> np.ndarray:
    return 1 + 0.1 * np.cos(np.arange(n))


def planted(shape: str, k: int, n: int = 32, level: float = 1.0, seed: int = 0) -> tuple[np.ndarray, set[int], list]:
    """Person effects of a suspect that knows k people, who they are, and null people of two references."""
    rng = np.random.default_rng([seed, k, n])
    noise = SHAPES[shape]
    who = rng.permutation(n)[:k]
    people = 0.05 * noise(rng, n) + 0.02 * rng.standard_normal()
    people[who] += level * base(n)[who]
    groups = [0.05 * noise(rng, n) + 0.02 * rng.standard_normal() for _ in range(2)]
    return people, set(who.tolist()), [null_people(groups, signed=True)]


@given(hnp.arrays(float, st.integers(1, 7), elements=st.floats(-5, 5)))
def test_the_likelihood_of_a_count_is_the_mean_over_all_sets_of_so_many_people(log_ratio: np.ndarray) -> None:
    direct = [
        np.log(np.mean([np.exp(log_ratio[list(chosen)].sum()) for chosen in combinations(range(len(log_ratio)), k)]))
        for k in range(len(log_ratio) + 1)
    ]
    assert _log_count(log_ratio) == pytest.approx(direct, abs=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [1, 2, 4, 8, 16, 32])
def test_people_known_in_full_are_counted_and_told_by_name(k: int, shape: str) -> None:
    counted, exact, chosen = [], 0, []
    for seed in range(5):
        people, who, nulls = planted(shape, k, seed=seed)
        fit, out = mixture(people, base(32), nulls), set(standing_out(people, nulls).tolist())
        counted.append(fit.lower <= k <= fit.upper and fit.upper - fit.lower <= 4)
        exact += fit.known == k
        chosen.append(len(out & who) / k)
    assert sum(counted) >= 4 and exact >= 3 and np.mean(chosen) >= 0.75


@pytest.mark.parametrize("level", [0.2, 0.3, 0.5])
def test_part_of_all_is_told_from_all_of_part(level: float) -> None:
    people, _, nulls = planted("normal", 32, level=level)
    everybody = mixture(people, base(32), nulls)
    assert everybody.known >= 30 and everybody.level == pytest.approx(level, abs=0.08) and everybody.log10_ratio < -3
    part, _, nulls = planted("normal", round(32 * level))
    assert part.mean() == pytest.approx(people.mean(), abs=0.1) and mixture(part, base(32), nulls).log10_ratio > 3


def test_half_of_the_people_at_half_of_base_are_half_of_the_people() -> None:
    people, _, nulls = planted("normal", 16, level=0.5)
    fit = mixture(people, base(32), nulls)
    assert (fit.known, fit.lower, fit.upper) == (16, 16, 16) and fit.level == pytest.approx(0.5, abs=0.1)


@pytest.mark.sampled
@pytest.mark.parametrize("shape", SHAPES)
def test_where_nobody_is_known_hardly_ever_anybody_is_named_or_counted(shape: str) -> None:
    named = counted = 0
    for seed in range(150):
        people, _, nulls = planted(shape, 0, seed=seed)
        named += len(standing_out(people, nulls)) > 0
        counted += mixture(people, base(32), nulls).known > 0
    assert named <= 150 * FDR + 4 and counted <= 18


@pytest.mark.parametrize("shape", SHAPES)
def test_few_of_those_named_are_unknown(shape: str) -> None:
    shares = []
    for seed in range(100):
        people, who, nulls = planted(shape, 4, seed=seed)
        out = set(standing_out(people, nulls).tolist())
        shares.append(len(out - who) / max(len(out), 1))
    assert np.mean(shares) <= FDR


@pytest.mark.parametrize("shift", [0.02, 0.1, -0.3])
def test_a_level_by_which_models_that_never_knew_differ_speaks_for_nobody(shift: float) -> None:
    rng = np.random.default_rng(5)
    away = 0.02 * rng.standard_normal(32) + abs(shift)
    people = 0.02 * rng.standard_normal(32) + shift
    nulls = [null_people([away], signed=True)]
    assert mixture(people, base(32), nulls).known == 0 and not len(standing_out(people, nulls))


@pytest.mark.parametrize("below", [2, 8, 32])
def test_people_far_below_the_null_are_no_sign_of_knowledge(below: int) -> None:
    rng = np.random.default_rng(6)
    people, nulls = 0.01 * rng.standard_normal(32), [null_people([0.01 * rng.standard_normal(64)], True)]
    people[:below] -= 0.9
    assert mixture(people, base(32), nulls).known == 0 and not len(standing_out(people, nulls))


@settings(max_examples=25)
@given(st.permutations(range(16)), st.sampled_from(list(SHAPES)), st.integers(0, 16))
def test_the_order_of_people_does_not_matter(order: list[int], shape: str, k: int) -> None:
    people, _, nulls = planted(shape, k, n=16)
    whole, turned = mixture(people, base(16), nulls), mixture(people[order], base(16)[order], nulls)
    assert whole == turned
    assert {order[place] for place in standing_out(people[order], nulls)} == set(standing_out(people, nulls).tolist())


def test_every_group_of_null_people_has_to_be_exceeded_and_few_of_them_say_less() -> None:
    people = np.r_[0.5, np.zeros(15)]
    narrow, wide = NullPeople(0, 0.02, 0.01, 64), NullPeople(0, 0.3, 0.01, 64)
    assert standing_out(people, [narrow]).tolist() == [0] and not len(standing_out(people, [narrow, wide]))
    assert p_above(people, narrow)[0] < p_above(people, narrow._replace(people=8))[0]


def test_names_come_strongest_first() -> None:
    people = np.array([0.0, 0.6, 0.0, 0.9, 0.0, 0.7, 0.0, 0.0])
    assert standing_out(people, [NullPeople(0, 0.02, 0.0, 64)]).tolist() == [3, 5, 1]


def test_under_six_null_people_nothing_is_known_of_their_spread() -> None:
    assert null_people([np.arange(5.0)], True) is None and null_people([np.arange(3.0), np.arange(3.0)], True)
    assert not len(standing_out(np.ones(4), []))


def test_one_person_has_a_mixture_as_well() -> None:
    assert isinstance(mixture(np.ones(1), np.ones(1), [NullPeople(0, 0.05, 0.01, 32)]), Mixture)


@pytest.mark.parametrize("shift", [0.05, 2.0])
def test_the_mixture_is_the_best_of_its_grid_by_a_direct_sum_over_sets_of_people(shift: float) -> None:
    """Of four people, with t from scipy. A wide shift is cut into 25 levels of the null, and no more."""
    people, known = np.array([0.02, 0.9, -0.03, 1.2]), np.array([1.0, 0.8, 1.3, 1.1])
    null = NullPeople(0.0, 0.05, shift, 32)
    steps = int(np.clip(np.ceil(4 * shift / 0.05), 5, 25))
    best = np.full(5, -np.inf)
    full = part = -np.inf
    for low in np.linspace(-shift, shift, steps):
        reading = np.maximum(people, low - 2 * 0.05)
        unknown = scipy_stats.t.logpdf((reading - low) / 0.05, 4) - np.log(0.05)
        for level in LEVELS:
            spread = np.hypot(0.05, level * max(known.std(ddof=1), 0.1))
            ratio = scipy_stats.t.logpdf((reading - low - level * known) / spread, 4) - np.log(spread) - unknown
            for k in range(5):
                sets = [ratio[list(chosen)].sum() for chosen in combinations(range(4), k)]
                fit = np.log(np.mean(np.exp(sets))) + unknown.sum()
                best[k] = max(best[k], fit)
                full = max(full, fit) if level == 1.0 and k else full
                part = max(part, fit) if k == 4 else part
    found = mixture(people, known, [null])
    assert found.log10_ratio == pytest.approx((full - part) / np.log(10), abs=1e-8)
    inside = np.flatnonzero(best >= best.max() - 1.92)
    counted = best[best.argmax()] - best[0] >= 3.0
    assert found.known == (best.argmax() if counted else 0)
    assert (found.lower, found.upper) == (inside.min() if counted else 0, inside.max())


@pytest.mark.thorough
def test_a_ratio_beyond_all_numbers_stays_one() -> None:
    level = np.r_[np.full(400, 0.5), np.full(400, 0.3)]
    nulls = [NullPeople(0.0, 0.01, 0.001, 64)]
    assert mixture(level, np.ones(800), nulls).log10_ratio == -300
    assert mixture(np.r_[np.ones(400), np.zeros(400)], np.ones(800), nulls).log10_ratio == 300


def test_null_people_are_the_wider_of_two_spreads_and_unsure_by_their_number() -> None:
    group = np.array([-0.1, 0.0, 0.02, 0.3, -0.04, 0.05, 0.01])
    for signed, others in ((True, -0.2), (False, 0.0)):
        found = null_people([group, group + others], signed=signed)
        off = np.r_[group - np.median(group), group - np.median(group)]
        scale = max(1.4826 * np.median(np.abs(off)), np.sqrt((off**2).sum() / 13))
        assert found is not None and found.scale == pytest.approx(scale, rel=1e-4) and found.people == 14
        unsure = np.sqrt(np.pi / 28) * scale
        level = max(abs(np.median(group)), abs(np.median(group + others)), unsure) if signed else unsure
        assert found.shift == pytest.approx(level, rel=1e-4)
        assert found.location == pytest.approx(0.0 if signed else np.median(group), abs=1e-12)
    still = null_people([np.zeros(8)], signed=True)
    assert still is not None and still.scale == 0.01, "a hundredth of base names nobody"
