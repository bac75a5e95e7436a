"""Several sets of rows of one model as one pass: an item's alternate answers, other forms, other people.

Each set's numbers are what it would give alone, to the order of summation, and are kept under its own name: who asks
for one of them later finds it. What the sets begin with alike (a header, the question of all answers) goes forward once
for all, and rows of like lengths fill batches together.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from audit.bench import cache_keys
from audit.bench.parted_passes import parted
from audit.bench.places import row_positions
from audit.bench.results import Pass
from audit.case import Rows, stacked
from audit.schema import Checkpoint, Read
from audit.wrappers import Wrapper

if TYPE_CHECKING:
    from audit.bench.bench import Bench


class Asked(NamedTuple):
    """Reads of some rows."""

    rows: Rows
    reads: tuple[Read, ...]

    @property
    def pack(self) -> tuple[Read, ...] | None:
        """With whom it goes forward: scores of the logits, which all cost the same, together; other scores of targets
        with those who ask for the same; None: alone."""
        scored = all(read.at in ("key", "answer") and read.reduce not in ("state", "norm") for read in self.reads)
        if not len(self.rows) or self.rows.extra or not scored:
            return None
        return () if all(read.site.part == "logits" for read in self.reads) else self.reads


def run_together(bench: "Bench", ckpt: Checkpoint, requests: Sequence[Asked]) -> list[Pass]:
    """What ``bench.run`` would give one by one, in the same order."""
    cached: dict[tuple[Read, ...], dict[str, Mapping[Read, Tensor]]] = {
        pack: _packed(bench, ckpt, members) for pack, members in _packs(requests).items()
    }
    return [
        bench.run(ckpt, each.rows, each.reads)
        if each.pack is None
        else Pass(each.rows, {read: cached[each.pack][each.rows.hash][read] for read in each.reads})
        for each in requests
    ]


def _packs(requests: Sequence[Asked]) -> dict[tuple[Read, ...], list[Asked]]:
    """What goes forward together, every set of rows once."""
    packs: dict[tuple[Read, ...], list[Asked]] = {}
    for each in requests:
        if each.pack is not None:
            packs.setdefault(each.pack, []).append(each)
    return {pack: _once(members) for pack, members in packs.items()}


def tokens(bench: "Bench", wrapper: Wrapper, requests: Sequence[Asked], edited: bool) -> int:
    """How many tokens go forward for that in a model such as this one, ``edited`` on the way or not."""
    count = sum(_tokens(wrapper, _union(members), edited) for members in _packs(requests).values())
    for each in requests:
        if each.pack is None:
            patterns = tuple(read for read in each.reads if read.site.part == "pattern")
            parts = [patterns, tuple(read for read in each.reads if read not in patterns)]
            parts = parts if bench.passes_of(each.reads) > 1 else [each.reads]
            count += sum(_tokens(wrapper, each._replace(reads=part), edited) for part in parts)
    return count


def _tokens(wrapper: Wrapper, requests: Asked, edited: bool) -> int:
    plan = None if edited else parted(wrapper, *requests)
    return int(row_positions(requests.rows, wrapper).sum()) if plan is None else plan.tokens


def _once(requests: Sequence[Asked]) -> list[Asked]:
    """Every set of rows once, with all that is read of it."""
    reads: dict[str, dict[Read, None]] = {}
    rows: dict[str, Rows] = {}
    for each in requests:
        rows.setdefault(each.rows.hash, each.rows)
        reads.setdefault(each.rows.hash, {}).update(dict.fromkeys(each.reads))
    return [Asked(rows[name], tuple(reads[name])) for name in rows]


def _union(requests: Sequence[Asked]) -> Asked:
    """All rows below one another, and all that is read of any."""
    reads = dict.fromkeys(read for each in requests for read in each.reads)
    return Asked(stacked([each.rows for each in requests]), tuple(reads))


def _packed(bench: "Bench", ckpt: Checkpoint, requests: Sequence[Asked]) -> dict[str, Mapping[Read, Tensor]]:
    """The reads of every set by the name of its rows: from the store, or in one pass and into it."""
    store = bench.store
    if store is None:
        return _computed(bench, ckpt, requests)
    names = {each.rows.hash: _names(bench, ckpt, each) for each in requests}
    cached = {name: cache_keys.stored(store, of) for name, of in names.items()}
    if waiting := _missing(requests, cached):
        with ExitStack() as stack:
            if store.waits:
                for name in sorted(_pass_name(bench, ckpt, each) for each in waiting):
                    stack.enter_context(store.exclusively(name))
                cached |= {each.rows.hash: cache_keys.stored(store, names[each.rows.hash]) for each in waiting}
                waiting = _missing(requests, cached)
            for name, reads in _computed(bench, ckpt, waiting).items():
                cache_keys.keep(store, names[name], reads)
                cached[name] = {**cached[name], **reads}
    return dict(cached)


def _missing(every: Sequence[Asked], cached: Mapping[str, Mapping[Read, Tensor]]) -> list[Asked]:
    """What of all that the store does not have."""
    missing = [Asked(rows, tuple(read for read in reads if read not in cached[rows.hash])) for rows, reads in every]
    return [each for each in missing if each.reads]


def _computed(bench: "Bench", ckpt: Checkpoint, requests: Sequence[Asked]) -> dict[str, Mapping[Read, Tensor]]:
    """One pass of all, cut up by rows; past the store."""
    if not requests:
        return {}
    rows, reads = _union(requests)
    with bench.without_store():
        done = bench.run(ckpt, rows, reads)
    sizes = [len(each.rows) for each in requests]
    cut = {read: _by_set(values, rows, read, sizes) for read, values in done.reads.items()}
    return {each.rows.hash: {read: cut[read][n].clone() for read in each.reads} for n, each in enumerate(requests)}


def _by_set(values: Tensor, rows: Rows, read: Read, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """The entries of each set."""
    row = rows.targets(read.at)[0]
    edges = torch.searchsorted(row, torch.tensor(sizes).cumsum(0)).tolist()
    return values.split([b - a for a, b in zip([0, *edges[:-1]], edges, strict=True)])


def _identity(bench: "Bench", ckpt: Checkpoint, requests: Asked) -> cache_keys.PassNames:
    return cache_keys.PassNames(bench.pool.key(ckpt), requests.rows, (), None)


def _pass_name(bench: "Bench", ckpt: Checkpoint, requests: Asked) -> str:
    return cache_keys.pass_name(bench.pool.settings_of(False), _identity(bench, ckpt, requests))


def _names(bench: "Bench", ckpt: Checkpoint, requests: Asked) -> dict[Read, str]:
    names = cache_keys.read_names(bench.pool.settings_of(False), _identity(bench, ckpt, requests), requests.reads)
    assert names is not None, "a pass without writes has a name"
    return names
