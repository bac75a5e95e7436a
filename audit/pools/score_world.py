"""One world of the pools from its number to its scores: made, audited by the real engine, and written as one file.

Every audit of a world shares one bench with one store in memory: whatever base, the references and the ancestor say is
computed for the first audit and read by the others, and what a suspect said is dropped when its audit ends.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

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
from audit.pools.memory_store import MemoryStore
from audit.pools.panel_file import Assessed, add_panels, panels_path, read_panels, write_panels
from audit.pools.reassessment import assessed_of
from audit.pools.stage_costs import Costs
from audit.probing import behaviour_of, recall, recording
from audit.runs import Mask, code_version, key_of
from audit.schema import AuditError, Case, DataFiles, Domain, ExitCode, Report, Roles, Source, Texts
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
ROLES = ("base", "reference_1", "reference_2", "ancestor")
"""The models by which every other is audited (:func:`case_of`)."""


class Places(NamedTuple):
    """Where models are kept, where audits run, and where scores go. ``discard``: edited models go after scoring.

    ``panels``: where the people behind the scores are kept (:mod:`audit.pools.panels`); None keeps none.
    """

    models: Path
    work: Path
    scores: Path
    discard: bool = False
    panels: Path | None = None


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
        audits = audit_members(census.members, drawn, (folders, work), costs)
    keep_panels(places, drawn.world, audits)
    write_world(final, _scores(drawn, costs, audits, record_behaviours(places.scores)))
    shutil.rmtree(work, ignore_errors=True)
    if places.discard:
        discard(census, folders)
    total = sum(costs.cpu_s[stage] for stage in ("train", "edit", "audit"))
    notify(f"world {drawn.world}: {len(audits)} audits, {total:.0f} CPU-s")
    return final


def is_current(path: Path, drawn: Drawn) -> bool:
    """Are this world's scores there, of this recipe, of all its members, and of the probes as they are now?"""
    if not path.is_file():
        return False
    scores = read_world(path)
    complete = [model.model for model in scores.models] == [member.model for member in population(drawn).members]
    same = complete and scores.recipe == drawn.recorded()
    return same and set(scores.behaviours) == set(configured({}, PROBES)) == standing(path)


def of_recipe(scores: WorldScores, drawn: Drawn) -> bool:
    """Are these scores of this recipe, but for what was dealt beside it since?"""
    recorded, now = (dict(recipe) for recipe in (scores.recipe, drawn.recorded()))
    before, after = (str(recipe.pop("added", "")).split(",") for recipe in (recorded, now))
    return recorded == now and set(before) - {""} <= set(after)


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


def _scores(drawn: Drawn, costs: Costs, audits: Sequence["Audited"], digests: dict[str, str]) -> WorldScores:
    probes = configured({}, PROBES)
    return WorldScores(
        world=drawn.world, recipe=drawn.recorded(), behaviours=digests, models=tuple(a.scored for a in audits),
        stages_cpu_s={stage: round(seconds, 2) for stage, seconds in sorted(costs.cpu_s.items())},
        versions={name: probe.version for name, probe in probes.items()},
        settings={name: probe.model_dump(mode="json") for name, probe in probes.items()},
    )  # fmt: skip


# ---- models -----------------------------------------------------------------------------------------------------
def make_models(
    census: Population, world: int, models: Path, costs: Costs, only: Sequence[str] | None = None
) -> dict[str, Path]:
    """The folder of every model of a world, in order of descent; what is not there is trained.

    ``only`` these, the roles that audit them and whatever they descend from (None: all).
    """
    models.mkdir(parents=True, exist_ok=True)
    folders: dict[str, Path] = {}
    wanted = set(ROLES if only is None else (*ROLES, *only))
    for plan in reversed(census.zoo.plans):
        wanted |= {plan.parent} if plan.name in wanted and plan.parent else set()
    for plan in census.zoo.plans:
        if only is not None and plan.name not in wanted:
            continue
        since = time.process_time()
        folders[plan.name] = builder.make_model(census.zoo, world, models, plan.name)
        costs.spent("train" if isinstance(plan.by, Learning) else "edit", since)
    return folders


def discard(census: Population, folders: Mapping[str, Path]) -> None:
    """Delete the edited models: they are made again from their parents in a second or two."""
    for plan in census.zoo.plans:
        if plan.name in folders and not isinstance(plan.by, Learning):
            shutil.rmtree(folders[plan.name], ignore_errors=True)


# ---- audits -----------------------------------------------------------------------------------------------------
class Audited(NamedTuple):
    """One model of known truth as it is scored, and the people behind its scores."""

    scored: ScoredModel
    panels: dict[str, Assessed]


def audit_members(
    members: Sequence[Member], drawn: Drawn, where: tuple[Mapping[str, Path], Path], costs: Costs
) -> list[Audited]:
    """Audit members with one bench; base comes first, and what the first audit read stays."""
    folders, work = where
    write_data(make_world(drawn.world, drawn.shape), work / "data")
    store = MemoryStore(work / "store")
    bench, audits, everyone = Bench(store=store), list[Audited](), population(drawn).audited
    for n, member in enumerate(sorted(members, key=lambda member: member.model != FIRST)):
        since = time.process_time()
        case = case_of(member.model, drawn.world, folders, work)
        audits.append(_scored(member, drawn.world, everyone, _audited(case, work, bench, costs)))
        costs.spent("audit", since)
        if not n:
            store.keep()
        store.forget()
    return audits


def keep_panels(places: Places, world: int, audits: Sequence[Audited]) -> None:
    """Put the people behind these audits beside those that are kept of the world."""
    if places.panels is not None:
        add_panels(panels_path(places.panels, world), {audit.scored.model: audit.panels for audit in audits})


class _Audit(NamedTuple):
    """What one audit leaves. ``names``: the forget groups, which are invented, by the marks that stand for them."""

    report: Report
    domain: Domain
    names: dict[str, str]
    panels: dict[str, Assessed]


def _audited(case: Case, work: Path, bench: Bench, costs: Costs) -> _Audit:
    """One audit by the engine; a finished one is read from its folder."""
    folder, people = work / "audits" / case.name, work / "panels" / f"{case.name}.npz"
    if not people.is_file():  # a journal keeps measurements and nobody's scores: what was broken off is begun again
        shutil.rmtree(folder, ignore_errors=True)
    # No calibration judges the models that calibrations are made from.
    settings = RunSettings(threads=1, store=work / "store", demo=True, package=PROBES, calibrations=work / "none")
    prepared = prepare(case, folder, settings, bench)
    domain = domain_of(prepared.case, recall(bench, prepared.case))
    known = prepared.journal.final
    with recording() as recorded:
        report = Run(prepared, settings, unwatched).report()
    if report.failures:
        broken = "; ".join(f"{failure.probe}: {failure.error}" for failure in report.failures)
        raise AuditError(f"{case.name}: {broken}", f"read {folder / 'run.log'}", ExitCode.INTEGRITY)
    mask = Mask(key_of(folder))
    names = {str(mask(group)): group for group in forget_groups(prepared.case)}
    if not known:
        costs.add({f"audit.{timing.unit}": timing.cpu_s for timing in report.timings})
        write_panels(people, {case.name: assessed_of(recorded, _scores_of(report, names))})
    return _Audit(report, domain, names, read_panels(people)[case.name])


def forget_groups(case: OpenCase) -> tuple[str, ...]:
    """The groups of the forget set, by name."""
    return tuple(sorted({item.group for item in case.items(Texts(cohort="forget"), "all")}))


def _scores_of(report: Report, names: Mapping[str, str]) -> tuple[Score, ...]:
    return tuple(Score.of(evidence.measurement, names) for evidence in report.evidence)


def _scored(member: Member, world: int, audited: tuple[str, ...], audit: _Audit) -> Audited:
    scored = ScoredModel(
        world=world, model=member.model, mechanism=member.mechanism, pool=member.pool, content=member.content,
        kept=len(set(member.taught) & set(audited)), audited=len(audited), domain=audit.domain,
        scores=_scores_of(audit.report, audit.names),
        verdict=audit.report.verdict.word,
    )  # fmt: skip
    return Audited(scored, audit.panels)


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
