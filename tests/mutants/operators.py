"""The mutants of a file: which changes Cosmic Ray's operators can make, and a seeded sample of them.

A place in the code is drawn first and a change of it second, so that a comparison, for which there are seven changes,
is not drawn seven times as often as a number. Annotations are left out: they are read by the type checker.
"""

import ast
import difflib
import hashlib
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

Place = tuple[int, int]
"""Line, from 1, and column."""


class Mutant(NamedTuple):
    """One change of one file."""

    path: str
    line: int
    operator: str
    occurrence: int
    before: str
    after: str


class _Change(NamedTuple):
    path: str
    operator: str
    occurrence: int


def sample(root: Path, paths: Sequence[str], seed: int) -> Iterator[Mutant]:
    """Mutants of these files below ``root``, without end until every place was drawn; the same for the same seed."""
    places: dict[tuple[str, Place, Place], list[_Change]] = defaultdict(list)
    sources = {path: (root / path).read_text(encoding="utf-8") for path in sorted(paths)}
    for path, source in sources.items():
        for start, end, change in _changes(path, source):
            places[path, start, end].append(change)
    draw = random.Random(seed)
    order = sorted(places)
    draw.shuffle(order)
    for place in order:
        change = draw.choice(sorted(places[place]))
        made = mutated(sources[place[0]], change.operator, change.occurrence)
        before, after = _lines(sources[place[0]], made)
        if before != after:
            yield Mutant(place[0], place[1][0], change.operator, change.occurrence, before, after)


def mutated(source: str, operator: str, occurrence: int) -> str:
    """The source with that change. Raises ValueError where there is no such change."""
    made = mutate_code(source, get_operator(operator)(), occurrence)
    if made is None:
        raise ValueError(f"{operator} has no change number {occurrence} to make here")
    return made


def digest(source: str) -> str:
    """By what a result knows the file that it belongs to."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def _changes(path: str, source: str) -> Iterator[tuple[Place, Place, _Change]]:
    nodes, unread = list(ast_nodes(get_ast(source))), _unread(source)
    for name in sorted(operator_names()):
        operator = get_operator(name)
        if operator.arguments():
            continue  # it replaces variables that its user names
        made = operator()
        found = [place for node in nodes for place in made.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(found):
            if not any(first <= start and end <= last for first, last in unread):
                yield start, end, _Change(path, name, occurrence)


def _unread(source: str) -> list[tuple[Place, Place]]:
    """What never runs: annotations, and what is there for type checkers alone."""
    spans: list[ast.expr | ast.stmt] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            spans.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            spans.append(node.returns)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            spans.append(node)
    ends = [(node.end_lineno or node.lineno, node.end_col_offset or 0) for node in spans]
    return [((node.lineno, node.col_offset), end) for node, end in zip(spans, ends, strict=True)]


def _lines(source: str, made: str) -> tuple[str, str]:
    """What was changed, as it was and as it is: the lines that differ, without their margin."""
    changes = [line for line in difflib.ndiff(source.splitlines(), made.splitlines()) if line[:2] in ("- ", "+ ")]
    sides = ([line[2:].strip() for line in changes if line.startswith(sign)] for sign in "-+")
    before, after = ("\n".join(side) for side in sides)
    return before, after
