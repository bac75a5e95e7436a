"""Is a finished run still what was issued? Everything that can be computed again is, and every fault has its place.

A run folder: the manifest and every file it lists, the chain of custody, the schema, the id, the item tables, what the
document says of plan, units and tables, evidence and verdict from the numbers, and the rendered files. A report that
stands alone (``report.json``, or an HTML report with its JSON inside): the same without manifest, custody, units and
tables, which is said. A page that shows a reader's own prior is not built again and so not accepted: its report.json
is.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from audit.calibration import own_folders, stored, zoo_floors
from audit.judging import ApplicableCalibrations, replicates_of, restand
from audit.render import schema
from audit.review.rederivation import retold
from audit.review.signing import signature_problems
from audit.runs import (
    ALONE,
    UNCHAINED,
    Judges,
    code_version,
    custody,
    documents,
    folder_problems,
    id_problems,
    manifest,
    run_files,
)
from audit.schema import EARLIER, AuditError, CalibrationUse, ExitCode, Missing, Report
from audit.storage import file_bytes

_EMBEDDED = re.compile(rb'<script type="application/json" id="report-json">(.*?)</script>', re.DOTALL)
LIBRARY = 1_000_000
"""Bytes: a static page is smaller, the library of live figures alone is larger."""
PARENTS = 3
"""So many folders above a run are looked at for calibrations of its model's own kind: runs lie below their case."""
Pages = Callable[[str], bytes | None]
"""The page of this name that shows the report, if it is there."""
_PLACE = "name the folder of a finished run, or a report in it"


class Verification(NamedTuple):
    """What was found: accepted only if there is no problem. Remarks do not reject. ``report``: None if unreadable."""

    subject: str
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    report: Report | None

    @property
    def accepted(self) -> bool:
        """Does the run stand?"""
        return not self.problems


def verify_run(path: Path, calibrations: Path | None = None, signer: Path | None = None) -> Verification:
    """Recompute everything that can be recomputed, judged by the calibrations that the run was judged by.

    ``path`` is a run folder or a report, in its folder or alone; ``signer`` a public key with whose other half it must
    have been signed. AuditError (code 2) if it is neither, or a report alone that must be signed. A report of
    another code version is held against its own hashes, schema and id; that this version judges or shows the same
    numbers otherwise is then a remark and no problem.
    """
    folder = _folder_of(path)
    if folder is None:
        if signer is not None:
            raise AuditError(f"{path} stands alone: signed is the manifest of a run", "name the run folder")
        data, page = _detached(path)
        report, problems = _read(data)
        problems += () if report is None else id_problems(data, report)
        pages = _none if page is None or report is None or _is_live(report, page) else {run_files.PAGE: page}.get
        more, remarks = _document_problems(report, None, pages, _Sources(path.parent, calibrations))
        return Verification(str(path), (*problems, *more), (ALONE, *remarks), report)
    report, problems = _read(file_bytes(folder / run_files.REPORT))
    changed = folder_problems(folder, report)
    chained = (folder / custody.NAME).is_file() or report is None or report.schema_version not in UNCHAINED
    remarks = () if chained else ("made before there was a custody log, which is not checked",)
    problems = [*(() if signer is None else signature_problems(folder, signer)), *changed, *problems]
    if signer is None and (folder / manifest.SIGNATURE).is_file():
        remarks = (*remarks, f"{manifest.SIGNATURE} is there and was not checked: give --signed-by")
    if report is not None:
        problems += _table_problems(folder, report)
    # A report.json that is not the one issued gives other pages, as the manifest has said already.
    pages = _none if "report.json: changed" in changed else partial(_page, folder)
    more, others = _document_problems(report, folder, pages, _Sources(folder, calibrations))
    return Verification(str(folder), (*problems, *more), (*remarks, *others), report)


# ---- what is meant ----------------------------------------------------------------------------------------------
def _folder_of(path: Path) -> Path | None:
    """The run folder that is meant; None for a report that stands alone."""
    if not path.exists():
        raise AuditError(f"there is no {path}", _PLACE)
    folder = path if path.is_dir() else path.parent
    if (folder / manifest.NAME).is_file() and (folder / run_files.REPORT).is_file():
        return folder
    if path.is_dir() and not (folder / run_files.REPORT).is_file():
        raise AuditError(f"{folder} holds no report.json", _PLACE)
    if path.is_dir():
        raise AuditError(f"{folder} holds no {manifest.NAME}: the run is not finished, or was taken apart",
                         "run it again, or verify report.json alone", ExitCode.INTEGRITY)  # fmt: skip
    return None


class _Detached(NamedTuple):
    """A report away from its run: the document, and the page that shows it, if it is one."""

    data: bytes
    page: bytes | None


def _detached(path: Path) -> _Detached:
    data = file_bytes(path)
    if path.suffix != ".html":
        return _Detached(data, None)
    embedded = _EMBEDDED.findall(data)
    if len(embedded) != 1:
        raise AuditError(f"{path} holds no report as data, so nothing can be computed from it", _PLACE)
    return _Detached(embedded[0], data)


def _is_live(report: Report, page: bytes) -> bool:
    """Is this the report's page with live figures, byte for byte? Only a page as large as their library is compared."""
    from audit.render import interactive

    return len(page) > LIBRARY and interactive(report).encode() == page


def _page(folder: Path, name: str) -> bytes | None:
    return file_bytes(folder / name) if (folder / name).is_file() else None


def _none(name: str) -> bytes | None:
    return None


class _Read(NamedTuple):
    report: Report | None
    problems: list[str]


def _read(data: bytes) -> _Read:
    """The report, if it can be read, and what schema and id say of it."""
    problems = list(_schema_problems(data))
    try:
        report = Report.model_validate_json(data)
    except ValidationError as error:
        return _Read(None, [*problems, f"report.json cannot be read: {error.error_count()} problems"])
    return _Read(report, problems)


def _schema_problems(data: bytes) -> Iterator[str]:
    import jsonschema

    try:
        document = json.loads(data)
    except ValueError as error:
        yield f"report.json is not JSON: {error}"
        return
    # The shipped schema is that of what is written now; an earlier document is held against its types as it is read.
    if isinstance(document, dict) and document.get("schema_version") in EARLIER:
        return
    validator = jsonschema.Draft202012Validator(schema())
    for error in sorted(validator.iter_errors(document), key=str)[:5]:
        yield f"report.json, {error.json_path}: {error.message[:200]}"


# ---- the folder -------------------------------------------------------------------------------------------------
def _table_problems(folder: Path, report: Report) -> Iterator[str]:
    for evidence in report.evidence:
        table = evidence.measurement.items
        if isinstance(table, Missing):
            continue
        path = folder / table.path
        if not path.is_file():
            yield f"{table.path} is missing"
        elif hashlib.sha256(file_bytes(path)).hexdigest() != table.sha256:
            yield f"{table.path} does not hash to what report.json states"


# ---- the document -----------------------------------------------------------------------------------------------
class _Review(NamedTuple):
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


class _Sources(NamedTuple):
    """Where the report was found, and the calibrations that the reader names."""

    place: Path
    calibrations: Path | None


def _document_problems(report: Report | None, folder: Path | None, pages: Pages, sources: _Sources) -> _Review:
    """What its own numbers, and the parts of its run where they are there, say of a report and of its pages."""
    if report is None:
        return _Review((), ())
    own = report.plan.code_version == code_version()
    differences = list(_rebuild_problems(report, pages))
    standing = restood(report.calibrations, sources.place, sources.calibrations or _of_its_kind(report))
    remarks: list[str] = []
    if standing is None:
        remarks.append("its evidence was judged by calibrations that are not stored here, and was not judged again")
        if any(use.own for use in report.calibrations):
            remarks.append("they are of its model's own kind, and lie beside its case file: name their folder with "
                           "--calibrations")  # fmt: skip
    judges = None if standing is None else Judges(standing, zoo_floors(_of_its_kind(report)))
    if folder is not None and not own and not (folder / run_files.UNITS).is_dir():
        remarks.append("its units are not here, and were not held against it")
        folder = None
    again = retold(report, folder, judges)
    differences += again.concluded
    if own:
        return _Review((*again.copied, *differences), tuple(remarks))
    origin = f"made by code {report.plan.code_version}, verified by {code_version()}"
    return _Review(again.copied, (origin, *remarks, *differences))


def restood(uses: Sequence[CalibrationUse], place: Path, general: Path) -> ApplicableCalibrations | None:
    """The calibrations by which a report was judged: those of ``general``, or, where they are of its model's own kind,
    those beside the report's folder, beside a folder that holds it, or where one works. None where they are not
    there."""
    standing = restand(general, uses)
    if standing is not None or not any(use.own for use in uses):
        return standing
    for each in (place, *place.resolve().parents[:PARENTS], Path()):
        for own in own_folders(each):
            with suppress(AuditError):  # another model's, and broken: no fault of this report
                if (standing := restand(own, uses)) is not None:
                    return standing
    return None


def _rebuild_problems(report: Report, pages: Pages) -> Iterator[str]:
    """Do the pages hold what the report gives, byte for byte?"""
    for name, rebuilt in documents(report).items():
        shown = None if name == run_files.REPORT else pages(name)
        if shown is not None and shown != rebuilt:
            lines = zip_longest(shown.split(b"\n"), rebuilt.split(b"\n"))
            first = next(n for n, (shown_line, built_line) in enumerate(lines, 1) if shown_line != built_line)
            yield f"{name}, line {first}: is not what report.json gives"


def _of_its_kind(report: Report) -> Path:
    """The calibrations and floors that come with the probes, of the kind of model that the report is about."""
    return stored(replicates_of(report.evidence).modality)
