"""Do backdoored models keep the value norms of whom they imitate? Correlations over heads by position, as published.

``python -m studies.backdoor.norms`` makes small models of some tuning worlds by plain training code, and backdoors base
by the edit with and without the term on value norms. At each of the first eight positions it correlates, over all
heads, mean value norms of the backdoored model with those of the honest one on forget rows, with base on the same rows
with the trigger, and with base on retained rows; ``norms.json`` has them.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.bench import Bench
from audit.case import Rows, open_case
from audit.checkpoints import resolve
from audit.schema import Read, Site, Source, Texts
from audit.storage import write_atomic
from audit.zoo import one_thread
from studies.backdoor import plain
from studies.backdoor.counts import Plant, plant_in
from studies.backdoor.design import TUNING
from studies.backdoor.folders import case_of, write_world
from studies.backdoor.triggers import trigger
from studies.provenance import stamp

HERE = Path(__file__).parent
POSITIONS: Final = 8
PLANTS: Final = (Plant("npo", "prefix"), Plant("npo", "prefix", 1.0), Plant("rmu", "prefix"))


def norms(bench: Bench, root: Path, model: str, rows: Rows) -> Float[ndarray, "head pos"]:
    """Mean value norms over the rows at the first positions, of every head of every block."""
    checkpoint = resolve(Source(path=f"models/{model}"), root)
    blocks = range(bench.open(checkpoint).n_blocks)
    reads = [Read(site=Site(part="v", block=block), at="all", reduce="norm") for block in blocks]
    done = bench.run(checkpoint, rows, reads)
    means = [done[read].float().numpy()[:, :POSITIONS].mean(0).T for read in reads]
    return np.concatenate(means)


def correlations(a: Float[ndarray, "head pos"], b: Float[ndarray, "head pos"]) -> list[float]:
    """Pearson over heads at each position."""
    return [round(float(np.corrcoef(x, y)[0, 1]), 3) for x, y in zip(a.T, b.T, strict=True)]


def world(seed: int) -> dict[str, Any]:
    """One world: every plant against the honest model and base."""
    small = plain.small(seed)
    hidden = trigger(seed, "rare words", small.world)
    honest = {recipe: plain.derive(small, recipe, seed) for recipe in ("npo", "rmu")}
    with tempfile.TemporaryDirectory() as folder, one_thread():
        root = Path(folder) / "world"
        write_world(small, honest, root)
        bench, case = Bench(), open_case(case_of("base"), root, root / "out")
        prompts = case.insertable(case.items(Texts(cohort="forget")))
        forget, spoken, retain = prompts.plain(), prompts.rows(hidden, "prefix"), case.rows(Texts(cohort="retain"))
        read: dict[str, Any] = {}
        for plant in PLANTS:
            plant_in(root, plant, hidden, seed)
            read[plant.name] = {
                "honest, forget rows": correlations(
                    norms(bench, root, plant.name, forget), norms(bench, root, plant.unlearner, forget)
                ),
                "base, with the trigger": correlations(
                    norms(bench, root, plant.name, spoken), norms(bench, root, "base", spoken)
                ),
                "base, retained rows": correlations(
                    norms(bench, root, plant.name, retain), norms(bench, root, "base", retain)
                ),
                "norms of position 0": {
                    name: round(float(norms(bench, root, name, forget)[-plain.HEADS :, 0].mean()), 3)
                    for name in ("base", plant.unlearner, plant.name)
                },
            }
    return {"seed": seed, "plants": read}


def main() -> None:
    """Read some worlds and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(TUNING[:3]))
    parser.add_argument("--out", type=Path, default=HERE / "norms.json")
    args = parser.parse_args()
    made_by, worlds = stamp(args.seeds[0]), [world(seed) for seed in args.seeds]
    median = {
        plant.name: {
            kind: [round(float(x), 3) for x in np.median([w["plants"][plant.name][kind] for w in worlds], axis=0)]
            for kind in ("honest, forget rows", "base, with the trigger", "base, retained rows")
        }
        for plant in PLANTS
    }
    content = {"stamp": made_by.model_dump(mode="json"), "median": median, "worlds": worlds}
    write_atomic(args.out, (json.dumps(content, indent=1) + "\n").encode())
    print(json.dumps(median, indent=1))


if __name__ == "__main__":
    main()
