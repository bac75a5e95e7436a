"""Closed-form read-outs against refits, one by one, and their label swaps against the distributions they claim."""

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from torch import Tensor

from audit.readouts import grouped_ridge as ridge
from audit.readouts import label_swaps as swaps

SITES, PEOPLE, EACH, D = 3, 7, 4, 12


def states(seed: int = 0, people: int = PEOPLE, d: int = D) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(SITES, people * EACH, d, generator=rng, dtype=torch.float64) * torch.linspace(0.1, 30, d)


def groups(people: int = PEOPLE) -> Tensor:
    return torch.arange(people).repeat_interleave(EACH)


def labels(people: int = PEOPLE) -> Tensor:
    return torch.tensor([1.0, -1.0] * (EACH // 2), dtype=torch.float64).repeat(people)


def design(x: Tensor) -> np.ndarray:
    """Standardised columns and the constant column of size sqrt(d), by numpy."""
    raw = x.numpy()
    z = (raw - raw.mean(0)) / raw.std(0, ddof=1)
    return np.concatenate([z, np.full((len(z), 1), np.sqrt(z.shape[1]))], 1)


@pytest.mark.parametrize("kappa", [0.1, 1.0, 10.0])
def test_grouped_leave_one_out_equals_refitting_without_each_group(kappa: float) -> None:
    x, group = states(), groups()
    y = torch.randn(len(group), 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = ridge.ridge_scores(x, y, group, kappa)
    for site in range(SITES):
        z = design(x[site])
        for g in range(PEOPLE):
            out = (group == g).numpy()
            kept = z[~out]
            gram = kept.T @ kept + kappa * D * np.eye(D + 1)
            weight = np.linalg.solve(gram, kept.T @ y.numpy()[~out])
            np.testing.assert_allclose(found[site][out], z[out] @ weight, rtol=0, atol=1e-10)


def test_it_equals_scikit_learns_ridge_without_intercept_for_groups_of_any_size() -> None:
    x = states()[:, :19]
    group = torch.tensor([0] * 3 + [5] * 1 + [2] * 8 + [9] * 7)
    y = torch.randn(19, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = ridge.ridge_scores(x, y, group)
    for site in range(SITES):
        z = design(x[site])
        for g in group.unique():
            out = (group == g).numpy()
            fitted = Ridge(alpha=D, fit_intercept=False, solver="svd").fit(z[~out], y[~out].numpy())
            np.testing.assert_allclose(found[site][out], fitted.predict(z[out]), atol=1e-10)


def test_the_rest_of_the_battery_equals_scikit_learn_too() -> None:
    x, group, y = states(), groups(), labels()
    found = {name: (s @ y).numpy() for name, s in ridge.battery(x, group, (1.0,), seed=3).items()}
    z = ridge.standardised(x)
    hidden = ridge.random_layer(z, 64, 3)
    for site in range(SITES):
        raw = z[site].numpy()
        apart = ((raw[:, None] - raw[None]) ** 2).sum(-1)
        others = np.sort(apart[~np.eye(len(raw), dtype=bool)])
        gram = np.exp(-apart / others[(len(others) - 1) // 2]) + 1
        wide = np.concatenate([hidden[site].numpy(), np.full((len(raw), 1), 8.0)], 1)
        for g in range(PEOPLE):
            out = (group == g).numpy()
            kernel = KernelRidge(alpha=0.1, kernel="precomputed").fit(gram[np.ix_(~out, ~out)], y.numpy()[~out])
            near = KNeighborsRegressor(5).fit(raw[~out], y.numpy()[~out])
            net = Ridge(alpha=64.0, fit_intercept=False, solver="svd").fit(wide[~out], y.numpy()[~out])
            np.testing.assert_allclose(
                found["radial_ridge"][site][out], kernel.predict(gram[np.ix_(out, ~out)]), atol=1e-8
            )
            np.testing.assert_allclose(found["neighbours_5"][site][out], near.predict(raw[out]), atol=1e-10)
            np.testing.assert_allclose(found["random_network"][site][out], net.predict(wide[out]), atol=1e-8)


def test_a_column_that_does_not_vary_says_nothing() -> None:
    x = states()
    x[..., 3] = 1e6
    assert (ridge.standardised(x)[..., 3] == 0).all()


def test_no_label_of_a_group_reaches_its_own_scores() -> None:
    group = groups()
    for smoother in ridge.battery(states(), group, (0.1, 1.0), 0).values():
        same = group[:, None] == group[None, :]
        assert (smoother[..., same] == 0).all() and (smoother[..., ~same] != 0).any()


@pytest.mark.parametrize(("rows", "d"), [(24, 3), (24, 22), (24, 23), (24, 40)])
@pytest.mark.parametrize("penalty", [0.01, 1.0, 30.0])
def test_the_small_system_and_the_large_one_leave_out_the_same(rows: int, d: int, penalty: float) -> None:
    rng = torch.Generator().manual_seed(rows + d)
    x = ridge.standardised(torch.randn(2, rows, d, generator=rng, dtype=torch.float64))
    group = torch.arange(6).repeat_interleave(rows // 6)
    torch.testing.assert_close(
        ridge.linear_smoother(x, group, penalty), ridge.ridge_smoother(ridge.linear_gram(x), group, penalty),
        rtol=1e-9, atol=1e-9,
    )  # fmt: skip


def test_margins_from_the_small_matrix_equal_margins_from_relabelled_scores() -> None:
    x, group, y = states(), groups(), labels()
    smoother = ridge.ridge_smoother(ridge.linear_gram(ridge.standardised(x)), group, D)
    signs = swaps.swaps(PEOPLE, 20, seed=0)
    found = swaps.margins(swaps.pair_form(smoother, y, group), signs)
    for draw in range(signs.shape[1]):
        swapped = y * signs[group, draw]
        scores = ridge.ridge_scores(x, swapped[:, None], group)[..., 0]
        for unit in range(PEOPLE):
            mine = group == unit
            slow = scores[:, mine & (swapped > 0)].mean(1) - scores[:, mine & (swapped < 0)].mean(1)
            torch.testing.assert_close(found[:, unit, draw], slow, rtol=0, atol=1e-10)


def test_few_units_are_swapped_in_every_way_once_and_the_true_labelling_comes_first() -> None:
    signs = swaps.swaps(5, 1000, seed=0)
    assert signs.shape == (5, 32) and (signs[:, 0] == 1).all()
    assert len({tuple(s) for s in signs.T.tolist()}) == 32
    assert swaps.swaps(30, 1000, seed=0).shape == (30, 1001)


def planted(seed: int, shift: float, people: int = 10) -> swaps.Margins:
    """Margins of noise states, with a direction shared by all memorised texts if ``shift`` is not zero."""
    rng = torch.Generator().manual_seed(seed)
    side = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(people)
    unit = torch.arange(people).repeat_interleave(2)
    x = torch.randn(2, 2 * people, 8, generator=rng, dtype=torch.float64) + shift * side[:, None]
    smoother = ridge.ridge_smoother(ridge.linear_gram(ridge.standardised(x)), unit, 8.0)
    return swaps.margins(swaps.pair_form(smoother, side, unit), swaps.swaps(people, 199, seed))


def test_p_is_uniform_on_null_data_for_margins_and_never_too_small_for_concordance() -> None:
    continuous, discrete = [], []
    for seed in range(400):
        m = planted(seed, 0.0)
        continuous.append(swaps.max_t(swaps.studentised(m)).p)
        discrete.append(swaps.max_t(swaps.sign_free(swaps.concordance(m))).p)
    assert scipy_stats.kstest(continuous, "uniform").pvalue > 0.01
    for level in (0.01, 0.05, 0.1, 0.25, 0.5):
        most = scipy_stats.binom.ppf(0.999, 400, level)
        assert sum(p <= level for p in continuous) <= most and sum(p <= level for p in discrete) <= most


def test_a_shared_direction_is_found_and_its_concordance_is_high() -> None:
    m = planted(0, 1.5)
    assert swaps.max_t(swaps.studentised(m)).p < 0.01
    assert swaps.concordance(m)[:, 0].min() > 0.8


def test_states_that_do_not_differ_within_a_pair_give_no_margin_of_rounding_dust() -> None:
    x = torch.randn(1, 8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).repeat_interleave(2, 1)
    unit, side = torch.arange(8).repeat_interleave(2), torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(8)
    smoother = ridge.ridge_smoother(ridge.linear_gram(ridge.standardised(x)), unit, 6.0)
    m = swaps.margins(swaps.pair_form(smoother, side, unit), swaps.swaps(8, 99, 0))
    assert (m == 0).all() and (swaps.concordance(m) == 0.5).all()


def test_detectable_accuracy_is_near_the_binomial_one_for_independent_units_and_grows_with_the_family() -> None:
    rng = torch.Generator().manual_seed(0)
    null = torch.randint(0, 2, (30, 50, 4000), generator=rng).double().mean(1)
    one, many = swaps.minimum_detectable(null[:1]), swaps.minimum_detectable(null)
    bar = 1.96 * 0.5 / 50**0.5
    assert one == pytest.approx(0.5 + bar + 0.8416 * (0.69 * 0.31 / 50) ** 0.5, abs=0.02)
    assert 0.70 < many < 0.80 and many > one
    assert swaps.minimum_detectable(torch.randint(0, 2, (1, 7, 4000), generator=rng).double().mean(1)) > 0.85


def test_the_same_numbers_come_out_in_single_precision() -> None:
    x, group, y = states(), groups(), labels()[:, None]
    wide, narrow = ridge.ridge_scores(x, y, group), ridge.ridge_scores(x.float(), y, group)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=0, atol=1e-4)
