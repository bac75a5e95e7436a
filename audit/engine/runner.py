"""Plan, prefetch, measure, judge, report. Knows no probe by name.

The folder's plug-ins are planned before anything is looked at; their needs are merged and fetched in one pass per role
and rows; every finished unit is kept; then the judging reads the numbers and the report is written, the manifest last.
A run that was killed at any moment is finished by the same command and ends in the same report, except for times.
"""

import hashlib
import logging
import math
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from audit.bench import Bench
from audit.calibration import (
    Behaviour,
    InstalledBehaviours,
    Kind,
    ProbeIdentity,
    Settings,
    kind_for,
    stored,
    zoo_floors,
)
from audit.case import OpenCase, open_case, open_sketch
from audit.engine import report_builder
from audit.engine.case_calibrations import standing_of
from audit.engine.domain import domain_of
from audit.engine.roles import audited, taking_part
from audit.engine.unchanged import AnyCase, case_file_of, finished_step
from audit.planning import Meter, Planned, Planner, Pricer, UnitProfiles, by_model, limited, received
from audit.planning import RunSettings as RunSettings
from audit.planning import Step as Step
from audit.planning import Watch as Watch
from audit.planning import make_bench as make_bench
from audit.probing import Recall, behaviour_of, check_recall
from audit.runs import (
    ATTENTION_USED,
    OPEN_QUESTION,
    ROLES,
    Judges,
    Mask,
    RunJournal,
    Unit,
    arithmetic_used,
    as_given,
    custody,
    documents,
    environment,
    exhibits,
    keep_key,
    keep_words,
    key_of,
    left_out,
    manifest,
    name_of,
    now,
    read_issued,
    renamed,
)
from audit.schema import (
    AbsentPartError,
    AuditError,
    Checkpoint,
    ExitCode,
    Failure,
    Measurement,
    Plan,
    Report,
    SilentModelError,
    Skip,
    Timing,
    content_key,
    is_fault,
)
from audit.storage import write_atomic
from audit.wording import counted
from audit.wrappers import arithmetic_of, unused_tensors

log = logging.getLogger(__name__)
Result = TypeVar("Result")


MakeBench = Callable[[RunSettings, Sequence[Checkpoint]], Bench]
"""Gives the bench of such settings that opens these models: a new one, or one that has some of them open."""


class Prepared(NamedTuple):
    """A case that passed its input checks, with a bench, its plan, and who prices it. Nothing is written yet."""

    case: OpenCase
    bench: Bench
    planner: Planner
    pricer: Pricer
    journal: RunJournal


class _Measured(NamedTuple):
    units: tuple[Unit, ...]
    failures: tuple[Failure, ...]
    roles: Unit


def prepare(
    case: AnyCase, out: Path, settings: RunSettings, bench: Bench | MakeBench | None = None
) -> Prepared:  # fmt: skip
    """Open the case with all its input checks, and plan. Writes nothing.

    ``bench``: the one to use, or who makes it, once the checkpoints of the case are known.
    """
    journal, loaded = RunJournal(out), case_file_of(case)
    opened = open_case(loaded.case, loaded.root, out, online=settings.online)
    models = [ckpt for _, ckpt in received(opened)]
    ready = bench if isinstance(bench, Bench) else (bench or make_bench)(settings, models)
    settings = settings.of_bench(ready)
    pricer = Pricer(opened, ready, settings)
    planner = Planner(opened, ready.supports, settings.package, lacking=ready.lacking)
    if settings.max_time is not None or settings.max_mem is not None:
        planner = limited(planner, pricer, None if settings.force_new else journal.planned())
    return Prepared(opened, ready, planner, pricer, journal)


def sketch(case: AnyCase, out: Path, settings: RunSettings) -> Prepared:
    """The same from the roles' configs alone, to be planned and priced and never run: no weights need be there."""
    loaded = case_file_of(case)
    opened = open_sketch(loaded.case, loaded.root, out, online=settings.online)
    ready = make_bench(settings, (ckpt for _, ckpt in received(opened)))
    planner = Planner(opened, ready.supports, settings.package, lacking=ready.lacking)
    pricer = Pricer(opened, ready, settings.of_bench(ready))
    return Prepared(opened, ready, limited(planner, pricer, None), pricer, RunJournal(out))


def plan(case: AnyCase, out: Path | str, settings: RunSettings | None = None) -> Plan:
    """What would be done, without doing it."""
    return prepare(case, Path(out), settings or RunSettings()).planner.plan


class Run:
    """One run in one folder."""

    def __init__(self, prepared: Prepared, settings: RunSettings, watch: Watch) -> None:
        self.received, self.bench, self.planner, self.pricer, self.journal = prepared
        self.case = self.received
        self.settings, self.watch = settings.of_bench(self.bench), watch
        self.plan = self.planner.plan

    def report(self) -> Report:
        """The report of this run: from the folder if it is finished, else measured, judged and written."""
        if not self.settings.force_new:
            self.journal.refuse_other(self.plan)
            if self.journal.final:
                self.watch(finished_step(self.journal.out))
                return read_issued(self.journal.out).report
        if not self.planner.running:
            raise AuditError("no test would run", "see `residua plan`: give what they need, or wider limits",
                             ExitCode.UNDECIDED)  # fmt: skip
        if short := self.planner.undecidable:
            log.warning("nothing can be decided of what is left: %s", short)
        profiles = UnitProfiles(self.journal.out, self.settings.force_new) if self.settings.profile else None
        meter = Meter(self.pricer, self.pricer.prices(self.planner), profiles)
        roles = self._audit_roles(meter)
        with meter.unit("recall"):
            recalled = check_recall(self.bench, taking_part(self.received, roles.roles, undisputed=True))
        with self.journal.locked():
            self.journal.begin(self.plan, self.settings.force_new)
            self._receive()
            roles = roles.model_copy(update={"noticed": (recalled.note,) if recalled.note else ()})
            self.journal.finish(roles, self.plan.code_version)
            self.journal.event("started", f"plan {self.plan.plan_hash}")
            if recalled.note:
                self.journal.event("template", recalled.note)
            self.journal.event("recall", f"base {recalled.base:.4f}, {recalled.what} {recalled.against:.4f}")
            measured = _Measured(*self._measure(meter), roles)
            with meter.unit("report"):
                report = self._judged(measured, recalled)
                self._write(report)
        return report

    def _receive(self) -> None:
        """Write down what came in, before anything is measured on it, and the key that masks what is quoted of it."""
        root = self.case.root
        arrivals = [custody.Arrival(role, name_of(c), as_given(c, root)) for role, c in received(self.received)]
        arrivals += [custody.Arrival(f"{custody.DATA}{name}", sha, "") for name, sha in self.plan.data_sha256.items()]
        custody.receive(self.journal.out, arrivals, self.plan.code_version)
        keep_key(self.journal.out, self.plan.code_version)

    def _issue(self, report: Report) -> None:
        custody.issue(self.journal.out, report.report_id, self.journal.out / manifest.NAME, self.plan.code_version)

    def _audit_roles(self, meter: Meter) -> Unit:
        """Audit who judges, and go on with those who may; what was received and planned stays as it was."""
        key = content_key(self.plan.plan_hash, ROLES, self.settings.conditions)[:32]
        earlier = None if self.settings.force_new else self.journal.finished(key)
        self.watch(Step("roles", "", 0, 1))
        with meter.unit(ROLES):
            unit = audited(self.bench, self.received, key, earlier)
        self.watch(Step("roles", "", 1, 1, finished=True))
        self.case = taking_part(self.received, unit.roles)
        self.planner = self.planner.on(self.case)
        return unit

    # ---- measure ------------------------------------------------------------------------------------------------
    def _measure(self, meter: Meter) -> tuple[tuple[Unit, ...], tuple[Failure, ...]]:
        running = self.planner.running
        keys = {planned.name: self._key(planned) for planned in running}
        units = {name: unit for name, key in keys.items() if (unit := self.journal.finished(key)) is not None}
        for done, name in enumerate(units, 1):
            self.journal.event("reused", name)
            self.watch(Step("reused", name, done, len(running), finished=True))
        waiting = [planned for planned in running if planned.name not in units]
        if waiting:
            self._prefetch(waiting, meter)
        failures: list[Failure] = []
        again = self.journal.probes() if waiting else frozenset[str]()
        for place, planned in enumerate(waiting):
            self.journal.heed()
            if planned.name in again:
                self.journal.begin_again(planned.name, keys[planned.name], self.plan.code_version)
            left = meter.left(other.name for other in waiting[place:])
            self.watch(Step("measure", planned.name, len(units) + len(failures), len(running), left=left))
            with meter.unit(planned.name):
                result = self._attempt(planned, keys[planned.name])
            if isinstance(result, Failure):
                failures.append(result)
                self.journal.event("failed", f"{planned.name} {result.error_id}")
            else:
                units[planned.name] = result
                self.journal.finish(result, self.plan.code_version)
                self.journal.event("measured", planned.name)
            left = meter.left(other.name for other in waiting[place + 1 :])
            done = len(units) + len(failures)
            self.watch(Step(_said(result), planned.name, done, len(running), finished=True, left=left))
        return tuple(units[p.name] for p in running if p.name in units), tuple(failures)

    def _key(self, planned: Planned) -> str:
        """Unit = probe x checkpoint x seed; also what changes the numbers without changing the plan."""
        case, conditions = self.case, self.settings.conditions
        return content_key(self.plan.plan_hash, planned.name, case.suspect.key, case.case.seed, conditions)[:32]

    def _prefetch(self, waiting: list[Planned], meter: Meter) -> None:
        """Fill the store for all waiting probes, model by model. Without a store there is no use in it."""
        if self.settings.store is None:
            return
        fetches = self.planner.fetches(waiting)
        left = meter.left({"reads", *(planned.name for planned in waiting)})
        with meter.unit("reads"):
            done = 0
            for (role, reference), fetched in by_model(fetches).items():
                self.journal.heed()
                self.watch(Step("prefetch", f"{role} on {len(fetched)} sets of texts", done, len(fetches), left=left))
                checkpoint = self.case.checkpoint(role, reference)
                self.bench.run_together(checkpoint, [(self.case.rows(f.texts), f.reads) for f in fetched])
                done += len(fetched)
        self.journal.event("prefetched", f"{len(fetches)} passes")
        self.watch(Step("prefetched", "passes", len(fetches), len(fetches), finished=True))

    def _attempt(self, planned: Planned, key: str) -> Unit | Failure:
        """Measure one probe. What a user can fix becomes a skip; integrity stops the run; all else is a failure."""
        cpu, wall = time.process_time(), time.perf_counter()
        skip, measurements = None, ()
        try:
            result = guarded(planned.name, key, lambda: numbers_alone(planned.probe.measure(self.bench, self.case)))
            if isinstance(result, Failure):
                return result
            mask = Mask(key_of(self.journal.out))
            over = self.case.replicate
            keep_words(self.journal.out, planned.name, result)
            measurements = tuple(counted(renamed(m, lambda group: str(mask(group))), over) for m in result)
        except AuditError as error:
            if error.code == ExitCode.INTEGRITY and not isinstance(error, SilentModelError):
                raise
            reason, absent = f"{error.what}; to change it: {error.do}", isinstance(error, AbsentPartError)
            skip = Skip(probe=planned.name, reason=reason, consequence=OPEN_QUESTION, absent=absent)
        timing = Timing(unit=planned.name, cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall)
        return Unit(key=key, probe=planned.name, measurements=measurements, skip=skip, timing=timing)

    # ---- judge and report ---------------------------------------------------------------------------------------
    def _judged(self, measured: _Measured, recalled: Recall) -> Report:
        self.watch(Step("judge", "", 0, 1))
        of_its_kind, domain = stored(self.case.modality), domain_of(self.case, recalled)
        ran = {p.name: ProbeIdentity(p.probe.version, p.probe.model_dump(mode="json")) for p in self.planner.running}
        kind = kind_for(self.case.modality)
        behaviours = InstalledBehaviours(self.settings.package, partial(self._behaviour, kind), kind=kind)
        standing = standing_of(self.case, self.settings.calibrations, ran, domain, behaviours.moved)
        outcomes = report_builder.Outcomes(
            plan=self.plan,
            units=measured.units,
            roles=measured.roles,
            refused=left_out(self.plan.tests, self.planner.plan.tests),
            failures=measured.failures,
            domain=domain,
        )
        circumstances = report_builder.Circumstances(
            exhibits=exhibits(received(self.received), self.case.root, unused_tensors),
            environment=environment(self.bench.provenance(), self._flags() | self._arithmetic()),
            registered=self.journal.registered,
            created=now(),
            demo=self.settings.demo,
        )
        judges = Judges(standing, zoo_floors(of_its_kind))
        return report_builder.assemble(self.received, outcomes, judges, circumstances)

    def _behaviour(self, kind: Kind, package: str, probe: str, settings: Settings) -> Behaviour:
        """How a probe behaves on the frozen world, computed because none was stored for what is installed."""
        self.watch(Step("behaviour", probe, 0, 1))
        result = guarded(probe, "behaviour", lambda: behaviour_of(package, probe, settings, kind))
        if isinstance(result, Failure):
            raise AuditError(f"it broke on the frozen world, failure {result.error_id}", "read run.log")
        self.watch(Step("behaviour", probe, 1, 1, finished=True))
        return result

    def _flags(self) -> dict[str, str]:
        given = {"allow_undecided": "yes"} if self.settings.allow_undecided else {}
        limits = {"max_time": self.settings.max_time, "max_mem": self.settings.max_mem}
        return given | {name: f"{limit:.12g}" for name, limit in limits.items() if limit is not None}

    def _arithmetic(self) -> dict[str, str]:
        """By which attention the models were computed: of the models alone, so that a resumed run says the same."""
        of = partial(arithmetic_of, backend=self.bench.backend, attention=self.bench.attention)
        return {ATTENTION_USED: arithmetic_used(received(self.received), of)}

    def _write(self, report: Report) -> None:
        self.watch(Step("report", str(self.journal.out), 0, 1))
        out = self.journal.out
        for name, content in documents(report).items():
            write_atomic(out / name, content)
        self.journal.event("finished", report.report_id)
        manifest.write(out)
        self._issue(report)
        self.watch(Step("report", str(out), 1, 1, finished=True))


def numbers_alone(measurements: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """The measurements. ValueError where a reading is no number: a copy of a record is not validated, and the audit
    would end where its evidence is judged."""
    checked = tuple(measurements)
    for m in checked:
        if wrong := [name for name, value in m.readings.items() if not math.isfinite(value)]:
            raise ValueError(f"{m.probe}.{m.name}: the readings {', '.join(wrong[:5])} are no numbers")
    return checked


def guarded(probe: str, key: str, work: Callable[[], Result]) -> Result | Failure:
    """What ``work`` gives, or the failure of the probe, or of the whole audit, that broke in it. AuditErrors pass."""
    try:
        return work()
    except AuditError:
        raise
    except BaseException as error:
        # A broad except: a probe that breaks costs its own numbers, never the audit, an audit that breaks never the
        # others of a sweep, and neither is silent.
        if not is_fault(error):
            raise
        message = f"{type(error).__name__}: {error}"
        error_id = hashlib.sha256(f"{key} {message}".encode()).hexdigest()[:8]
        log.error("failure %s in %s\n%s", error_id, probe, traceback.format_exc())
        return Failure(probe=probe, error=message, error_id=error_id)


def _said(result: Unit | Failure) -> str:
    """What became of a unit, in a word."""
    if isinstance(result, Failure):
        return f"failed ({result.error_id})"
    return "measured" if result.skip is None else "skipped"
