"""Does a suspect still answer through base's circuit? ``python -m studies.difficulty.knockout case.toml``

Reads an ordinary case (base, suspect, and a reference or the ancestor as the model that never knew) and prints, for the
forget items and for retained ones, what cutting base's circuit costs each model beyond depth-matched edges. With
``--worlds`` it asks that of the zoo's models of known truth instead, and writes knockout.json here.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray

from audit.bench import Bench
from audit.case import Rows, load_case, open_case
from audit.checkpoints import resolve
from audit.circuits import Knocked, knocked
from audit.schema import Checkpoint, Interval, Record, Source, Texts
from audit.storage import write_atomic
from audit.zoo import draw, folder_of, one_thread, population
from studies.difficulty.worlds import opened
from studies.provenance import Stamp, stamp

HERE = Path(__file__).parent
NULL, DRAWS = "null", 2000
MODELS = ("head_edit", "last_layer", "refusal", "npo", "grad_diff", "rmu_shallow", "reference_0")
log = logging.getLogger(__name__)


class Transfer(NamedTuple):
    """One model: its mean drop in nats, its place between the null (0) and base (1), and the place's 95 % interval."""

    nats: float
    place: float
    lo: float
    hi: float


class PlacedModel(Record):
    """One model of one world: mean drops in nats, and its place between the null (0) and base (1)."""

    world: int
    model: str
    forget_nats: float
    retain_nats: float
    whole_loss_nats: float
    place: float
    ci95: Interval


class Results(Record):
    """Every model of every world; intervals resample people inside a world."""

    stamp: Stamp
    worlds: tuple[int, ...]
    models: tuple[PlacedModel, ...]


def transfer(cuts: Mapping[str, Knocked], name: str, groups: tuple[str, ...]) -> Transfer:
    """The place of a model between the null and base, people resampled."""
    people = [np.array([i for i, g in enumerate(groups) if g == group]) for group in dict.fromkeys(groups)]
    mean = {
        model: np.array([np.nanmean(cuts[model].drop[at]) if np.isfinite(cuts[model].drop[at]).any() else np.nan
                         for at in people])
        for model in (name, "base", NULL)
    }  # fmt: skip
    known = np.isfinite(mean["base"])
    mine, top, floor = (mean[model][known] for model in (name, "base", NULL))
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(mine), (DRAWS, len(mine)))

    def place(at: ndarray) -> ndarray:
        return (mine[at] - floor[at]).mean(-1) / (top[at] - floor[at]).mean(-1)

    lo, hi = np.percentile(place(drawn), [2.5, 97.5])
    return Transfer(float(mine.mean()), float(place(np.arange(len(mine)))), float(lo), float(hi))


def of_world(number: int) -> list[PlacedModel]:
    """Those models of a world that are there: fakes, unlearners, and a reference that is not the null."""
    setup, bench = opened(number), Bench()
    zoo, root = population(draw(number)).zoo, setup.world.base.parent
    folders = {"base": setup.world.base, NULL: setup.world.references[1]}
    for name in MODELS:
        if any(plan.name == name for plan in zoo.plans) and folder_of(zoo, number, root, name).exists():
            folders[name] = folder_of(zoo, number, root, name)
    models = {name: resolve(Source(path=str(folder)), folder) for name, folder in folders.items()}
    seen = setup.world.seen
    forget, retain = (knocked(bench, models["base"], models, rows, seen.retain) for rows in (seen.forget, seen.retain))
    placed: list[PlacedModel] = []
    for name in folders:
        got = transfer(forget, name, seen.forget.group_ids)
        placed.append(
            PlacedModel(
                world=number, model=name, forget_nats=got.nats, retain_nats=float(np.nanmean(retain[name].drop)),
                whole_loss_nats=float(np.nanmean(forget[name].intact)), place=got.place,
                ci95=Interval(lo=got.lo, hi=got.hi),
            )
        )  # fmt: skip
        log.info("world %d, %s: %.2f nats, place %.2f (%.2f to %.2f)", number, name, got.nats, *got[1:])
    return placed


def of_case(path: Path) -> str:
    """The same for a case of the user's, as a table."""
    with tempfile.TemporaryDirectory() as out:
        case = open_case(load_case(path), path.resolve().parent, Path(out))
        never = case.references[0] if case.references else case.ancestor
        models: dict[str, Checkpoint] = {"base": case.base, "suspect": case.suspect}
        if never is not None:
            models[NULL] = never
        lines = [f"{'model':10} {'forget items':>14} {'retained items':>16}   nats beyond depth-matched edges"]
        rows: dict[str, Rows] = {name: case.rows(Texts(cohort=name), "all") for name in ("forget", "retain")}
        cuts = {name: knocked(Bench(), case.base, models, texts, rows["retain"]) for name, texts in rows.items()}
        for name in models:
            drops = [float(np.nanmean(cuts[cohort][name].drop)) for cohort in ("forget", "retain")]
            lines.append(f"{name:10} {drops[0]:14.3f} {drops[1]:16.3f}")
        if never is not None:
            got = transfer(cuts["forget"], "suspect", rows["forget"].group_ids)
            lines.append(f"suspect is at {got.place:.2f} ({got.lo:.2f} to {got.hi:.2f}); 0 never knew, 1 base")
        return "\n".join(lines) + "\n"


def main() -> None:
    """One case, or the zoo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="?", type=Path, help="a case file that names a suspect")
    parser.add_argument("--worlds", type=int, nargs="+", help="worlds of the zoo, whose models are trained if missing")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    if given.case:
        sys.stdout.write(of_case(given.case))
    with one_thread():
        models = tuple(placed for number in given.worlds or () for placed in of_world(number))
    if models:
        results = Results(stamp=stamp(0), worlds=tuple(given.worlds), models=models)
        write_atomic(HERE / "knockout.json", (results.model_dump_json(indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
