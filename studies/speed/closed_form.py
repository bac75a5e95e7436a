"""The closed form of a redirected concept against the dense solve of the published code: time and memory.

``python -m studies.speed.closed_form --out studies/speed/closed_form.json`` gives both the same key, residual and
directions that are held, and takes the factors (two products with the held directions, a system of one) against the
system of one row a hidden unit, whose projection stands ready. Each way runs in a process of its own, which says how
far its memory went beyond what the interpreter and the inputs took; differences are between the two changes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from audit.edits import Factors, null_space_factors
from audit.schema import Record
from audit.storage import write_atomic
from studies.provenance import Stamp, stamp

UNITS = (4096, 14336)
WIDTH, HELD, RIDGE = 4096, 64, 1.0
Way = Literal["closed_form", "dense"]


class Run(Record):
    """One way at one size: CPU-seconds of the solve, memory beyond the inputs, and the change of the key's output."""

    cpu_s: float
    memory_mib: float
    sent: tuple[float, ...]


class Size(Record):
    """Both ways: how many times as fast the closed form is, and how far they differ (relative)."""

    units: int
    width: int
    held: int
    closed_form: Run
    dense: Run
    speedup: float
    difference: float


class Results(Record):
    """What stands in the file."""

    stamp: Stamp
    command: str
    load_after: float
    sizes: tuple[Size, ...]


def inputs(units: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A key, a residual and orthonormal directions, in float32 as they come out of a model."""
    rng = torch.Generator().manual_seed(seed)
    held = torch.linalg.qr(torch.randn(units, HELD, generator=rng)).Q
    return torch.randn(1, units, generator=rng), torch.randn(1, WIDTH, generator=rng), held


def dense(key: Tensor, residual: Tensor, projection: Tensor) -> Tensor:
    """The published system, unit x unit, in float32 as there: (P k k^T + I) dV = P k r."""
    free = projection @ key.T
    system = free @ key
    system.diagonal().add_(RIDGE)
    return torch.linalg.solve(system, free @ residual)


def run(way: Way, units: int, seed: int) -> Run:
    """One way in this process."""
    torch.set_num_threads(1)
    key, residual, held = inputs(units, seed)
    torch.linalg.solve(torch.eye(8), torch.ones(8, 1))  # libraries load on first use
    projection = torch.eye(units).sub_(held @ held.T) if way == "dense" else None
    before, since = _peak(), time.process_time()
    if projection is None:
        factors, calls = null_space_factors(key, residual, held, RIDGE), 1
        while time.process_time() - since < 0.5:
            factors, calls = null_space_factors(key, residual, held, RIDGE), calls + 1
        seconds = (time.process_time() - since) / calls
        sent = sent_by(factors, key)
    else:
        sent = key.double() @ dense(key, residual, projection).double()
        seconds = time.process_time() - since
    memory = (_peak() - before) / 2**20
    return Run(cpu_s=seconds, memory_mib=memory, sent=tuple(sent[0, :8].tolist()))


def sent_by(factors: Factors, key: Tensor) -> Tensor:
    """What the change adds to the key's output."""
    return (key.double() @ factors.reads.T) @ factors.writes


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _apart(way: Way, units: int, seed: int) -> Run:
    words = [sys.executable, "-m", __name__ if __name__ != "__main__" else "studies.speed.closed_form"]
    done = subprocess.run([*words, "--way", way, "--units", str(units), "--seed", str(seed)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{way} at {units} ended with {done.returncode}: {done.stderr[-2000:]}")
    return Run.model_validate_json(done.stdout.splitlines()[-1])


def measured(units: int, seed: int) -> Size:
    """Both ways, one after the other."""
    ours, theirs = (_apart(way, units, seed) for way in ("closed_form", "dense"))
    a, b = (torch.tensor(run.sent, dtype=torch.float64) for run in (ours, theirs))
    return Size(
        units=units, width=WIDTH, held=HELD, closed_form=ours, dense=theirs, speedup=theirs.cpu_s / ours.cpu_s,
        difference=float((a - b).norm() / a.norm()),
    )  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--way", choices=("closed_form", "dense"))
    parser.add_argument("--units", type=int, nargs="+", default=list(UNITS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.way:
        sys.stdout.write(run(args.way, args.units[0], args.seed).model_dump_json() + "\n")
        return
    before = stamp(args.seed)
    sizes = tuple(measured(units, args.seed) for units in args.units)
    results = Results(
        stamp=before, command="python -m studies.speed.closed_form --out studies/speed/closed_form.json",
        load_after=round(os.getloadavg()[0], 2), sizes=sizes,
    )  # fmt: skip
    document = json.dumps(results.model_dump(mode="json"), indent=1) + "\n"
    if args.out is None:
        sys.stdout.write(document)
    else:
        write_atomic(args.out, document.encode())


if __name__ == "__main__":
    main()
