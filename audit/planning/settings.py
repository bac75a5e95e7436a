"""*How* an audit is made, never *what*, and how its progress is told: outside the plan, recorded in provenance. Free of
torch until there is a bench to make."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from audit.planning.amounts import parse_memory
from audit.planning.ranks import Ranks
from audit.schema import AuditError, Checkpoint, Interval
from audit.storage import USUAL

if TYPE_CHECKING:
    from audit.bench import Bench
    from audit.wrappers import Placement

log = logging.getLogger(__name__)
AUTO = "auto"


@dataclass(frozen=True)
class RunSettings:
    """*How* an audit is made, never *what*: outside the plan hash, recorded in provenance.

    ``store`` is the folder of cached activations (None: nothing is kept between passes), ``store_limit`` the most bytes
    that it may hold. ``threads`` None leaves
    torch's own number. ``device`` ``auto`` is CUDA, else MPS, else the CPU; ``dtype`` ``auto`` the type in which the
    weights lie (:func:`audit.checkpoints.exact_dtype`). ``package`` is where the probes are, ``calibrations`` the
    folder of calibrations that may judge (None: those that come with the probes). ``max_time`` (seconds) and
    ``max_mem`` (bytes) leave tests out of the plan.

    Models that do not fit on one device: ``device_map`` is ``auto``, ``balanced``, ... or the path of a JSON file
    (module name -> device), ``max_memory`` says how many bytes of weights devices may take (``20G``,
    ``0=20G,cpu=60G``), and ``offload`` is a folder for weights that cannot be read from the checkpoint's files as they
    are. ``profile``: where the time of each unit goes is kept beside the run (:class:`audit.planning.UnitProfiles`).
    """

    backend: str = "native"
    device: str = AUTO
    dtype: str = AUTO
    attention: str = "default"
    threads: int | None = None
    token_budget: int = 16384
    store: Path | None = None
    store_limit: int = USUAL
    online: bool = False
    force_new: bool = False
    demo: bool = False
    profile: bool = False
    allow_undecided: bool = False
    package: str = "probes"
    calibrations: Path | None = None
    max_time: float | None = None
    max_mem: int | None = None
    device_map: str | None = None
    max_memory: str | None = None
    offload: Path | None = None

    @property
    def conditions(self) -> list[str]:
        """What the numbers of a run depend on beside its plan; of settled settings."""
        return [self.backend, self.device, self.dtype, self.attention]

    def settled(self, models: Iterable[Checkpoint] = ()) -> "RunSettings":
        """The same with the device and the dtype that ``auto`` stands for, of these models; float32 of none."""
        from audit.checkpoints import exact_dtype

        device = best_device() if self.device == AUTO else self.device
        dtype = exact_dtype(models) if self.dtype == AUTO else self.dtype
        return replace(self, device=device, dtype=dtype)

    def placement(self) -> "Placement":
        """Where models are to lie. AuditError (code 2) for memory that is none, or that nothing spreads over."""
        from audit.wrappers import Placement

        if self.max_memory and not self.device_map:
            raise AuditError(
                "--max-memory says what weights may take, and nothing spreads them", "add --device-map auto"
            )
        memory = parse_memory(self.max_memory, self.device) if self.max_memory else ()
        world = Ranks.here().world
        if world > 1 and self.device_map:
            raise AuditError(
                "--device-map spreads models in one process, and torchrun over ranks", "choose one of them"
            )
        return Placement(self.device, self.device_map, memory, self.offload, world)

    def of_bench(self, bench: "Bench") -> "RunSettings":
        """The same as this bench was made with."""
        return replace(self, backend=bench.backend, device=bench.device, dtype=bench.dtype, attention=bench.attention)


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


def make_bench(settings: RunSettings, models: Iterable[Checkpoint] = ()) -> "Bench":
    """The bench that these flags ask for, to open these models."""
    import torch

    from audit.bench import Bench
    from audit.storage import Store
    from audit.wrappers import settled_placement

    models = tuple(models)
    settings = settings.settled(models)
    _check_device(settings.device)
    placement = settings.placement()
    if models:
        placement = settled_placement(placement, models[0], settings.dtype)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    store = None if settings.store is None else Store(settings.store, settings.store_limit)
    return Bench(
        backend=settings.backend, device=placement, dtype=settings.dtype, attention=settings.attention,
        token_budget=settings.token_budget, store=store,
    )  # fmt: skip


def best_device() -> str:
    """CUDA where there is one, else MPS, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


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
