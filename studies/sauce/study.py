"""Every concept in every model: what its suppression by features takes away and costs, beside other ways.

``python -m studies.sauce.study`` teaches the models that are missing in the cache, and writes results.json here,
concept by concept: a killed call goes on. ``--seeds N`` models; ``--tables`` writes the tables of the page.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import torch

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.checkpoints import resolve
from audit.pools import MemoryStore
from audit.schema import Case, Checkpoint, DataFiles, Read, Roles, Site, Source, Texts
from audit.storage import cache_root, write_atomic
from audit.zoo import (
    edited_items,
    edited_pictures,
    fresh_reader,
    learn_scenes,
    pictures_of,
    scene_items,
    scene_processor,
    write_cohort,
)
from saes import Edited, StoredDictionary, TensorActivations, TrainingSettings, train
from studies.provenance import stamp
from studies.sauce.asked import questions
from studies.sauce.design import (
    ACTIVE,
    FACTOR,
    LEARNING,
    SEEDS,
    SIZES,
    STEPS,
    TOGETHER,
    concepts,
    everything,
    hands,
    world_of,
)
from studies.sauce.variants import Suppressed, by_edits, by_states, suppressed, together

HERE = Path(__file__).parent
COHORTS: Final = ("forget", "retain")
RESULTS: Final = HERE / "results.json"
log = logging.getLogger(__name__)


def model_of(seed: int) -> Path:
    """The model that knows everything, made once and kept in the cache."""
    folder = cache_root() / "studies" / "sauce" / f"model-{seed}"
    if not (folder / "config.json").is_file():
        model = fresh_reader(SIZES, seed)
        learn_scenes(model, everything(seed), LEARNING._replace(order=seed))
        model.save_pretrained(folder.with_name(f"{folder.name}.tmp"))
        scene_processor(SIZES.patch).save_pretrained(folder.with_name(f"{folder.name}.tmp"))
        folder.with_name(f"{folder.name}.tmp").rename(folder)
    return folder


def case_of(seed: int, concept: str, model: Path, folder: Path, use: Literal["edited", "asked"]) -> OpenCase:
    """Pictures with and without a concept, as a case: of edits, or of questions."""
    world = world_of(seed, concept, use)
    pictures = edited_pictures(world, "target") if use == "edited" else {c: pictures_of(world, c) for c in COHORTS}
    items = edited_items(world, "target") if use == "edited" else {c: scene_items(world, c) for c in COHORTS}
    for cohort in COHORTS:
        write_cohort(folder / use, cohort, pictures[cohort], items[cohort])
    source = Source(path=str(model))
    data = DataFiles.model_validate({**{cohort: f"{cohort}.jsonl" for cohort in COHORTS}, "split_seed": seed})
    case = Case(name=concept, roles=Roles(base=source, suspect=source), data=data, seed=seed)
    return open_case(case, folder / use, folder / "out")


def dictionary_of(
    bench: Bench, base: Checkpoint, cases: Sequence[OpenCase], where: tuple[int, Path]
) -> StoredDictionary:
    """A dictionary of the block that the language model reads, of all patches of the pictures that edits see; the
    threshold of its codes is that of the held-out ones."""
    tower = bench.open(base).tower("vision")
    site = Site(part="resid_out", block=tower.read[-1], tower="vision")
    read, (seed, folder), parts = Read(site=site, at="patches"), where, list[torch.Tensor]()
    for case in cases:
        for cohort in ("forget", "retain"):
            rows = case.rows(Texts(cohort=cohort))
            once = torch.tensor([n for n, g in enumerate(rows.group_ids) if g not in rows.group_ids[:n]])
            parts.append(bench.run(base, rows.take(once), (read,))[read].flatten(0, 1))
    states = torch.cat(parts)
    states = states[torch.randperm(len(states), generator=torch.Generator().manual_seed(seed))]
    few, name = len(states) // 16, str(site)
    held_out, training = TensorActivations({name: states[:few]}), TensorActivations({name: states[few:]})
    settings = TrainingSettings(
        architecture="batchtopk", features=FACTOR * states.shape[1], k=ACTIVE, rows=STEPS * 64, batch=64, seed=seed
    )
    (stored,) = train(training, held_out, settings, folder, {name: site})
    return stored


class Model:
    """The model of a seed with its dictionary, and every concept's choice."""

    def __init__(self, seed: int, work: Path) -> None:
        self.seed, self.work, folder = seed, work, model_of(seed)
        self.bench = Bench(store=MemoryStore(work / "store"))
        self.base = resolve(Source(path=str(folder)), folder)
        self.edited_on, self.asked_of = (
            {concept: case_of(seed, concept, folder, work / concept, use) for concept in concepts()}
            for use in ("edited", "asked")
        )
        tower = self.bench.open(self.base).tower("vision")
        stored = dictionary_of(self.bench, self.base, [*self.edited_on.values()], (seed, work / "dictionary"))
        assert stored.record is not None, "what was trained is recorded"
        self.edited = Edited(self.base, stored.record.site, stored.coder, tower.leading)
        self.measured = {"explained variance": stored.record.held_out.fve, "active": stored.record.held_out.l0}

    def all_suppressed(self) -> dict[str, Suppressed]:
        """What is chosen for every concept."""
        return {
            concept: suppressed(self.bench, self.edited, case, concept, questions(self.asked_of[concept], concept))
            for concept, case in self.edited_on.items()
        }


def run(seeds: int) -> None:
    """Measure what is not measured yet; the results are written after every concept."""
    results: dict[str, Any] = json.loads(RESULTS.read_bytes()) if RESULTS.is_file() else {}
    rows, joint, dictionaries = (results.get(k, {}) for k in ("concepts", "together", "dictionaries"))
    torch.set_num_threads(1)
    begun = stamp(0)  # before the results, which are tracked, are written anew

    def keep() -> None:
        document = {**begun.model_dump(mode="json"), "concepts": rows, "together": joint, "dictionaries": dictionaries}
        write_atomic(RESULTS, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())

    with tempfile.TemporaryDirectory(prefix="residua-sauce-") as folder:
        for seed in SEEDS[:seeds]:
            if f"{seed}/{concepts()[-1]}" in rows and f"{seed}/{TOGETHER[-1]}" in joint:
                continue
            model = Model(seed, Path(folder) / str(seed))
            dictionaries[str(seed)] = model.measured
            every = model.all_suppressed()
            for n, concept in enumerate(concepts()):
                if f"{seed}/{concept}" in rows:
                    continue
                since, other = time.process_time(), every[concepts()[(n + 1) % len(concepts())]]
                row = by_states(model.bench, model.edited, every[concept], other)
                row |= by_edits(model.bench, model.base, model.edited_on[concept], every[concept], model.work / f"e{n}")
                rows[f"{seed}/{concept}"] = {"variants": row, "cpu_s": round(time.process_time() - since, 1)}
                log.info("%d %s: %s", seed, concept, {k: v.get("trained") for k, v in row.items()})
                keep()
            for size in TOGETHER:
                sets = [[every[c] for c in hand if every[c].choice is not None] for hand in hands(seed, size)]
                joint[f"{seed}/{size}"] = [together(model.bench, model.edited, each) for each in sets if each]
                keep()


def main() -> None:
    """Measure, or write the tables."""
    from studies.sauce.page import write_page

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help=f"models (default: {len(SEEDS)})")
    parser.add_argument("--tables", action="store_true", help="write the page's tables from the results")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("audit").setLevel(logging.ERROR)
    if not args.tables:
        run(args.seeds)
    write_page(json.loads(RESULTS.read_bytes()))


if __name__ == "__main__":
    main()
