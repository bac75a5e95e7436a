"""Look at finished and running audits in a browser, and start new ones."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.cli import flags
from audit.cli.answer import Answer

ORDER = 110


def add_arguments(parser: ArgumentParser) -> None:
    """Which runs, and at which port."""
    parser.add_argument("runs", nargs="?", default="runs", metavar="RUNS_DIR", help="folder of runs (default: runs)")
    parser.add_argument("--port", type=int, metavar="N", help="of this machine (default: 8501, or any that is free)")


def act(args: Namespace) -> Answer:
    """Serve the dashboard of a folder of runs on this machine until it is interrupted."""
    from dashboards.serving import serve

    with flags.progress(args) as progress:
        serve(Path(args.runs), args.port, progress.say)
