"""The walk of one parameter: which rooms it goes through, and how often it has to climb back up.

The rules, from syntax trees alone:

- The walk starts in a function with one of its parameters, and reads the body in the order written, the branches of a
  condition one after the other; the arguments of a call come before the call.
- What counts as the parameter: the value itself, under any name; its attributes and elements; a collection, a
  comprehension over it, an object that was made with it (only in the fields that hold it), a conversion by a
  constructor (``Path(x)``), and what a function of ours hands back of it. A number computed from it, a comparison, a
  sentence that quotes it, and the content of a file that it names are not it.
- A call that hands such a value, as an argument, to a function, method or ``__init__`` of ours moves the walk into that
  function's room. A record without an ``__init__`` of its own holds the value and is no move, and a method called on an
  object that holds the value is no hand-over unless an argument is derived too. What libraries do is not followed, nor
  a callee that names, annotations and constructors do not tell; what a ``raise`` calls ends the walk and is left out.
- Each function is walked once; where it is called again the walk stays in its room for a moment and turns back.
- A stay is consecutive time in one room, by the functions entered: after a callee's end the walk is back in the
  caller's room when a function of that room is entered next. A climb is a move between stays to a room on a higher
  floor (:mod:`tests.house.rooms`).

Run as ``python -m tests.house.walks [--root DIR] [FILE:FUNCTION:PARAMETER ...]``.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.house.bodies import Body
from tests.house.definitions import Definitions, Function
from tests.house.facts import Fact, joined
from tests.house.rooms import ROOT, plan_of, room_of

STARTS = {
    "command": "audit/cli/commands/run.py:act:args",
    "verdict": "audit/judging/calibrated.py:decide:evidence",
}
"""Where the two walks begin: a case from the command line to its report, measurements to their verdict."""


class Stay(NamedTuple):
    """Consecutive time in one room: the functions entered there, a passed one with a star."""

    room: str
    floor: int
    functions: tuple[str, ...]


class Route(NamedTuple):
    """Where a walk went."""

    start: str
    stays: tuple[Stay, ...]

    @property
    def rooms(self) -> int:
        """How many rooms it entered."""
        return len({stay.room for stay in self.stays})

    @property
    def climbs(self) -> int:
        """How many moves led to a room on a higher floor."""
        return sum(after.floor > before.floor for before, after in zip(self.stays, self.stays[1:], strict=False))

    @property
    def returns(self) -> int:
        """How many moves led to a room that it had left before."""
        return len(self.stays) - self.rooms


class Walk:
    """One parameter on its way."""

    def __init__(self, code: Definitions) -> None:
        self.code = code
        self.entered: list[tuple[str, str]] = []
        self._results: dict[str, Fact] = {}

    def enter(self, function: Function, given: Mapping[str, Fact]) -> Fact:
        """Walk a function with some of its parameters derived; what it hands back. A passed one is only counted."""
        passed = function.key in self._results
        self.entered.append((room_of(function.module), function.name + ("*" if passed else "")))
        if not passed:
            self._results[function.key] = Fact()
            body = Body(self, function, given)
            body.read(function.node.body)
            made = function.name.endswith("__init__")
            self._results[function.key] = body.facts["self"] if made else joined(body.returned)
        return self._results[function.key]


def walk(root: Path, start: str) -> Route:
    """The walk from ``<path of a module>:<function>:<parameter>``. KeyError if there is no such module or function."""
    path, name, parameter = start.split(":")
    code, floors = Definitions(root), plan_of(root).floors
    first = code.function(path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"), name)
    if parameter not in {argument.arg for argument in first.parameters}:
        raise KeyError(f"{first.key} has no parameter {parameter}")
    trip = Walk(code)
    trip.enter(first, {parameter: Fact(True)})
    stays: list[Stay] = []
    for room, function in trip.entered:
        if stays and stays[-1].room == room:
            stays[-1] = stays[-1]._replace(functions=(*stays[-1].functions, function))
        else:
            stays.append(Stay(room, floors[room], (function,)))
    return Route(start, tuple(stays))


def lines_of(route: Route) -> list[str]:
    """A route as lines."""
    length, rooms = len(route.stays), route.rooms
    lines = [f"{route.start}: {length} stays in {rooms} rooms, {route.climbs} climbs, {route.returns} returns"]
    floor = 0
    for place, stay in enumerate(route.stays, 1):
        way = "" if place == 1 else "UP" if stay.floor > floor else "down" if stay.floor < floor else "level"
        lines.append(f"{place:3d}  floor {stay.floor:2d}  {way:5s}  {stay.room:20s}  {', '.join(stay.functions)}")
        floor = stay.floor
    return lines


def main() -> None:
    """Print the walks that are asked for, or both of :data:`STARTS`."""
    parser = argparse.ArgumentParser(description="the walk of a parameter through the rooms")
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("starts", nargs="*", metavar="FILE:FUNCTION:PARAMETER")
    options = parser.parse_args()
    for start in options.starts or STARTS.values():
        sys.stdout.write("\n".join([*lines_of(walk(options.root, start)), ""]) + "\n")


if __name__ == "__main__":
    main()
