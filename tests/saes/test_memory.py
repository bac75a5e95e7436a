"""However many rows are cached, training holds a few chunks of them; and what the committed speed study measured."""

from pathlib import Path

import pytest

from studies.speed import dictionaries
from studies.speed.dictionaries import CHUNK_ROWS, Results, peak


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_cached_rows() -> None:
    few, many = (peak(chunks * CHUNK_ROWS, 256, 0) for chunks in (8, 24))
    assert many.cached_mib - few.cached_mib == 256, "more than a buffer of 64 MiB each"
    assert many.peak_mib - few.peak_mib < 96


def test_the_committed_results_hold_what_is_claimed_of_them() -> None:
    results = Results.model_validate_json(Path(dictionaries.__file__).with_suffix(".json").read_bytes())
    assert len(results.speed) >= 2 and all(row.rows_per_s_ratio.median >= 0.95 for row in results.speed)
    assert results.stacks and all(row.speedup.ci95.lo >= 1.5 for row in results.stacks)
    few, *_, many = sorted(results.memory, key=lambda row: row.rows)
    assert many.cached_mib >= 4 * few.cached_mib and many.peak_mib - few.peak_mib < 64
    assert "uncommitted" not in results.stamp.commit
