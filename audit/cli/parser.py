"""The parser of ``residua``: what holds for every command, and a subparser for each file of ``commands/``."""

import argparse
from typing import Any, NoReturn

from audit.cli import commands, flags, streams
from audit.version import __version__

SHELLS = ("bash", "zsh")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with an argument without the hidden characters of the argument."""

    def error(self, message: str) -> NoReturn:
        super().error(streams.printable(message))

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Python before 3.13 takes ``--option=--`` for an option whose value is an empty list."""
        if action.option_strings and action.nargs in (None, "+") and arg_strings == ["--"]:
            raise argparse.ArgumentError(action, "expected one argument")
        return super()._get_values(action, arg_strings)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; ``act`` of its result does what the parsed command does."""
    parser = _Parser(
        prog="residua", description="What is left in a model of the thing it was asked to forget?",
        epilog="To begin: `residua demo` shows it at work; `residua init` writes a case file to fill in, `plan` says "
        "what an audit of it would do, `run` makes it.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"residua {__version__}")
    parser.add_argument("--help-exit-codes", action="store_true", help="print what the exit codes mean")
    parser.add_argument("--completion", choices=SHELLS, metavar="SH", help="print what lets a shell (bash, "
                        "zsh) complete verbs and flags: source it, or put it where your shell looks")  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for command in commands.discover():
        subparser = verbs.add_parser(command.name, help=command.about, description=command.about)
        flags.add_output(subparser)
        command.add_arguments(subparser)
        subparser.set_defaults(act=command.act)
    return parser


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script of one of :data:`SHELLS`."""
    import shtab

    return shtab.complete(parser, shell)
