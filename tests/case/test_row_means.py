"""Means over each row's tokens, against sums by hand."""

import math

import numpy as np
import pytest
import torch

from audit.case import row_mean, row_means
from tests import toy


def test_means_equal_sums_by_hand_bit_for_bit_and_an_empty_row_is_missing() -> None:
    rows = toy.rows(7, seed=3)
    rows.key[2] = False
    row = rows.targets("key")[0]
    values = torch.randn(len(row), generator=torch.Generator().manual_seed(0)) * 1e3
    expected: list[float] = []
    for n in range(7):
        own = [float(v) for v, r in zip(values.double(), row, strict=True) if r == n]
        total = 0.0
        for value in own:
            total += value
        expected.append(total / len(own) if own else math.nan)
    found = row_means(values, rows)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.array(expected))
    assert math.isnan(found[2]) and np.isfinite(found).sum() == 6


def test_the_answers_tokens_are_others_than_the_contents() -> None:
    rows = toy.rows(5)
    row, at = rows.targets("answer")
    found = row_means(at.float(), rows, "answer")
    spans = rows.answer_spans.double().numpy()
    np.testing.assert_allclose(found, (spans[:, 0] + spans[:, 1] - 1) / 2)


@pytest.mark.parametrize("empty", [0.0, math.nan])
def test_a_row_without_tokens_takes_no_part_in_the_gradient(empty: float) -> None:
    values = torch.tensor([1.0, 3.0, 5.0], requires_grad=True)
    means = row_mean(values, torch.tensor([0, 0, 2]), 3, empty)
    assert means.dtype == torch.float32
    np.testing.assert_array_equal(means.detach().numpy(), np.array([2.0, empty, 5.0], np.float32))
    means.sum().backward()
    assert values.grad is not None and values.grad.tolist() == [0.5, 0.5, 1.0]
