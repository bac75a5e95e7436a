"""What a measurement may read: numbers, and nothing that is none."""

import math

import pytest
from pydantic import ValidationError

from audit.schema import Measurement
from tests.known_truth import measured


@pytest.mark.parametrize("reading", [math.nan, math.inf])
def test_a_reading_that_is_no_number_is_refused_where_it_is_made(reading: float) -> None:
    """Else it would end the audit where the evidence is judged, and not the one probe."""
    stated = measured("lens", 1.0, 12.0)
    assert Measurement.model_validate(dict(stated) | {"readings": {"share": 0.5}}).readings == {"share": 0.5}
    with pytest.raises(ValidationError, match="finite"):
        Measurement.model_validate(dict(stated) | {"readings": {"share": reading}})
