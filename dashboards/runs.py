"""What stands in a run folder, told apart before anything of it is shown: final, unfinished, withheld or unreadable.

A result is shown only if the manifest lists ``report.json`` with the hash that its bytes have, and the bytes give the
report id that they state. Everything else is a state with a reason and a remedy, never a number.
"""

import hashlib
import json
from typing import Final, Literal, NamedTuple, get_args

from pydantic import ValidationError

from audit.runs import document_id, manifest, run_files
from audit.schema import AuditError, Plan, Report
from audit.wording import CELL, visible
from dashboards.vault import MB, Refused, Stamp, Vault, shown

REPORT_CAP, MANIFEST_CAP, PLAN_CAP = 32 * MB, 4 * MB, 8 * MB
VERSIONS: Final = get_args(Report.model_fields["schema_version"].annotation)
State = Literal["final", "unfinished", "withheld", "foreign", "unreadable", "too big"]


class Folder(NamedTuple):
    """A run folder by its path below the root, and what tells that its files are still those that were read."""

    name: str
    stamps: tuple[Stamp | None, ...]


class Run(NamedTuple):
    """A run as far as it may be shown: a report if it is final, else why there is none and what to do about it."""

    name: str
    state: State
    report: Report | None = None
    plan: Plan | None = None
    reason: str = ""
    do: str = ""
    expected: str = ""
    actual: str = ""


def folders(vault: Vault) -> tuple[Folder, ...]:
    """Every run below the root, by path."""
    names = (run_files.REPORT, run_files.MANIFEST, run_files.PLAN)
    return tuple(Folder(run, tuple(vault.stamp(f"{run}/{name}") for name in names)) for run in vault.runs())


def open_run(vault: Vault, name: str) -> Run:
    """A run, verified. Never raises: what is wrong with it is its state."""
    try:
        return _opened(vault, name)
    except Refused as error:
        state = "too big" if "too big" in error.what else "unreadable"
        return Run(name, state, reason=error.what, do=error.do)
    except AuditError as error:
        return Run(name, "withheld", reason=error.what, do=error.do)


def _opened(vault: Vault, name: str) -> Run:
    if vault.stamp(f"{name}/manifest.sha256") is None:
        return _unfinished(vault, name)
    text = vault.read(f"{name}/manifest.sha256", MANIFEST_CAP).decode("utf-8", "surrogateescape")
    listed = manifest.listed(text, shown(f"{name}/manifest.sha256")).get(run_files.REPORT, "")
    data = vault.read(f"{name}/report.json", REPORT_CAP)
    digest = hashlib.sha256(data).hexdigest()
    if digest != listed:
        reason = (
            "report.json is not the file that the manifest lists"
            if listed
            else "the manifest does not list report.json"
        )
        do = "its results are withheld; restore the folder, or make the audit again"
        return Run(name, "withheld", reason=reason, do=do, expected=listed or "not listed", actual=digest)
    return _read(name, data)


def _read(name: str, data: bytes) -> Run:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        return Run(
            name, "unreadable", reason=f"report.json is not JSON: {visible(str(error), CELL)}", do="restore the file"
        )
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version not in VERSIONS:
        return _foreign(name, version)
    try:
        report = Report.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = visible(".".join(str(part) for part in first["loc"]), CELL)
        reason = f"report.json says schema {version}, but is no such report: {where}: {visible(first['msg'], CELL)}"
        return Run(name, "unreadable", reason=reason, do="open it with the version that wrote it, or restore the file")
    given = document_id(document)
    if given != report.report_id:
        do = "its results are withheld: the document was changed after it was issued"
        return Run(name, "withheld", reason="the report does not have the id that it states", do=do,
                   expected=visible(report.report_id, CELL), actual=given)  # fmt: skip
    return Run(name, "final", report=report, plan=report.plan)


def _foreign(name: str, version: object) -> Run:
    """A report of a schema that this version does not read: which one, and which Residua opens it."""
    stated = visible(version, CELL) if isinstance(version, str) else "no version"
    own = f"this Residua reads {', '.join(VERSIONS)}"
    older = isinstance(version, str) and _order(version) < _order(VERSIONS[0])
    do = (
        f"open it with the Residua that wrote it (schema {stated}); its reports are of an earlier major version"
        if older
        else f"open it with a Residua that writes schema {stated} or later"
    )
    return Run(name, "foreign", reason=f"the report is of schema {stated}; {own}", do=do)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")) if version.replace(".", "").isdigit() else (10**6,)


def _unfinished(vault: Vault, name: str) -> Run:
    """No manifest: nothing here is final, so nothing but the plan is shown."""
    if vault.stamp(f"{name}/plan.json") is None:
        reason = "there is a report but no manifest: nothing vouches for it"
        return Run(name, "withheld", reason=reason, do="restore manifest.sha256, or make the audit again",
                   expected="a manifest", actual="none")  # fmt: skip
    try:
        plan = Plan.model_validate_json(vault.read(f"{name}/plan.json", PLAN_CAP))
    except ValidationError:
        return Run(name, "unreadable", reason="plan.json cannot be read by this version", do="start the audit again")
    return Run(name, "unfinished", plan=plan, reason="the audit is not finished", do="resume it on the Run page")
