"""The statistics of a scored world computed again from its people, without a model.

Scoring keeps the panels that a world's scores were computed from (:mod:`audit.pools.panel_file`), in the cache.
``python -m audit.pools.panels --worlds 100 101`` assesses these again with the statistics as they are now and rewrites
``world-0100.json`` and so on: values, intervals, tests, floors, overall effects, the readings that come with them, and
the in-case verdict. What no assessment gave stays as it was measured. ``--words`` judges the scores as they are, which
needs no panels, where only floors or the ladder of verdicts have changed.
"""

import argparse
import logging
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from audit.calibration import Score, ScoredModel, read_world, world_path, write_world
from audit.judging import Given, given
from audit.pools.kinds import case_of, floors_of, roles_of
from audit.pools.panel_file import panels_path, read_panels
from audit.pools.reassessment import assessed_again, name_of, word_of
from audit.pools.schedule import PANELS, SCORES
from audit.schema import AuditError, ExitCode
from audit.zoo import POOL_WORLDS

log = logging.getLogger(__name__)


def restat(world: int, scores: Path, panels: Path) -> Path:
    """Assess a scored world again from its panels, and write its scores; equal statistics give equal bytes.

    AuditError (code 3) where it has no panels.
    """
    path, where = world_path(scores, world), panels_path(panels, world)
    if not where.is_file():
        raise AuditError(
            f"{path.name} cannot be assessed again: {where} is not there",
            "panels are kept while a world is scored: delete its scores, so that it is scored again",
            ExitCode.INTEGRITY,
        )
    before, by_model, floors = read_world(path), read_panels(where), floors_of(world)

    def again(model: ScoredModel) -> ScoredModel:
        own = by_model.get(model.model, {})

        def now(score: Score) -> Score:
            panelled = score.mode == "controlled" and name_of(score) in own
            return assessed_again(score, own[name_of(score)]).score if panelled else score

        new = tuple(map(now, model.scores))
        return model.model_copy(update={"scores": new, "verdict": word_of(new, _roles(model), floors)})

    write_world(path, before.model_copy(update={"models": tuple(map(again, before.models))}))
    return path


def reword(world: int, scores: Path) -> Path:
    """Judge a scored world again from its scores alone, and write its in-case words."""
    path, floors = world_path(scores, world), floors_of(world)
    before = read_world(path)
    models = [m.model_copy(update={"verdict": word_of(m.scores, _roles(m), floors)}) for m in before.models]
    write_world(path, before.model_copy(update={"models": tuple(models)}))
    return path


def _roles(model: ScoredModel) -> Given:
    """What the audit of a model was given."""
    names = roles_of(model.model, model.world).values()
    return given(case_of(model.model, model.world, {name: Path(name) for name in names}, Path()))


def main() -> int:
    """Assess worlds again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", default=list(POOL_WORLDS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scores", type=Path, default=SCORES, help="where the scores lie")
    parser.add_argument("--panels", type=Path, default=PANELS, help="where the panels lie")
    parser.add_argument("--words", action="store_true", help="judge again from the scores alone")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    again = partial(restat, scores=args.scores, panels=args.panels)
    if args.words:
        again = partial(reword, scores=args.scores)
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for path in pool.map(again, args.worlds):
            log.info("%s: assessed again", path.name)
    return ExitCode.OK


if __name__ == "__main__":
    raise SystemExit(main())
