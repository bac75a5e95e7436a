"""Training a dictionary from a stream on disk, against sae_lens fed from memory; and how memory grows with the rows.

``python -m studies.speed.dictionaries --out studies/speed/dictionaries.json``. Ours is the whole of ``saes.train``:
moments, steps, checkpoints that can be resumed, folding, and the measures on held-out rows. Theirs is
``SAETrainer.fit`` alone, on rows that were standardised and shuffled in memory before the clock starts.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audit.schema import Record
from audit.storage import read_tensors, write_tensors
from saes import Activations, TensorActivations, TrainingSettings, train
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


class DictionaryRow(Record):
    """CPU-seconds of one thread for all steps, median over repeats, and rows a second of each."""

    shape: str
    ours_cpu_s: float
    theirs_cpu_s: float
    ours_rows_per_s: float
    theirs_rows_per_s: float
    rows_per_s_ratio: Ratio
    repeats: int


class PeakRow(Record):
    """Peak memory (``ru_maxrss``, a process of its own) of one epoch over so many bytes of cached rows."""

    rows: int
    cached_mib: float
    peak_mib: float


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
    """Both in turn, ours first in every other repeat; one call of each is not counted."""
    shape = SHAPES[name]
    source = StoredRows(folder, 4 * CHUNK_ROWS, shape.width, seed)
    memory = torch.cat([source.chunk(n)["rows"] for n in range(len(source.sizes))])
    held_out = TensorActivations({"rows": memory[:1024]})
    settings = TrainingSettings(
        features=shape.features, k=shape.k, rows=shape.batch * shape.steps, batch=shape.batch, seed=seed
    )
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for repeat in range(repeats + 1):
        for method in sorted(seconds, reverse=bool(repeat % 2)):
            with tempfile.TemporaryDirectory() as out:
                begun = time.process_time()
                if method == "ours":
                    train(source, held_out, settings, Path(out))
                else:
                    _from_memory(shape, memory)
                if repeat:
                    seconds[method].append(time.process_time() - begun)
    ours, theirs = (torch.tensor(seconds[method]).double().numpy() for method in ("ours", "theirs"))
    return _row(name, ours, theirs, shape.batch * shape.steps, seed)


def _row(name: str, ours: Seconds, theirs: Seconds, rows: int, seed: int) -> DictionaryRow:
    mine, other = sorted(ours)[len(ours) // 2], sorted(theirs)[len(theirs) // 2]
    return DictionaryRow(
        shape=name, ours_cpu_s=mine, theirs_cpu_s=other, ours_rows_per_s=rows / mine, theirs_rows_per_s=rows / other,
        rows_per_s_ratio=ratio(theirs, ours, "sae_lens from memory", seed), repeats=len(ours),
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
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.child:
        folder, *numbers = args.child
        sys.stdout.write(_child(Path(folder), *map(int, numbers)).model_dump_json() + "\n")
        return
    torch.set_num_threads(1)
    document: dict[str, list[Any]] = {"speed": [], "memory": []}
    for n in args.chunks:
        document["memory"].append(peak(n * CHUNK_ROWS, 256, args.seed).model_dump(mode="json"))
    for name in args.shapes:
        with tempfile.TemporaryDirectory() as folder:
            document["speed"].append(timed(name, Path(folder), args.repeats, args.seed).model_dump(mode="json"))
    text = json.dumps({"torch": torch.__version__, "seed": args.seed, **document}, indent=1)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
