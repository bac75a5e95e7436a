"""Show a finished report, or write it elsewhere."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import flags
from audit.cli.answer import Answer
from audit.runs import run_files

if TYPE_CHECKING:
    from rich.console import RenderableType

    from audit.schema import Report

ORDER = 60


def add_arguments(parser: ArgumentParser) -> None:
    """Which report, where and in which form it is written, and what would fail it."""
    parser.add_argument("run", help="run folder, or a report in it")
    parser.add_argument(
        "-o",
        "--out",
        metavar="PATH",
        help="a file (.html, .pdf, .md, .json, .xml: JUnit, "
        "_EVAL.json: OpenUnlearning's shape, .model-index.yml: for a model card) or a folder for all",
    )
    parser.add_argument("--pdf", action="store_true", help="print it to a PDF here, by a browser that is installed")
    parser.add_argument("--interactive", action="store_true", help="figures that answer to a pointer (HTML, 5 MB)")
    parser.add_argument(
        "--unmask", action="store_true", help="quote the data in clear, in a derived document that warns"
    )
    parser.add_argument("--prior-odds", type=odds, metavar="ODDS", help="your prior odds that it still knows, such as "
                        "0.1: the posterior is shown beside them")  # fmt: skip
    flags.add_unverified(parser)
    flags.add_gate(parser)


def odds(text: str) -> float:
    """Odds: above 0 and finite."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text!r} are no odds: give a number above 0")
    return value


def act(args: Namespace) -> Answer:
    """Show a finished report, or write it elsewhere: as one file by its ending, or all of it into a folder."""
    from audit.render import path_word, summary, trigger_lines
    from audit.review import exit_code
    from audit.runs import read_issued
    from audit.schema import AuditError, ExitCode

    gate = flags.gate(args)
    path = Path(args.run)
    folder = path.parent if path.is_file() else path
    report, remark = read_issued(folder / run_files.REPORT, not args.no_verify)
    if args.unmask:
        from audit.runs import unmasked

        report = unmasked(report, folder)
    shown: list[RenderableType] = [summary(report), *trigger_lines(report, "case.toml", path_word(str(folder)))]
    if args.prior_odds is not None:
        from audit.render import with_prior

        shown.append(with_prior(report, args.prior_odds))
    target = args.out or (f"{report.report_id}.pdf" if args.pdf else "")
    if args.pdf and Path(target).suffix != ".pdf":
        raise AuditError(f"{target} is no name of a PDF", "end the name in .pdf, or leave --out away")
    if target:
        shown.append(_written(report, folder, Path(target), args))
    code = exit_code(report, gate) if gate.is_set else ExitCode.OK
    return Answer(report.model_dump(mode="json"), tuple(shown), code, (remark,) if remark else ())


def _written(report: "Report", folder: Path, target: Path, args: Namespace) -> str:
    """Write the report where ``--out`` says; what was written."""
    from audit.render import foreign
    from audit.runs import Wanted, export
    from audit.storage import write_atomic

    other = foreign(report, folder, target)
    if other is not None:
        write_atomic(target, other.encode())
    written = 1 if other is not None else export(report, target, Wanted(args.interactive, args.prior_odds))
    return f"written to {target}" + (f" ({written} files)" if written > 1 else "")
