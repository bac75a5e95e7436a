"""Sign a finished run with a key of yours (minisign)."""

import getpass
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.cli.answer import Answer

ORDER = 72


def add_arguments(parser: ArgumentParser) -> None:
    """Which run, and with which key."""
    parser.add_argument("run", help="run folder")
    parser.add_argument("--key", required=True, metavar="FILE", help="your secret key, as `minisign -G` writes it; its "
                        "password is asked for, or read from standard input")  # fmt: skip


def act(args: Namespace) -> Answer:
    """Sign the manifest of a finished run; `residua verify --signed-by` checks it, and so does minisign."""
    from audit.review import sign_run
    from audit.runs import manifest

    folder = Path(args.run)
    by = sign_run(folder, Path(args.key), _password)
    path = folder / manifest.SIGNATURE
    shown = (f"{folder}: signed with key {by}, in {path}", "check it with: residua verify RUN --signed-by KEY.pub")
    return Answer({"run": str(folder), "signature": str(path), "key": by}, shown)


def _password() -> str:
    """The password of the key: asked for at a terminal, else the first line of standard input."""
    return getpass.getpass("password of the key: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
