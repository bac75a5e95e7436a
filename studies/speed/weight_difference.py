"""Two checkpoints of one gigabyte compared by their weights, against reading and hashing both files.

``python -m studies.speed.weight_difference --out studies/speed/weight_difference.json``. A language model of random
weights in bfloat16, and the same with noise on every matrix: norms, changed entries and the largest sixteen singular
values of every difference. A matrix that one direction explains is flagged and decomposed in full: what one such matrix
costs stands beside it. CPU-seconds of one thread; the files are in the page cache for both.
"""

import argparse
import gc
import hashlib
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from audit.bench import Bench, Difference, difference
from audit.checkpoints import resolve
from audit.schema import Checkpoint, Record, Source
from audit.storage import write_atomic
from studies.provenance import Stamp, stamp
from studies.speed.results import Ratio
from studies.speed.timing import interleaved, ratio

WIDTH, INNER, BLOCKS, HEADS, VOCABULARY = 2048, 5632, 7, 16, 32000
NOISE = 0.02
TARGET = 3.0
"""So many times what reading and hashing costs is the most that is wanted."""


class WeightsRow(Record):
    """CPU-seconds, median over repeats. ``times_hashing``: the comparison over hashing both files."""

    bytes_a_file: int
    parameters: int
    stored: str
    matrices: int
    compared_cpu_s: float
    hashed_cpu_s: float
    times_hashing: Ratio
    target: float
    flagged_matrix: tuple[int, int]
    flagged_matrix_cpu_s: float
    unflagged_matrix_cpu_s: float
    repeats: int


class Results(Record):
    """What was measured. ``load_after``: the machine's load when it was done."""

    stamp: Stamp
    command: str
    load_after: float
    row: WeightsRow


def pair(out: Path, dtype: torch.dtype, blocks: int, seed: int) -> tuple[Path, Path]:
    """Folders of a model of random weights and of its changed copy."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=blocks, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, vocab_size=VOCABULARY, tie_word_embeddings=False, dtype=dtype,
    )  # fmt: skip
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in LlamaForCausalLM(config).named_parameters()}
    draws = torch.Generator().manual_seed(seed)
    base = {name: (torch.randn(shape, generator=draws) * NOISE).to(dtype) for name, shape in shapes.items()}
    folders = out / "base", out / "suspect"
    for folder in folders:
        folder.mkdir()
        config.save_pretrained(folder)
    save_file(base, folders[0] / "model.safetensors", {"format": "pt"})
    for name, x in base.items():
        base[name] = (x.float() + NOISE / 4 * torch.randn(x.shape, generator=draws)).to(dtype)
    save_file(base, folders[1] / "model.safetensors", {"format": "pt"})
    return folders


def compared(base: Checkpoint, suspect: Checkpoint) -> list[Difference]:
    """What the probe reads."""
    return [d for d in Bench().weight_differences(base, suspect) if isinstance(d, Difference)]


def hashed(folders: tuple[Path, ...]) -> list[str]:
    """sha256 of both files, streamed."""
    digests: list[str] = []
    for folder in folders:
        with (folder / "model.safetensors").open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests


def measured(dtype: torch.dtype, blocks: int, repeats: int, seed: int) -> WeightsRow:
    """Both in turn."""
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as folder:
        folders = pair(Path(folder), dtype, blocks, seed)
        gc.collect()
        base, suspect = (resolve(Source(path=str(path)), Path(folder)) for path in folders)
        read = compared(base, suspect)
        calls = {"compared": lambda: compared(base, suspect), "hashed": lambda: hashed(folders)}
        timed = list(interleaved(calls, repeats, 1, seed))
        size = (folders[0] / "model.safetensors").stat().st_size
    ours, theirs = (np.array([t[name] for t in timed]) for name in ("compared", "hashed"))
    matrices = [d for d in read if d.spectrum is not None]
    return WeightsRow(
        bytes_a_file=size, parameters=sum(d.entries for d in read), stored=str(dtype).removeprefix("torch."),
        matrices=len(matrices),
        compared_cpu_s=float(np.median(ours)), hashed_cpu_s=float(np.median(theirs)),
        times_hashing=ratio(ours, theirs, "reading and hashing both files", seed), target=TARGET,
        flagged_matrix=(WIDTH, INNER), flagged_matrix_cpu_s=_one(dtype, seed, spiked=True),
        unflagged_matrix_cpu_s=_one(dtype, seed, spiked=False), repeats=repeats,
    )  # fmt: skip


def _one(dtype: torch.dtype, seed: int, spiked: bool) -> float:
    """CPU-seconds of one matrix, the better of two."""
    draws = torch.Generator().manual_seed(seed)
    base = (NOISE * torch.randn(WIDTH, INNER, generator=draws)).to(dtype)
    change = torch.randn(WIDTH, INNER, generator=draws)
    if spiked:
        change = torch.outer(change[:, 0], change[0])
    suspect, seconds = (base.float() + NOISE / 4 * change).to(dtype), list[float]()
    for _ in range(2):
        begin = time.process_time()
        difference("matrix", base, suspect)
        seconds.append(time.process_time() - begin)
    return min(seconds)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = stamp(args.seed)
    row = measured(torch.bfloat16, BLOCKS, args.repeats, args.seed)
    command = "python -m studies.speed.weight_difference --out studies/speed/weight_difference.json"
    command += f" --repeats {args.repeats}"
    results = Results(stamp=before, command=command, load_after=round(os.getloadavg()[0], 2), row=row)
    write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
