"""Training dictionaries from a stream on disk: against sae_lens fed from memory, at once against one after the other;
and how memory grows with the rows.

``python -m studies.speed.dictionaries --out studies/speed/dictionaries.json``. Ours is the whole of ``saes.train``:
moments, steps, checkpoints that can be resumed, folding, and the measures on held-out rows. Theirs is
``SAETrainer.fit`` alone, on rows that were standardised and shuffled in memory before the clock starts. One after the
other is ``saes.train`` once a layer. CPU-seconds of one thread are counted, never wall time.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from audit.schema import Record
from audit.storage import read_tensors, write_atomic, write_tensors
from saes import Activations, TensorActivations, TrainingSettings, train
from studies.provenance import Stamp, stamp
from studies.speed.results import Ratio
from studies.speed.timing import Seconds, ratio

CHUNK_ROWS = 1 << 14
_NAME = "studies.speed.dictionaries"


class Shape(NamedTuple):
    """Width of the states, features, active ones, rows a step, and steps."""

    width: int
    features: int
    k: int
    batch: int
    steps: int


SHAPES = {"small": Shape(64, 512, 8, 256, 200), "middle": Shape(256, 1024, 16, 1024, 40)}
STACKS = {"tiny": Shape(16, 64, 4, 32, 1500), "little": Shape(32, 128, 4, 32, 1500)}
"""Shapes of which several layers are trained at once."""
LAYERS = 8


class DictionaryRow(Record):
    """CPU-seconds of one thread for all steps, median over repeats, and rows a second of each."""

    shape: str
    ours_cpu_s: float
    theirs_cpu_s: float
    ours_rows_per_s: float
    theirs_rows_per_s: float
    rows_per_s_ratio: Ratio
    repeats: int


class StackRow(Record):
    """CPU-seconds of one thread for dictionaries of so many layers, median over repeats: at once, and one by one."""

    shape: str
    layers: int
    at_once_cpu_s: float
    one_by_one_cpu_s: float
    speedup: Ratio
    repeats: int


class PeakRow(Record):
    """Peak memory (``ru_maxrss``, a process of its own) of one epoch over so many bytes of cached rows."""

    rows: int
    cached_mib: float
    peak_mib: float


class Results(Record):
    """All that was measured. ``load_after``: the machine's load when it was done."""

    stamp: Stamp
    command: str
    load_after: float
    shapes: dict[str, dict[str, int]]
    speed: tuple[DictionaryRow, ...]
    stacks: tuple[StackRow, ...]
    memory: tuple[PeakRow, ...]


class StoredRows(Activations):
    """Rows of random numbers in files of one chunk each, mapped when they are asked for, as the bench's store does."""

    def __init__(self, folder: Path, rows: int, width: int, seed: int) -> None:
        self.names, self.widths, self.key = ("rows",), (width,), f"{rows} {width} {seed}"
        self.sizes = (CHUNK_ROWS,) * (rows // CHUNK_ROWS)
        self._folder = folder
        for n in range(len(self.sizes)):
            if not self._path(n).is_file():
                states = torch.randn(CHUNK_ROWS, width, generator=torch.Generator().manual_seed(seed + n))
                write_tensors(self._path(n), {"rows": states}, {}, durable=False)

    def _path(self, n: int) -> Path:
        return self._folder / f"{n}.safetensors"

    def chunk(self, n: int) -> Mapping[str, Tensor]:
        """The rows of one file."""
        return read_tensors(self._path(n))


def _from_memory(shape: Shape, rows: Tensor) -> None:
    """sae_lens as it comes, with our settings."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    def batches() -> Iterator[Tensor]:
        while True:
            yield from rows.split(shape.batch)

    config = SAETrainerConfig(
        total_training_samples=shape.batch * shape.steps, train_batch_size_samples=shape.batch, lr=1e-3, lr_end=1e-4,
        lr_warm_up_steps=shape.steps // 50, lr_decay_steps=shape.steps // 5, dead_feature_window=shape.steps // 10,
    )  # fmt: skip
    sae: Any = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=shape.width, d_sae=shape.features, k=shape.k))
    SAETrainer(config, sae, batches()).fit()


def timed(name: str, folder: Path, repeats: int, seed: int) -> DictionaryRow:
    """Ours and theirs in turn."""
    shape = SHAPES[name]
    source = StoredRows(folder, 4 * CHUNK_ROWS, shape.width, seed)
    memory = torch.cat([source.chunk(n)["rows"] for n in range(len(source.sizes))])
    held_out = TensorActivations({"rows": memory[:1024]})
    settings = TrainingSettings(
        features=shape.features, k=shape.k, rows=shape.batch * shape.steps, batch=shape.batch, seed=seed
    )
    calls = {
        "ours": lambda out: train(source, held_out, settings, out),
        "theirs": lambda out: _from_memory(shape, memory),
    }
    ours, theirs = _in_turn(calls, repeats)
    rows, mine, other = shape.batch * shape.steps, float(np.median(ours)), float(np.median(theirs))
    return DictionaryRow(
        shape=name, ours_cpu_s=mine, theirs_cpu_s=other, ours_rows_per_s=rows / mine, theirs_rows_per_s=rows / other,
        rows_per_s_ratio=ratio(theirs, ours, "sae_lens from memory", seed), repeats=repeats,
    )  # fmt: skip


def _in_turn(calls: Mapping[str, Callable[[Path], object]], repeats: int) -> tuple[Seconds, Seconds]:
    """CPU-seconds of two calls, the first one first in every other repeat; one call of each is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name in reversed(calls) if repeat % 2 else calls:
            with tempfile.TemporaryDirectory() as out:
                begun = time.process_time()
                calls[name](Path(out))
                if repeat:
                    seconds[name].append(time.process_time() - begun)
    first, second = (np.array(each) for each in seconds.values())
    return first, second


def stacked(name: str, repeats: int, seed: int) -> StackRow:
    """Layers trained at once, and once more each, from rows in memory."""
    shape = STACKS[name]
    g = torch.Generator().manual_seed(seed)
    states = {f"layer{n}": torch.randn(CHUNK_ROWS, shape.width, generator=g) for n in range(LAYERS)}
    every = TensorActivations(states)
    single = {layer: TensorActivations({layer: x}) for layer, x in states.items()}
    held_out = TensorActivations({layer: x[:1024] for layer, x in states.items()})
    single_held_out = {layer: TensorActivations({layer: x[:1024]}) for layer, x in states.items()}
    settings = TrainingSettings(
        features=shape.features, k=shape.k, rows=shape.batch * shape.steps, batch=shape.batch, seed=seed
    )

    def one_by_one(out: Path) -> None:
        for layer, source in single.items():
            train(source, single_held_out[layer], settings, out / layer)

    together, singly = _in_turn(
        {"at once": lambda out: train(every, held_out, settings, out), "one by one": one_by_one}, repeats
    )
    return StackRow(
        shape=name, layers=LAYERS, at_once_cpu_s=float(np.median(together)), one_by_one_cpu_s=float(np.median(singly)),
        speedup=ratio(singly, together, "one after the other", seed), repeats=repeats,
    )  # fmt: skip


def peak(rows: int, width: int, seed: int) -> PeakRow:
    """One epoch over ``rows`` cached rows in a process of its own; the files are written by this one."""
    with tempfile.TemporaryDirectory() as folder:
        StoredRows(Path(folder), rows, width, seed)
        words = [sys.executable, "-m", _NAME, "--child", folder, str(rows), str(width), str(seed)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{words} ended with {done.returncode}: {done.stderr[-2000:]}")
    return PeakRow.model_validate_json(done.stdout.splitlines()[-1])


def _child(folder: Path, rows: int, width: int, seed: int) -> PeakRow:
    """A dictionary of a few features: what memory it takes is that of the rows."""
    torch.set_num_threads(1)
    source = StoredRows(folder, rows, width, seed)
    held_out = TensorActivations({"rows": source.chunk(0)["rows"][:1024].clone()})
    settings = TrainingSettings(features=16, k=2, rows=source.rows, batch=4096, seed=seed)
    with tempfile.TemporaryDirectory() as out:
        train(source, held_out, settings, Path(out))
    bytes_of_unit = 1 if sys.platform == "darwin" else 1024
    high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_of_unit
    return PeakRow(rows=source.rows, cached_mib=source.rows * width * 4 / 2**20, peak_mib=high / 2**20)


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=4, metavar=("FOLDER", "ROWS", "WIDTH", "SEED"), help=argparse.SUPPRESS)
    parser.add_argument("--shapes", nargs="*", choices=sorted(SHAPES), default=sorted(SHAPES))
    parser.add_argument("--chunks", nargs="*", type=int, default=[8, 40], help="of 16 MiB; how many rows are cached")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.child:
        folder, *numbers = args.child
        sys.stdout.write(_child(Path(folder), *map(int, numbers)).model_dump_json() + "\n")
        return
    torch.set_num_threads(1)
    before = stamp(args.seed)
    memory = [peak(n * CHUNK_ROWS, 256, args.seed) for n in args.chunks]
    stacks = [stacked(name, args.repeats, args.seed) for name in STACKS]
    speed: list[DictionaryRow] = []
    for name in args.shapes:
        with tempfile.TemporaryDirectory() as folder:
            speed.append(timed(name, Path(folder), args.repeats, args.seed))
    results = Results(
        stamp=before, command=f"python -m {_NAME} {' '.join(sys.argv[1:])}", load_after=round(os.getloadavg()[0], 2),
        shapes={name: shape._asdict() for name, shape in (SHAPES | STACKS).items()}, speed=tuple(speed),
        stacks=tuple(stacks), memory=tuple(memory),
    )  # fmt: skip
    text = results.model_dump_json(indent=1) + "\n"
    sys.stdout.write(text)
    if args.out is not None:
        write_atomic(args.out, text.encode())


if __name__ == "__main__":
    main()
