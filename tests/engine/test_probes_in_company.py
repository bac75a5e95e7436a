"""What a probe says does not depend on which others share its passes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.engine import run
from audit.planning import RunSettings
from audit.zoo import Built


def numbers(value: object, place: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a nested record by its place."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from numbers(part, f"{place}/{name}")
    elif isinstance(value, list | tuple):
        for n, part in enumerate(value):
            yield from numbers(part, f"{place}/{n}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, float(value)


@pytest.mark.slow
def test_every_number_of_an_audit_is_the_same_with_passes_of_its_own_and_with_shared_ones(
    zoo: Built, tmp_path: Path
) -> None:
    read: list[dict[str, float]] = []
    for name, store in (("alone", None), ("company", tmp_path / "store")):
        report = run(zoo.cases["refusal"], tmp_path / name, RunSettings(threads=1, store=store))
        measured = [each.measurement.model_dump(mode="json") for each in report.evidence]
        read.append(dict(numbers(measured)))
    separate, shared = read
    assert separate.keys() == shared.keys() and len(separate) > 3000
    different = {place: (separate[place], shared[place]) for place in separate if separate[place] != pytest.approx(
        shared[place], rel=1e-5, abs=1e-5, nan_ok=True)}  # fmt: skip
    assert not different
