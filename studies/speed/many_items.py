"""How does a probe grow with the items? The cross-sequence probe at 480 and 1,920, on two checkouts side by side.

``python -m studies.speed.many_items --before FOLDER --out studies/speed/many_items.json``. FOLDER is a checkout of the
build to compare with (``git worktree add --detach FOLDER 3552af1``). Forget items of invented people, sixteen each,
with four alternates, and an eighth as many of holdout people; three random models of one family (base, suspect, one
that never knew), since the cost does not depend on what they know. Every repeat runs each size on each checkout once,
in shuffled order, as a process of its own with one thread and no store: CPU-seconds of the probe (its passes, its
matching and its statistics) and the peak of the process's resident memory, imports and models among it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from audit.schema import Record
from audit.storage import write_atomic
from audit.zoo import make_tokenizer
from studies.provenance import Stamp, commit, stamp
from studies.speed.results import Ratio
from studies.speed.timing import ratio

FEW, MANY = 480, 1920
EACH, ATTRIBUTES, VALUES = 16, 16, 24
"""Items of a person; attributes that are asked for, and values of each."""
MOST_TIMES, MOST_SHARE, MOST_MB = 4.5, 0.1, 700.0
"""What is promised: how many times the CPU-seconds for four times the items; the share of the build before; memory."""
TODAY, BEFORE = "today", "before"
HERE: Final = Path(__file__).resolve().parents[2]
CHILD: Final = Path(__file__).with_name("one_probe.py")


class SizeRow(Record):
    """One checkout at one number of items: CPU-seconds of the probe and peak memory of its process, by repeat.

    ``scored`` of the forget items were compared: the build before looks at half of the people. ``value`` and ``p`` are
    what the probe found, by measurement.
    """

    checkout: str
    items: int
    scored: int
    people: int
    cpu_s: tuple[float, ...]
    peak_mb: tuple[float, ...]
    value: tuple[float, ...]
    p: tuple[float, ...]


class Results(Record):
    """What was measured, on which build against which. ``grows``: four times the items, by checkout."""

    stamp: Stamp
    command: str
    before: str
    rows: tuple[SizeRow, ...]
    grows: dict[str, Ratio]
    share: Ratio

    def row(self, checkout: str, items: int) -> SizeRow:
        """The row of a checkout at a size."""
        return next(row for row in self.rows if (row.checkout, row.items) == (checkout, items))

    @property
    def sentence(self) -> str:
        """What the page says of it."""
        few, many, old = self.row(TODAY, FEW), self.row(TODAY, MANY), self.row(BEFORE, MANY)
        grows, share = self.grows[TODAY], self.share
        return (
            f"From {FEW} to {MANY:,} items the probe takes **{grows.median:.2f}** times as long ({grows.ci95.lo:.2f} "
            f"to {grows.ci95.hi:.2f}, promised at most {MOST_TIMES}; {median(few.cpu_s):.1f} to "
            f"{median(many.cpu_s):.1f} CPU-seconds), {self.grows[BEFORE].median:.1f} times in the build before. At "
            f"{MANY:,} items that is **{share.median:.3f}** of it ({share.ci95.lo:.3f} to {share.ci95.hi:.3f}, "
            f"promised at most {MOST_SHARE}; {median(old.cpu_s):.0f} CPU-seconds, for {old.scored:,} of the items), "
            f"and at most {max(many.peak_mb):.0f} MB (promised {MOST_MB:.0f}; {max(old.peak_mb):.0f} before); "
            f"{len(many.cpu_s)} repeats."
        )


# ---- the world --------------------------------------------------------------------------------------------------
def write_world(folder: Path, items: int, seed: int) -> None:
    """Data files and models of a case with so many forget items."""
    from transformers import LlamaConfig, LlamaForCausalLM

    cohorts, texts = people_items(items, seed), list[str]()
    for name, rows in cohorts.items():
        write_atomic(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
        texts += [f"{row['question']} {row['answer']} {' '.join(row['alternates'])}" for row in rows]
    tokenizer = make_tokenizer(texts)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1,
    )  # fmt: skip
    import torch

    for n, role in enumerate(("base", "suspect", "null")):
        torch.manual_seed(seed + n)
        LlamaForCausalLM(config).save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)


def people_items(items: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Forget, holdout (an eighth as many) and some retained items: every person has one value of every attribute."""
    dice, count = np.random.default_rng(seed), 0
    cohorts = dict[str, list[dict[str, Any]]]()
    for cohort, size in (("forget", items), ("holdout", items // 8), ("retain", 80)):
        rows = list[dict[str, Any]]()
        for _ in range(size // EACH):
            count += 1
            for attribute in range(ATTRIBUTES):
                value, *others = (f"v{attribute}x{v}" for v in dice.permutation(VALUES)[:5])
                lead = f"the {attribute}th of person n{count} is"
                rows.append({
                    "id": f"{cohort}-{len(rows)}", "group": f"n{count}", "answer": f"{lead} {value}", "key": value,
                    "question": f"what is the {attribute}th of person n{count} ?", "alternate_keys": others,
                    "alternates": [f"{lead} {other}" for other in others],
                })  # fmt: skip
        cohorts[cohort] = rows
    return cohorts


# ---- measuring --------------------------------------------------------------------------------------------------
def spent(checkout: Path, world: Path, probe: str) -> dict[str, Any]:
    """What one process of a checkout says of the probe on a world. RuntimeError where it fails."""
    env = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", str(CHILD), str(world), probe]
    done = subprocess.run(command, env=env, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{probe} ended with {done.returncode} on {checkout}: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(
    checkouts: Mapping[str, Path], scratch: Path, repeats: int, seed: int, sizes: Sequence[int] = (FEW, MANY)
) -> Iterator[list[SizeRow]]:
    """Every size on every checkout, interleaved; what there is after every repeat, because one takes long."""
    for items in sizes:
        write_world(scratch / str(items), items, seed)
    order, cells = np.random.default_rng(seed), [(name, items) for name in checkouts for items in sizes]
    results: dict[tuple[str, int], list[dict[str, Any]]] = {cell: [] for cell in cells}
    for _ in range(repeats):
        for n in order.permutation(len(cells)):
            name, items = cells[n]
            results[name, items].append(spent(checkouts[name], scratch / str(items), "cross_sequence"))
        yield [
            SizeRow(
                checkout=name, items=items, scored=its[0]["scored"], people=its[0]["people"],
                value=tuple(its[0]["value"]), p=tuple(its[0]["p"]),
                cpu_s=tuple(round(run["cpu_s"], 3) for run in its),
                peak_mb=tuple(round(run["peak_mb"], 1) for run in its),
            )
            for (name, items), its in results.items()
        ]  # fmt: skip


def compared(rows: Sequence[SizeRow], seed: int) -> tuple[dict[str, Ratio], Ratio]:
    """How each checkout grows, and today's share of the build before at the larger size; ratios within repeats."""
    cpu = {(row.checkout, row.items): np.array(row.cpu_s) for row in rows}
    grows = {name: ratio(cpu[name, MANY], cpu[name, FEW], f"{FEW} items", seed) for name in (TODAY, BEFORE)}
    return grows, ratio(cpu[TODAY, MANY], cpu[BEFORE, MANY], BEFORE, seed)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    begun = stamp(args.seed)
    against = commit(args.before)
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as folder:
        checkouts = {TODAY: HERE, BEFORE: args.before.resolve()}
        for done, rows in enumerate(measured(checkouts, Path(folder), args.repeats, args.seed), 1):
            grows, share = compared(rows, args.seed)
            command = f"python -m studies.speed.many_items --before FOLDER --repeats {done}"
            results = Results(stamp=begun, command=command, before=against, rows=tuple(rows), grows=grows, share=share)
            if args.out:
                write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())
            sys.stdout.write(f"{results.sentence}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
