"""Is a probe below chance a sign of erasure? The same edited model on the texts it was edited on and on fresh ones.

``python -m studies.pga_illusion.study --data DIR`` edits base of the zoo's demo world, and of stories260K taught TOFU
authors (``DIR`` as for studies/tofu_stories; left out without it), and writes results.json here.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import torch

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.checkpoints import resolve
from audit.judging import judge
from audit.pools import MemoryStore
from audit.schema import AuditError, Checkpoint, Missing, Source
from audit.storage import cache_root, write_atomic
from probes.cross_sequence import CrossSequence
from studies.pga_illusion.readings import (
    POOLINGS,
    States,
    capability,
    fitted,
    frozen,
    refitted,
    sign_free,
    states,
    summary,
)
from studies.pga_illusion.subjects import PARTS, Edited, Paired, Pairing, edits, material, opened, pairs
from studies.provenance import stamp

HERE = Path(__file__).parent
log = logging.getLogger(__name__)


def read(model: Checkpoint, base: Checkpoint, by_pool: dict[str, Paired], bench: Bench, seed: int) -> dict[str, object]:
    """One model on both pools, in both poolings: probes fitted anew, and base's own of the edited texts, frozen."""
    probes = {pool: fitted(x) for pool, x in zip(POOLINGS, states(bench, base, base, by_pool["edited"]), strict=True)}
    readings: dict[str, object] = {}
    for pool, texts in by_pool.items():
        seen: States = states(bench, model, base, texts)
        readings[pool] = {
            pooling: {
                "refitted": summary(refitted(x), texts.person, seed),
                "frozen": summary(frozen(probes[pooling], x), texts.person, seed),
                "sign_free": sign_free(x, texts.person, seed),
            }
            for pooling, x in zip(POOLINGS, seen, strict=True)
        }
    return readings


def controlled(bench: Bench, case: OpenCase, suspect: Path, out: Path) -> dict[str, object]:
    """What the controlled probe and its in-case judge say of the edited model, on fresh people."""
    roles = case.case.roles.model_copy(update={"suspect": Source(path=str(suspect))})
    edited = open_case(case.case.model_copy(update={"roles": roles}), case.root, out)
    first = CrossSequence().measure(bench, edited)[0]
    evidence = judge(first)
    numbers = {name: getattr(first, name) for name in ("value", "p", "p_below", "floor")}
    plain = {name: x.missing if isinstance(x, Missing) else x for name, x in numbers.items()}
    return plain | {"outcome": evidence.outcome, "direction": evidence.direction, "because": evidence.because}


def study(case_file: Path, work: Path, steps: int) -> dict[str, object]:
    """Every edit of base of one case, read in every way; base and a reference beside them."""
    bench, started = Bench(store=MemoryStore(work)), time.process_time()
    case = opened(case_file, work / "case")
    seed, base = case.case.seed, case.base
    pools: dict[Pairing, dict[str, Paired]] = {
        pairing: {pool: pairs(case, pairing, pool) for pool in PARTS} for pairing in ("unrelated", "matched")
    }
    models: dict[str, object] = {}
    for name, model in (("base", base), ("reference", case.references[0])):
        read_of = {pairing: read(model, base, by_pool, bench, seed) for pairing, by_pool in pools.items()}
        models[name] = {"readings": read_of, "capability": capability(bench, case, model)}
    for name, variant in edits(steps).items():
        models[name] = edited(bench, case, (name, variant, pools[variant.pairing]), work)
        log.info("%s: %s, %.0f CPU-s", case.case.name, name, time.process_time() - started)
    return {"models": models, "cpu_s": round(time.process_time() - started)}


def edited(bench: Bench, case: OpenCase, task: tuple[str, Edited, dict[str, Paired]], work: Path) -> dict[str, object]:
    """One edit: fitted on one half of the people, then read on both."""
    name, variant, by_pool = task
    folder = work / name.replace(", ", "-").replace(" ", "_").replace("=", "")
    try:
        variant.edit.fit(bench, case.base, material(case, variant.pairing, "edited"), folder)
    except AuditError as error:  # the refit loop ends at once where no depth reads base
        return {"not_made": error.what}
    model = resolve(Source(path=str(folder)), folder)
    return {
        "readings": {variant.pairing: read(model, case.base, by_pool, bench, case.case.seed)},
        "capability": capability(bench, case, model),
        "controlled": controlled(bench, case, folder, work / "controlled"),
    }


def rounded(value: object) -> object:
    """Numbers to four decimals."""
    if isinstance(value, dict):
        return {str(k): rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Edit, read, and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with tofu/, text/, models/")
    parser.add_argument("--tofu-work", type=Path, default=Path("runs/tofu_stories"), help="models of that study")
    parser.add_argument("--steps", type=int, default=200, help="steps of the training loss")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("audit").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    from audit.zoo import build
    from studies.tofu_stories.material import prepare
    from studies.tofu_stories.study import write_case
    from studies.tofu_stories.teach import build as teach

    cases = {"zoo, demo world": build("demo", 0, cache_root()).cases["refusal"]}
    if args.data is not None:
        lessons = prepare(args.data, args.tofu_work)
        teach(args.data / "models" / "stories260K-hf", lessons, args.tofu_work / "models", 2)
        cases["stories260K, TOFU"] = write_case("npo", lessons)
    with tempfile.TemporaryDirectory() as scratch:
        subjects = {
            name: study(case, Path(scratch) / f"{n}", args.steps) for n, (name, case) in enumerate(cases.items())
        }
    results = {"stamp": stamp(seed=0).model_dump(mode="json"), "subjects": rounded(subjects)}
    write_atomic(args.out, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    main()
