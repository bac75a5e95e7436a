"""Closed-form read-outs against refits, one by one, and their label swaps against the distributions they claim."""

from typing import NamedTuple

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
    for site in range(SITES):
        found = {name: one.scores(y[:, None])[:, 0] for name, one in ridge.battery(x[site], group, (1.0,), 3).items()}
        z = ridge.standardised(x[site])
        raw = z.numpy()
        apart = ((raw[:, None] - raw[None]) ** 2).sum(-1)
        others = np.sort(apart[~np.eye(len(raw), dtype=bool)])
        gram = np.exp(-apart / others[(len(others) - 1) // 2]) + 1
        wide = np.concatenate([ridge.random_layer(z, 64, 3).numpy(), np.full((len(raw), 1), 8.0)], 1)
        for g in range(PEOPLE):
            out = (group == g).numpy()
            kernel = KernelRidge(alpha=0.1, kernel="precomputed").fit(gram[np.ix_(~out, ~out)], y.numpy()[~out])
            near = KNeighborsRegressor(5).fit(raw[~out], y.numpy()[~out])
            net = Ridge(alpha=64.0, fit_intercept=False, solver="svd").fit(wide[~out], y.numpy()[~out])
            np.testing.assert_allclose(found["radial_ridge"][out], kernel.predict(gram[np.ix_(out, ~out)]), atol=1e-8)
            np.testing.assert_allclose(found["neighbours_5"][out], near.predict(raw[out]), atol=1e-10)
            np.testing.assert_allclose(found["random_network"][out], net.predict(wide[out]), atol=1e-8)


def test_a_column_that_does_not_vary_says_nothing() -> None:
    x = states()
    x[..., 3] = 1e6
    assert (ridge.standardised(x)[..., 3] == 0).all()


def test_no_label_of_a_group_reaches_its_own_scores() -> None:
    group, eye = groups(), torch.eye(PEOPLE * EACH, dtype=torch.float64)
    for one in ridge.battery(states()[0], group, (0.1, 1.0), 0).values():
        smoother, same = one.scores(eye), group[:, None] == group[None, :]
        assert (smoother[same].abs() < 1e-14).all() and (smoother[~same].abs() > 1e-6).any()


SHAPES = [(24, 3), (24, 22), (24, 23), (24, 40)]
"""Rows and dimensions: fewer columns than a group has rows, fewer and more than there are rows."""


@pytest.mark.parametrize(("rows", "d"), SHAPES)
@pytest.mark.parametrize("penalty", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("sizes", [(4,) * 6, (1, 2, 3, 4, 5, 9)])
def test_factors_and_the_whole_matrix_leave_out_the_same(
    rows: int, d: int, penalty: float, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, group = drawn(rows, d), torch.repeat_interleave(torch.arange(6), torch.tensor(sizes))
    whole = ridge.ridge_smoother(ridge.linear_gram(x), group, penalty)
    for at_once in (ridge.ENTRIES_AT_ONCE, 1):
        monkeypatch.setattr(ridge, "ENTRIES_AT_ONCE", at_once)
        found = ridge.linear_readout(x, group, penalty)
        assert isinstance(found, ridge.Factored if d + 1 < rows else ridge.Dense)
        torch.testing.assert_close(found.scores(torch.eye(rows).double()), whole, rtol=1e-9, atol=1e-9)


def drawn(rows: int, d: int) -> Tensor:
    rng = torch.Generator().manual_seed(rows + d)
    return ridge.standardised(torch.randn(rows, d, generator=rng, dtype=torch.float64))


@pytest.mark.parametrize(("rows", "d"), SHAPES)
def test_rows_that_no_readout_was_fitted_on_are_scored_by_the_one_without_their_group(rows: int, d: int) -> None:
    both = drawn(rows + 8, d)
    x, asked, group = both[:rows], both[rows:], torch.arange(rows) // 4
    asked_group = torch.tensor([5, 0, 0, 1, 2, 2, 2, 4])
    y = torch.randn(rows, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = ridge.query_scores(x, y, group, asked, asked_group, 2.0)
    wide, questions = (np.concatenate([part.numpy(), np.full((len(part), 1), d**0.5)], 1) for part in (x, asked))
    for g in range(6):
        kept, mine = (group != g).numpy(), (asked_group == g).numpy()
        slow = Ridge(alpha=2.0, fit_intercept=False, solver="svd").fit(wide[kept], y.numpy()[kept])
        if mine.any():
            np.testing.assert_allclose(found[mine], slow.predict(questions[mine]), atol=1e-8)


def test_every_kind_of_readout_says_of_swaps_what_its_matrix_says(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, d, people = 60, 2, 15
    x, group = drawn(rows, d), torch.arange(people).repeat(4)
    side, signs = labels(people), swaps.swaps(people, 50, 0)
    ridges = ridge.linear_readouts(x, group, [1.0, 5.0])
    readouts = [*ridges, *ridge.battery(x, group, (1.0,), 0).values(), Swapped(ridges[0])]
    assert {type(one) for one in readouts} == {ridge.Factored, ridge.Dense, ridge.Neighbours, Swapped}
    for one in readouts:
        matrix = one.scores(torch.eye(rows, dtype=torch.float64))
        slow = swaps.margins(swaps.pair_form(matrix[None], side, group), signs)
        for at_once in (ridge.ENTRIES_AT_ONCE, 1):
            monkeypatch.setattr(swaps, "ENTRIES_AT_ONCE", at_once)
            form = swaps.unit_form(one, side, group)
            torch.testing.assert_close(signs * form(signs), slow[0], rtol=0, atol=1e-10)
            found = swaps.under_swaps(form, signs)
            assert torch.equal(found.concordance, swaps.concordance(slow)[0])
            torch.testing.assert_close(found.studentised, swaps.studentised(slow)[0], rtol=1e-8, atol=1e-8)


class Swapped(NamedTuple):
    """A read-out of a kind that nobody knows."""

    readout: ridge.Readout

    def scores(self, y: Tensor) -> Tensor:
        return -self.readout.scores(y)


def many(rows: int, d: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """States with a class that is not linear in them, people of eight rows, and the class."""
    x = drawn(rows, d)
    return x, torch.arange(rows) // 8, torch.where(x[:, :3].norm(dim=1) > 1.55, 1.0, -1.0).double()


def test_projections_on_landmarks_score_about_as_the_exact_kernel_does(monkeypatch: pytest.MonkeyPatch) -> None:
    x, group, y = many(800)
    exact = ridge.radial_readout(x, group, 0.1, torch.arange(800))
    monkeypatch.setattr(ridge, "EXACT_ROWS", 500)
    chosen = torch.randperm(800, generator=torch.Generator().manual_seed(0))
    found = ridge.radial_readout(x, group, 0.1, chosen)
    assert isinstance(exact, ridge.Dense) and isinstance(found, ridge.Factored)
    assert found.columns.shape == (800, ridge.LANDMARKS + 1)
    a, b = (one.scores(y[:, None])[:, 0] for one in (exact, found))
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.98
    assert ((a > 0) == (b > 0)).double().mean() > 0.95 and ((b > 0) == (y > 0)).double().mean() > 0.85
    monkeypatch.setattr(ridge, "LANDMARKS", 800)
    every = ridge.radial_readout(x, group, 0.1, torch.arange(800))
    torch.testing.assert_close(every.scores(y[:, None])[:, 0], a, rtol=0, atol=1e-4)


def test_among_many_rows_neighbours_are_looked_for_among_the_landmarks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    x, group, _ = many(80)
    monkeypatch.setattr(ridge, "EXACT_ROWS", 30)
    monkeypatch.setattr(ridge, "ENTRIES_AT_ONCE", 100)
    chosen = torch.arange(79, 0, -2)
    found = ridge.battery(x, group, (1.0,), 0, chosen)["neighbours_5"]
    assert isinstance(found, ridge.Neighbours)
    candidates = chosen[:30]
    for row in range(80):
        others = candidates[group[candidates] != group[row]]
        nearest = others[torch.cdist(x[row : row + 1], x[others])[0].argsort()[:5]]
        assert set(found.nearest[row].tolist()) == set(nearest.tolist())


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


@pytest.mark.thorough
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
