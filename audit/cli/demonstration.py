"""The whole thing on models of known truth: train the world once, audit every suspect in it with one bench."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from audit.cli.progress import Progress
from audit.engine import Run, prepare
from audit.planning import RunSettings, Step, Watch, make_bench
from audit.schema import Report
from audit.zoo import build


class Audited(NamedTuple):
    """One finished audit and its folder."""

    name: str
    out: Path
    report: Report


class World(NamedTuple):
    """Which world: its size and its seed, and where trained models are kept."""

    size: str
    seed: int
    cache: Path
    workers: int | None


def demonstrate(world: World, out: Path, how: RunSettings, progress: Progress) -> Sequence[Audited]:
    """Audit every suspect of a world into ``out/<world>-s<seed>/<suspect>``.

    A folder that another version of the code or another world left is kept aside and audited anew: a demo is nobody's
    evidence.
    """
    progress.say(f"world {world.size}, seed {world.seed}: training, or taking it from {world.cache}")

    def trained(name: str, finished: int, of: int) -> None:
        progress.watch(Step("trained", name, finished, of, finished=True))

    zoo = build(world.size, world.seed, world.cache, world.workers, trained)
    bench = make_bench(how)
    audits: list[Audited] = []
    for count, (name, case) in enumerate(zoo.cases.items(), 1):
        folder = out / f"{world.size}-s{world.seed}" / name
        prepared = prepare(case, folder, how, bench)
        old = prepared.journal.planned()
        stale = old is not None and old.plan_hash != prepared.planner.plan.plan_hash
        fresh = replace(how, force_new=True) if stale else how
        report = Run(prepared, fresh, _about(name, progress)).report()
        progress.watch(Step("audited", f"{name}: {report.verdict.word}", count, len(zoo.cases), finished=True))
        audits.append(Audited(name, folder, report))
    return audits


def _about(name: str, progress: Progress) -> Watch:
    """Progress of one audit among several: every step says whose it is."""
    return lambda step: progress.watch(step._replace(detail=f"{name} {step.detail}".strip()))
