"""Making calibrations: score what is missing of a pool, read all scores, write every probe's file and the joint rule.

The pool is the zoo's worlds, or real checkpoints that a user lists; both leave the same records.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from audit.behaviour import InstalledBehaviours, attest, read_records, recorded
from audit.behaviour_scores import behaviour_of
from audit.calibration import Calibrated
from audit.engine import How, Step, Watch, run
from audit.findings import Rate, Report
from audit.fitting import Made, Pooled, calibrate, write_all
from audit.joint import Joint
from audit.nouns import AuditError, ExitCode, Missing
from audit.planning import configured
from audit.pool_file import Listed, PoolFile, PoolWorld
from audit.pools import Score, Scored, WorldScores, read_pool, world_path, write_world
from audit.render.wording import number
from studies.zoo import build
from studies.zoo import pools as zoo
from studies.zoo.design import WORLDS, share_of
from studies.zoo.scoring import Places

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

    made: Made
    folder: Path
    worlds: int
    stages_cpu_s: dict[str, float]


def renew_zoo(out: Path, quick: bool, workers: int, work: Path, stack: str | None = None) -> Renewed:
    """Calibrations from the zoo: worlds that are not scored by the probes as they are now are scored first.

    ``stack``: the device that their models are trained together on; None trains them one by one on the CPU.
    """
    worlds = [world for world in WORLDS if not share_of(world).full][:QUICK] if quick else WORLDS
    scores = zoo.SCORES if not quick else work / "scores"
    places = Places(build.cache_root().resolve() / "zoo", (work / "audits").resolve(), scores.resolve())
    wrong = zoo.score(worlds, places, workers, stack)
    if wrong:
        raise AuditError(
            "; ".join(wrong), "the other worlds are kept: the same command takes it up", ExitCode.INTEGRITY
        )
    attest(scores, InstalledBehaviours("probes", behaviour_of))
    name = f"zoo{' (quick)' if quick else ''}"
    command = f"residua calibrate{' --quick' if quick else ''}"
    pooled = Pooled(name, command, quick, apart=zoo.APART, records=read_records(scores))
    return _renewed(_of(read_pool(scores), worlds), pooled, out)


def renew_pool(pool: PoolFile, stated: Path, out: Path, how: How, watch: Watch) -> Renewed:
    """Calibrations from the checkpoints that a user lists; finished audits are found again."""
    worlds = [(world, listed) for world in pool.world for listed in _split(pool, world)]
    numbers = list(range(len(worlds)))
    behaviours = InstalledBehaviours(how.package, behaviour_of)
    for place, (world, listed) in zip(numbers, worlds, strict=True):
        watch(Step("pool", f"world {place}", place, len(worlds)))
        scores = _world(pool, place, world, listed, out / "audits", how)
        digests = {name: recorded(out / "scores", behaviours, name, chosen) for name, chosen in scores.settings.items()}
        write_world(world_path(out / "scores", place), scores.model_copy(update={"behaviours": digests}))
    note = "" if pool.replicate == "world" else ", replicated by checkpoint"
    command = f"residua calibrate --pool {stated.name} --out {out.name}"
    pooled = Pooled(f"{pool.name}{note}", command, False, records=read_records(out / "scores"))
    return _renewed(_of(read_pool(out / "scores"), numbers), pooled, out)


def _of(found: Sequence[WorldScores], wanted: Sequence[int]) -> tuple[WorldScores, ...]:
    return tuple(world for world in found if world.world in wanted)


def _renewed(worlds: Sequence[WorldScores], pool: Pooled, out: Path) -> Renewed:
    made = calibrate(worlds, pool)
    write_all(out, made)
    stages = Counter[str]()
    for world in worlds:
        stages.update(world.stages_cpu_s)
    return Renewed(made, out, len(worlds), {name: round(cpu_s, 1) for name, cpu_s in sorted(stages.items())})


# ---- shown ------------------------------------------------------------------------------------------------------
def rows(made: Made) -> tuple[Row, ...]:
    """Every calibrated measurement, and the joint rule last."""
    found = [
        _row(f"{probe}: {m.name}".replace("_", " "), m)
        for probe, calibration in made.calibrations.items()
        for m in calibration.measurements
    ]
    return (*found, _row("joint rule", made.joint))


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


def _count(found: Rate) -> str:
    return f"{found.k}/{found.n} worlds, ≤ {number(100 * found.upper95)} %"


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
    pool: PoolFile, number: int, world: PoolWorld, some: Sequence[_Known], audits: Path, how: How
) -> WorldScores:
    """Audit the checkpoints of one unit by this case alone, and keep their scores."""
    scored: list[Scored] = []
    costs = Counter[str]()
    probes = configured(pool.probes, how.package)
    for place, known in enumerate(some):
        name = f"{number:04d}-{place:03d}"
        case = world.case(name, known.listed, pool.probes)
        report = run(case, audits / name, replace(how, calibrations=audits / "none"))
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


def _scored(number: int, known: _Known, report: Report) -> Scored:
    domain = report.domain
    assert not isinstance(domain, Missing), "a report of this version has its domain"
    people = domain.forget_people
    kept = people if known.listed.kept is None else known.listed.kept
    return Scored(
        world=number, model=known.listed.path, mechanism=known.listed.mechanism,
        pool="knowing" if known.knows else "clean", kept=kept if known.knows else 0, audited=people, domain=domain,
        scores=tuple(Score.of(e.measurement) for e in report.evidence), verdict=report.verdict.word,
    )  # fmt: skip
