"""One probe on one world in a process of its own, on whichever checkout leads the path; says what it took, as JSON.

A script and not a module of a checkout, because it measures checkouts that do not have it: it names nothing of ours but
what both builds have, and falls back on the older names.
"""

import importlib
import inspect
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def _first(*names: str) -> Any:
    """The first of these (``module:name``) that this checkout has."""
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"none of {', '.join(names)}")


def noun(name: str) -> Any:
    """A noun of a case, wherever this checkout keeps it."""
    return _first(f"audit.schema:{name}", f"audit.nouns:{name}")


def main(world: Path, probe: str) -> None:
    """Open the case, run the probe, print."""
    import torch

    torch.set_num_threads(1)
    source, roles, data, case_type = (noun(name) for name in ("Source", "Roles", "DataFiles", "Case"))
    case = case_type(
        name="many-items", edited="all",
        roles=roles(base=source(path="base"), suspect=source(path="suspect"), references=(source(path="null"),)),
        data=data(forget="forget.jsonl", retain="retain.jsonl", holdout="holdout.jsonl"),
    )  # fmt: skip
    module = importlib.import_module(f"probes.{probe}")
    chosen: Any = next(
        thing for _, thing in inspect.getmembers(module, inspect.isclass)
        if thing.__module__ == module.__name__ and hasattr(thing, "measure")
    )  # fmt: skip
    opening = _first("audit.case:open_case", "audit.bench.opened:open_case")
    with tempfile.TemporaryDirectory() as out:
        opened = opening(case, world, Path(out))
        bench, begin = _first("audit.bench:Bench")(), time.process_time()
        measurements = chosen().measure(bench, opened)
        cpu_s = time.process_time() - begin
    numbers = [[part if isinstance(part, float) else -1.0 for part in (m.value, m.p)] for m in measurements]
    record = {
        "cpu_s": cpu_s, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "scored": measurements[0].n.scored, "people": measurements[0].units,
        "value": [n[0] for n in numbers], "p": [n[1] for n in numbers],
        "readings": [dict(m.readings) for m in measurements],
    }  # fmt: skip
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
