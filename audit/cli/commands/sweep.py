"""Audit many suspects of one base: what they share is read once, the rest is spread over processes or a Ray cluster."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import flags
from audit.cli.answer import Answer, JsonValue, audit_document
from audit.cli.verdict_table import Found, verdict_table
from audit.runs import run_files

if TYPE_CHECKING:
    from rich.table import Table

    from audit.cli.progress import Progress
    from audit.engine import Outcome, Suspect
    from audit.planning import RunSettings
    from audit.review import Gate
    from audit.schema import Report

ORDER = 42
FIRST_CODES = (3, 2, 130, 1, 4)
"""The exit code of a sweep is the first of these with which one of its audits ends."""
PAGE = "index.html"


def add_arguments(parser: ArgumentParser) -> None:
    """Which suspects, over what they are spread, how, within which limits, and what would fail them."""
    parser.epilog = (
        "Each audit lies in FOLDER/<name of its case>, as `residua run` writes it; the same command takes up a sweep "
        "that was stopped. A suspect that cannot be audited costs the others nothing. Exit code: the first of "
        f"{', '.join(map(str, FIRST_CODES))} with which one of the audits ends, else 0 (see `residua "
        "--help-exit-codes`)."
    )
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASES", help="case files, or folders of case files "
                        "(its *.toml, else the case.toml of each sub-folder)")  # fmt: skip
    parser.add_argument(
        "--suspects", nargs="+", default=[], metavar="PATH",
        help="checkpoints to audit by one case in the place of its suspect, which may be missing: a checkpoint or an "
        "adapter of base, a folder that holds such (a pool), or owner/name@commit; given after the case file",
    )  # fmt: skip
    parser.add_argument("-o", "--out", default="runs", metavar="FOLDER", help="where the runs go (default: runs)")
    spread = parser.add_argument_group("spread")
    spread.add_argument("--workers", type=flags.count, metavar="N", help="processes here (default: one a graphics "
                        "card that audits may use, else 2); on Ray, audits at once (default: any number)")  # fmt: skip
    spread.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster whose nodes all see the cases, the store and "
                        "FOLDER: 'auto' (the one that runs here), an address, or 'local' (started for it)")  # fmt: skip
    spread.add_argument("--cards", type=_share, default=0.0, metavar="SHARE", help="graphics cards that an audit takes "
                        "on Ray, such as 1 or 0.5 (default: 0)")  # fmt: skip
    flags.add_audit(parser)


def _share(text: str) -> float:
    """How much of a graphics card: a number from 0 up."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no number from 0 up")
    return share


def act(args: Namespace) -> Answer:
    """Audit every suspect, or take up what is unfinished; one table at the end, and one page that leads to all."""
    from audit.engine import Cluster, Spread, suspects_of, sweep

    gate, folder, settings = flags.gate(args), Path(args.out), flags.settings(args)
    suspects = suspects_of(args.cases, args.suspects)
    spread = Spread(args.workers, None if args.ray is None else Cluster(args.ray, args.workers, args.cards))
    with flags.progress(args) as progress:
        if args.dry_run:
            return _planned(suspects, folder, settings, progress)
        progress.say(f"{len(suspects)} suspects, to be audited into {folder}")
        outcomes = sweep(suspects, folder.absolute(), settings, spread, progress.watch)
    return _answer(outcomes, folder, gate)


def _answer(outcomes: "Sequence[Outcome]", folder: Path, gate: "Gate") -> Answer:
    """The table of all that were audited, what is wrong with the others, and the page of the sweep."""
    from audit.render import sweep_html
    from audit.runs import read_report
    from audit.storage import write_atomic

    audits = [
        Found(read_report(out / run_files.REPORT), out) for o in outcomes if o.finished for out in [folder / o.name]
    ]
    reports = [each.report for each in audits]
    documents: list[JsonValue] = []
    codes, lines, faults = set[int](), list[str](), dict[str, str]()
    finished = iter(reports)
    for outcome in outcomes:
        document, fault = _judged(outcome, folder, next(finished) if outcome.finished else None, gate)
        documents.append(document)
        codes.add(int(str(document["exit_code"])))
        if fault:
            lines.append(f"{outcome.name}: {fault}")
        if not outcome.finished:
            faults[outcome.name] = f"{outcome.problem}; to change it: {outcome.do}"
    code = next((code for code in FIRST_CODES if code in codes), 0)
    write_atomic(folder / PAGE, sweep_html(reports, faults).encode())
    lines.append(f"one page that leads to all: {folder / PAGE}")
    document = {"audits": documents, "html": str(folder / PAGE), "exit_code": code}
    return Answer(document, (*verdict_table(audits), "\n".join(lines)), code)


def _judged(
    outcome: "Outcome", folder: Path, report: "Report | None", gate: "Gate"
) -> tuple[dict[str, JsonValue], str]:
    """One audit as part of the answer with its own exit code, and what is wrong with it: nothing, if nothing is."""
    from audit.review import exit_code
    from audit.schema import AuditError

    attempts: dict[str, JsonValue] = {"attempts": outcome.attempts}
    error = None if report is not None else outcome.error()
    if report is not None:
        try:
            return audit_document(report, folder / outcome.name) | attempts | {"exit_code": exit_code(report, gate)}, ""
        except AuditError as refused:
            error = refused
    assert error is not None
    fault: dict[str, JsonValue] = {"name": outcome.name, "error": error.what, "do": error.do}
    return fault | attempts | {"error_id": error.error_id, "exit_code": int(error.code)}, str(error)


def _planned(suspects: "Sequence[Suspect]", folder: Path, settings: "RunSettings", progress: "Progress") -> Answer:
    """What would be done for every suspect, and what it costs from an empty store; writes nothing."""
    from audit.case import CaseFile
    from audit.engine import Worker, prepare
    from audit.schema import AuditError, ExitCode
    from audit.wording import lasting

    bench, rows, codes = Worker(settings).bench, list[tuple[str, ...]](), set[int]()
    documents: list[JsonValue] = []
    for suspect in suspects:
        progress.say(f"opening {suspect.name}")
        try:
            prepared = prepare(CaseFile(suspect.case, suspect.root), folder / suspect.name, settings, bench)
            prices = prepared.pricer.prices(prepared.planner)
        except AuditError as error:
            codes.add(error.code)
            documents.append({"name": suspect.name, "error": error.what, "do": error.do, "exit_code": int(error.code)})
            rows.append((suspect.name, "", "", error.what))
            continue
        planner = prepared.planner
        codes.add(ExitCode.OK if planner.running and not planner.undecidable else ExitCode.UNDECIDED)
        seconds = prices.seconds.ends
        documents.append({
            "name": suspect.name, "plan_hash": planner.plan.plan_hash, "tests": len(planner.running),
            "seconds": list[JsonValue](seconds), "shares_with": suspect.shared[:12],
        })  # fmt: skip
        rows.append((suspect.name, str(len(planner.running)), lasting(*seconds), planner.undecidable))
    code = next((code for code in FIRST_CODES if code in codes), 0)
    groups = len({suspect.shared for suspect in suspects})
    line = f"{len(suspects)} suspects; base and references are read once for each of {groups} shared case(s)"
    return Answer({"audits": documents, "exit_code": code}, (_table(rows), line), code)


def _table(rows: Sequence[tuple[str, ...]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    shown = Table(title="plan of a sweep")
    for heading in ("suspect", "tests", "time from an empty store", "what stands against it"):
        shown.add_column(heading)
    for row in rows:
        shown.add_row(*map(Text, row))
    return shown
