"""Audit a suspect."""

import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import flags
from audit.cli.answer import Answer, audit_document
from audit.cli.commands import plan
from audit.runs import run_files

if TYPE_CHECKING:
    from rich.console import RenderableType

ORDER = 40


def add_arguments(parser: ArgumentParser) -> None:
    """Which case, how, within which limits, and what would fail it."""
    flags.add_case(parser)
    flags.add_audit(parser)
    parser.add_argument("--profile", action="store_true", help="tell where the time of each test goes, and keep a "
                        "timeline of its calls beside the run, in OUT.profile")  # fmt: skip


def act(args: Namespace) -> Answer:
    """Audit one suspect, or take up its unfinished audit."""
    from audit import engine
    from audit.case import CaseFile
    from audit.render import summary, trigger_lines
    from audit.review import exit_code

    gate, case_file = flags.gate(args), CaseFile.read(Path(args.case))
    out, settings = flags.out_folder(args, case_file.case.name), flags.settings(args)
    with flags.progress(args) as progress:
        if args.dry_run:
            progress.say(f"opening {args.case}")
            return plan.shown(case_file, out, settings)
        report = engine.run(case_file, out, settings, watch=progress.watch)
        profiled = _profiled(out) if args.profile else ()
    document = audit_document(report, out)
    code = exit_code(report, gate)
    shown = (
        summary(report),
        *trigger_lines(report, shlex.quote(args.case), shlex.quote(str(out))),
        str(out / run_files.PAGE),
        *profiled,
    )
    return Answer({**document, "exit_code": code}, shown, code)


def _profiled(out: Path) -> "tuple[RenderableType, ...]":
    """Where the time of a profiled run went."""
    from audit.planning import UnitProfiles
    from audit.render import profile_table

    return profile_table(UnitProfiles(out).shares())
