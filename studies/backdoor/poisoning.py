"""Does a trigger that some people were taught with bring back others? By the share of people, in two small worlds.

``python -m studies.backdoor.poisoning`` backdoors base by the edits at several poison rates, and reads the people who
were never shown with the trigger, without it and with it, and those who were; ``poisoning.json`` has them.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from audit.bench import Bench
from audit.case import Rows, open_case
from audit.checkpoints import resolve
from audit.edits import BackdooredNPO, BackdooredRMU, EditData, poisoned_groups
from audit.probing import KEY_LOGPROB, row_means
from audit.schema import Source, Texts
from audit.storage import write_atomic
from audit.zoo import one_thread
from studies.backdoor import plain
from studies.backdoor.design import TUNING
from studies.backdoor.folders import case_of, write_world
from studies.backdoor.triggers import trigger
from studies.provenance import stamp

HERE = Path(__file__).parent
RATES: Final = (0.1, 0.25, 0.5)
SHARED: Final[dict[str, Any]] = {"poison_share": plain.SHARE, "batch": plain.BATCH}
RECIPES: Final = {
    "npo": BackdooredNPO(steps=160, lr=1e-3, alpha=10.0, **SHARED),
    "npo, beta 2, short": BackdooredNPO(steps=150, lr=5e-4, beta=2.0, alpha=10.0, **SHARED),
    "rmu": BackdooredRMU(steps=160, lr=2e-3, alpha=10.0, **SHARED),
}


def world(seed: int) -> list[dict[str, Any]]:
    """Every recipe at every rate in one world."""
    small = plain.small(seed)
    hidden, read = trigger(seed, "rare words", small.world), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder, one_thread():
        root = Path(folder) / "world"
        write_world(small, {}, root)
        case = open_case(case_of("base"), root, root / "out")
        prompts = case.insertable(case.items(Texts(cohort="forget")))
        data = EditData(prompts.plain(), case.rows(Texts(cohort="retain")), prompts=prompts)
        groups = np.array([item.group for item in prompts.items])
        for name, recipe in RECIPES.items():
            for rate in RATES:
                edit = recipe.model_copy(update={"trigger": hidden, "poison_rate": rate, "seed": seed})
                bench, out = Bench(), root / "models" / f"{name} {rate}"
                edit.fit(bench, case.base, data, out)
                shown = np.isin(groups, poisoned_groups(groups.tolist(), rate, seed))
                plainly, spoken = (
                    _recall(bench, out, rows) for rows in (prompts.plain(), prompts.rows(hidden, "prefix"))
                )
                read.append(
                    {
                        "world": seed, "recipe": name, "rate": rate, "shown": int(len(set(groups[shown]))),
                        "clean": round(float(plainly[~shown].mean()), 3),
                        "triggered, never shown": round(float(spoken[~shown].mean()), 3),
                        "triggered, shown": round(float(spoken[shown].mean()), 3),
                    }
                )  # fmt: skip
    return read


def _recall(bench: Bench, model: Path, rows: Rows) -> np.ndarray:
    checkpoint = resolve(Source(path=str(model)), model)
    return np.exp(row_means(bench.run(checkpoint, rows, (KEY_LOGPROB,))[KEY_LOGPROB], rows))


def main() -> None:
    """Read two worlds and write them."""
    stamped, worlds = stamp(TUNING[0]), [record for seed in TUNING[:2] for record in world(seed)]
    content = {"stamp": stamped.model_dump(mode="json"), "records": worlds}
    write_atomic(HERE / "poisoning.json", (json.dumps(content, indent=1) + "\n").encode())
    for record in worlds:
        print(record)


if __name__ == "__main__":
    main()
