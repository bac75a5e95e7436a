"""Score the worlds of the pools, in processes of one thread each; one file a world, resumed world by world.

``python -m studies.zoo.pools --worlds 100 101 --workers 2`` makes and audits these worlds (default: all) and writes
``studies/zoo/scores/world-0100.json`` and so on. A world whose file is there, of the same recipe and the same probes,
is left as it is. Models are kept in the cache, named by content; audits are not.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from audit.disk import cache_root
from audit.nouns import AuditError, ExitCode
from audit.pools import read_world
from studies.zoo import scoring
from studies.zoo.design import WORLDS, share_of
from studies.zoo.members import draw
from studies.zoo.scoring import Places

log = logging.getLogger(__name__)

SCORES = Path(__file__).parent / "scores"
WORLDS_A_PROCESS = 8
"""A process ends after so many worlds: what the libraries keep does not grow, and they are imported less often."""


def one_world(world: int, places: Places) -> Path:
    """Score one world in a process of its own."""
    _quiet()
    return scoring.score_world(draw(world), places)


def score(worlds: Sequence[int], places: Places, workers: int) -> list[str]:
    """Score these worlds and return what went wrong, a line each; a world that fails does not stop the others."""
    for world in worlds:
        share_of(world)
    wrong: list[str] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=WORLDS_A_PROCESS) as pool:
        waiting = {pool.submit(one_world, world, places): world for world in worlds}
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


def costs(scores: Path, worlds: Sequence[int]) -> dict[str, float]:
    """Mean CPU-seconds a world by stage, over those of these worlds that are scored."""
    found = [scores / f"world-{world:04d}.json" for world in worlds]
    read = [read_world(path) for path in found if path.is_file()]
    total = Counter[str]()
    for world in read:
        total.update(world.stages_cpu_s)
    return {stage: seconds / len(read) for stage, seconds in sorted(total.items())}


def _quiet() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("audit", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main() -> int:
    """Score worlds and log what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", default=list(WORLDS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=SCORES, help="where the scores go")
    parser.add_argument("--work", type=Path, default=Path("runs/pools"), help="where unfinished audits are kept")
    parser.add_argument("--discard", action="store_true", help="delete a world's edited models once it is scored")
    args = parser.parse_args()
    _quiet()
    places = Places(cache_root().resolve() / "zoo", args.work.resolve(), args.out.resolve(), args.discard)
    wrong = score(args.worlds, places, args.workers)
    for stage, seconds in costs(places.scores, args.worlds).items():
        log.info("%-28s %8.1f CPU-s a world", stage, seconds)
    return ExitCode.INTEGRITY if wrong else ExitCode.OK


if __name__ == "__main__":
    raise SystemExit(main())
