"""List the probes, what they ask and their settings."""

import inspect
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from audit.cli.answer import Answer, JsonValue

if TYPE_CHECKING:
    from rich.table import Table

    from audit.plugins import Description

ORDER = 120


def add_arguments(parser: ArgumentParser) -> None:
    """Which of them."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="these alone, each in full (default: a table of all)")


def act(args: Namespace) -> Answer:
    """What each probe asks, needs and can be set to, read from the files without importing them."""
    from audit.plugins import describe

    every = {probe.name: probe for probe in describe("probes")}
    chosen = [every[name] for name in _known(args.names, list(every))]
    document: dict[str, JsonValue] = {"probes": [_document(probe) for probe in chosen]}
    return Answer(document, tuple(map(_in_full, chosen)) if args.names else (_table(chosen),))


def _known(names: Sequence[str], every: Sequence[str]) -> Sequence[str]:
    """The names that were asked for, all of them without any. AuditError names one that is none."""
    import difflib

    from audit.schema import AuditError

    for name in names:
        if name not in every:
            near = difflib.get_close_matches(name, every, 1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise AuditError(f"there is no probe {name!r}{hint}", "`residua probes` lists them")
    return list(dict.fromkeys(names)) or every


def _settings(probe: "Description") -> list[str]:
    return [f"{s.name}: {s.annotation}" + (f" = {s.default}" if s.default else "") for s in probe.settings]


def _requires(probe: "Description") -> list[str]:
    from audit.schema import Requires

    stated = dict(probe.requires)
    stated.setdefault("modalities", repr(Requires().modalities))
    return [f"{name}={value}" for name, value in stated.items()]


def _document(probe: "Description") -> JsonValue:
    return {
        "name": probe.name, "question": probe.question, "help": probe.docstring, "version": probe.version,
        "attack": probe.attack,
        "settings": list[JsonValue](_settings(probe)), "requires": list[JsonValue](_requires(probe)),
    }  # fmt: skip


def _in_full(probe: "Description") -> str:
    """One probe: what it asks and how, what it needs, and its settings."""
    parts = [f"{probe.name} (version {probe.version})", inspect.cleandoc(probe.docstring or probe.question)]
    parts.append("needs\n" + "\n".join(f"  {line}" for line in _requires(probe)))
    settings = [f"  {line}" for line in _settings(probe)]
    if settings:
        parts.append("\n".join((f"settings, in case.toml under [probes.{probe.name}]", *settings)))
    return "\n\n".join(parts) + "\n"


def _table(probes: "Sequence[Description]") -> "Table":
    from rich.table import Table

    table = Table(title="probes", show_lines=True)
    for heading in ("probe", "question", "settings", "requires"):
        table.add_column(heading)
    for probe in probes:
        table.add_row(probe.name, probe.question, "\n".join(_settings(probe)), "\n".join(_requires(probe)))
    return table
