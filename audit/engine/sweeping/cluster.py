"""Workers of a sweep on a Ray cluster: its scheduler spreads the units, and its retries take up those of dead workers.

A unit's outcome is a few strings; everything else is a file that appears whole or not at all, in a folder and a store
that all nodes must see. So a unit that Ray runs again finds what the first try finished.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from audit.engine.sweeping.processes import ATTEMPTS
from audit.engine.sweeping.tasks import Outcome, Task
from audit.schema import AuditError, ExitCode

if TYPE_CHECKING:
    from audit.planning import RunSettings, Watch

LOCAL: Final = "local"
"""The address that starts an instance on this machine."""
HANDED_ON: Final = ("RESIDUA_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY",
                    "OMP_NUM_THREADS", "TQDM_DISABLE")  # fmt: skip
"""Variables of this process that the workers get too."""
log = logging.getLogger(__name__)
_workers: "dict[RunSettings, Any]" = {}
"""The worker of this process of Ray, which outlives its units, so that models stay open between them."""


class Cluster(NamedTuple):
    """Which cluster (``auto``, an address, or :data:`LOCAL`), how many units at once (None: as many as Ray finds room
    for), and the share of a graphics card that each takes."""

    address: str
    workers: int | None = None
    cards: float = 0.0


class Rays:
    """Performs units on a cluster. Use as a context manager: an instance that was started here is ended with it."""

    def __init__(self, settings: "RunSettings", cluster: Cluster, watch: "Watch") -> None:
        self._settings, self._cluster, self._watch = settings, cluster, watch
        self._started = False

    def __enter__(self) -> "Rays":
        ray = _ray()
        if ray.is_initialized():
            return self
        address, workers = self._cluster.address, self._cluster.workers
        own: dict[str, Any] = {"include_dashboard": False, "num_cpus": workers} if address == LOCAL else {}
        variables = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
        if address == LOCAL:
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        try:
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.WARNING,
                runtime_env={"env_vars": variables}, **own,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            first = str(error).partition("\n")[0]
            do = "start one with `ray start --head`, give its address, or --ray local"
            raise AuditError(f"no Ray cluster at {address!r}: {first}", do) from None
        self._started = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            _ray().shutdown()

    def perform(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """The outcome of every unit as they come, handed to Ray in this order."""
        ray = _ray()
        as_task = ray.remote(num_cpus=1, num_gpus=self._cluster.cards, max_retries=ATTEMPTS - 1, max_calls=0)
        remote = as_task(perform_here)
        settings, together, waiting = ray.put(self._settings), self._together, list(tasks)
        most = self._cluster.workers or len(waiting)
        running: dict[Any, Task] = {}
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    task = waiting.pop(0)
                    running[remote.remote(settings, task, together)] = task
                for finished in ray.wait(list(running), num_returns=1)[0]:
                    yield self._outcome(finished, running.pop(finished))
        finally:
            for unfinished in running:
                ray.cancel(unfinished)

    @property
    def _together(self) -> int:
        """How many units can be at work in the same memory: on a node, or on a graphics card."""
        if self._cluster.cards:
            return max(1, int(1 / self._cluster.cards))
        return self._cluster.workers or max(int(node["Resources"].get("CPU", 1)) for node in _ray().nodes())

    def _outcome(self, finished: Any, task: Task) -> Outcome:
        ray = _ray()
        try:
            return Outcome(**ray.get(finished))
        except ray.exceptions.RayError as error:
            first = str(error).partition("\n")[0]
            problem = f"Ray gave it up, after {ATTEMPTS} tries where workers died: {type(error).__name__}: {first}"
            do = "look into its run.log and Ray's own logs; want of memory wants fewer workers (--workers)"
            return Outcome(task.name, problem=problem, do=do, code=ExitCode.INTEGRITY)


def perform_here(settings: "RunSettings", task: Task, together: int) -> Mapping[str, str | int]:
    """One unit in this process of Ray, beside so many others in the same memory, as plain values."""
    from audit.engine.sweeping.worker import Worker
    from audit.planning import unwatched
    from audit.runs import guarded

    worker = _workers.setdefault(settings, Worker(settings, together))
    with guarded():
        return worker.perform(task, unwatched)._asdict()


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise AuditError(
            "Ray is not installed here", "pip install 'residua[ray]', or leave --ray away: processes of this machine"
        ) from None
    return ray
