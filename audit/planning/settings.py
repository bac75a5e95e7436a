"""*How* an audit is made, never *what*, and how its progress is told: outside the plan, recorded in provenance."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from audit.bench import Bench
from audit.schema import AuditError, Interval
from audit.storage import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSettings:
    """*How* an audit is made, never *what*: outside the plan hash, recorded in provenance.

    ``store`` is the folder of cached activations (None: nothing is kept between passes). ``threads`` None leaves
    torch's own number. ``package`` is where the probes are, ``calibrations`` the folder of calibrations that may judge
    (None: those that come with the probes). ``max_time`` (seconds) and ``max_mem`` (bytes) leave tests out of the plan.
    """

    backend: str = "native"
    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "default"
    threads: int | None = None
    token_budget: int = 16384
    store: Path | None = None
    online: bool = False
    force_new: bool = False
    demo: bool = False
    allow_undecided: bool = False
    package: str = "probes"
    calibrations: Path | None = None
    max_time: float | None = None
    max_mem: int | None = None

    @property
    def conditions(self) -> list[str]:
        """What the numbers of a run depend on beside its plan."""
        return [self.backend, self.device, self.dtype, self.attention]


class Step(NamedTuple):
    """One step of progress: the stage, what it is about, how many of how many are done, and whether it is.

    ``left`` is how many seconds the rest takes, where that is known.
    """

    stage: str
    detail: str
    done: int
    total: int
    finished: bool = False
    left: Interval | None = None


Watch = Callable[[Step], None]


def unwatched(step: Step) -> None:
    """Nobody looks: steps go to the log alone."""
    log.debug("%s %s %d/%d", *step[:4])


def make_bench(settings: RunSettings) -> Bench:
    """The bench that these flags ask for."""
    import torch

    _check_device(settings.device)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    store = None if settings.store is None else Store(settings.store)
    return Bench(
        backend=settings.backend, device=settings.device, dtype=settings.dtype, attention=settings.attention,
        token_budget=settings.token_budget, store=store,
    )  # fmt: skip


def _check_device(device: str) -> None:
    """Is there such a device, here and now? AuditError (code 2) if not."""
    import torch

    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise AuditError(
            f"there is no device {device!r} here: {reason}", "name one that torch finds, such as cpu"
        ) from None
