"""Every method by every parametric trace: value vectors, forms, weights, and what brings the answers back.

``python -m studies.parametric_traces.study`` makes the worlds that are missing in the cache, measures every model,
edits one person at a time and writes results.json here, model by model: a killed call goes on. ``--tables`` writes the
tables of the page from it; ``--worlds N`` worlds.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from audit.bench import Bench
from audit.case import open_case
from audit.pools import MemoryStore
from audit.schema import Measurement
from audit.storage import write_atomic
from audit.zoo import make_world, zoo_of
from probes.concept_vectors import ConceptVectors
from probes.forget_likelihood import ForgetLikelihood
from probes.form_dependence import FormDependence
from probes.prompt_attribution import PromptAttribution
from probes.reverse_patch import ReversePatch
from probes.weight_difference import WeightDifference
from studies.brief import brief
from studies.parametric_traces.models import WORLD, Subject, subjects
from studies.parametric_traces.persons import by_person
from studies.provenance import stamp

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PROBES: Final = (
    ForgetLikelihood(), ReversePatch(), ConceptVectors(), FormDependence(), PromptAttribution(), WeightDifference(),
)  # fmt: skip
WORLDS: Final = 3
log = logging.getLogger(__name__)


def measured(subject: Subject, bench: Bench, work: Path) -> dict[str, Any]:
    """Every measurement of one model, rounded, with what judging says of those that may be evidence."""
    case = open_case(subject.case, subject.root, work / "out")
    row: dict[str, Any] = {"world": subject.world, "method": subject.method, "cpu_s": {}, "measurements": {}}
    for probe in PROBES:
        since = time.process_time()
        every = [m for m in probe.measure(bench, case) if m.form == "trained"]
        name = type(probe).__module__.rpartition(".")[2]
        row["cpu_s"][name] = round(time.process_time() - since, 2)
        row["measurements"] |= {f"{m.probe}.{m.name}": _detailed(m) for m in every}
    return row


def _detailed(m: Measurement) -> dict[str, Any]:
    """The same with its listings, and what the weight difference says in words."""
    known = brief(m)
    if m.listings:
        known["listings"] = {listing.title: [list(listing.columns), *map(list, listing.rows)] for listing in m.listings}
    if m.probe == "weight_difference":
        known["notes"] = list(m.notes)
    return known


def persons(world: int, example: Subject, bench: Bench, work: Path) -> dict[str, Any]:
    """One person at a time, in a world whose first subject is given."""
    case = open_case(example.case, example.root, work / "persons")
    since, place = time.process_time(), work / f"persons-{world}"
    table = by_person(bench, make_world(world, zoo_of(WORLD).shape), case, example.case.roles.base, place)
    return {**table, "cpu_s": round(time.process_time() - since, 2)}


def run(worlds: int) -> None:
    """Measure what is not measured yet; the results are written after every model."""
    results = json.loads(RESULTS.read_bytes()) if RESULTS.is_file() else {}
    models: dict[str, Any] = results.get("subjects", {})
    people: dict[str, Any] = results.get("persons", {})
    torch.set_num_threads(1)
    begun = stamp(0)  # before the results, which are tracked, are written anew

    def keep() -> None:
        document = {**begun.model_dump(mode="json"), "subjects": models, "persons": people}
        write_atomic(RESULTS, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())

    with tempfile.TemporaryDirectory(prefix="residua-parametric-") as folder:
        for world in range(worlds):
            bench = Bench(store=MemoryStore(Path(folder) / f"{world}" / "store"))
            for subject in subjects(world):
                if str(world) not in people:
                    people[str(world)] = {"commit": begun.commit, **persons(world, subject, bench, Path(folder))}
                    keep()
                if subject.key not in models:
                    models[subject.key] = {"commit": begun.commit, **measured(subject, bench, Path(folder))}
                    log.info("%s: %s", subject.key, _told(models[subject.key]))
                    keep()


def _told(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in row["cpu_s"].items())


def main() -> None:
    """Measure, or write the tables."""
    from studies.parametric_traces.page import write_page

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--worlds", type=int, default=WORLDS, help=f"worlds (default: {WORLDS})")
    parser.add_argument("--tables", action="store_true", help="write the page's tables from the results")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("audit").setLevel(logging.ERROR)
    if not args.tables:
        run(args.worlds)
    write_page(json.loads(RESULTS.read_bytes()))


if __name__ == "__main__":
    main()
