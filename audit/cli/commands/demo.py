"""Train a small world of known truth and audit every suspect in it."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.cli import flags
from audit.cli.answer import Answer, JsonValue, audit_document
from audit.cli.verdict_table import Found, verdict_table

ORDER = 20
TOO_SMALL = "the tiny world is too small to judge anything: its verdicts show that all parts work, and nothing else"


def add_arguments(parser: ArgumentParser) -> None:
    """Which world, and how it is audited."""
    help_of_worlds = "tiny: to try the plumbing; parametric: edits at the end of names, facts in many forms"
    parser.add_argument("--world", choices=("demo", "tiny", "parametric"), default="demo", help=help_of_worlds)
    parser.add_argument("--seed", type=int, default=0, help="which people are made up (default: 0)")
    parser.add_argument("-o", "--out", default="runs", metavar="DIR", help="where the reports go (default: runs)")
    parser.add_argument("--workers", type=flags.count, metavar="N", help="processes that train (default: 2)")
    flags.add_settings(parser)


def act(args: Namespace) -> Answer:
    """Train the world (or take it from the cache), audit every suspect with one bench, print one table."""
    from audit.cli.demonstration import World, demonstrate
    from audit.review import complete
    from audit.schema import ExitCode
    from audit.storage import cache_root

    with flags.progress(args) as progress:
        world = World(args.world, args.seed, cache_root(), args.workers)
        audits = demonstrate(world, Path(args.out), flags.settings(args, demo=True), progress)
    reports = [audit.report for audit in audits]
    documents: list[JsonValue] = [audit_document(audit.report, audit.out) for audit in audits]
    code = ExitCode.OK if all(complete(report) for report in reports) else ExitCode.UNDECIDED
    document: dict[str, JsonValue] = {"world": args.world, "seed": args.seed, "audits": documents, "exit_code": code}
    table = verdict_table([Found(audit.report, audit.out) for audit in audits])
    return Answer(document, (*table, TOO_SMALL) if args.world == "tiny" else table, code)
