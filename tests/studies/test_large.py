"""The record of models larger than their memory: what its page claims, held as the study holds it."""

import json
from typing import Any

import pytest

from studies.large import study


def test_the_record_holds_what_the_page_claims() -> None:
    results: dict[str, Any] = json.loads(study.RESULTS.read_bytes())
    study.check(results)
    assert results["sizes"] == study.SIZES._asdict() and results["given"] == study.GIVEN
    assert results["whole"]["flags"] == [] and results["offloaded"]["flags"] == study.flags_of(study.GIVEN)
    assert set(results["skipped"]) == set(study.CHANGING) and results["opened_again"] > 0 and results["numbers"] > 100


def test_a_record_that_breaks_a_claim_is_refused() -> None:
    results: dict[str, Any] = json.loads(study.RESULTS.read_bytes())
    over = {**results["offloaded"], "peak_anonymous_bytes": study.LIMIT_BYTES}
    for broken in ({"largest_difference": 1e-4}, {"failures": 1}, {"offloaded": over}, {"model_bytes": 10**9}):
        with pytest.raises(AssertionError):
            study.check(results | broken)
