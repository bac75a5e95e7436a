"""An edit made from a case: its rows, the fit, what it changed, and a folder that an audit opens as its suspect.

The folder appears whole or not at all: everything is made beside it and put in its place at the end. What the same
request finds finished is not made again; a killed one starts again, and what it left beside is cleared away.
"""

import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
from pydantic import ValidationError

from audit.bench import Bench, check_folds, observed_steps, save_merged
from audit.case import CaseFile, OpenCase, Rows, case_text, moved, open_case
from audit.checkpoints import fingerprint, resolve
from audit.edits import Choice, Edit, EditData, check_fits, configured_edit, edit_data
from audit.engine.edit_changes import change_of
from audit.planning import RunSettings, Step, Watch, make_bench, unwatched
from audit.schema import AuditError, Case, Checkpoint, EditSummary, ExitCode, Interval, Role, Source, content_key
from audit.storage import write_atomic
from audit.version import __version__

SUMMARY, CASE = "edit-summary.json", "case.toml"
"""Beside the weights: what was done, and the case with the folder as its suspect."""
_SHOWN_STEPS, _LEFT_FACTOR = 20, 1.25


class EditRequest(NamedTuple):
    """Which edit, with which settings (``name=value``), of whom, on which rows, and whether it is written as plain
    weights."""

    name: str
    settings: tuple[str, ...] = ()
    on: Role = "base"
    choice: Choice = Choice()
    merge: bool = False


class Edited(NamedTuple):
    """An edited folder, what is said of it, and whether it was there already."""

    folder: Path
    summary: EditSummary
    reused: bool = False

    @property
    def case(self) -> Path:
        """The case file whose suspect the folder is."""
        return self.folder / CASE


def edit(
    case_file: CaseFile, request: EditRequest, out: Path, settings: RunSettings, watch: Watch = unwatched
) -> Edited:
    """Make an edit of a role of the case and write it at ``out``, with a case whose suspect it is.

    What the same request left at ``out`` is returned as it is. AuditError (code 2): an unknown edit or setting, an edit
    that does not fit the model or the data, something else at ``out``; code 3: weights that are not those named, or a
    disk that refuses.
    """
    out, chosen = Path(out).resolve(), configured_edit(request.name, request.settings)
    if request.merge:
        _check_merge(chosen)
    watch(Step("opening", case_file.case.name, 0, 1))
    work = _Work.of(case_file, request, chosen, out, settings)
    watch(Step("opening", case_file.case.name, 1, 1, finished=True))
    if (earlier := _finished(work, out)) is not None:
        watch(Step("final", f"{out} is finished: nothing is edited again", 1, 1, finished=True))
        return Edited(out, earlier, reused=True)
    with _beside(out) as place:
        summary = work.done(place, watch)
        _put(place.folder, out)
    return Edited(out, summary)


def _check_merge(chosen: Edit) -> None:
    if chosen.leaves != "weights":
        problem = f"{chosen.name} acts on states by a hook ({chosen.leaves}), which no weight can hold"
        raise AuditError(problem, "leave out --merge: `residua run` plays the edited folder back as it is")


class _Place(NamedTuple):
    """Where things are made: the folder that is put in its place, and one for what only leads there."""

    folder: Path
    fitted: Path


class _Work(NamedTuple):
    """Everything that an edit depends on, opened and checked."""

    case_file: CaseFile
    request: EditRequest
    edit: Edit
    case: OpenCase
    parent: Checkpoint
    data: EditData
    settings: RunSettings

    @classmethod
    def of(cls, case_file: CaseFile, request: EditRequest, chosen: Edit, out: Path, settings: RunSettings) -> "_Work":
        """Open the case, and make the rows. AuditError as :func:`edit`."""
        case = open_case(_as_opened(case_file.case, request.on), case_file.root, out, online=settings.online)
        parent = case.checkpoint(request.on).model_copy(update={"vocabulary": None})  # an edit is made of whole weights
        check_fits(type(chosen), request.name, parent.modality == "image")
        if request.merge:
            check_folds(parent)
        data = edit_data(case, _needs(chosen), request.choice)
        # an edit is fitted in float32 unless another type is asked for: half precision loses small steps
        return cls(case_file, request, chosen, case, parent, data, settings.settled())

    @property
    def rows(self) -> dict[str, Rows]:
        """The rows that the edit may see, by what they are."""
        return {name: rows for name, rows in self.data._asdict().items() if isinstance(rows, Rows)}

    @property
    def key(self) -> str:
        """Names everything that the result depends on."""
        rows = {name: rows.hash for name, rows in self.rows.items()}
        names = {} if self.data.subjects is None else dict(self.data.subjects.names)
        if (concepts := self.data.concepts) is not None:
            names |= {"concepts": [dict(concepts.by_item), sorted(concepts.selection)]}
        stated, form = self.edit.model_dump(mode="json"), "merged" if self.request.merge else "edited"
        conditions = self.settings.conditions
        return content_key(__version__, self.parent.key, self.request.name, stated, rows, names, form, conditions)[:32]

    def done(self, place: _Place, watch: Watch) -> EditSummary:
        """Fit the edit, and write the whole folder with its summary and its case."""
        bench = make_bench(self.settings)
        bench.open(self.parent)
        seen = _Seen(self.request.name, watch)
        cpu, wall = time.process_time(), time.perf_counter()
        watch(Step("editing", self.request.name, 0, 1))
        with observed_steps(seen.step):
            fitted = self.edit.fit(bench, self.parent, self.data, place.fitted if self.request.merge else place.folder)
        took = time.process_time() - cpu, time.perf_counter() - wall
        watch(Step("edited", self.request.name, 1, 1, finished=True))
        summary = self._summary(bench, fitted, place, (*took, seen.steps))
        _write(place.folder / SUMMARY, summary.model_dump_json(indent=1))
        _write(place.folder / CASE, case_text(self._case(place.folder, summary)))
        return summary

    def _summary(self, bench: Bench, fitted: Checkpoint, place: _Place, cost: tuple[float, float, int]) -> EditSummary:
        change, record = change_of(bench, self.parent, fitted), fitted.edits[-1]
        dtype, rounding, identity = self.settings.dtype, 0.0, fitted.key
        if self.request.merge:
            dtype, rounding = save_merged(fitted, place.folder)
            identity = fingerprint(place.folder).total
        return EditSummary(
            key=self.key, edit=record.name, plays=record.plays, form="merged" if self.request.merge else "edited",
            case=self.case_file.case.name, role=self.request.on, parent=self.parent.key, settings=record.settings,
            rows={name: len(rows) for name, rows in self.rows.items()}, fingerprint=identity, tensors=change.tensors,
            general=self._general, of_tensors=change.of_tensors, change=change.norm, dtype=dtype, rounding=rounding,
            changed=change.listing, of_blocks=change.of_blocks, cpu_s=cost[0], wall_s=cost[1], steps=cost[2],
        )  # fmt: skip

    @property
    def _general(self) -> Literal["none", "left out", "half kept"]:
        if "general" not in self.case.cohorts:
            return "none"
        return "half kept" if self.request.choice.keep_general else "left out"

    def _case(self, folder: Path, summary: EditSummary) -> Case:
        """The case with this folder as its suspect, for a file in this folder."""
        case = moved(self.case_file.case, self.case_file.root, folder)
        source = getattr(case.roles, self.request.on) if self.request.on != "reference" else case.roles.references[0]
        suspect = Source(path=".", fingerprint=summary.fingerprint, allow_code=source.allow_code)
        update = {
            "name": f"{case.name}-{self.request.name}", "edited": self._edited(),
            "roles": case.roles.model_copy(update={"suspect": suspect}),
        }  # fmt: skip
        return Case.model_validate(case.model_copy(update=update).model_dump())

    def _edited(self) -> object:
        """What is known of the suspect's edit set, now that it is ours."""
        stated, part = self.case_file.case.edited, self.request.choice.part
        if self.request.on != "base" or not set(_needs(self.edit)) - {"retain"}:
            return stated
        if part == "all":
            return "all" if stated == "unknown" else stated
        return self.data.forget.item_ids


def _as_opened(case: Case, on: Role) -> Case:
    """The case as far as an edit reads it: of base alone where that is edited, for there may be no suspect yet."""
    if on != "base":
        return case
    roles = case.roles.model_copy(update={"suspect": case.roles.base, "references": (), "ancestor": None})
    return case.model_copy(update={"roles": roles})


def _needs(chosen: Edit) -> tuple[str, ...]:
    """What an edit reads with these settings: a setting may name other rows than the default does."""
    stated = [value for value in chosen.model_dump().values() if value in EditData._fields]
    return (*chosen.needs, *(value for value in stated if value not in chosen.needs))


class _Seen:
    """Shows the steps of a descent, a few of them as finished lines, with the time that is left."""

    def __init__(self, name: str, watch: Watch) -> None:
        self.name, self.watch, self.steps, self.started = name, watch, 0, time.perf_counter()

    def step(self, taken: int, of: int) -> None:
        """One step more; a descent that begins again counts on."""
        self.steps += 1
        each = max(1, of // _SHOWN_STEPS)
        if taken % each and taken != of:
            return
        left = (time.perf_counter() - self.started) / self.steps * (of - taken)
        interval = Interval(lo=left / _LEFT_FACTOR, hi=left * _LEFT_FACTOR) if taken < of else None
        self.watch(Step("editing", f"{self.name}, step {taken}", taken, of, finished=True, left=interval))


# ---- on disk ----------------------------------------------------------------------------------------------------
def _finished(work: _Work, out: Path) -> EditSummary | None:
    """What the same request left at ``out``. AuditError: code 2 for anything else there, 3 where it has changed."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    do = "name another folder with -o, or remove that one"
    if not (out / SUMMARY).is_file():
        raise AuditError(f"{out}: is there already, and holds no edit of this command", do)
    try:
        summary = EditSummary.model_validate_json((out / SUMMARY).read_bytes())
    except (OSError, ValidationError):
        raise AuditError(f"{out / SUMMARY}: cannot be read", do, ExitCode.INTEGRITY) from None
    if summary.key != work.key:
        description = f"{summary.edit} of {summary.case}'s {summary.role}"
        raise AuditError(f"{out}: is there already: {description}, made otherwise or of other rows", do)
    code = work.case.case.roles.base.allow_code
    resolve(Source(path=str(out), fingerprint=summary.fingerprint, allow_code=code), out)
    return summary


@contextmanager
def _beside(out: Path) -> Generator[_Place]:
    """Places of this process beside ``out``, removed at the end; those of dead processes are removed first."""
    for left in (*out.parent.glob(f".{out.name}.*.edit*"), *out.parent.glob(f"..{out.name}.*.edit*.tmp")):
        pid = left.name.lstrip(".").removeprefix(f"{out.name.lstrip('.')}.").split(".")[0]
        if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            shutil.rmtree(left, ignore_errors=True)
    place = _Place(*(out.with_name(f".{out.name}.{os.getpid()}.edit{n}") for n in ("", "ed")))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield place
    except OSError as error:
        raise AuditError(f"{out}: cannot be made ({error.strerror})", "choose another folder", 3) from None
    finally:
        for folder in place:
            shutil.rmtree(folder, ignore_errors=True)


def _put(folder: Path, out: Path) -> None:
    if out.is_dir():
        out.rmdir()
    folder.rename(out)


def _write(path: Path, text: str) -> None:
    write_atomic(path, (text.rstrip("\n") + "\n").encode())
