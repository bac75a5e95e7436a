"""What every results file carries: the commit the numbers belong to, the machine, and when they were made."""

import datetime as dt
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

from audit.schema import Record

PACKAGES = ("torch", "transformers", "transformer-lens", "nnsight", "numpy")

ROOT: Final = Path(__file__).resolve().parents[1]


class Machine(Record):
    """The machine as it was; ``load_before`` tells whether it was calm."""

    cpu: str
    cores: int
    memory_gib: float
    python: str
    packages: dict[str, str]
    torch_threads: int
    load_before: float


class Stamp(Record):
    """Where results come from."""

    created: str
    commit: str
    seed: int
    machine: Machine


def machine() -> Machine:
    """This machine as it is now."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    return Machine(
        cpu=cpu,
        cores=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        python=platform.python_version(),
        packages={name: version(name) for name in PACKAGES},
        torch_threads=1,
        load_before=round(os.getloadavg()[0], 2),
    )


def commit(root: Path = ROOT) -> str:
    """The commit the numbers belong to, of this checkout or of another; marked when tracked files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "HEAD") or "unknown") + (" (with uncommitted changes)" if changed else "")


def now() -> str:
    """UTC, to the second."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp(seed: int) -> Stamp:
    """The stamp of a results file that is made now."""
    return Stamp(created=now(), commit=commit(), seed=seed, machine=machine())
