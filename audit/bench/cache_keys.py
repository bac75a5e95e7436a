"""What a read of a pass is called: a content key over everything that its numbers depend on, and nothing else."""

import json
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from audit.bench.writes.edges import Edges
from audit.bench.writes.features import Features
from audit.bench.writes.logit_bias import LogitBias
from audit.bench.writes.low_rank import LowRank
from audit.bench.writes.prefix import Prefix
from audit.bench.writes.replace import Replace
from audit.bench.writes.scale import Scale
from audit.bench.writes.start import Start
from audit.bench.writes.write import Write
from audit.case import Rows
from audit.schema import Checkpoint, Read, content_key
from audit.storage import Store, tensor_sha256

BENCH_VERSION = "1"
WHOLE_LIMIT_BYTES = 16 << 20
"""States at all positions are kept only up to this size: they are cheap to run again and dear to keep."""


class Settings(NamedTuple):
    """How models are opened and run; part of every name."""

    backend: str
    device: str
    dtype: str
    attention: str


def _tensor(tensor: Tensor) -> str:
    return tensor_sha256(tensor.detach())


def _source(source: Checkpoint | Tensor) -> str:
    return source.key if isinstance(source, Checkpoint) else _tensor(source)


def _name(write: Write | Start) -> list[str] | None:
    """The content of one write; None for what has no name (a dictionary that was given without one)."""
    match write:
        case Start():
            return ["start", str(write.site), _source(write.source)]
        case Replace():
            return ["replace", str(write.site), write.positions, _source(write.source)]
        case LowRank():
            rows = "all" if write.rows is None else _tensor(write.rows)
            return ["low_rank", str(write.site), _tensor(write.u), _tensor(write.v), _tensor(write.b), rows]
        case Scale():
            return ["scale", str(write.site), _tensor(write.columns), _tensor(write.factor), str(write.per_row)]
        case Prefix():
            return ["prefix", _tensor(write.emb), write.at if isinstance(write.at, str) else _tensor(write.at)]
        case LogitBias():
            return ["logit_bias", _tensor(write.bias)]
        case Edges():
            others = sorted((str(r.site), r.at, _tensor(t)) for r, t in write.other.reads.items())
            return ["edges", _tensor(write.keep), json.dumps(others)]
        case Features():
            if write.name is None:
                return None
            return ["features", str(write.site), write.name, _tensor(write.columns), repr(write.scale)]


class PassNames(NamedTuple):
    """What a pass is, apart from its reads."""

    model: str
    rows: Rows
    writes: tuple[Write, ...]
    start: Start | None


def read_names(how: Settings, what: PassNames, reads: tuple[Read, ...]) -> dict[Read, str] | None:
    """The store key of every read; None when some write has no name, so that the pass cannot be kept."""
    parts = [_name(w) for w in (*what.writes, *([what.start] if what.start else []))]
    if any(part is None for part in parts):
        return None
    shared = key_of(how, what.model, what.rows.hash, parts)
    return {read: content_key(shared, read.canonical()) for read in reads}


def key_of(how: Settings, *parts: object) -> str:
    """Names what these parts (JSON) give when a bench of these settings computes it."""
    return content_key(BENCH_VERSION, torch.__version__, how, *parts)


def kept(store: Store, names: Mapping[Read, str]) -> dict[Read, Tensor]:
    """The reads that the store has."""
    found = {read: store.get(name) for read, name in names.items()}
    return {read: entry["value"] for read, entry in found.items() if entry is not None}


def keep(store: Store, names: Mapping[Read, str], reads: Mapping[Read, Tensor]) -> None:
    """Put reads into the store, states at all positions only where they are small."""
    for read, value in reads.items():
        if read.at != "all" or value.nbytes <= WHOLE_LIMIT_BYTES:
            store.put(names[read], {"value": value.contiguous()}, {"site": str(read.site), "at": read.at})
