"""The numbers by which the checks of hooks decide: how far apart two states are, and how far they may be."""

import pytest
import torch

from audit.wrappers.load_checks import _gap, _tolerance


@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [(torch.float64, 1e-4), (torch.float32, 1e-4), (torch.bfloat16, 5e-2), (torch.float16, 5e-2)],
)
def test_half_precision_may_be_off_by_a_twentieth_and_all_else_by_a_ten_thousandth(
    dtype: torch.dtype, allowed: float
) -> None:
    assert _tolerance(dtype) == allowed


def test_a_gap_is_the_largest_difference_of_a_row_over_the_largest_entry_of_both() -> None:
    a = torch.tensor([[[1.0, -2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 1.0]]])
    b = torch.tensor([[[1.0, -2.0], [3.5, 4.0]], [[0.0, -8.0], [0.0, 1.0]]])
    assert torch.equal(_gap(a, b), torch.tensor([0.5 / 8, 8.0 / 8])) and torch.equal(_gap(a, b), _gap(b, a))
    assert torch.equal(_gap(a, a), torch.zeros(2))
    assert torch.equal(_gap(torch.zeros(3, 2), torch.zeros(3, 2)), torch.zeros(3))
    small = _gap(1e-3 * a, 1e-3 * b)
    assert torch.allclose(small, _gap(a, b)), "relative: a model of small states is as suspect as one of large ones"
    assert torch.equal(_gap(a.bfloat16(), b.bfloat16()), _gap(a, b))
