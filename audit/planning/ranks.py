"""Several processes of torchrun that share one audit: all compute, the first writes.

Every rank must take the same decisions, since each waits for the others in every pass: ranks above 0 work in a copy of
the run folder of their own, all start from an empty store, and nothing depends on the time that a rank has taken.
"""

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from audit.schema import AuditError

if TYPE_CHECKING:
    from audit.planning.settings import RunSettings


class Ranks(NamedTuple):
    """Which of how many processes this is; 0 of 1 without torchrun."""

    rank: int = 0
    world: int = 1

    @classmethod
    def here(cls) -> "Ranks":
        """What torchrun says in the environment."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


@contextmanager
def one_of_ranks(out: Path, settings: "RunSettings") -> Generator[tuple[Path, "RunSettings"]]:
    """The run folder and the settings of this process: those given, but for several ranks.

    AuditError (code 2) for limits, which ranks would keep to at different places.
    """
    ranks = Ranks.here()
    if ranks.world == 1:
        yield out, settings
        return
    if settings.max_time is not None or settings.max_mem is not None:
        raise AuditError("--max-time and --max-mem are kept by one process", "leave them out under torchrun")
    with tempfile.TemporaryDirectory(prefix="residua-rank-") as temp:
        own = out if ranks.rank == 0 else Path(temp) / "run"
        if ranks.rank and out.is_dir():
            shutil.copytree(out, own)
        _wait(settings)
        yield own, replace(settings, store=None if settings.store is None else Path(temp) / "store")
        _wait(settings)


def _wait(settings: "RunSettings") -> None:
    """Until every rank has come here: nobody writes before all have copied, or leaves before the first has written."""
    import torch.distributed as dist

    if not dist.is_initialized():
        cuda = settings.settled().device.startswith("cuda")
        dist.init_process_group("cuda:nccl,cpu:gloo" if cuda else "gloo")
    dist.barrier()
