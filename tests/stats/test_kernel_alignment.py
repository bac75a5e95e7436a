"""Unbiased CKA and what lies between: against the formula with matrices of items, and by what it must not see."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray

from audit.stats import kernel_alignment as ka


def explicit(x: ndarray, y: ndarray) -> float:
    """HSIC_1 as it is written, with matrices of item by item (Song et al. 2012)."""
    n, one = len(x), np.ones(len(x))
    k, of_y = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(of_y, 0.0)
    middle = (one @ k @ one) * (one @ of_y @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ of_y) + middle - 2 / (n - 2) * (one @ k @ of_y @ one)) / (n * (n - 3)))


def explicit_cka(x: ndarray, y: ndarray) -> float:
    return explicit(x, y) / float(np.sqrt(explicit(x, x) * explicit(y, y)))


def related(rng: np.random.Generator, rows: int, dx: int, dy: int, share: float) -> tuple[ndarray, ndarray]:
    """States of two models that have some of a hidden cause in common, with means of their own."""
    cause = rng.normal(size=(rows, 3))
    x = cause @ rng.normal(size=(3, dx)) + (1 - share) * rng.normal(size=(rows, dx)) + rng.normal(size=dx) * 5
    y = share * cause @ rng.normal(size=(3, dy)) + rng.normal(size=(rows, dy)) + rng.normal(size=dy) * 5
    return x, y


shapes = st.tuples(
    st.integers(8, 40), st.integers(1, 50), st.integers(1, 50), st.integers(1, 12), st.integers(0, 2**31)
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(shapes)
def test_sums_over_rows_give_the_formula_with_matrices_of_items(shape: tuple[int, int, int, int, int]) -> None:
    rows, dx, dy, groups, seed = shape
    rng = np.random.default_rng(seed)
    x, y = related(rng, rows, dx, dy, 0.7)
    total = ka.sums(x[:3], y[:3]).plus(ka.sums(x[3:], y[3:]))
    scale = max(abs(explicit(x, x)), abs(explicit(y, y)))
    assert ka.hsic(total) == pytest.approx(explicit(x, y), abs=1e-8 * scale)
    group = np.unique(rng.integers(0, groups, rows), return_inverse=True)[1].reshape(-1)
    found = ka.alignment(ka.kernel(x, group), ka.kernel(y, group))
    assert found.value == pytest.approx(explicit_cka(x, y), rel=1e-7, abs=1e-9)
    for number, left in enumerate(found.without):
        others = group != number
        if others.sum() < ka.FEWEST:
            assert np.isnan(left)
        elif min(explicit(x[others], x[others]), explicit(y[others], y[others])) > 1e-6:
            assert left == pytest.approx(explicit_cka(x[others], y[others]), rel=1e-6, abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(shapes, st.floats(1e-3, 1e3))
def test_a_rotation_a_scale_and_a_shift_change_nothing(shape: tuple[int, int, int, int, int], scale: float) -> None:
    rows, dx, dy, _, seed = shape
    rng = np.random.default_rng(seed)
    x, y = related(rng, rows, dx, dy, 0.7)
    group = np.arange(rows)
    rotation = np.linalg.qr(rng.normal(size=(dx, dx)))[0]
    moved = scale * x @ rotation + rng.normal(size=dx)
    before, after = (ka.alignment(ka.kernel(z, group), ka.kernel(y, group)) for z in (x, moved))
    assert after.value == pytest.approx(before.value, abs=1e-8)
    turned = ka.alignment(ka.kernel(x, group), ka.kernel(moved, group))
    assert turned.value == pytest.approx(1.0, abs=1e-9)


def test_equal_states_are_exactly_alike_and_constant_ones_are_like_nothing() -> None:
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(30, 7)).astype(np.float32), np.arange(30) // 2
    same = ka.alignment(ka.kernel(x, group), ka.kernel(x.copy(), group))
    assert same.value == 1.0 and (same.without == 1.0).all() and same.ci95 is not None and same.ci95.lo == 1.0
    flat = ka.alignment(ka.kernel(x, group), ka.kernel(np.ones((30, 4)), group))
    assert np.isnan(flat.value) and flat.ci95 is None


def test_unrelated_states_are_unlike_where_the_plain_estimate_says_that_they_are_alike() -> None:
    rng = np.random.default_rng(1)
    plain: list[float] = []
    unbiased: list[float] = []
    for _ in range(60):
        x, y = rng.normal(size=(20, 60)), rng.normal(size=(20, 60))
        a, b = ka.kernel(x, np.arange(20)), ka.kernel(y, np.arange(20))
        unbiased.append(ka.alignment(a, b).value)
        k, of_y = (z.states @ z.states.T for z in (a, b))
        plain.append(float((k * of_y).sum() / np.sqrt((k * k).sum() * (of_y * of_y).sum())))
    assert min(plain) > 0.6 and abs(np.mean(unbiased)) < 3 * np.std(unbiased) / 60**0.5 + 0.01


def world(share: float, seed: int = 0, rows: int = 60) -> dict[str, ka.Kernel]:
    """Base knows a cause that two references lack; the suspect has so much of it."""
    rng = np.random.default_rng(seed)
    common, secret = rng.normal(size=(rows, 4)), rng.normal(size=(rows, 4))
    mixing = np.random.default_rng(7).normal(size=(2, 4, 30))

    def states(known: float) -> ndarray:
        return common @ mixing[0] + known * secret @ mixing[1] + 0.5 * rng.normal(size=(rows, 30))

    made = {"base": states(1.5), "null": states(0.0), "floor": states(0.0), "suspect": states(1.5 * share)}
    return {name: ka.kernel(x, np.arange(rows)) for name, x in made.items()}


def placed(models: dict[str, ka.Kernel], suspect: str) -> ka.Position | None:
    pairs = ((suspect, "null"), ("base", "null"), ("floor", "null"))
    return ka.position(*(ka.alignment(models[a], models[b]) for a, b in pairs))


def test_base_lies_at_one_end_a_second_reference_at_the_other_and_a_half_between() -> None:
    models = world(0.5)
    at = {name: placed(models, name) for name in ("base", "suspect", "floor")}
    assert all(position is not None for position in at.values())
    base, suspect, floor = (at[name] for name in ("base", "suspect", "floor"))
    assert base is not None and suspect is not None and floor is not None
    assert (base.value, base.ci95.lo, base.ci95.hi) == (0.0, 0.0, 0.0)
    assert (floor.value, floor.ci95.lo, floor.ci95.hi) == (1.0, 1.0, 1.0)
    assert 0.2 < suspect.ci95.lo < suspect.value < suspect.ci95.hi < 0.95


def test_there_is_no_place_between_models_that_do_not_differ() -> None:
    models = world(0.0, seed=3)
    assert placed({**models, "base": models["suspect"]}, "floor") is None


@pytest.mark.thorough
def test_the_jackknife_of_a_mean_is_its_t_interval_and_covers_a_position() -> None:
    x = np.random.default_rng(4).normal(size=12)
    without = (x.sum() - x) / 11
    ends = ka.jackknifed(float(x.mean()), without)
    assert ends is not None
    assert ends.hi - x.mean() == pytest.approx(2.2009852 * x.std(ddof=1) / 12**0.5, rel=1e-6)
    assert ka.jackknifed(float("nan"), without) is None and ka.jackknifed(1.0, without[:1]) is None
    truth = placed(world(0.5, seed=9, rows=3000), "suspect")
    assert truth is not None
    inside = [placed(world(0.5, seed=100 + n), "suspect") for n in range(200)]
    assert sum(p is not None and p.ci95.lo <= truth.value <= p.ci95.hi for p in inside) >= 180


def test_as_many_rows_as_are_needed_give_a_number_and_one_less_gives_none() -> None:
    rng = np.random.default_rng(9)
    x, y = related(rng, ka.FEWEST, 3, 2, 0.5)
    for rows, defined in ((ka.FEWEST, True), (ka.FEWEST - 1, False)):
        group = np.arange(rows)
        found = ka.alignment(ka.kernel(x[:rows], group), ka.kernel(y[:rows], group))
        assert np.isfinite(found.value) == defined
        assert np.isnan(found.without).all(), "without any of them there are too few"
