"""Score the worlds of the pools, in processes of one thread each; one file a world, resumed world by world.

``python -m audit.pools.schedule --worlds 100 101 --workers 2`` makes and audits these worlds (default: all) and writes
``studies/zoo/scores/world-0100.json`` and so on. A world whose file is there, of the same recipe and the same probes,
is left as it is; where only probes have come that it lacks, these alone are measured on the same models and added
(:mod:`audit.pools.add_probe`), and where members have, these alone are audited (:mod:`audit.pools.add_members`). Models
are kept in the cache, named by content, and so are the people behind the scores (:mod:`audit.pools.panels`); audits are
not. ``--kind image_classifier`` is the same for worlds of images (``studies/vision_zoo/scores``).

Where a CUDA device is present, all models of all worlds that learn a corpus are trained together on it first
(:mod:`audit.zoo.stacked_training`; ``--stack none``: one by one on the CPU, as without a device); edits and audits
follow in the processes. Those models and audits lie in places of their own, and the scores of their worlds say so: they
have a stage ``stacked.<device>``. ``--stack cpu`` shows the same path without a device.
"""

import argparse
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from audit.calibration import read_world, world_path, write_world
from audit.pools import add_members, add_probe, score_world
from audit.pools.kinds import KINDS, AnyDrawn, census_of, kind_of
from audit.pools.kinds import drawn_of as draw
from audit.pools.score_world import Places
from audit.schema import AuditError, ExitCode
from audit.storage import cache_root
from audit.zoo import Drawn, population, stacked_training

log = logging.getLogger(__name__)

SCORES = KINDS["causal_lm"].scores
PANELS = cache_root() / "pools" / "panels"
"""Where the people behind the scores are kept, so that statistics can be computed again without a model."""
APART = ("remind_landscape", "concept_vectors", "trigger_search")
"""Calibrated, and not part of the joint rule. The first reads outputs and compares cohorts, which are exchangeable in
the zoo and differ in topic and format elsewhere: the joint rule would learn here to trust it there (README). The second
reads little beyond reverse patch in these worlds and is moved by whoever was taught other people in the same form: with
it the rule finds no more and is wrong of one clean model in sixty worlds instead of none. The third is measured in some
worlds alone (:data:`audit.pools.kinds.SOME_WORLDS`)."""
STACK = "where models are trained together: cuda, cpu, auto (default: a CUDA device where there is one), or none"


def one_world(world: int, places: Places, before: Mapping[str, float], probes: Sequence[str] = ()) -> Path:
    """Score one world in a process of its own; ``before`` is what was spent on it until now, CPU-seconds by stage.

    ``probes``: add the scores of these alone, and do nothing else.
    """
    _quiet()
    drawn, path = draw(world), world_path(places.scores, world)
    if probes:
        return add_probe.add_scores(drawn, places, only=probes)
    if add_probe.addable(path, drawn):
        add_probe.add_scores(drawn, places)
    if add_members.lacking_members(path, drawn):
        return add_members.add_members(drawn, places)
    if not score_world.is_current(path, drawn):
        score_world.score_world(drawn, places)
        if before:
            scores = read_world(path)
            write_world(path, scores.model_copy(update={"stages_cpu_s": {**scores.stages_cpu_s, **before}}))
    return path


def score(
    worlds: Sequence[int], places: Places, workers: int, stack: str | None, probes: Sequence[str] = ()
) -> list[str]:
    """Score these worlds and return what went wrong, a line each; a world that fails does not stop the others.

    ``stack``: the device that models are trained together on before (:func:`stacked.device_for`); None is one by one.
    ``probes``: these alone are measured, on worlds that all others have scored; AuditError (code 2) where one is not.
    """
    drawn_worlds = [draw(world) for world in worlds]
    for drawn in drawn_worlds if probes else ():
        add_probe.lacking(world_path(places.scores, drawn.world), drawn, probes)
    before = dict[int, dict[str, float]]()
    if stack is not None:
        models, work = stacked_training.places_of(places.models, stack), stacked_training.places_of(places.work, stack)
        places = places._replace(models=models, work=work)
        before = {} if probes else _together(worlds, places, stack)
    wrong: list[str] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(one_world, world, places, before.get(world, {}), probes): world for world in worlds}
        try:
            for done in as_completed(waiting):
                error = done.exception()
                if isinstance(error, AuditError):
                    wrong.append(f"world {waiting[done]}: {error.what}")
                    log.error(wrong[-1])
                elif error is not None:
                    raise error
        finally:
            pool.shutdown(cancel_futures=True)
    return wrong


def _together(worlds: Sequence[int], places: Places, device: str) -> dict[int, dict[str, float]]:
    """Train the models of the worlds that are not scored yet; what each world's cost, by the stage's name."""
    drawn = [recipe for world in worlds if isinstance(recipe := draw(world), Drawn)]
    paths = {recipe.world: world_path(places.scores, recipe.world) for recipe in drawn}
    missing = [
        recipe
        for recipe in drawn
        if not score_world.is_current(paths[recipe.world], recipe)
        and not (add_probe.addable(paths[recipe.world], recipe) and _whole(paths[recipe.world], recipe))
    ]
    spent = stacked_training.make_learned(
        {recipe.world: population(recipe).zoo for recipe in missing}, places.models, device
    )
    return {world: {f"stacked.{device}": round(cpu_s, 2)} for world, cpu_s in spent.items()}


def _whole(path: Path, drawn: AnyDrawn) -> bool:
    return [m.model for m in read_world(path).models] == [m.model for m in census_of(drawn).members]


def costs(scores: Path, worlds: Sequence[int]) -> dict[str, float]:
    """Mean CPU-seconds a world by stage, over those of these worlds that are scored."""
    paths = [scores / f"world-{world:04d}.json" for world in worlds]
    read = [read_world(path) for path in paths if path.is_file()]
    total = Counter[str]()
    for world in read:
        total.update(world.stages_cpu_s)
    return {stage: seconds / len(read) for stage, seconds in sorted(total.items())}


def _quiet() -> None:
    """Hundreds of audits are silent about themselves; how far the pools are is said."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    levels = {
        "audit": logging.ERROR,
        "transformers": logging.ERROR,
        "audit.pools": logging.INFO,
        "audit.zoo": logging.INFO,
    }
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def main() -> int:
    """Score worlds and log what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=tuple(KINDS), default="causal_lm", help="whose worlds (default: causal_lm)")
    parser.add_argument("--worlds", type=int, nargs="+", help="(default: all that rules are fitted on)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where the scores go (default: beside the kind's study)")
    parser.add_argument("--panels", type=Path, default=PANELS, help="where the people behind the scores go")
    parser.add_argument("--work", type=Path, default=Path("runs/pools"), help="where unfinished audits are kept")
    parser.add_argument("--stack", default="auto", metavar="DEVICE", help=STACK)
    parser.add_argument("--discard", action="store_true", help="delete a world's edited models once it is scored")
    args = parser.parse_args()
    _quiet()
    since, stack = time.monotonic(), stacked_training.device_for(args.stack)
    models, panels = cache_root().resolve() / "zoo", args.panels.resolve()
    kind = KINDS[args.kind]
    worlds = list(kind.worlds) if args.worlds is None else args.worlds
    if others := [world for world in worlds if kind_of(world) != kind]:
        raise AuditError(f"world {others[0]} is none of kind {kind.kind}", f"name worlds of {kind.worlds[0]} and on")
    places = Places(models, args.work.resolve(), (args.out or kind.scores).resolve(), args.discard, panels)
    wrong = score(worlds, places, args.workers, stack)
    for stage, seconds in costs(places.scores, worlds).items():
        log.info("%-28s %8.1f CPU-s a world", stage, seconds)
    manner = "one by one on the CPU" if stack is None else f"together on {stacked_training.described(stack)}"
    spent = sum(os.times()[:4])
    log.info(
        "the whole call: %.0f s, %.0f CPU-s in all processes; models made %s", time.monotonic() - since, spent, manner
    )
    return ExitCode.INTEGRITY if wrong else ExitCode.OK


if __name__ == "__main__":
    raise SystemExit(main())
