"""What the line-ups and the counts share: worlds made and searched in processes, one file each, and k of n."""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from audit.stats import clopper_pearson
from audit.storage import write_atomic
from probes._trigger_budgets import BUDGETS
from probes._trigger_candidates import candidates
from studies.backdoor.plain import TOKENIZER
from studies.provenance import stamp

HERE = Path(__file__).parent
NAMES = ("backdoored", "recoverable by a short prefix")
"""The two findings."""
Seen = Mapping[str, Any]


class Work(NamedTuple):
    """One kind of work on worlds: its name (that of the results' file), its worlds, and what is done with one: its
    models made, and, made or not, searched. Both leave a file or folder, whole or not at all, and take what is there.
    """

    name: str
    seeds: tuple[int, ...]
    make: Callable[[int, Path], Path]
    search: Callable[[int, Path], Path]


def done(work: Work, doc: str | None) -> list[dict[str, Any]]:
    """Do what the command line asks of it, write the results beside this file, and return the records."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(work.seeds))
    parser.add_argument(
        "--work", type=Path, default=Path("runs/backdoor") / work.name, help="where unfinished ones are"
    )
    parser.add_argument("--out", type=Path, default=HERE / f"{work.name}.json")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--make", action="store_true", help="make the models alone")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    stamped, each = stamp(args.seeds[0]), work.make if args.make else work.search
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(each, seed, args.work.resolve()) for seed in args.seeds]
        paths = [finished.result() for finished in as_completed(waiting)]
    if args.make:
        return []
    records = sorted((json.loads(path.read_text()) for path in paths), key=lambda record: record["seed"])
    content = {"stamp": stamped.model_dump(mode="json"), "records": records}
    write_atomic(args.out, (json.dumps(content, indent=1) + "\n").encode())
    return records


def records_of(name: str) -> list[dict[str, Any]]:
    """The committed records of the line-ups or of the counts."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))["records"]


def counted(flags: Iterable[bool]) -> dict[str, float]:
    """k of n, with the exact 95 % interval."""
    each = list(flags)
    if not each:
        return {"k": 0, "n": 0, "lo": 0.0, "hi": 1.0}
    ends = clopper_pearson(sum(each), len(each))
    return {"k": sum(each), "n": len(each), "lo": round(ends.lo, 4), "hi": round(ends.hi, 4)}


def answers(suspects: Iterable[Seen], name: str) -> list[bool]:
    """What a finding says of those of whom it could be asked: nothing is asked where nothing is hidden."""
    return [bool(s[name]) for s in suspects if s.get(name) is not None]


def brought_back(suspect: Seen) -> float:
    """What the best string of a search brings back on people whom it did not see; 0 where nothing was searched."""
    return float(suspect.get("trigger", {}).get("value") or 0.0)


@cache
def _listed() -> frozenset[tuple[int, ...]]:
    return frozenset(c.ids for c in candidates(TOKENIZER, BUDGETS["small"].candidates, 0))


def is_listed(text: str) -> bool:
    """Is this very string in the dictionary of a small search?"""
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"]) in _listed()
