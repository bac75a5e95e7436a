"""The slow tests in slices: ``--slow-slice K/N`` runs the K-th of N slices of them (K from 0), and every quick test.

A test's slice is named by its id alone, so that adding a test moves no other, and N slices are all slow tests.
"""

import hashlib

import pytest


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests of other slices."""
    text = config.getoption("--slow-slice")
    if text is None:
        return
    number, slices = parsed(text)
    elsewhere = {item for item in items if item.get_closest_marker("slow") and slice_of(item.nodeid, slices) != number}
    config.hook.pytest_deselected(items=list(elsewhere))
    items[:] = [item for item in items if item not in elsewhere]
