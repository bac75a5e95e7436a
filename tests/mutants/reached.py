"""Which tests reach which line of a room: one run of its tests under coverage, with a context for each test."""

import ast
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import coverage
import pytest

from tests.mutants.session import Ran, run


class Reach(NamedTuple):
    """The tests that pass, what each takes in seconds of processor time, and who runs which line of which file."""

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]

    def of(self, path: str, line: int, source: str, most: float) -> list[str]:
        """The tests that run the statement of this line, cheapest first, until they take ``most`` seconds.

        What runs at import (a constant, a default) belongs to every test that runs any line of the module.
        """
        runs, place = self.lines.get(path, {}), _statement(source, line)
        at = range(place.first, place.last + 1) if place.in_function else runs
        names = {name for number in at for name in runs.get(number, [])}
        found: list[str] = []
        for name in sorted(names & self.seconds.keys(), key=lambda name: (self.seconds[name], name)):
            most -= self.seconds[name]
            if most < 0 and found:
                break
            found.append(name)
        return found


def measure(items: Sequence[pytest.Item], paths: Mapping[str, str]) -> dict[str, Any]:
    """Runs all of these tests; ``paths``: the room's files by their names.

    What :class:`Reach` is made of, and the names of all modules but the tests' that are in memory then.
    """
    measured = coverage.Coverage(data_file=None, include=list(paths.values()))
    measured.start()
    ran: Ran = run(items, stop=False, around=measured.switch_context)
    measured.stop()
    data = measured.get_data()
    lines = {name: {n: [x for x in who if x] for n, who in data.contexts_by_lineno(path).items()}
             for name, path in paths.items()}  # fmt: skip
    passing = {name: seconds for name, seconds in ran.seconds.items() if name not in ran.failed}
    modules = [name for name in sys.modules if name.partition(".")[0] != "tests"]
    return {"seconds": passing, "lines": lines, "modules": modules}


def reach_of(notes: Mapping[str, Any]) -> Reach:
    """What :func:`measure` found, as it comes back from JSON."""
    lines = {path: {int(line): names for line, names in rows.items()} for path, rows in notes["lines"].items()}
    return Reach(notes["seconds"], lines)


class _Place(NamedTuple):
    first: int
    last: int
    in_function: bool


def _statement(source: str, line: int) -> _Place:
    """First and last line of the smallest statement that holds a line (of a compound one, its head), and whether a
    function runs it."""
    best, size = _Place(line, line, False), float("inf")
    tree = ast.parse(source)
    inside = {
        id(statement)
        for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for part in node.body for statement in ast.walk(part)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            body = getattr(node, "body", None)
            end = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            if line <= end and end - node.lineno < size:
                best, size = _Place(node.lineno, end, id(node) in inside), end - node.lineno
    return best
