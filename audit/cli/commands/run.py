"""Audit a suspect."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from audit.cli import flags
from audit.cli.answer import Answer, audit_document
from audit.cli.commands import plan

ORDER = 40


def add_arguments(parser: ArgumentParser) -> None:
    """Which case, how, within which limits, and what would fail it."""
    flags.add_case(parser)
    flags.add_settings(parser)
    flags.add_limits(parser)
    parser.add_argument("--dry-run", action="store_true", help="plan only")
    parser.add_argument("--force-new", action="store_true", help="start over; what is there is kept aside")
    flags.add_gate(parser)


def act(args: Namespace) -> Answer:
    """Audit one suspect, or take up its unfinished audit."""
    if args.dry_run:
        return plan.act(args)
    from audit import engine
    from audit.case import CaseFile
    from audit.render import summary
    from audit.review import exit_code

    gate = flags.gate(args)
    case_file = CaseFile.read(Path(args.case))
    out = flags.out_folder(args, case_file.case.name)
    with flags.progress(args) as progress:
        report = engine.run(case_file, out, flags.settings(args), watch=progress.watch)
    code = exit_code(report, gate)
    shown = (summary(report), str(out / "report.html"))
    return Answer({**audit_document(report, out), "exit_code": code}, shown, code)
