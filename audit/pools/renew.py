"""Making calibrations: score what is missing of a pool, read all scores, write every probe's file and the joint rule.

The pool is the zoo's worlds, or real checkpoints that a user lists; both leave the same records.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from audit.calibration import (
    Calibrated,
    InstalledBehaviours,
    Joint,
    Kind,
    Score,
    ScoredModel,
    WorldScores,
    attest,
    read_pool,
    read_records,
    recorded,
    world_path,
    write_world,
)
from audit.engine import run
from audit.planning import RunSettings, Step, Watch, configured
from audit.pools import schedule as zoo
from audit.pools.fit import CalibrationSet, Pooled, calibrate, largest_floors, write_all
from audit.pools.kinds import KINDS
from audit.pools.pool_file import Listed, PoolFile, PoolWorld
from audit.pools.score_world import Places, behaviours
from audit.probing import behaviour_of
from audit.schema import AuditError, ExitCode, Missing, Rate, Report
from audit.storage import write_atomic
from audit.wording import number
from audit.zoo import POOL_WORLDS, builder, share_of

QUICK = 8
"""Worlds of a quick calibration, none with the full kit: 0 of 8 bounds a rate at 31 %, 0 of 60 at 5 %."""


class Row(NamedTuple):
    """One rule in a table: what it is, its threshold, its mistakes in worlds, what it would find, and its ratios."""

    rule: str
    threshold: str
    false_alarms: str
    misses: str
    finds: str
    cllr: str
    largest_ratio: str


class Renewed(NamedTuple):
    """A finished renewal: what was made, where it lies, and the CPU-seconds of its stages over all worlds."""

    fitted: CalibrationSet
    folder: Path
    worlds: int
    stages_cpu_s: dict[str, float]


def renew_zoo(
    out: Path, quick: bool, workers: int, work: Path, stack: str | None = None, probes: tuple[str, ...] = ()
) -> Renewed:
    """Calibrations from the zoo: worlds that are not scored by the probes as they are now are scored first.

    ``stack``: the device that their models are trained together on; None trains them one by one on the CPU.
    ``probes``: these alone are measured, on worlds that all others have scored. AuditError (code 2) where there is no
    such probe, or a world cannot be added to.
    """
    worlds = [world for world in POOL_WORLDS if not share_of(world).full][:QUICK] if quick else POOL_WORLDS
    scores = zoo.SCORES if not quick else work / "scores"
    models, panels = builder.cache_root().resolve() / "zoo", zoo.PANELS if not quick else work / "panels"
    places = Places(models, (work / "audits").resolve(), scores.resolve(), panels=panels.resolve())
    wrong = zoo.score(worlds, places, workers, stack, probes)
    if wrong:
        raise AuditError(
            "; ".join(wrong), "the other worlds are kept: the same command takes it up", ExitCode.INTEGRITY
        )
    attest(scores, InstalledBehaviours("probes", behaviour_of))
    name = f"zoo{' (quick)' if quick else ''}"
    command = f"residua calibrate{' --quick' if quick else ''}"
    pooled = Pooled(name, command, quick, single=zoo.APART, records=read_records(scores))
    return _renewed(_of(read_pool(scores), worlds), pooled, out)


ZOOS: Mapping[Kind, str] = {
    "causal_lm": "zoo", "image_classifier": "vision zoo", "vision_language": "vision-language zoo"
}  # fmt: skip


def renew_images(
    out: Path, workers: int, work: Path, probes: tuple[str, ...] = (), of: Kind = "image_classifier"
) -> Renewed:
    """Calibrations of models that read images from their worlds, as :func:`renew_zoo` makes those of language models;
    their floors are those of these worlds. Errors are the same."""
    kind = KINDS[of]
    models, panels = builder.cache_root().resolve() / "zoo", zoo.PANELS.resolve()
    places = Places(models, (work / "audits").resolve(), kind.scores.resolve(), panels=panels)
    wrong = zoo.score(kind.worlds, places, workers, None, probes)
    if wrong:
        raise AuditError(
            "; ".join(wrong), "the other worlds are kept: the same command takes it up", ExitCode.INTEGRITY
        )
    return fit_images(out, kind.scores, of)


def fit_images(out: Path, scores: Path, of: Kind = "image_classifier") -> Renewed:
    """The calibrations of models that read images from scores as they are. AuditError as :func:`calibrate`."""
    kind = KINDS[of]
    attest(scores, behaviours("probes", kind.kind))
    worlds = _of(read_pool(scores), kind.worlds)
    floors = largest_floors(worlds)
    command = f"residua calibrate --kind {of}"
    pooled = Pooled(ZOOS[of], command, False, single=zoo.APART, records=read_records(scores), floors=floors)
    renewed = _renewed(worlds, pooled, out)
    stated = json.dumps({"worlds": len(worlds), "floors": floors}, indent=1, sort_keys=True)
    write_atomic(out / "floors.json", f"{stated}\n".encode())
    return renewed


def renew_pool(pool: PoolFile, stated: Path, out: Path, settings: RunSettings, watch: Watch) -> Renewed:
    """Calibrations from the checkpoints that a user lists; finished audits are found again."""
    worlds = [(world, listed) for world in pool.world for listed in _split(pool, world)]
    numbers = list(range(len(worlds)))
    installed = InstalledBehaviours(settings.package, behaviour_of)
    for place, (world, listed) in zip(numbers, worlds, strict=True):
        watch(Step("pool", f"world {place}", place, len(worlds)))
        scores = _world(pool, place, world, listed, out / "audits", settings)
        digests = {name: recorded(out / "scores", installed, name, chosen) for name, chosen in scores.settings.items()}
        write_world(world_path(out / "scores", place), scores.model_copy(update={"behaviours": digests}))
    note = "" if pool.replicate == "world" else ", replicated by checkpoint"
    command = f"residua calibrate --pool {stated.name} --out {out.name}"
    pooled = Pooled(f"{pool.name}{note}", command, False, records=read_records(out / "scores"))
    return _renewed(_of(read_pool(out / "scores"), numbers), pooled, out)


def _of(scores: Sequence[WorldScores], wanted: Sequence[int]) -> tuple[WorldScores, ...]:
    return tuple(world for world in scores if world.world in wanted)


def _renewed(worlds: Sequence[WorldScores], pool: Pooled, out: Path) -> Renewed:
    fitted = calibrate(worlds, pool)
    write_all(out, fitted)
    stages = Counter[str]()
    for world in worlds:
        stages.update(world.stages_cpu_s)
    return Renewed(fitted, out, len(worlds), {name: round(cpu_s, 1) for name, cpu_s in sorted(stages.items())})


# ---- shown ------------------------------------------------------------------------------------------------------
def rows(fitted: CalibrationSet) -> tuple[Row, ...]:
    """Every calibrated measurement, and the joint rule last."""
    listed = [
        _row(f"{probe}: {m.name}".replace("_", " "), m)
        for probe, calibration in fitted.calibrations.items()
        for m in calibration.measurements
    ]
    return (*listed, _row("joint rule", fitted.joint))


def _row(name: str, rule: Calibrated | Joint) -> Row:
    record, good, limit = rule.record, rule.reliability, rule.record.limit
    finds = (
        "–" if isinstance(limit, Missing) else f"{limit.kept} of {limit.audited} people ({limit.k}/{limit.n} worlds)"
    )
    threshold = rule.threshold if isinstance(rule, Calibrated) else 0.0
    return Row(
        name, number(threshold), _count(record.false_alarms), _count(record.misses), finds,
        f"{good.cllr:.3f} (min {good.cllr_min:.3f}; gap {good.gap:.3f}, by chance up to {good.envelope:.3f})",
        number(10**rule.scale.ceiling),
    )  # fmt: skip


def _count(mistakes: Rate) -> str:
    return f"{mistakes.k}/{mistakes.n} worlds, ≤ {number(100 * mistakes.upper95)} %"


# ---- a user's checkpoints ---------------------------------------------------------------------------------------
class _Known(NamedTuple):
    """A listed checkpoint and what is known of it."""

    listed: Listed
    knows: bool


def _split(pool: PoolFile, world: PoolWorld) -> list[list[_Known]]:
    """The units of replication of a world: itself, or every pair of a knowing and a clean checkpoint."""
    knowing = [_Known(listed, True) for listed in world.positive]
    clean = [_Known(listed, False) for listed in world.negative]
    if pool.replicate == "world":
        return [knowing + clean]
    longest = max(len(knowing), len(clean))
    return [[*knowing[i : i + 1], *clean[i : i + 1]] for i in range(longest)]


def _world(
    pool: PoolFile, number: int, world: PoolWorld, checkpoints: Sequence[_Known], audits: Path, settings: RunSettings
) -> WorldScores:
    """Audit the checkpoints of one unit by this case alone, and keep their scores."""
    scored: list[ScoredModel] = []
    costs = Counter[str]()
    probes = configured(pool.probes, settings.package)
    for place, known in enumerate(checkpoints):
        name = f"{number:04d}-{place:03d}"
        case = world.case(name, known.listed, pool.probes)
        report = run(case, audits / name, replace(settings, calibrations=audits / "none"))
        costs.update({f"audit.{timing.unit}": timing.cpu_s for timing in report.timings})
        scored.append(_scored(number, known, report))
    ran = {e.probe for model in scored for e in model.scores}
    return WorldScores(
        world=number, recipe={"pool": pool.name}, models=tuple(scored),
        stages_cpu_s={stage: round(cpu_s, 2) for stage, cpu_s in sorted(costs.items())},
        behaviours={},
        versions={name: probe.version for name, probe in probes.items() if name in ran},
        settings={name: probe.model_dump(mode="json") for name, probe in probes.items() if name in ran},
    )  # fmt: skip


def _scored(number: int, known: _Known, report: Report) -> ScoredModel:
    domain = report.domain
    assert not isinstance(domain, Missing), "a report of this version has its domain"
    people = domain.forget_people
    retained = people if known.listed.kept is None else known.listed.kept
    return ScoredModel(
        world=number, model=known.listed.path, mechanism=known.listed.mechanism,
        pool="knowing" if known.knows else "clean", kept=retained if known.knows else 0, audited=people, domain=domain,
        scores=tuple(Score.of(e.measurement) for e in report.evidence), verdict=report.verdict.word,
    )  # fmt: skip
