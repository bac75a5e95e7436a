"""Show finished audits as one table of verdicts and reasons, worst first."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from audit.cli import flags
from audit.cli.answer import Answer, JsonValue, audit_document
from audit.cli.verdict_table import Found, verdict_table
from audit.runs import run_files

if TYPE_CHECKING:
    from audit.schema import Report

ORDER = 65


def add_arguments(parser: ArgumentParser) -> None:
    """Which audits."""
    parser.add_argument("runs", nargs="*", default=["runs"], type=Path, metavar="RUNS", help="run folders, or folders "
                        "in which some lie, at any depth (default: runs)")  # fmt: skip
    flags.add_unverified(parser)


def act(args: Namespace) -> Answer:
    """Every finished audit under these folders; those that cannot be read are named, and cost the others nothing."""
    from audit.schema import AuditError, ExitCode

    folders = list(dict.fromkeys(folder for given in args.runs for folder in _run_folders(given)))
    if not folders:
        names = ", ".join(map(str, args.runs))
        raise AuditError(f"{names}: no finished audit lies there", "name a folder of runs; `residua run` makes one")
    audits, faults, remarks = list[Found](), list[JsonValue](), list[str]()
    for folder in folders:
        try:
            report, remark = _read(folder, not args.no_verify)
        except AuditError as error:
            faults.append({"run": str(folder), "error": error.what, "do": error.do, "exit_code": int(error.code)})
            remarks.append(f"left out: {error}")
            continue
        audits.append(Found(report, folder))
        remarks += [f"{folder}: {remark}"] if remark else []
    document: dict[str, JsonValue] = {
        "audits": [audit_document(each.report, each.folder) for each in audits], "faults": faults,
    }  # fmt: skip
    return Answer(document, verdict_table(audits), ExitCode.INTEGRITY if faults else ExitCode.OK, tuple(remarks))


def _read(folder: Path, verified: bool) -> "tuple[Report, str]":
    from audit.runs import read_issued

    issued = read_issued(folder, verified)
    return issued.report, issued.remark


def _run_folders(given: Path) -> Iterator[Path]:
    """The folders with a finished report, in the order of their names; a report that is named is its folder's. What a
    run kept aside lies in its folder, and is none of them."""
    if given.is_file():
        yield given.parent
        return
    for folder, below, files in os.walk(given):
        below.sort()
        if run_files.REPORT in files:
            yield Path(folder)
            below.clear()
