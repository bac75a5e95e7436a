"""One world of the pools from its number to its scores: made, audited by the real engine, and written as one file.

Every audit of a world shares one bench with one store in memory: whatever base, the references and the ancestor say is
computed for the first audit and read by the others, and what a suspect said is dropped when its audit ends.
"""

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from audit.bench import Bench
from audit.calibration import (
    InstalledBehaviours,
    Score,
    ScoredModel,
    WorldScores,
    read_records,
    read_world,
    recorded,
    world_path,
    write_world,
)
from audit.case import OpenCase
from audit.engine import Run, domain_of, prepare
from audit.planning import RunSettings, configured, unwatched
from audit.probing import behaviour_of, recall
from audit.runs import Mask, code_version, key_of
from audit.schema import AuditError, Case, DataFiles, Domain, ExitCode, Report, Roles, Source, Texts
from audit.storage import Store, write_atomic
from audit.zoo import (
    Drawn,
    Learning,
    Member,
    Population,
    World,
    builder,
    general_items,
    items,
    items_about,
    make_world,
    one_thread,
    others,
    population,
    recipes,
    write_jsonl,
)

log = logging.getLogger(__name__)

PROBES = "probes"
DATA = ("forget", "retain", "holdout", "general")
FIRST = "base"


class Places(NamedTuple):
    """Where models are kept, where audits run, and where scores go. ``discard``: edited models go after scoring."""

    models: Path
    work: Path
    scores: Path
    discard: bool = False


class Costs:
    """CPU-seconds by stage, kept beside the audits, so that an interrupted world still knows what it cost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cpu_s = Counter[str](json.loads(path.read_bytes()) if path.is_file() else {})

    def spent(self, stage: str, since: float) -> None:
        """Count the CPU-seconds of this process since ``since`` towards a stage."""
        self.add({stage: time.process_time() - since})

    def add(self, cpu_s: Mapping[str, float]) -> None:
        """Count CPU-seconds by stage."""
        self.cpu_s.update({stage: round(seconds, 3) for stage, seconds in cpu_s.items()})
        write_atomic(self.path, json.dumps(self.cpu_s, sort_keys=True).encode())


class MemoryStore(Store):
    """A store that lives as long as its process: nothing is hashed or written. :meth:`forget` drops the newest."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._before = 0

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors kept under ``key``, or None."""
        return self._kept.get(key)

    def put(self, key: str, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
        """Keep tensors under ``key``."""
        self._kept[key] = dict(tensors)

    def keep(self) -> None:
        """Everything that is here stays: :meth:`forget` drops what comes later."""
        self._before = len(self._kept)

    def forget(self) -> None:
        """Drop what came after :meth:`keep`."""
        for key in list(self._kept)[self._before :]:
            del self._kept[key]


def score_world(drawn: Drawn, places: Places, notify: Callable[[str], None] = log.info) -> Path:
    """Make what is missing of a world, audit every member, and write its scores; a finished world is left as it is.

    A killed call is taken up where it was: models and finished audits are found again. Raises AuditError (code 3) where
    a probe broke: a world with holes is not written.
    """
    final = world_path(places.scores, drawn.world)
    if is_current(final, drawn):
        return final
    census = population(drawn)
    work = places.work / f"{final.stem}-{recipes.world_key(census.zoo, drawn.world)}-{code_version().partition('+')[2]}"
    costs = Costs(work / "costs.json")
    with one_thread():
        folders = make_models(census, drawn.world, places.models, costs)
        notify(f"world {drawn.world}: {len(folders)} models are there")
        scored = _audit(census, drawn, (folders, work), costs)
    write_world(final, _scores(drawn, costs, scored, record_behaviours(places.scores)))
    shutil.rmtree(work, ignore_errors=True)
    if places.discard:
        discard(census, folders)
    total = sum(costs.cpu_s[stage] for stage in ("train", "edit", "audit"))
    notify(f"world {drawn.world}: {len(scored)} audits, {total:.0f} CPU-s")
    return final


def is_current(path: Path, drawn: Drawn) -> bool:
    """Are this world's scores there, of this recipe and of the probes as they are now?"""
    if not path.is_file():
        return False
    scores = read_world(path)
    return scores.recipe == drawn.recorded() and set(scores.behaviours) == set(configured({}, PROBES)) == standing(path)


def standing(path: Path) -> set[str]:
    """The probes whose scores in a world's file stand: as configured now, each behaves as it did when it scored."""
    found, records = read_world(path), read_records(path.parent)
    same: set[str] = set()
    for name, probe in configured({}, PROBES).items():
        record = records.get(found.behaviours.get(name, ""))
        as_then = (found.versions.get(name), found.settings.get(name)) == (probe.version, probe.model_dump(mode="json"))
        if record is not None and as_then and not behaviours(PROBES).moved(record):
            same.add(name)
    return same


@cache
def behaviours(package: str) -> InstalledBehaviours:
    """How the probes of a package behave, by what was installed when this process first asked."""
    return InstalledBehaviours(package, behaviour_of)


def record_behaviours(scores: Path) -> dict[str, str]:
    """How every probe behaves now, recorded in a folder of scores: digests by probe."""
    return {
        name: recorded(scores, behaviours(PROBES), name, probe.model_dump(mode="json"))
        for name, probe in configured({}, PROBES).items()
    }


def _scores(drawn: Drawn, costs: Costs, scored: list[ScoredModel], digests: dict[str, str]) -> WorldScores:
    probes = configured({}, PROBES)
    return WorldScores(
        world=drawn.world, recipe=drawn.recorded(), behaviours=digests, models=tuple(scored),
        stages_cpu_s={stage: round(seconds, 2) for stage, seconds in sorted(costs.cpu_s.items())},
        versions={name: probe.version for name, probe in probes.items()},
        settings={name: probe.model_dump(mode="json") for name, probe in probes.items()},
    )  # fmt: skip


# ---- models -----------------------------------------------------------------------------------------------------
def make_models(census: Population, world: int, models: Path, costs: Costs) -> dict[str, Path]:
    """The folder of every model of a world, in order of descent; what is not there is trained."""
    models.mkdir(parents=True, exist_ok=True)
    folders: dict[str, Path] = {}
    for plan in census.zoo.plans:
        since = time.process_time()
        folders[plan.name] = builder.make_model(census.zoo, world, models, plan.name)
        costs.spent("train" if isinstance(plan.by, Learning) else "edit", since)
    return folders


def discard(census: Population, folders: Mapping[str, Path]) -> None:
    """Delete the edited models: they are made again from their parents in a second or two."""
    for plan in census.zoo.plans:
        if not isinstance(plan.by, Learning):
            shutil.rmtree(folders[plan.name], ignore_errors=True)


# ---- audits -----------------------------------------------------------------------------------------------------
def _audit(census: Population, drawn: Drawn, where: tuple[Mapping[str, Path], Path], costs: Costs) -> list[ScoredModel]:
    """Audit every member with one bench; base comes first, and what its audit read stays."""
    folders, work = where
    write_data(make_world(drawn.world, drawn.shape), work / "data")
    store = MemoryStore(work / "store")
    bench, scored = Bench(store=store), list[ScoredModel]()
    for member in sorted(census.members, key=lambda member: member.model != FIRST):
        since = time.process_time()
        case = case_of(member.model, drawn.world, folders, work)
        scored.append(_scored(member, drawn.world, census.audited, _audited(case, work, bench, costs)))
        costs.spent("audit", since)
        if member.model == FIRST:
            store.keep()
        store.forget()
    return scored


class _Audit(NamedTuple):
    """What one audit leaves. ``names``: the forget groups, which are invented, by the marks that stand for them."""

    report: Report
    domain: Domain
    names: dict[str, str]


def _audited(case: Case, work: Path, bench: Bench, costs: Costs) -> _Audit:
    """One audit by the engine; a finished one is read from its folder."""
    folder = work / "audits" / case.name
    # No calibration judges the models that calibrations are made from.
    settings = RunSettings(threads=1, store=work / "store", demo=True, package=PROBES, calibrations=work / "none")
    prepared = prepare(case, folder, settings, bench)
    domain = domain_of(prepared.case, recall(bench, prepared.case))
    known = prepared.journal.final
    report = Run(prepared, settings, unwatched).report()
    if report.failures:
        broken = "; ".join(f"{failure.probe}: {failure.error}" for failure in report.failures)
        raise AuditError(f"{case.name}: {broken}", f"read {folder / 'run.log'}", ExitCode.INTEGRITY)
    if not known:
        costs.add({f"audit.{timing.unit}": timing.cpu_s for timing in report.timings})
    mask = Mask(key_of(folder))
    return _Audit(report, domain, {str(mask(group)): group for group in forget_groups(prepared.case)})


def forget_groups(case: OpenCase) -> tuple[str, ...]:
    """The groups of the forget set, by name."""
    return tuple(sorted({item.group for item in case.items(Texts(cohort="forget"), "all")}))


def _scored(member: Member, world: int, audited: tuple[str, ...], audit: _Audit) -> ScoredModel:
    return ScoredModel(
        world=world, model=member.model, mechanism=member.mechanism, pool=member.pool, content=member.content,
        kept=len(set(member.taught) & set(audited)), audited=len(audited), domain=audit.domain,
        scores=tuple(Score.of(evidence.measurement, audit.names) for evidence in audit.report.evidence),
        verdict=audit.report.verdict.word,
    )  # fmt: skip


def case_of(model: str, world: int, folders: Mapping[str, Path], work: Path) -> Case:
    """The audit of one model: reference_1 is the null, reference_2 the floor; reference_0 is audited, never either."""

    def source(name: str) -> Source:
        return Source(path=str(folders[name]))

    references = tuple(source(f"reference_{k}") for k in (1, 2))
    roles = Roles(base=source("base"), suspect=source(model), references=references, ancestor=source("ancestor"))
    files = {cohort: str(work / "data" / f"{cohort}.jsonl") for cohort in DATA}
    return Case(name=model, roles=roles, data=DataFiles.model_validate({**files, "split_seed": world}), seed=world)


def write_data(world: World, folder: Path) -> None:
    """The cohorts of every audit of a world; the retained people without those whom clean models forget."""
    folder.mkdir(parents=True, exist_ok=True)
    excluded = {person.id for person in others(world)}
    retained = tuple(person for person in world.people["retain"] if person.id not in excluded)
    for cohort in ("forget", "holdout"):
        write_jsonl(folder / f"{cohort}.jsonl", items(world, cohort))
    write_jsonl(folder / "retain.jsonl", items_about(world, retained))
    write_jsonl(folder / "general.jsonl", general_items(world))
