"""However many rows are cached, training holds a few chunks of them."""

import pytest

from studies.speed.dictionaries import CHUNK_ROWS, peak


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_cached_rows() -> None:
    few, many = (peak(chunks * CHUNK_ROWS, 256, 0) for chunks in (8, 24))
    assert many.cached_mib - few.cached_mib == 256, "more than a buffer of 64 MiB each"
    assert many.peak_mib - few.peak_mib < 96
