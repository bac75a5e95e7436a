"""Is a run folder still what was issued? Held against its manifest, its chain of custody and its own id; free of torch.

Nothing is computed again here, so that every command that shows a verdict can ask first: each file is hashed once.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from audit.runs import custody, manifest, run_files
from audit.runs.report_file import document_id, read_report
from audit.schema import AuditError, ExitCode, Report
from audit.storage import file_bytes

ALONE: Final = "a report on its own: its manifest, custody log and item tables are not here and were not checked"
UNCHECKED: Final = "NOT VERIFIED, as was asked for: whether this is still the report that was issued was not checked"
UNCHAINED: Final = ("1.0", "1.1")
"""Schemas from before there was a custody log."""


class Issued(NamedTuple):
    """A report, and what is to be said wherever it is shown; nothing where its folder is as it was issued."""

    report: Report
    remark: str = ""


def read_issued(path: Path, verified: bool = True) -> Issued:
    """The report in a run folder, or in a file: of a folder that is checked first, or alone.

    AuditError: code 2 if there is none, 3 if it cannot be read, if the folder is not finished, or if anything in it is
    not as it was issued. ``verified`` off: nothing is checked, which the remark says.
    """
    file = path / run_files.REPORT if path.is_dir() else path
    report, folder = read_report(file), file.parent
    if not verified:
        return Issued(report, UNCHECKED)
    if file.name == run_files.REPORT and _is_run(folder):
        problems, remark = folder_problems(folder, report), ""
    else:
        problems, remark = list(id_problems(file_bytes(file), report)), ALONE
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise AuditError(
            f"{path} is not what was issued: {problems[0]}{more}",
            "see `residua verify`; restore it, run it again with --force-new, or show it unverified: residua report "
            "--no-verify",
            ExitCode.INTEGRITY,
        )
    return Issued(report, remark)


def _is_run(folder: Path) -> bool:
    """Is this a run folder, or what is left of one? An exported folder holds documents alone."""
    return any((folder / name).exists() for name in (manifest.NAME, custody.NAME, run_files.PLAN))


def folder_problems(folder: Path, report: Report | None) -> list[str]:
    """Everything in a run folder that is not as its manifest, its custody log and its id say."""
    try:
        listed = manifest.compared(folder)
    except AuditError as error:
        return [error.what]
    problems = [f"{_printable(problem.path)}: {problem.fault}" for problem in listed.problems]
    if (folder / custody.NAME).is_file() or report is None or report.schema_version not in UNCHAINED:
        problems += _custody_problems(folder, listed.digests, report)
    if report is not None:
        problems += id_problems(file_bytes(folder / run_files.REPORT), report)
    return problems


def id_problems(data: bytes, report: Report) -> Iterator[str]:
    """Does the document give the id that it states?"""
    if (given := document_id(json.loads(data))) != report.report_id:
        yield f"report.json, report_id: states {report.report_id}, the document gives {given}"


def _printable(path: str) -> str:
    """A file name that may hold any bytes, as text that any stream can print."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _custody_problems(folder: Path, digests: dict[str, str], report: Report | None) -> Iterator[str]:
    """The chain itself, the manifest that it says was issued, what it says was received, and the files that it kept."""
    chain = custody.read(folder)
    yield from chain.faults
    issued = chain.last("issued")
    if issued is None:
        yield f"{custody.NAME}: no line says that the report was issued"
        return
    where = f"{custody.NAME}, line {issued.n}, states"
    if issued.about.get("manifest_sha256") != custody.sha256_of(folder / manifest.NAME):
        yield f"{manifest.NAME}: does not hash to what {where}"
    yield from _event_problems(folder, issued.about, where)
    yield from _kept_problems(folder, digests, chain.file_hashes())
    if report is None:
        return
    if issued.about.get("report_id") != report.report_id:
        yield f"report.json, report_id: is not the one that {where}"
    arrived = [line.about for line in chain.lines if line.action == "received"]
    for role, fingerprint in ((exhibit.role, exhibit.fingerprint) for exhibit in report.exhibits):
        if not any((about.get("role"), about.get("fingerprint")) == (role, fingerprint) for about in arrived):
            yield f"{custody.NAME}: no line received {role} {fingerprint[:12]}, which the report lists"


def _event_problems(folder: Path, about: dict[str, str], where: str) -> Iterator[str]:
    """Does the event log still begin with what it said when the report was issued?"""
    if "events_sha256" not in about:
        return
    path = folder / run_files.EVENTS
    begun = (file_bytes(path) if path.is_file() else b"")[: int(about.get("events_bytes", "0"))]
    if hashlib.sha256(begun).hexdigest() != about["events_sha256"]:
        yield f"{run_files.EVENTS}: was cut or changed, it does not begin with what {where}"


def _kept_problems(folder: Path, digests: dict[str, str], hashes: dict[str, frozenset[str]]) -> Iterator[str]:
    """Is every file what the log held when it was kept, and is every unit and table held at all? A key may have stayed
    at home. ``digests``: what the manifest lists, which stands for the files."""
    if not hashes:
        return
    own = f"{run_files.UNITS}/", f"{run_files.TABLES}/"
    for name, digest in digests.items():
        if name in hashes and digest not in hashes[name]:
            yield f"{_printable(name)}: is not what {custody.NAME} says was kept"
        elif name not in hashes and name.startswith(own):
            yield f"{_printable(name)}: {custody.NAME} does not say that it was kept"
    key = folder / run_files.MASK_KEY
    if key.is_file() and run_files.MASK_KEY in hashes and custody.sha256_of(key) not in hashes[run_files.MASK_KEY]:
        yield f"{run_files.MASK_KEY}: was replaced, it is not what {custody.NAME} says was kept"
