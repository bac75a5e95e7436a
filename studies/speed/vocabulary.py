"""What do scores cost at a vocabulary of 50,000? Reads of the bench against bare passes, and against an earlier build.

``python -m studies.speed.vocabulary --before FOLDER --out studies/speed/vocabulary.json``. FOLDER is a checkout of the
build to compare with (``git worktree add --detach FOLDER 3552af1``). A random model of 6.6 million parameters, nearly
all of them its tied embeddings; 480 rows of 24 tokens, of which the last 8 are the answer and its content. Bare passes
compute the logits of the positions that predict the answers (``logits_to_keep`` of transformers), 8 or 32 rows at a
time, whichever is cheaper, and do nothing with them; the usual way takes log-softmax and ranks of them, as one line
each. For the lens the bare pass computes such logits after every block. Every repeat runs every way once, in shuffled
order, as a process of its own with one thread and no store: CPU-seconds a call, the least of three after a first one,
and the peak of the process's resident memory.
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
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from audit.schema import Record
from audit.storage import write_atomic
from studies.provenance import Stamp, commit, stamp
from studies.speed.results import Ratio
from studies.speed.timing import ratio

VOCABULARY, WIDTH, BLOCKS, ROWS, LENGTH, ANSWER = 50_000, 128, 2, 480, 24, 8
MOST = 1.3
"""What is promised: how many times the CPU-seconds of the bare passes."""
TODAY, BEFORE = "today", "before"
HERE: Final = Path(__file__).resolve().parents[2]
CHILD: Final = Path(__file__).with_name("vocabulary_reads.py")


class Way(NamedTuple):
    """One way of scoring, on one checkout."""

    checkout: str
    way: str

    def __str__(self) -> str:
        return self.way if self.checkout == TODAY else f"{self.way}, {self.checkout}"


BARE: Final = (Way(TODAY, "bare-8"), Way(TODAY, "bare-32"))
USUAL, READS, LENS, BARE_LENS = (Way(TODAY, way) for way in ("usual-8", "reads", "lens", "bare-lens-8"))
READS_BEFORE, LENS_BEFORE = Way(BEFORE, "reads"), Way(BEFORE, "lens")
WAYS: Final = (*BARE, USUAL, READS, READS_BEFORE, BARE_LENS, LENS, LENS_BEFORE)


class WayRow(Record):
    """CPU-seconds a call by repeat; peak memory of the process, and what it held once the model was open, in MB."""

    way: str
    cpu_s: tuple[float, ...]
    peak_mb: tuple[float, ...]
    opened_mb: tuple[float, ...]

    @property
    def grown_mb(self) -> float:
        """How much more than the opened model the process held, median over repeats."""
        return median(peak - opened for peak, opened in zip(self.peak_mb, self.opened_mb, strict=True))


class Results(Record):
    """What was measured. ``largest_difference``: of log-probabilities from the usual way's; ``ranks``: the share of
    targets with its rank."""

    stamp: Stamp
    command: str
    before: str
    rows: tuple[WayRow, ...]
    ratios: dict[str, Ratio]
    largest_difference: float
    ranks: float

    def row(self, way: Way) -> WayRow:
        """The row of a way."""
        return next(row for row in self.rows if row.way == str(way))

    @property
    def sentence(self) -> str:
        """What the page says of it."""
        reads, lens = self.ratios["reads"], self.ratios["lens"]
        usual, before, lens_before = (self.ratios[name] for name in ("usual", "reads before", "lens before"))
        now, then, bare = (self.row(way) for way in (READS, READS_BEFORE, BARE[0]))
        return (
            f"Log-probabilities and ranks of {ROWS * ANSWER:,} tokens at a vocabulary of {VOCABULARY:,} take "
            f"**{reads.median:.2f}** times what the bare passes take ({reads.ci95.lo:.2f} to {reads.ci95.hi:.2f}, "
            f"promised at most {MOST}; {median(now.cpu_s):.2f} CPU-seconds), {usual.median:.2f} times what the usual "
            f"way takes, and {before.median:.2f} of the build before; with the lens after every block "
            f"{lens.median:.2f} times ({lens.ci95.lo:.2f} to {lens.ci95.hi:.2f}), {lens_before.median:.2f} of that "
            f"build. Beside the opened model the process holds at most {now.grown_mb:.0f} MB ({then.grown_mb:.0f} "
            f"before, {bare.grown_mb:.0f} of the bare passes, {self.row(USUAL).grown_mb:.0f} of the usual way). "
            f"Log-probabilities differ from log-softmax by at most {self.largest_difference:.0e}, and "
            f"{100 * self.ranks:.2f} % of the ranks are the same; {len(now.cpu_s)} repeats."
        )


def write_world(folder: Path, seed: int) -> None:
    """The model, a tokenizer of as many words, and the rows."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=BLOCKS,
        num_attention_heads=4, max_position_embeddings=LENGTH, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", pad_token="w0").save_pretrained(folder)
    torch.save({"ids": torch.randint(VOCABULARY, (ROWS, LENGTH)), "answer": torch.tensor(ANSWER)}, folder / "rows.pt")


def spent(way: Way, checkouts: Mapping[str, Path], world: Path) -> dict[str, Any]:
    """What one process says of one way; its scores lie beside the world. RuntimeError where it fails."""
    checkout, scores = checkouts[way.checkout], world / f"{way.checkout}-{way.way}.pt"
    env = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", str(CHILD), str(world), way.way, str(scores)]
    done = subprocess.run(command, env=env, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{way} ended with {done.returncode}: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(checkouts: Mapping[str, Path], world: Path, repeats: int, seed: int) -> Iterator[list[WayRow]]:
    """Every way, interleaved; what there is after every repeat, because one takes long."""
    order, results = np.random.default_rng(seed), {way: list[dict[str, Any]]() for way in WAYS}
    for _ in range(repeats):
        for n in order.permutation(len(WAYS)):
            results[WAYS[n]].append(spent(WAYS[n], checkouts, world))
        yield [
            WayRow(
                way=str(way), cpu_s=tuple(round(run["cpu_s"], 4) for run in its),
                peak_mb=tuple(round(run["peak_mb"], 1) for run in its),
                opened_mb=tuple(round(run["opened_mb"], 1) for run in its),
            )
            for way, its in results.items()
        ]  # fmt: skip


def compared(rows: Sequence[WayRow], seed: int) -> dict[str, Ratio]:
    """Ratios within repeats: today's reads over the cheaper bare passes, over the usual way and the build before."""
    cpu = {row.way: np.array(row.cpu_s) for row in rows}
    bare = min((str(way) for way in BARE), key=lambda way: float(np.median(cpu[way])))
    pairs = {
        "reads": (READS, bare), "usual": (READS, str(USUAL)), "reads before": (READS, str(READS_BEFORE)),
        "lens": (LENS, str(BARE_LENS)), "lens before": (LENS, str(LENS_BEFORE)),
        "before over bare": (READS_BEFORE, bare),
    }  # fmt: skip
    return {name: ratio(cpu[str(ours)], cpu[theirs], theirs, seed) for name, (ours, theirs) in pairs.items()}


def agreement(world: Path) -> tuple[float, float]:
    """How far today's log-probabilities are from the usual way's, and the share of ranks that are the same."""
    ours, theirs = (torch.load(world / f"{way.checkout}-{way.way}.pt", weights_only=True) for way in (READS, USUAL))
    same = (ours["rank"] == theirs["rank"]).double().mean()
    return float((ours["logprob"] - theirs["logprob"]).abs().max()), float(same)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    begun, against = stamp(args.seed), commit(args.before)
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as folder:
        world, checkouts = Path(folder), {TODAY: HERE, BEFORE: args.before.resolve()}
        write_world(world, args.seed)
        for done, rows in enumerate(measured(checkouts, world, args.repeats, args.seed), 1):
            gap, ranks = agreement(world)
            results = Results(
                stamp=begun, command=f"python -m studies.speed.vocabulary --before FOLDER --repeats {done}",
                before=against, rows=tuple(rows), ratios=compared(rows, args.seed), largest_difference=gap, ranks=ranks,
            )  # fmt: skip
            if args.out:
                write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())
            sys.stdout.write(f"{results.sentence}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
