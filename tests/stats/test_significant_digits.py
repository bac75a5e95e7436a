"""Rounding to significant digits, against decimal arithmetic."""

from decimal import Context, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.stats import significant


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12), st.integers(1, 8))
def test_it_equals_decimal_rounding_half_to_even(value: float, digits: int) -> None:
    assert significant(value, digits) == float(Context(prec=digits).create_decimal(Decimal(value)))


@pytest.mark.parametrize(("value", "short"), [(0.000123456, 0.000123), (123456.0, 123000.0), (-np.inf, -np.inf)])
def test_small_and_large_numbers_keep_as_many_digits(value: float, short: float) -> None:
    assert significant(np.float64(value), 3) == short
