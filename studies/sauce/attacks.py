"""Which attacks bring a concept back, and what the audit says of filters: in worlds where models exist that never knew.

``python -m studies.sauce.attacks`` makes the models of the worlds that are missing in the cache, attacks those that a
concept was hidden in, and writes attacks.json here, model by model: a killed call goes on. ``--worlds N`` worlds.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch

from audit.bench import Bench
from audit.case import open_case
from audit.edits import SAUCE
from audit.pools import MemoryStore, case_of, write_data
from audit.storage import cache_root, write_atomic
from audit.zoo import SCENE_WORLDS, ScenePlan, draw_scenes, make_model, scene_population
from probes.concept_erasure import ConceptErasure
from probes.filter_removal import FilterRemoval
from studies.provenance import stamp

HERE = Path(__file__).parent
RESULTS: Final = HERE / "attacks.json"
LARGER: Final = "sauce_larger"
"""The same edit by twice as large a dictionary that is trained more than three times as long."""
MODELS: Final = ("sauce", LARGER, "steering", "grad_diff", "npo", "refusal", "reference_0")
FILTERS: Final = ("sauce", LARGER, "steering")
log = logging.getLogger(__name__)


def attacked(bench: Bench, world: int, model: str, folders: dict[str, Path], work: Path) -> dict[str, Any]:
    """What every attack brings back of one model's concept, with the findings of both probes."""
    case = open_case(case_of(model, world, folders, work), work, work / "out")
    since = time.process_time()
    measurements = ConceptErasure().measure(bench, case)
    recovery = next(m for m in measurements if m.name == "recovery")
    row: dict[str, Any] = {
        "attacks": {str(cells[0]): cells[1] for listing in recovery.listings for cells in listing.rows},
        "columns": [list(listing.columns) for listing in recovery.listings],
        "rows": {str(cells[0]): list(cells[1:]) for listing in recovery.listings for cells in listing.rows},
        "readings": recovery.readings, "recoverable": [str(finding.holds) for finding in recovery.findings],
        "measured": {m.name: (m.value if isinstance(m.value, float) else str(m.value)) for m in measurements},
    }  # fmt: skip
    if model in FILTERS:
        turned_off = FilterRemoval().measure(bench, case)
        row["filter"] = [str(finding.holds) for m in turned_off for finding in m.findings]
        row["turned off"] = [m.value if isinstance(m.value, float) else str(m.value) for m in turned_off]
    return row | {"cpu_s": round(time.process_time() - since, 1)}


def run(worlds: int) -> None:
    """Attack what is not attacked yet; the results are written after every model."""
    results: dict[str, Any] = json.loads(RESULTS.read_bytes()) if RESULTS.is_file() else {}
    rows: dict[str, Any] = results.get("models", {})
    torch.set_num_threads(1)
    begun = stamp(0)  # before the results, which are tracked, are written anew
    with tempfile.TemporaryDirectory(prefix="residua-attacks-") as folder:
        for world in SCENE_WORLDS[:worlds]:
            if all(f"{world}/{model}" in rows for model in MODELS):
                continue
            drawn = draw_scenes(world)
            census, work = scene_population(drawn), Path(folder) / str(world)
            larger = ScenePlan(LARGER, "base", SAUCE(factor=16, steps=4000, seed=world))
            zoo = census.zoo._replace(plans=(*census.zoo.plans, larger))
            folders = {plan.name: make_model(zoo, world, cache_root() / "zoo", plan.name) for plan in zoo.plans}
            write_data(drawn.dealt(), work / "data")
            bench = Bench(store=MemoryStore(work / "store"))
            for model in MODELS:
                if f"{world}/{model}" not in rows:
                    row = attacked(bench, world, model, folders, work)
                    rows[f"{world}/{model}"] = {"kind": drawn.dealt().kind, "commit": begun.commit, **row}
                    log.info("%d %s: %s", world, model, row["attacks"])
                    document = {**begun.model_dump(mode="json"), "models": rows}
                    write_atomic(RESULTS, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def main() -> None:
    """Measure, and write the page's tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--worlds", type=int, default=len(SCENE_WORLDS), help=f"worlds (default: {len(SCENE_WORLDS)})")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("audit").setLevel(logging.ERROR)
    run(args.worlds)


if __name__ == "__main__":
    main()
