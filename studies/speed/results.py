"""What a benchmark found, as frozen nouns: written to results.json, printed as tables."""

import datetime as dt
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from audit.findings import Interval
from audit.nouns import Missing, Noun


class Ratio(Noun):
    """The median over repeats of one method's CPU-seconds against another's in the same repeat, with its interval."""

    against: str
    median: float
    ci95: Interval


class TimingRow(Noun):
    """One method at one size: CPU-seconds of one thread a call, median and range over repeats, and ratios."""

    size: str
    method: str
    mode: str
    cpu_s: float
    cpu_s_min: float
    cpu_s_max: float
    repeats: int
    calls_per_repeat: int
    ratios: tuple[Ratio, ...]


class MemoryRow(Noun):
    """Peak resident memory of one method in a process of its own, in MiB, and the part that its result takes."""

    size: str
    method: str
    mode: str
    peak_mib: float
    before_mib: float
    returned_mib: float
    block_output_mib: float


class CommandRow(Noun):
    """CPU-seconds (with children) and wall seconds of a command line: median over repeats."""

    command: str
    condition: str
    cpu_s: float
    wall_s: float
    repeats: int
    exit_code: int


class Bound(Noun):
    """A promise and what was measured. Met when the interval reaches the bound."""

    claim: str
    size: str
    bound: float
    measured: float
    ci95: Interval | Missing
    met: bool


class Machine(Noun):
    """Where and on what the numbers were taken."""

    cpu: str
    cores: int
    memory_gib: float
    python: str
    packages: dict[str, str]
    torch_threads: int
    load_before: float


class Results(Noun):
    """Everything that one run of the suite measured."""

    schema_version: int = 1
    created: str
    commit: str
    seed: int
    command: str
    machine: Machine
    timings: tuple[TimingRow, ...] = ()
    memory: tuple[MemoryRow, ...] = ()
    commands: tuple[CommandRow, ...] = ()
    bounds: tuple[Bound, ...] = ()
    not_run: dict[str, str] = {}


def machine() -> Machine:
    """This machine as it is now; ``load_before`` tells whether it was calm."""
    names = ("torch", "transformers", "transformer-lens", "nnsight", "numpy")
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    return Machine(
        cpu=cpu,
        cores=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        python=platform.python_version(),
        packages={name: version(name) for name in names},
        torch_threads=1,
        load_before=round(os.getloadavg()[0], 2),
    )


def commit() -> str:
    """The commit the numbers belong to; marked when tracked files differ from it."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "HEAD") or "unknown") + (" (with uncommitted changes)" if changed else "")


def now() -> str:
    """UTC, to the second."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
