"""What a read of a pass is called: a content key over everything that its numbers depend on, and nothing else."""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from audit.bench.start import Start
from audit.bench.writes.write import Write
from audit.case import Rows
from audit.schema import Read, content_key
from audit.storage import Store

BENCH_VERSION = "1"
WHOLE_LIMIT_BYTES = 16 << 20
"""States at all positions are kept only up to this size: they are cheap to run again and dear to keep."""


class Settings(NamedTuple):
    """How models are opened and run; part of every name."""

    backend: str
    device: str
    dtype: str
    attention: str


def _named(write: Write | Start) -> list[str] | None:
    """The kind and the content of one write; None for what has no name (a dictionary that was given without one)."""
    content = write.key()
    kind = "start" if isinstance(write, Start) else write.kind()
    return None if content is None else [kind, *content]


class PassNames(NamedTuple):
    """What a pass is, apart from its reads."""

    model: str
    rows: Rows
    writes: tuple[Write, ...]
    start: Start | None


def read_names(settings: Settings, job: PassNames, reads: tuple[Read, ...]) -> dict[Read, str] | None:
    """The store key of every read; None when some write has no name, so that the pass cannot be kept."""
    if any(part is None for part in _parts(job)):
        return None
    shared = pass_name(settings, job)
    # a frozen record has a hash
    return {read: content_key(shared, _content_of(read)) for read in reads}  # pyright: ignore[reportArgumentType]


def pass_name(settings: Settings, job: PassNames) -> str:
    """The key of a pass without its reads."""
    return key_of(settings, job.model, job.rows.hash, _parts(job))


def _parts(job: PassNames) -> list[list[str] | None]:
    return [_named(w) for w in (*job.writes, *([job.start] if job.start else []))]


@lru_cache(maxsize=4096)
def _content_of(read: Read) -> str:
    """A read by its content, in the form that it had when every site named its tower."""
    stated = read.site.model_copy(update={"tower": read.site.tower or "text"})
    return read.model_copy(update={"site": stated}).canonical()


def key_of(settings: Settings, *parts: object) -> str:
    """Names what these parts (JSON) give when a bench of these settings computes it."""
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    summed = [f"{ranks} ranks"] if ranks > 1 else []  # sums in another order
    return content_key(BENCH_VERSION, torch.__version__, settings, *summed, *parts)


def stored(store: Store, names: Mapping[Read, str]) -> dict[Read, Tensor]:
    """The reads that the store has."""
    entries = {read: store.get(name) for read, name in names.items()}
    return {read: entry["value"] for read, entry in entries.items() if entry is not None}


def keep(store: Store, names: Mapping[Read, str], reads: Mapping[Read, Tensor]) -> None:
    """Put reads into the store, states at all positions only where they are small."""
    for read, value in reads.items():
        if read.at not in ("all", "patches") or value.nbytes <= WHOLE_LIMIT_BYTES:
            store.put(names[read], {"value": value.contiguous()}, {"site": str(read.site), "at": read.at})
