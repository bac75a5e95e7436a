"""The batched logistic probe against scikit-learn's, fold by fold."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from audit.readouts import logistic

FITS, ROWS, D = 4, 26, 40


@pytest.mark.parametrize("c", [0.1, 1.0, 10.0])
def test_every_fold_equals_scikit_learns_probe_behind_its_scaler(c: float) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(FITS, ROWS, D, generator=rng, dtype=torch.float64) * torch.linspace(0.01, 50, D)
    x[..., 5] = 3.0
    y = (torch.rand(ROWS, generator=rng) > 0.4).double()
    trained = torch.rand(FITS, ROWS, generator=rng) > 0.3
    found = logistic(x, y, trained, c)
    odds, direction = found.decision(x).numpy(), found.direction().numpy()
    for fit in range(FITS):
        kept = trained[fit].numpy()
        scaler = StandardScaler().fit(x[fit].numpy()[kept])
        slow = LogisticRegression(C=c, max_iter=20000, tol=1e-12).fit(
            scaler.transform(x[fit].numpy()[kept]), y.numpy()[kept]
        )
        np.testing.assert_allclose(odds[fit], slow.decision_function(scaler.transform(x[fit].numpy())), atol=1e-4)
        raw = slow.coef_[0] / scaler.scale_
        np.testing.assert_allclose(direction[fit], raw / np.linalg.norm(raw), atol=1e-5)


def test_separable_rows_have_a_finite_fit_that_separates_them() -> None:
    x = torch.tensor([[[-3.0], [-2.0], [2.0], [3.0]]], dtype=torch.float64)
    y = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    found = logistic(x, y, torch.ones(1, 4, dtype=torch.bool), c=100.0)
    assert torch.equal(found.decision(x)[0] > 0, y > 0.5) and torch.isfinite(found.weight).all()


def test_rows_left_out_have_no_part_in_the_fit() -> None:
    x = torch.randn(1, 10, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.tensor([0.0, 1.0] * 5, dtype=torch.float64)
    trained = torch.arange(10)[None] < 8
    other = x.clone()
    other[:, 8:] += 100
    for one, two in zip(logistic(x, y, trained), logistic(other, y, trained), strict=True):
        torch.testing.assert_close(one, two)
