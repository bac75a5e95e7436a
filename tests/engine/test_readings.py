"""What a probe hands over: readings are numbers, and one that is none costs the probe alone."""

import math

import pytest

from audit.engine.runner import numbers_alone
from tests.known_truth import measured


@pytest.mark.parametrize("reading", [math.nan, math.inf])
def test_a_reading_that_is_no_number_is_refused_where_it_is_handed_over(reading: float) -> None:
    """Else it would end the audit where the evidence is judged."""
    stated = measured("lens", 1.0, 12.0)
    assert numbers_alone([stated.model_copy(update={"readings": {"share": 0.5}})])[0].readings == {"share": 0.5}
    with pytest.raises(ValueError, match=r"lens\.effect: the readings share are no numbers"):
        numbers_alone([stated, stated.model_copy(update={"readings": {"share": reading}})])
