"""List the probes, what they ask and their settings."""

from argparse import ArgumentParser, Namespace

from audit.cli.answer import Answer, JsonValue

ORDER = 120


def add_arguments(parser: ArgumentParser) -> None:
    """None."""


def act(args: Namespace) -> Answer:
    """What each probe asks, needs and can be set to, read from the files without importing them."""
    from rich.table import Table

    from audit.plugins import describe
    from audit.schema import Requires

    table = Table(title="probes", show_lines=True)
    for heading in ("probe", "question", "settings", "requires"):
        table.add_column(heading)
    listed: list[JsonValue] = []
    for probe in describe("probes"):
        settings = [f"{s.name}: {s.annotation}" + (f" = {s.default}" if s.default else "") for s in probe.settings]
        stated = dict(probe.requires)
        stated.setdefault("modalities", repr(Requires().modalities))
        requires = [f"{name}={value}" for name, value in stated.items()]
        table.add_row(probe.name, probe.question, "\n".join(settings), "\n".join(requires))
        listed.append(
            {
                "name": probe.name, "question": probe.question, "help": probe.docstring, "version": probe.version,
                "attack": probe.attack,
                "settings": list[JsonValue](settings), "requires": list[JsonValue](requires),
            }
        )  # fmt: skip
    return Answer({"probes": listed}, (table,))
