"""How fast this machine is at what is no pass: one small probe, made once and kept in the cache, by machine.

What a unit costs beside its passes (matching, statistics, files) is mostly many small steps of one thread; so are the
steps by which a probe is measured here.
"""

import json
import platform
import time
from pathlib import Path
from typing import Final

from audit.storage import cache_root, write_atomic

NAME: Final = "machine.json"
_REPEATS, _ROUNDS, _WIDTH = 40, 200, 16


def path() -> Path:
    """Where it is kept."""
    return cache_root() / NAME


def small_seconds() -> float:
    """CPU-seconds of one small step on this machine: from the cache, else measured and put there."""
    name = _machine()
    try:
        cached = json.loads(path().read_bytes())
        if cached["machine"] == name and float(cached["small_s"]) > 0:
            return float(cached["small_s"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not measured yet, or not readable: measured anew
    small = _measured()
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path(), json.dumps({"machine": name, "small_s": small}).encode())
    except OSError:
        pass  # a cache that cannot be written costs a tenth of a second again
    return small


def _machine() -> str:
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return "|".join([models[0] if models else platform.machine(), platform.node(), torch.__version__])


def _measured() -> float:
    """The fastest of some rounds of small products, sorts and dictionaries."""
    import torch

    square, taken = torch.ones(_WIDTH, _WIDTH), list[float]()
    with torch.inference_mode():
        for _ in range(_REPEATS):
            begin = time.process_time()
            for n in range(_ROUNDS):
                torch.relu(square @ square).sum(-1)
                sorted({k: str(k + n) for k in range(_WIDTH)}.values())
            taken.append((time.process_time() - begin) / _ROUNDS)
    return min(taken)
