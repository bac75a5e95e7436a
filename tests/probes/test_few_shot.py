"""Few-shot read-outs against scikit-learn, and what they may see."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from probes._few_shot import PENALTY, Lesson, _ridge, by_shots, draws_of, hit_rates


def lesson(seed: int = 0) -> Lesson:
    rng = np.random.default_rng(seed)
    n = 120
    kind, fold = rng.integers(0, 3, n), rng.integers(0, 2, n)
    return Lesson(kind, fold, np.ones(n, dtype=bool), kind == 0)


def test_the_head_is_ridge_regression_on_indicators() -> None:
    rng = np.random.default_rng(0)
    for shots, d in ((30, 8), (12, 40)):
        x, queried = rng.normal(size=(shots, d)), rng.normal(size=(7, d))
        own = np.eye(3, dtype=bool)[rng.integers(0, 3, shots)]
        mean, spread = x.mean(0), x.std(0, ddof=1)
        wanted = Ridge(alpha=PENALTY * d).fit((x - mean) / spread, own.astype(float)).predict((queried - mean) / spread)
        ours = _ridge(torch.from_numpy(x), torch.from_numpy(own), torch.from_numpy(queried))
        assert ours.numpy() == pytest.approx(wanted)


def test_a_row_is_read_by_what_was_fitted_on_other_groups() -> None:
    here = lesson()
    for fit in draws_of(here, 5, 4, 0):
        assert not set(here.fold[fit.shots]) & set(here.fold[fit.read])
        assert (here.kind[fit.read] == 0).all()
        assert np.bincount(here.kind[fit.shots]).tolist() == [5, 5, 5]


def test_rows_that_may_not_be_shown_are_no_shots() -> None:
    hidden = lesson()._replace(shown=np.arange(120) < 80)
    assert all((fit.shots < 80).all() for fit in draws_of(hidden, 5, 4, 0))


def test_an_answer_in_the_states_is_read_and_one_that_is_not_is_guessed() -> None:
    here = lesson()
    rng = np.random.default_rng(1)
    noise = torch.from_numpy(rng.normal(size=(120, 6)))
    told = noise.clone()
    told[:, :3] += 6 * torch.from_numpy(np.eye(3)[here.kind])
    counts, rates = by_shots({"knows": told, "noise": noise}, here, (5, 10, 500), 10, 0)
    assert counts == (5, 10)
    queried = here.queried
    assert rates["knows"][queried].min() > 0.8 and 0.15 < rates["noise"][queried].mean() < 0.55
    assert np.isnan(rates["knows"][~queried]).all()


def test_an_answer_without_enough_rows_is_not_read() -> None:
    here = lesson()
    rare = here._replace(kind=np.where(np.arange(120) < 6, 9, here.kind), queried=np.arange(120) < 40)
    fits = draws_of(rare, 5, 3, 0)
    rates = hit_rates(torch.randn(120, 4, dtype=torch.float64), rare, fits)
    assert np.isnan(rates[:6]).all() and np.isfinite(rates[6:40]).all()
