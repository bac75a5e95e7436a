"""What the command line costs: CPU-seconds with children, and wall seconds."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from studies.speed.results import CommandRow

RESIDUA = (sys.executable, "-m", "audit.cli")


def measure(
    words: Sequence[str], condition: str, repeats: int = 1, env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> CommandRow:  # fmt: skip
    """Run ``residua *words`` and count what it and its children used. Raises RuntimeError when it cannot start.

    The Residua is that of the folder ``cwd``, where it is a checkout."""
    cpu, wall, code = [], [], 0
    for _ in range(repeats):
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [*RESIDUA, *words], env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, cwd=cwd,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(time.perf_counter() - begin)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        code = done.returncode
        if "No module named" in done.stderr:
            raise RuntimeError(done.stderr[-1000:])
    return CommandRow(
        command=" ".join(["residua", *words]).replace(str(Path.cwd()), "."),
        condition=condition,
        cpu_s=median(cpu),
        wall_s=median(wall),
        repeats=repeats,
        exit_code=code,
    )


def demo(scratch: Path, world: str) -> list[CommandRow]:
    """``residua demo`` with an empty cache, and again into a new folder with everything it cached."""
    env = {"RESIDUA_CACHE": str(scratch / "cache")}
    rows = []
    for number, condition in enumerate(("first time: trains the world", "models cached")):
        row = measure(["demo", "--world", world, "--out", str(scratch / f"demo-{number}")], condition, env=env)
        rows.append(row.model_copy(update={"command": f"residua demo --world {world}"}))
    return rows
