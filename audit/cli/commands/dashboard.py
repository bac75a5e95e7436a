"""Look at finished and running audits in a browser, and start new ones."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.cli import flags
from audit.cli.answer import Answer

ORDER = 110


def add_arguments(parser: ArgumentParser) -> None:
    """Which runs, and at which port."""
    parser.add_argument("runs", nargs="?", default="runs", metavar="RUNS_DIR", help="folder of runs (default: runs)")
    parser.add_argument("--host", action="append", default=[], metavar="NAME", help="listen at this address of this "
                        "machine and answer to this name, instead of to this machine alone; given again: answer to "
                        "that name too")  # fmt: skip
    parser.add_argument("--port", type=int, metavar="N", help="of this machine (default: 8501, or any that is free)")


def act(args: Namespace) -> Answer:
    """Serve the dashboard of a folder of runs until it is interrupted: to this machine alone, or as ``--host`` says."""
    from dashboards.serving import serve

    with flags.progress(args) as progress:
        serve(Path(args.runs), args.port, progress.say, args.host)
