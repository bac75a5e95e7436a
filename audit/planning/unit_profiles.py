"""Where the time of a run's units goes: into model passes, or into what is made of them (``residua run --profile``).

Every unit is sampled a thousand times a second (pyinstrument). Beside the run folder, outside what a report vouches
for, lies a page for each unit (a timeline of its calls, to be read as a flame graph) and ``shares.json``. A sample lies
in a model pass where a wrapper's forward pass or a backward pass is under way and none of our own hooks within it.
"""

import json
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from audit.schema import AuditError
from audit.storage import write_atomic

if TYPE_CHECKING:
    from pyinstrument import Profiler
    from pyinstrument.frame import Frame

SUFFIX: Final = ".profile"
SHARES: Final = "shares.json"
INTERVAL_S: Final = 0.001
_TREE: Final = Path(__file__).resolve().parents[2]
_WRAPPERS: Final = str(_TREE / "audit" / "wrappers")
_OURS: Final = tuple(str(_TREE / name) for name in ("audit", "probes", "saes"))
_BACKWARD: Final = frozenset({"grad", "backward", "_engine_run_backward"})


class UnitShare(NamedTuple):
    """What one unit took: CPU-seconds of the process, and which share of its wall time lay in model passes."""

    unit: str
    cpu_s: float
    passes: float


class UnitProfiles:
    """The profiles of one run, kept beside its folder; what an earlier part of the same run left is taken on, unless
    it is made ``anew``."""

    def __init__(self, out: Path, anew: bool = False) -> None:
        self.folder = out.with_name(out.name + SUFFIX)
        if anew and (self.folder / SHARES).is_file():
            shutil.rmtree(self.folder)

    @contextmanager
    def unit(self, name: str) -> Generator[None]:
        """Sample a block, and keep what was seen if it ends well. AuditError (code 2) without the package for it."""
        try:
            from pyinstrument import Profiler
        except ImportError:
            raise AuditError("--profile needs the package pyinstrument", "pip install 'residua[profile]'") from None
        cpu, profiler = time.process_time(), Profiler(interval=INTERVAL_S, async_mode="disabled")
        with profiler:
            yield
        share = UnitShare(name, round(time.process_time() - cpu, 3), round(_passes(profiler), 4))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / f"{name}.html", profiler.output_html().encode())
        merged = {each.unit: each for each in self.shares()} | {name: share}
        write_atomic(self.folder / SHARES, json.dumps([each._asdict() for each in merged.values()], indent=1).encode())

    def shares(self) -> tuple[UnitShare, ...]:
        """What was measured, in the order of the units; empty where nothing was."""
        path = self.folder / SHARES
        if not path.is_file():
            return ()
        try:
            return tuple(UnitShare(str(row["unit"]), float(row["cpu_s"]), float(row["passes"]))
                         for row in json.loads(path.read_bytes()))  # fmt: skip
        except (ValueError, KeyError, TypeError):
            raise AuditError(f"{path}: not what --profile writes", "delete the folder and profile again") from None


def _passes(profiler: "Profiler") -> float:
    """The share of the samples that lie in model passes; 0 where there are none."""
    session = profiler.last_session
    root = None if session is None else session.root_frame(trim_stem=False)
    if root is None or root.time <= 0:
        return 0.0
    return sum(_within(root, passing=False)) / root.time


def _within(frame: "Frame", passing: bool) -> Iterator[float]:
    """Seconds in a frame and below it that lie in model passes; ``passing``: whoever called it was in one."""
    path, function = frame.file_path or "", frame.function
    if path.startswith(_WRAPPERS):
        passing = passing or function == "forward"
    elif path.startswith(_OURS):
        passing = False
    elif function in _BACKWARD and "/torch/" in path:
        passing = True
    children = frame.children
    if passing:
        yield frame.time - sum(child.time for child in children)
    for child in children:
        yield from _within(child, passing)
