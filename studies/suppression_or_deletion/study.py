"""Every method by every restoration test: what the published score calls deleted, and what is found in the states.

``python -m studies.suppression_or_deletion.study`` makes the models that are missing in the cache, measures each and
writes results.json here, one model after the other: a killed call goes on. ``--tables`` writes the tables of the page
from it. ``--worlds N`` worlds an architecture, ``--demos N`` demos of the language zoo, ``--pools N`` worlds of its
pools.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from audit.bench import Bench
from audit.case import open_case
from audit.pools import MemoryStore
from audit.storage import write_atomic
from audit.zoo import POOL_WORLDS
from probes.reverse_patch import ReversePatch
from probes.sae_restoration import SaeRestoration
from studies.brief import brief
from studies.provenance import stamp
from studies.suppression_or_deletion.models import Subject, images, people, strangers, worlds_of_images

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PROBES = (SaeRestoration(), ReversePatch())
ARCHITECTURES = ("vit", "resnet")
log = logging.getLogger(__name__)


class Counts(NamedTuple):
    """Worlds of each architecture, demos of the language zoo, and worlds of its pools."""

    worlds: int
    demos: int
    pools: int


def subjects(counts: Counts, work: Path) -> Iterator[tuple[Subject, Bench]]:
    """Every model with the bench of its world."""
    for architecture in ARCHITECTURES:
        for drawn in worlds_of_images(architecture, counts.worlds):
            folder = work / str(drawn.world)
            bench = Bench(store=MemoryStore(folder / "store"))
            for subject in images(drawn, folder):
                yield subject, bench
    for world in range(counts.demos):
        bench = Bench(store=MemoryStore(work / f"demo-{world}" / "store"))
        for subject in people(world):
            yield subject, bench
    for world in POOL_WORLDS[: counts.pools]:
        bench = Bench(store=MemoryStore(work / f"pool-{world}" / "store"))
        for subject in strangers(world, work / f"pool-{world}"):
            yield subject, bench


def measured(subject: Subject, bench: Bench, work: Path) -> dict[str, Any]:
    """Every measurement of one model, rounded, with what judging says of it."""
    case = open_case(subject.case, subject.root, work / "out")
    since = time.process_time()
    every = [m for probe in PROBES for m in probe.measure(bench, case)]
    return {
        "kind": subject.kind, "world": subject.world, "target": subject.target, "method": subject.method,
        "cpu_s": round(time.process_time() - since, 2),
        "measurements": {f"{m.probe}.{m.name}": brief(m) for m in every if m.form == "trained"},
    }  # fmt: skip


def run(counts: Counts) -> None:
    """Measure what is not measured yet; the results are written after every model."""
    results = json.loads(RESULTS.read_bytes()) if RESULTS.is_file() else {}
    done: dict[str, Any] = results.get("subjects", {})
    torch.set_num_threads(1)
    begun = stamp(0)  # before the results, which are tracked, are written anew
    with tempfile.TemporaryDirectory(prefix="residua-restoration-") as folder:
        for subject, bench in subjects(counts, Path(folder)):
            if subject.key in done:
                continue
            done[subject.key] = {"commit": begun.commit, **measured(subject, bench, Path(folder))}
            log.info("%s: %.1f CPU-s", subject.key, done[subject.key]["cpu_s"])
            spent = round(sum(each["cpu_s"] for each in done.values()))
            document = {**begun.model_dump(mode="json"), "cpu_s": spent, "subjects": done}
            write_atomic(RESULTS, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


def main() -> None:
    """Measure, or write the tables."""
    from studies.suppression_or_deletion.page import write_page

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--worlds", type=int, default=5, help="worlds of each architecture (default: 5)")
    parser.add_argument("--demos", type=int, default=5, help="demos of the language zoo (default: 5)")
    parser.add_argument("--pools", type=int, default=60, help="worlds of the pools (default: 60)")
    parser.add_argument("--tables", action="store_true", help="write the page's tables from the results")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("audit").setLevel(logging.ERROR)
    if not args.tables:
        run(Counts(args.worlds, args.demos, args.pools))
    write_page(json.loads(RESULTS.read_bytes()))


if __name__ == "__main__":
    main()
