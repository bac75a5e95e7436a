"""Is a finished run still that of its case? Asked of files alone: no torch is imported, nothing is planned anew.

A plan follows from the case, from what was received (checkpoints, data, published numbers), from the code, the
libraries and what the backend can do. Where all of them are what the run states, planning would give the plan that the
folder holds. All of them are looked at by content: every file of weights and data is hashed, the sources are, and the
folder is held against its manifest, its custody log and its id. Whatever is otherwise is found out, and said, by
planning as ever.
"""

import sys
from pathlib import Path
from typing import Final

from audit import plugins
from audit.case import CaseFile, data_files, resolved_roles, sha256_as_read_by
from audit.planning import AUTO, RunSettings, Step, fingerprints, hashes_of_data
from audit.runs import RunJournal, code_version, plan_hash_of, read_issued, versions
from audit.schema import AuditError, Case, Environment, Plan, Report

AnyCase = CaseFile | Case | Path | str
"""A case that was read, one made in memory (its relative paths start from the working folder), or where its file is."""

_AS_THEY_COME: Final = (
    "backend", "attention", "force_new", "max_time", "max_mem", "device_map", "max_memory", "offload",
)  # fmt: skip
"""Settings that a plan depends on, or that may be refused before there is one: other values are for planning to see."""
_DEVICES: Final = (AUTO, "cpu")
_DTYPES: Final = (AUTO, "float32", "bfloat16", "float16")
_SPREAD: Final = frozenset({"device_map", "max_memory", "ranks"})
"""What a report states of models that did not lie whole on one device: they could do less."""


def case_file_of(case: AnyCase) -> CaseFile:
    """A case with the folder that its paths start from. AuditError (code 2) where its file is none."""
    if isinstance(case, CaseFile):
        return case
    return CaseFile(case, Path.cwd()) if isinstance(case, Case) else CaseFile.read(Path(case))


def finished_step(out: Path) -> Step:
    """What is said where a run is finished."""
    return Step("final", f"{out} is finished: nothing is measured again", 1, 1, finished=True)


def issued_as_planned(case: CaseFile, out: Path, settings: RunSettings) -> Report | None:
    """The report of a finished run whose plan is the one that would be made now; None where that cannot be told here:
    the run is not finished, or anything is other than it states. AuditErrors are left to who plans."""
    if not _is_plain(settings):
        return None
    try:
        journal = RunJournal(out)
        plan = journal.planned() if journal.final else None
        if plan is None or any(test.dropped_by for test in plan.tests) or plan.code_version != code_version():
            return None
        report = read_issued(out).report
        if not _made_alike(report.environment, settings):
            return None
        return report if plan_hash_of(_planned_now(plan, case, settings)) == plan.plan_hash else None
    except AuditError:
        return None


def _is_plain(settings: RunSettings) -> bool:
    """Are these settings none that planning would have to look at?"""
    usual = RunSettings()
    return (
        all(getattr(settings, name) == getattr(usual, name) for name in _AS_THEY_COME)
        and settings.device in _DEVICES
        and settings.dtype in _DTYPES
        and _is_in_code_version(settings.package)
    )


def _is_in_code_version(package: str) -> bool:
    """Are these the probes whose sources are hashed with the code, and not others of that name or another?"""
    usual = RunSettings().package
    return package == usual and plugins.folder(usual).resolve() == Path(__file__).resolve().parents[2] / usual


def _made_alike(environment: Environment, settings: RunSettings) -> bool:
    """Was a run made by this Python, these libraries and this backend, with every model whole?"""
    return (
        environment.python == sys.version.split()[0]
        and environment.packages == versions()
        and environment.backend == settings.backend
        and not _SPREAD & environment.flags.keys()
    )


def _planned_now(plan: Plan, case: CaseFile, settings: RunSettings) -> Plan:
    """The plan, of the case and of what is received now. AuditError for what cannot be found, read or opened."""
    roles = resolved_roles(case.case, case.root, settings.online)
    files = data_files(case.case.data, case.root, sha256_as_read_by(roles.base))
    hashes = hashes_of_data(case.case, case.root, {file.cohort: file.sha256 for file in files})
    return plan.model_copy(update={"case": case.case, "fingerprints": fingerprints(roles), "data_sha256": hashes})
