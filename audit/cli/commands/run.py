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
    document = audit_document(report, out)
    code = exit_code(report, gate)
    shown = (
        summary(report),
        *trigger_lines(report, shlex.quote(args.case), shlex.quote(str(out))),
        str(out / run_files.PAGE),
        *(_profile(out) if args.profile else ()),
    )
    return Answer({**document, "exit_code": code}, shown, code)


def _profile(out: Path) -> "tuple[RenderableType, ...]":
    """A table of what each unit took and which share of it lay in model passes."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from audit.planning import UnitProfiles

    profiles = UnitProfiles(out)
    if not (shares := profiles.shares()):
        return ("no profile: nothing was measured (--force-new measures again)",)
    table = Table(title="where the time went", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("unit", "CPU-seconds", "in model passes", "over its passes"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    for share in sorted(shares, key=lambda share: -share.cpu_s):
        over = "" if share.over_passes is None else f"{share.over_passes:.2f}x"
        table.add_row(share.unit, f"{share.cpu_s:.2f}", f"{share.passes:.0%}", over)
    return (table, str(profiles.folder))
