"""One world of the pools from its number to its scores: made, audited by the real engine, and written as one file.

Every audit of a world shares one bench with one store in memory: whatever base, the references and the ancestor say is
computed for the first audit and read by the others, and what a suspect said is dropped when its audit ends.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from audit.bench import Bench
from audit.calibration import (
    InstalledBehaviours,
    Kind,
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
from audit.engine import Prepared, Run, domain_of, prepare
from audit.planning import Dropped, RunSettings, configured, unwatched
from audit.pools.kinds import (
    KINDS,
    AnyDrawn,
    Census,
    PoolKind,
    audiences,
    case_of,
    census_of,
    dealt,
    kind_of,
    measures,
    roles_of,
    write_data,
)
from audit.pools.memory_store import MemoryStore
from audit.pools.panel_file import Assessed, add_panels, panels_path, read_panels, write_panels
from audit.pools.reassessment import assessed_of
from audit.pools.stage_costs import Costs
from audit.probing import Probe, behaviour_of, recall, recording
from audit.runs import Mask, code_version, key_of
from audit.schema import AuditError, Case, Domain, ExitCode, Report, Texts
from audit.zoo import Member, builder, one_thread, recipes

log = logging.getLogger(__name__)

PROBES = "probes"
FIRST = "base"


class Places(NamedTuple):
    """Where models are kept, where audits run, and where scores go. ``discard``: edited models go after scoring.

    ``panels``: where the people behind the scores are kept (:mod:`audit.pools.panels`); None keeps none.
    """

    models: Path
    work: Path
    scores: Path
    discard: bool = False
    panels: Path | None = None


def score_world(drawn: AnyDrawn, places: Places, notify: Callable[[str], None] = log.info) -> Path:
    """Make what is missing of a world, audit every member, and write its scores; a finished world is left as it is.

    A killed call is taken up where it was: models and finished audits are found again. Raises AuditError (code 3) where
    a probe broke: a world with holes is not written.
    """
    final = world_path(places.scores, drawn.world)
    if is_current(final, drawn):
        return final
    census = census_of(drawn)
    work = places.work / f"{final.stem}-{recipes.world_key(census.zoo, drawn.world)}-{code_version().partition('+')[2]}"
    costs = Costs(work / "costs.json")
    with one_thread():
        folders = make_models(census, drawn.world, places.models, costs)
        notify(f"world {drawn.world}: {len(folders)} models are there")
        audits = audit_members(census.members, drawn, (folders, work), costs)
    keep_panels(places, drawn.world, audits)
    write_world(final, _scores(drawn, costs, audits, record_behaviours(places.scores, kind_of(drawn.world))))
    shutil.rmtree(work, ignore_errors=True)
    if places.discard:
        discard(census, folders)
    total = sum(costs.cpu_s[stage] for stage in ("train", "edit", "audit"))
    notify(f"world {drawn.world}: {len(audits)} audits, {total:.0f} CPU-s")
    return final


def is_current(path: Path, drawn: AnyDrawn) -> bool:
    """Are this world's scores there, of this recipe, of all its members, and of the probes as they are now?"""
    if not path.is_file():
        return False
    scores = read_world(path)
    complete = [model.model for model in scores.models] == [member.model for member in census_of(drawn).members]
    same = complete and scores.recipe == drawn.recorded()
    return same and set(scores.behaviours) == set(measuring(drawn.world)) == standing(path)


def of_recipe(scores: WorldScores, drawn: AnyDrawn) -> bool:
    """Are these scores of this recipe, but for what was dealt beside it since?"""
    recorded, now = (dict(recipe) for recipe in (scores.recipe, drawn.recorded()))
    before, after = (str(recipe.pop("added", "")).split(",") for recipe in (recorded, now))
    return recorded == now and set(before) - {""} <= set(after)


def standing(path: Path) -> set[str]:
    """The probes whose scores in a world's file stand: as configured now, each behaves as it did when it scored."""
    found, records = read_world(path), read_records(path.parent)
    same: set[str] = set()
    kind = kind_of(found.world)
    for name, probe in measuring(found.world).items():
        record = records.get(found.behaviours.get(name, ""))
        as_then = (found.versions.get(name), found.settings.get(name)) == (probe.version, probe.model_dump(mode="json"))
        if record is not None and as_then and not behaviours(PROBES, kind.kind).moved(record):
            same.add(name)
    return same


@cache
def behaviours(package: str, kind: Kind = "causal_lm") -> InstalledBehaviours:
    """How the probes of a package behave, by what was installed when this process first asked."""
    return InstalledBehaviours(package, partial(behaviour_of, kind=kind), kind=kind)


def measuring(world: int) -> dict[str, Probe]:
    """The probes that measure the models of a world, as configured."""
    return {name: probe for name, probe in _of_kind(kind_of(world)).items() if measures(name, world)}


def _of_kind(kind: PoolKind) -> dict[str, Probe]:
    """What is asked of every model of a kind: not what asks of filters alone, which few of them carry."""
    probes = configured({}, PROBES).items()
    return {n: p for n, p in probes if kind.modality in p.requires.modalities and not p.requires.hooked}


def record_behaviours(scores: Path, kind: PoolKind = KINDS["causal_lm"]) -> dict[str, str]:
    """How every probe behaves now, recorded in a folder of scores: digests by probe."""
    return {
        name: recorded(scores, behaviours(PROBES, kind.kind), name, probe.model_dump(mode="json"))
        for name, probe in _of_kind(kind).items()
    }


def _scores(drawn: AnyDrawn, costs: Costs, audits: Sequence["Audited"], digests: dict[str, str]) -> WorldScores:
    probes = measuring(drawn.world)
    digests = {name: digest for name, digest in digests.items() if name in probes}
    return WorldScores(
        world=drawn.world, recipe=drawn.recorded(), behaviours=digests, models=tuple(a.scored for a in audits),
        stages_cpu_s={stage: round(seconds, 2) for stage, seconds in sorted(costs.cpu_s.items())},
        versions={name: probe.version for name, probe in probes.items()},
        settings={name: probe.model_dump(mode="json") for name, probe in probes.items()},
    )  # fmt: skip


# ---- models -----------------------------------------------------------------------------------------------------
def make_models(
    census: Census, world: int, models: Path, costs: Costs, only: Sequence[str] | None = None
) -> dict[str, Path]:
    """The folder of every model of a world, in order of descent; what is not there is trained.

    ``only`` these, the roles that audit them and whatever they descend from (None: all).
    """
    models.mkdir(parents=True, exist_ok=True)
    folders: dict[str, Path] = {}
    wanted = {role for member in only or () for role in roles_of(member, world).values()}
    for plan in reversed(census.zoo.plans):
        wanted |= {plan.parent} if plan.name in wanted and plan.parent else set()
    for plan in census.zoo.plans:
        if only is not None and plan.name not in wanted:
            continue
        since = time.process_time()
        folders[plan.name] = builder.make_model(census.zoo, world, models, plan.name)
        costs.spent("train" if recipes.learns(plan.by) else "edit", since)
    return folders


def discard(census: Census, folders: Mapping[str, Path]) -> None:
    """Delete the edited models: they are made again from their parents in a second or two."""
    for plan in census.zoo.plans:
        if plan.name in folders and not recipes.learns(plan.by):
            shutil.rmtree(folders[plan.name], ignore_errors=True)


# ---- audits -----------------------------------------------------------------------------------------------------
class Audited(NamedTuple):
    """One model of known truth as it is scored, and the people behind its scores."""

    scored: ScoredModel
    panels: dict[str, Assessed]


def audit_members(
    members: Sequence[Member], drawn: AnyDrawn, where: tuple[Mapping[str, Path], Path], costs: Costs
) -> list[Audited]:
    """Audit members with one bench; base comes first, and what the first audit read stays."""
    folders, work = where
    write_data(dealt(drawn), work / "data")
    store = MemoryStore(work / "store")
    bench, audits = Bench(store=store), dict[str, Audited]()
    for audience in audiences(census_of(drawn), members):
        for n, member in enumerate(audience.members):
            since = time.process_time()
            case = case_of(member.model, drawn.world, folders, work)
            audited = _audited(case, drawn.world, (work, bench), costs)
            audits[member.model] = _scored(member, drawn.world, audience.audited, audited)
            costs.spent("audit", since)
            if not n:
                store.keep()
            store.forget()
    return list(audits.values())


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


def _audited(case: Case, world: int, where: tuple[Path, Bench], costs: Costs) -> _Audit:
    """One audit by the engine; a finished one is read from its folder."""
    work, bench = where
    folder, people = work / "audits" / case.name, work / "panels" / f"{case.name}.npz"
    if not people.is_file():  # a journal keeps measurements and nobody's scores: what was broken off is begun again
        shutil.rmtree(folder, ignore_errors=True)
    # No calibration judges the models that calibrations are made from.
    settings = RunSettings(threads=1, store=work / "store", demo=True, package=PROBES, calibrations=work / "none")
    prepared = _left_out(prepare(case, folder, settings, bench), world)
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


def _left_out(prepared: Prepared, world: int) -> Prepared:
    """The same audit without the probes that are measured in other worlds."""
    others = {name: Dropped("world", "measured in a part of the worlds") for name in _of_kind(kind_of(world))}
    absent = {name: dropped for name, dropped in others.items() if not measures(name, world)}
    of_filters = (name for name, probe in configured({}, PROBES).items() if probe.requires.hooked)
    absent |= {name: Dropped("world", "asked of filters alone") for name in of_filters}
    return prepared._replace(planner=prepared.planner.without(absent)) if absent else prepared


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
