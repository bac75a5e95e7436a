"""The commands: one file is one verb, the file's name is its name, and nothing else lists it.

A command file has

- a docstring, whose first line is its help: shown without its capital and its full stop;
- ``add_arguments(parser)``: its own flags, shared groups from :mod:`audit.cli.flags` among them. Output flags
  (``--json``, ``--quiet`` and the like) are there already;
- ``act(args)``, which does it and returns an :class:`~audit.cli.answer.Answer`. AuditError is for what a user can fix;
- if it likes, ``ORDER``: its place in ``residua --help``. A file without one comes last.

``residua --help`` imports every file here: whatever is heavy (torch, pydantic, rich) is imported inside ``act``. Files
that start with an underscore are shared code, never commands.
"""

import importlib
import pkgutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import NamedTuple

from audit.cli.answer import Answer

LAST = 1000
"""The place in the help of a command that states none."""


class Command(NamedTuple):
    """One verb, as its file states it. ``about`` is its help in one line."""

    name: str
    about: str
    order: int
    add_arguments: Callable[[ArgumentParser], None]
    act: Callable[[Namespace], Answer]


def discover() -> tuple[Command, ...]:
    """Every command of this folder, in the order of the help."""
    names = (module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return tuple(sorted(map(_command, names), key=lambda command: (command.order, command.name)))


def _command(name: str) -> Command:
    module = importlib.import_module(f"{__name__}.{name}")
    first = (module.__doc__ or "").strip().partition("\n")[0].removesuffix(".")
    about = first[:1].lower() + first[1:]
    return Command(name, about, getattr(module, "ORDER", LAST), module.add_arguments, module.act)
