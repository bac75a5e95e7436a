"""A forecast in stages: each is kept whole when it is done, so that a killed forecast goes on where it was."""

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy import ndarray

from audit.planning import Step, Watch
from audit.runs import run_files
from audit.schema import Timing, content_key
from audit.storage import write_atomic

Arrays = dict[str, ndarray]


class Stages:
    """Arrays by stage under ``<out>/units``, named by all that decides them (``identity``)."""

    def __init__(self, out: Path, identity: str, stages: tuple[str, ...], watch: Watch) -> None:
        self.out, self.identity, self.stages, self.watch = out, identity, stages, watch
        self.timings: list[Timing] = []

    def keep(self, stage: str, compute: Callable[[], Arrays]) -> Arrays:
        """What the stage computed: read back where it is kept, else computed and kept."""
        key = content_key(self.identity, stage)[:24]
        path = self.out / run_files.UNITS / f"{key}.npz"
        done = len(self.timings)
        if path.is_file():
            with np.load(path, allow_pickle=False) as archive:
                cached = {name: archive[name] for name in archive.files}
            self._tell("reused", stage, done + 1, True)
            self.timings.append(Timing(unit=stage, cpu_s=0.0, wall_s=0.0))
            return cached
        self._tell("measure", stage, done, False)
        cpu, wall = time.process_time(), time.perf_counter()
        computed = compute()
        self.timings.append(Timing(unit=stage, cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall))
        buffer = BytesIO()
        np.savez_compressed(buffer, **computed)  # pyright: ignore[reportArgumentType] - names are array names
        write_atomic(path, buffer.getvalue())
        self._tell("measured", stage, done + 1, True)
        return computed

    def _tell(self, event: str, stage: str, done: int, finished: bool) -> None:
        self.watch(Step(event, stage, done, len(self.stages), finished))
