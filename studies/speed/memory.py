"""Peak memory of one method, each in a process of its own, which is this module run as a program.

The peak is that of the whole process, opened model included (``ru_maxrss``); every process imports the same modules.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import torch

from studies.speed.methods import OPENERS, Method
from studies.speed.results import MemoryRow
from studies.speed.sizes import SIZES, SizeName, checkpoint, rows


def measure(size: SizeName, method: Method, folder: Path, seed: int) -> MemoryRow:
    """Run the method twice in this process and say how high its memory went."""
    torch.set_num_threads(1)
    call = OPENERS[method.name](checkpoint(size, folder, seed), rows(size, seed), method.mode)
    call()
    returned = sum(state.numel() * state.element_size() for state in call())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return MemoryRow(
        size=size,
        method=method.name,
        mode=method.mode,
        peaks_mib=(peak / 2**20,),
        returned_mib=returned / 2**20,
        block_output_mib=SIZES[size].block_output_mib,
    )


def in_own_processes(size: SizeName, method: Method, folder: Path, seed: int, processes: int) -> MemoryRow:
    """:func:`measure` in fresh interpreters, one by one: the allocator alone moves a peak by several percent."""
    words = [sys.executable, "-m", __name__, size, method.name, method.mode, str(folder), str(seed)]
    rows: list[MemoryRow] = []
    for _ in range(processes):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{method} at {size} ended with {done.returncode}: {done.stderr[-2000:]}")
        rows.append(MemoryRow.model_validate_json(done.stdout.splitlines()[-1]))
    return rows[0].model_copy(update={"peaks_mib": tuple(row.peaks_mib[0] for row in rows)})


def main() -> None:
    """The child process: one JSON line on standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("size", "method", "mode", "folder", "seed"):
        parser.add_argument(name)
    given = parser.parse_args()
    row = measure(given.size, Method(given.method, given.mode), Path(given.folder), int(given.seed))
    sys.stdout.write(row.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
