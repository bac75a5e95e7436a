"""Rows of states, chunk by chunk: where dictionaries are trained and measured without all rows in memory at once.

The order in which training sees them is a function of seed and position alone, so that a killed training goes on with
the very row that would have been next.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from audit.schema import content_key
from audit.storage import tensor_sha256
from saes.records import PatchSample

BUFFER_BYTES = 64 << 20
"""Rows of neighbouring chunks are mixed in a buffer of about this size."""
_FLOAT_BYTES = 4


class Activations(ABC):
    """States at one or more sites, in chunks of known sizes; every site has the same rows.

    ``names`` are the sites as text, ``widths`` their widths, ``sizes`` the rows of every chunk; ``key`` names the
    content, ``checkpoint`` the weights it was read from (None: from elsewhere), ``patches`` the places of images that
    its rows are.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    sizes: tuple[int, ...]
    key: str
    checkpoint: str | None = None
    patches: PatchSample | None = None

    @abstractmethod
    def chunk(self, n: int) -> Mapping[str, Float[Tensor, "row d"]]:
        """The states of one chunk by site, in float32 on the CPU."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(self.sizes)


class TensorActivations(Activations):
    """Activations that are in memory, cut into chunks of ``chunk_rows``; nothing is copied."""

    def __init__(self, states: Mapping[str, Float[Tensor, "row d"]], chunk_rows: int = 1 << 14) -> None:
        self.names, self._states = tuple(states), {name: tensor.float() for name, tensor in states.items()}
        self.widths = tuple(tensor.shape[1] for tensor in states.values())
        n = len(next(iter(states.values())))
        assert all(len(tensor) == n for tensor in states.values()), "every site has the same rows"
        self.starts = tuple(range(0, n, chunk_rows))
        self.sizes = tuple(min(chunk_rows, n - start) for start in self.starts)
        self.key = content_key("tensors", {name: tensor_sha256(tensor) for name, tensor in self._states.items()})

    def chunk(self, n: int) -> Mapping[str, Float[Tensor, "row d"]]:
        start, size = self.starts[n], self.sizes[n]
        return {name: tensor[start : start + size] for name, tensor in self._states.items()}


class Moments(NamedTuple):
    """Mean and standard deviation of every channel at one site, in float64.

    A channel that does not vary beside the others has a deviation of 1: it is centred and left at its size.
    """

    mean: Float[Tensor, " d"]
    sd: Float[Tensor, " d"]


_CONSTANT = 1e-6


def moments(source: Activations) -> dict[str, Moments]:
    """Channel means and deviations of all rows by site, in one pass over the chunks (Chan, Golub & LeVeque 1983).

    Deviations are summed about each chunk's own mean, so that a mean that is large beside the spread costs no digits.
    """
    merged: dict[str, tuple[int, Tensor, Tensor]] = {}
    for n in range(len(source.sizes)):
        for name, states in source.chunk(n).items():
            x = states.double()
            mean = x.mean(0)
            size, squares = len(x), (x - mean).square().sum(0)
            if name in merged:
                before, old, old_squares = merged[name]
                total, step = before + size, mean - old
                mean = old + step * (size / total)
                squares = old_squares + squares + step.square() * (before * size / total)
                size = total
            merged[name] = size, mean, squares
    return {name: _moments(*parts) for name, parts in merged.items()}


def _moments(size: int, mean: Tensor, squares: Tensor) -> Moments:
    sd = (squares / size).sqrt()
    constant = sd <= _CONSTANT * sd.square().mean().sqrt()
    return Moments(mean, torch.where(constant, torch.ones_like(sd), sd))


class RowStream:
    """Endless batches of just ``batch`` rows: every row once an epoch, in an order that ``seed`` alone decides.

    Chunks are taken in a new order every epoch, a few neighbours at a time, and the rows of these are mixed.
    """

    def __init__(self, source: Activations, batch: int, seed: int, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.source, self.batch, self.seed = source, batch, seed
        self._buffer_rows = max(1, buffer_bytes // (_FLOAT_BYTES * sum(source.widths)))
        self._latest: tuple[list[int], dict[str, Tensor]] | None = None

    def batches(self, first: int = 0) -> Iterator[dict[str, Float[Tensor, "row d"]]]:
        """The batches from row ``first`` of the endless order on. Every batch is a copy that may be changed."""
        waiting: list[dict[str, Tensor]] = []
        missing = self.batch
        for states, order in self._shuffled(first):
            start = 0
            while start < len(order):
                taken = order[start : start + missing]
                waiting.append({name: tensor.index_select(0, taken) for name, tensor in states.items()})
                start, missing = start + len(taken), missing - len(taken)
                if not missing:
                    yield _joined(waiting)
                    waiting, missing = [], self.batch

    def _shuffled(self, first: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """The states of one buffer after another, and in which order their rows come."""
        epoch, skip = divmod(first, self.source.rows)
        while True:
            for place, group in enumerate(self._groups(epoch)):
                size = sum(self.source.sizes[n] for n in group)
                if skip < size:
                    order = torch.from_numpy(self._generator(epoch, 1 + place).permutation(size))
                    yield self._buffer(group), order[skip:]
                skip = max(0, skip - size)
            epoch += 1

    def _groups(self, epoch: int) -> list[list[int]]:
        """The chunks of one epoch in its order, a buffer at a time; all of them as they are where one buffer does."""
        if self.source.rows <= self._buffer_rows:
            return [list(range(len(self.source.sizes)))]
        groups: list[list[int]] = []
        room = 0
        for n in self._generator(epoch, 0).permutation(len(self.source.sizes)).tolist():
            size = self.source.sizes[n]
            if size > room:
                groups.append([])
                room = self._buffer_rows
            groups[-1].append(n)
            room -= size
        return groups

    def _buffer(self, group: list[int]) -> dict[str, Tensor]:
        """The states of these chunks; where all fit into one buffer, they are read once."""
        if self._latest is None or self._latest[0] != group:
            self._latest = None  # the last one's memory first, then the new one's
            self._latest = group, _joined([self.source.chunk(n) for n in group])
        return self._latest[1]

    def _generator(self, epoch: int, place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, place])


def _joined(parts: "list[dict[str, Tensor]] | list[Mapping[str, Tensor]]") -> dict[str, Tensor]:
    if len(parts) == 1:
        return dict(parts[0])
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
