"""Is a finished run still what was issued? Hashes, schema, id, evidence and verdict, all computed again."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from audit import manifest
from audit.findings import Report
from audit.issued import document_id
from audit.judging import zoo_floors
from audit.nouns import AuditError, Missing
from audit.provenance import code_version
from audit.render.schema import schema
from audit.rule import decision_rule, given
from audit.weighing import Standing, judged, restand, stored


class Verification(NamedTuple):
    """What was found: accepted only if there is no problem. Remarks do not reject."""

    folder: str
    problems: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Does the run stand?"""
        return not self.problems


def _folder_of(path: Path) -> Path:
    if not path.exists():
        raise AuditError(f"there is no {path}", "name the folder of a finished run, or a report in it")
    folder = path if path.is_dir() else path.parent
    if not (folder / "report.json").is_file():
        raise AuditError(f"{folder} holds no report.json", "name the folder of a finished run, or a report in it")
    return folder


def _schema_problems(data: bytes) -> Iterator[str]:
    import jsonschema

    try:
        document = json.loads(data)
    except ValueError as error:
        yield f"report.json is not JSON: {error}"
        return
    validator = jsonschema.Draft202012Validator(schema())
    for error in sorted(validator.iter_errors(document), key=str)[:5]:
        yield f"report.json, {error.json_path}: {error.message[:200]}"


def _table_problems(folder: Path, report: Report) -> Iterator[str]:
    for evidence in report.evidence:
        table = evidence.measurement.items
        if isinstance(table, Missing):
            continue
        path = folder / table.path
        if not path.is_file():
            yield f"{table.path} is missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != table.sha256:
            yield f"{table.path} does not hash to what report.json states"


def _number_problems(report: Report, standing: Standing) -> Iterator[str]:
    """Does the same judging of the same numbers still give this evidence and this verdict?"""
    again, computed_verdict = judged(report.evidence, given(report.plan.case), standing, zoo_floors())
    for stated, computed in zip(report.evidence, again, strict=True):
        if stated != computed:
            m = stated.measurement
            yield f"evidence {m.probe}.{m.name}: states {stated.outcome!r}, its numbers give {computed.outcome!r}"
    if computed_verdict != report.verdict:
        yield f"verdict: states {report.verdict.word}, the numbers give {computed_verdict.word}"
    if report.decision_rule != decision_rule():
        yield "the decision rule printed is not the one in force"


def verify_run(path: Path, calibrations: Path | None = None) -> Verification:
    """Recompute everything that can be recomputed from the files of a run, judged by the calibrations it was judged by.

    A report of another code version is held against its own hashes, schema and id; that this version judges the same
    numbers otherwise is then a remark and no problem.
    """
    folder = _folder_of(path)
    problems = [f"{problem.path}: {problem.what}" for problem in manifest.check(folder)]
    data = (folder / "report.json").read_bytes()
    problems += _schema_problems(data)
    try:
        report = Report.model_validate_json(data)
    except ValidationError as error:
        problems.append(f"report.json cannot be read: {error.error_count()} problems")
        return Verification(str(folder), tuple(problems), ())
    if (given_id := document_id(json.loads(data))) != report.report_id:
        problems.append(f"report_id: states {report.report_id}, the document gives {given_id}")
    problems += _table_problems(folder, report)
    standing = restand(calibrations or stored(), report.calibrations)
    if standing is None:
        lost = "its evidence was judged by calibrations that are not stored here, and was not judged again"
        return Verification(str(folder), tuple(problems), (lost,))
    differences, remarks = list(_number_problems(report, standing)), []
    if report.plan.code_version == code_version():
        problems += differences
    else:
        remarks.append(f"made by code {report.plan.code_version}, verified by {code_version()}")
        remarks += differences
    return Verification(str(folder), tuple(problems), tuple(remarks))
