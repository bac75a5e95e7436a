"""The plan of the house: rooms, floors, the arrows between rooms, and what breaks the plan.

A room is a direct child of ``audit/`` (a file, or a folder with all its files), ``audit/__init__`` itself, and each of
the other packages as one. An arrow runs from a room to each room that it imports, wherever the import is written. A
room stands one floor above the highest room that it imports. Where rooms import each other in a circle, the arrows of
the circle that are late or type-only are left out of the floors; what is still a circle shares one floor.

Run as ``python -m tests.house.rooms [--root DIR]``.
"""

import argparse
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.house.imports import Import, imports_of, sources

ROOT = Path(__file__).resolve().parents[2]

Arrows = Mapping[tuple[str, str], tuple[Import, ...]]


def room_of(module: str) -> str:
    """The room in which a module lies."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "audit" else parts[0]


class Contract(NamedTuple):
    """The layer contract: layers from the top, each a list of rooms, and whether rooms of a layer may meet."""

    layers: tuple[tuple[str, ...], ...]
    open_layers: frozenset[int]

    def breach(self, importer: str, target: str) -> bool:
        """Does this arrow run up, or between rooms of one layer that may not see one another?"""
        place = {room: level for level, layer in enumerate(self.layers) for room in layer}
        if importer not in place or target not in place:
            return False
        upper, lower = place[importer], place[target]
        return upper > lower or (upper == lower and lower not in self.open_layers)


class Plan(NamedTuple):
    """The measured house."""

    rooms: tuple[str, ...]
    floors: Mapping[str, int]
    arrows: Arrows
    cycles: tuple[tuple[str, ...], ...]
    upward: tuple[Import, ...]
    past_doors: tuple[Import, ...]
    unplaced: tuple[str, ...]
    layers: int

    @property
    def height(self) -> int:
        """The longest chain of imports between rooms, counted in rooms."""
        return max(self.floors.values(), default=0)

    def ties(self, cycle: tuple[str, ...]) -> list[Import]:
        """The imports that tie a cycle together."""
        return [i for (a, b), entries in self.arrows.items() if a in cycle and b in cycle for i in entries]


def contract_of(root: Path) -> Contract:
    """The contract with id "layers" in pyproject.toml; empty if there is none. Optional layers lose their brackets."""
    path = root / "pyproject.toml"
    document = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    contracts = document.get("tool", {}).get("importlinter", {}).get("contracts", [])
    written: list[str] = next((c["layers"] for c in contracts if c.get("id") == "layers"), [])
    layers = tuple(tuple(room.strip(" ()") for room in re.split(r"[|:]", line)) for line in written)
    return Contract(layers, frozenset(level for level, line in enumerate(written) if "|" not in line))


def is_past_door(entry: Import) -> bool:
    """Does a module outside a room of ``audit`` import a file inside it?"""
    return (
        room_of(entry.importer) != room_of(entry.target)
        and entry.target.startswith("audit.")
        and entry.target != room_of(entry.target)
    )


def plan_of(root: Path) -> Plan:
    """Measure the house under ``root``."""
    modules = sources(root)
    rooms = tuple(sorted({room_of(name) for name in modules}))
    imports, contract = imports_of(modules), contract_of(root)
    grouped: dict[tuple[str, str], list[Import]] = defaultdict(list)
    for entry in imports:
        pair = room_of(entry.importer), room_of(entry.target)
        if pair[0] != pair[1]:
            grouped[pair].append(entry)
    arrows = {pair: tuple(entries) for pair, entries in sorted(grouped.items())}
    placed = {room for layer in contract.layers for room in layer}
    return Plan(
        rooms=rooms,
        floors=_floors(rooms, arrows),
        arrows=arrows,
        cycles=tuple(group for group in circles(rooms, set(arrows)) if len(group) > 1),
        upward=tuple(e for pair, entries in arrows.items() if contract.breach(*pair) for e in entries),
        past_doors=tuple(entry for entry in imports if is_past_door(entry)),
        unplaced=tuple(room for room in rooms if room not in placed and room != "audit"),
        layers=len(contract.layers),
    )


def circles(rooms: tuple[str, ...], pairs: set[tuple[str, str]]) -> list[tuple[str, ...]]:
    """The strongly connected groups of rooms, a room in no circle being a group of its own."""
    reach = {room: _reachable(room, pairs) for room in rooms}
    groups = {room: tuple(b for b in rooms if b == room or (b in reach[room] and room in reach[b])) for room in rooms}
    return sorted(set(groups.values()))


def _reachable(start: str, pairs: set[tuple[str, str]]) -> set[str]:
    below: dict[str, set[str]] = defaultdict(set)
    for importer, target in pairs:
        below[importer].add(target)
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for room in below[waiting.pop()] - reached:
            reached.add(room)
            waiting.append(room)
    return reached


def _floors(rooms: tuple[str, ...], arrows: Arrows) -> dict[str, int]:
    """The ground is floor 1."""
    knot = {room: group for group in circles(rooms, set(arrows)) for room in group}
    early = {
        (a, b) for (a, b), entries in arrows.items() if knot[a] != knot[b] or any(e.kind == "top" for e in entries)
    }
    group_of = {room: group for group in circles(rooms, early) for room in group}
    floors: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in floors:
            group = group_of[room]
            below = {b for a, b in early if a in group and b not in group}
            level = 1 + max((floor(b) for b in below), default=0)
            floors.update(dict.fromkeys(group, level))
        return floors[room]

    return {room: floor(room) for room in rooms}


def described(entry: Import) -> str:
    """One import as a line."""
    late = "" if entry.kind == "top" else f" ({entry.kind})"
    return f"{entry.importer}:{entry.line} -> {entry.target}{f' [{entry.taken}]' if entry.taken else ''}{late}"


def lines_of(plan: Plan) -> list[str]:
    """The plan as lines, floors from the top."""
    lines = [
        f"{len(plan.rooms)} rooms on {plan.height} floors, {len(plan.arrows)} arrows, {len(plan.cycles)} cycles, "
        f"{len(plan.upward)} imports that run up, {len(plan.past_doors)} past a door, {plan.layers} layers"
    ]
    for level in range(plan.height, 0, -1):
        lines.append(f"floor {level:2d}  {'  '.join(room for room in plan.rooms if plan.floors[room] == level)}")
    for cycle in plan.cycles:
        ties = [f"  {described(entry)}" for entry in plan.ties(cycle)]
        lines += [f"cycle: {', '.join(cycle)}", *ties]
    lines += [f"in no layer: {room}" for room in plan.unplaced]
    lines += [f"runs up: {described(entry)}" for entry in plan.upward]
    lines += [f"past a door: {described(entry)}" for entry in plan.past_doors]
    return lines


def main() -> None:
    """Print the plan."""
    parser = argparse.ArgumentParser(description="rooms, floors and arrows of the house")
    parser.add_argument("--root", type=Path, default=ROOT)
    plan = plan_of(parser.parse_args().root)
    sys.stdout.write("\n".join(lines_of(plan)) + "\n")


if __name__ == "__main__":
    main()
