"""What the default run leaves out: thorough tests, most parameters of sampled ones, and the slow tests.

``--slow-slice K/N`` runs the K-th of N slices of the slow tests (K from 0), and every other test that the marks select.
A test's slice is named by its id alone, so that adding a test moves no other, and N slices are all slow tests.
"""

import hashlib
from collections import Counter
from typing import Final

import pytest

SAMPLED: Final = 4
"""One in so many parameters of a sampled test runs by default."""


def slice_of(node_id: str, slices: int) -> int:
    """Which of ``slices`` slices a test belongs to."""
    return int.from_bytes(hashlib.sha256(node_id.encode()).digest()[:8], "big") % slices


def parsed(text: str) -> tuple[int, int]:
    """K and N of ``K/N``. Raises UsageError where K is not one of 0 ... N-1."""
    number, _, slices = text.partition("/")
    if not (number.isdecimal() and slices.isdecimal() and int(number) < int(slices)):
        raise pytest.UsageError(f"--slow-slice {text}: write K/N with K from 0 to N-1")
    return int(number), int(slices)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.addoption("--slow-slice", metavar="K/N", help="of the slow tests, run only the K-th of N slices (K from 0)")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what a sample leaves out, before pytest selects by marks, and leave out the slow tests of other slices."""
    _share_out_samples(items)
    text = config.getoption("--slow-slice")
    if text is None:
        return
    number, slices = parsed(text)
    elsewhere = {item for item in items if item.get_closest_marker("slow") and slice_of(item.nodeid, slices) != number}
    config.hook.pytest_deselected(items=list(elsewhere))
    items[:] = [item for item in items if item not in elsewhere]


def _share_out_samples(items: list[pytest.Item]) -> None:
    """Of a test marked ``sampled`` every fourth set of parameters stays, the first included; the others are
    ``thorough``."""
    seen: Counter[str] = Counter()
    for item in items:
        if item.get_closest_marker("sampled"):
            function = item.nodeid.partition("[")[0]
            if seen[function] % SAMPLED:
                item.add_marker(pytest.mark.thorough)
            seen[function] += 1
