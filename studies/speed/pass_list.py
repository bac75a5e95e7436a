"""The model passes of an audit as a list that can be run again: nouns, their file, and what they add up to."""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from audit.storage import write_atomic

BETWEEN: Final = "between units"
"""Where passes are put that lie in no unit of the audit."""


class ModelKind(NamedTuple):
    """How a model is opened: the folder of its weights, or, of one that was built from its config alone, that config
    (class name and settings)."""

    folder: str
    attention: str
    dtype: str
    built: str = ""


class Opened(NamedTuple):
    """A model is opened; ``kind`` counts through the list's kinds."""

    kind: int


class Run(NamedTuple):
    """Blocks ``first`` to ``last`` on [rows, width] tokens that stand after ``past`` others.

    ``lowest``: the first block that a gradient flows through, -1 where none is taken. ``weights``: whether gradients of
    the parameters are taken. ``follows``: whether it goes on from the run before it within the same forward pass.
    """

    kind: int
    first: int
    last: int
    rows: int
    width: int
    past: int = 0
    lowest: int = -1
    weights: bool = False
    follows: bool = False

    @property
    def work(self) -> int:
        """Tokens times blocks."""
        return self.rows * self.width * (self.last - self.first + 1)


class Head(NamedTuple):
    """Logits of so many positions; ``of``: the place of the run in the unit's list whose states it reads, with a
    gradient, -1 without one."""

    kind: int
    positions: int
    of: int = -1


class Back(NamedTuple):
    """A backward pass through the runs and heads at these places of the unit's list. ``again``: their graph is kept."""

    reached: tuple[int, ...]
    again: bool
    weights: bool


class Stepped(NamedTuple):
    """A step of an optimiser over so many numbers. ``weights``: of a model's."""

    optimiser: str
    numbers: int
    weights: bool


class Learnt(NamedTuple):
    """A training step of so many dictionaries at once: so many rows of this width, features, and active ones a row."""

    members: int
    rows: int
    width: int
    features: int
    active: int


Event = Opened | Run | Head | Back | Stepped | Learnt
_KINDS: Final[dict[str, type[Event]]] = {cls.__name__: cls for cls in (Opened, Run, Head, Back, Stepped, Learnt)}


class UnitPasses(NamedTuple):
    """The passes of one unit in their order."""

    unit: str
    events: list[Event]


class PassCount(NamedTuple):
    """What the passes of a unit add up to. ``work``: tokens times blocks, forward; ``back``: of those, with a
    backward pass; ``head``: positions through the head; ``other_steps``: optimiser steps of something that is no model
    (dictionaries, soft prompts, classifiers)."""

    passes: int
    work: int
    back: int
    head: int
    backward: int
    steps: int
    other_steps: int
    opened: int


class PassList(NamedTuple):
    """An audit's passes by unit, and the kinds of models that they run."""

    kinds: list[ModelKind]
    units: list[UnitPasses]

    def write(self, path: Path) -> None:
        """Write it, as compressed JSON."""
        units = [[unit.unit, [[type(e).__name__, *e] for e in unit.events]] for unit in self.units]
        write_atomic(path, gzip.compress(json.dumps({"kinds": self.kinds, "units": units}).encode()))

    @classmethod
    def read(cls, path: Path) -> "PassList":
        """The list that was written to a file."""
        given = json.loads(gzip.decompress(path.read_bytes()))
        units = [UnitPasses(name, [_event(*row) for row in rows]) for name, rows in given["units"]]
        return cls([ModelKind(*kind) for kind in given["kinds"]], units)

    def counts(self) -> dict[str, PassCount]:
        """What each unit's passes add up to."""
        return {unit.unit: counted(unit.events) for unit in self.units}


def _event(name: str, *fields: object) -> Event:
    if name == "Back":
        reached, *rest = fields
        return Back(tuple(reached), *rest)  # type: ignore[arg-type]
    return _KINDS[name](*fields)  # type: ignore[arg-type]


def counted(events: Iterable[Event]) -> PassCount:
    """What some passes add up to."""
    events = list(events)
    runs = [event for event in events if isinstance(event, Run)]
    steps = [event for event in events if isinstance(event, Stepped)]
    return PassCount(
        passes=sum(not run.follows for run in runs), work=sum(run.work for run in runs), back=sum(_gone_back(runs)),
        head=sum(event.positions for event in events if isinstance(event, Head)),
        backward=sum(isinstance(event, Back) for event in events),
        steps=sum(step.weights for step in steps),
        other_steps=sum(not step.weights for step in steps) + sum(isinstance(event, Learnt) for event in events),
        opened=sum(isinstance(event, Opened) for event in events),
    )  # fmt: skip


def _gone_back(runs: Iterable[Run]) -> Iterator[int]:
    """Tokens times blocks of each run that a gradient flows through."""
    for run in runs:
        if run.lowest >= 0:
            yield run.rows * run.width * (run.last - max(run.lowest, run.first) + 1)
