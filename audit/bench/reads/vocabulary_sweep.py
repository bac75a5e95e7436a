"""What next-token distributions say, swept over rows and vocabulary in tiles: no row's logits are ever kept.

A tile is small enough to stay in a processor's cache, which makes even the bare product about twice as fast as one
whose result goes through memory. Where everything fits into one tile, and of heads that give all logits or none, the
logits of a row are one tile; numbers of more tiles differ by float32's rounding.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.wrappers import Wrapper

Statistic = Literal["logprob", "rank", "entropy", "varentropy", "margin"]
_SPREAD: frozenset[Statistic] = frozenset({"entropy", "varentropy"})
COLUMNS = 1 << 12
"""Tokens of the vocabulary in a tile."""
TILE, WHOLE = 1 << 20, 1 << 21
"""Logits in a tile, and in one that holds the whole vocabulary of its rows."""
_BLOCK = 1 << 17
"""Logits that stay next to a processor between two operations."""
ELSEWHERE = 16
"""By how much tiles are larger on a device that is no processor."""
_FORBIDDEN = -1e4
"""In place of minus infinity where it is multiplied by a probability of zero."""
_UNSHIFTED = 1e30
"""Sums of exponentials below this, and above its inverse, lose nothing to the range of float32."""
Columns = tuple[slice, ...]


def biased(logits: Tensor, bias: Tensor | None) -> Tensor:
    """Logits plus the bias that LogitBias writes set."""
    return logits if bias is None else logits + bias.to(logits)


def swept(
    wrapper: Wrapper, states: Float[Tensor, "token d"], target: Int[Tensor, " token"], bias: Tensor | None,
    wanted: Collection[Statistic],
) -> dict[Statistic, Float[Tensor, " token"]]:  # fmt: skip
    """Of the distribution that every state predicts: log-probability (nats) and rank (0 = best) of its target, entropy
    (nats), varentropy (the variance of the log-probability, nats squared), margin (the target's logit less the largest
    other one)."""
    columns, size = _cut(wrapper, len(states))
    result: dict[Statistic, list[Tensor]] = {name: [torch.zeros(0, device=states.device)] for name in wanted}
    for part, goal in zip(_even(states, size), _even(target, size), strict=True):
        for name, values in _of_rows(wrapper, part, goal, bias, columns, wanted).items():
            result[name].append(values)
    return {name: torch.cat(parts) for name, parts in result.items()}


def given_logprobs(
    wrapper: Wrapper, states: Float[Tensor, "token d"], entry: Int[Tensor, " pair"], token: Int[Tensor, " pair"],
    bias: Tensor | None,
) -> Float[Tensor, " pair"]:  # fmt: skip
    """Log-probabilities (nats) of any tokens after any of the states: of ``token`` after state number ``entry``."""
    columns, size = _cut(wrapper, len(states))
    ordered, order = entry.sort(stable=True)
    logprob, first = torch.zeros(len(entry), device=states.device), 0
    for part in _even(states, size):
        ends = torch.searchsorted(ordered, torch.tensor([first, first + len(part)], device=ordered.device)).tolist()
        pairs = order[ends[0] : ends[1]]
        row, place = entry[pairs] - first, token[pairs]
        sums, owns = list[Tensor](), list[Tensor]()
        for tile in _tiles(wrapper, part, bias, columns):
            sums.append(tile.normaliser())
            column = place - tile.first
            inside = (column >= 0) & (column < tile.logits.shape[1])
            own = tile.logits[row, column.clamp(0, tile.logits.shape[1] - 1)]
            owns.append(own.masked_fill(~inside, -torch.inf))
        logprob[pairs] = torch.stack(owns).amax(0) - _joined(sums)[row]
        first += len(part)
    return logprob


def some_logits(
    wrapper: Wrapper, states: Float[Tensor, "token d"], tokens: Int[Tensor, " column"], bias: Tensor | None
) -> Float[Tensor, "token column"]:
    """Logits of some tokens alone, in float32."""
    chosen = tokens.to(states.device)
    shift = None if bias is None else bias[chosen]
    size = max(1, TILE // max(len(tokens) if wrapper.head_width is not None else wrapper.vocab_size, 1))
    each = [biased(wrapper.head_part(part, chosen), shift).float() for part in _even(states, size)]
    return torch.cat([torch.zeros(0, len(tokens), device=states.device), *each])


def most_likely(
    wrapper: Wrapper, states: Float[Tensor, "token d"], bias: Tensor | None, barred: int | None = None
) -> Int[Tensor, " token"]:
    """The most likely token after every state, the first of equals; never the ``barred`` one."""
    columns, size = _cut(wrapper, len(states))
    result = [torch.zeros(0, dtype=torch.long, device=states.device)]
    for part in _even(states, size):
        best, token = part.new_full((len(part),), -torch.inf, dtype=torch.float32), result[0].new_zeros(len(part))
        for tile in _tiles(wrapper, part, bias, columns):
            logits, column = tile.logits, -1 if barred is None else barred - tile.first
            if 0 <= column < logits.shape[1]:
                logits = logits.index_fill(1, torch.tensor([column], device=logits.device), -torch.inf)
            largest, place = logits.max(1)
            token, best = torch.where(largest > best, place + tile.first, token), torch.maximum(largest, best)
        result.append(token)
    return torch.cat(result)


def rows_at_once(wrapper: Wrapper) -> int:
    """How many states' logits are held at a time by who needs all of them."""
    return max(1, WHOLE * (1 if wrapper.device.type == "cpu" else ELSEWHERE) // max(wrapper.vocab_size, 1))


class _Tile(NamedTuple):
    """Logits of some rows for the tokens from ``first`` on, in float32. ``part``: one tile of several."""

    first: int
    logits: Float[Tensor, "token column"]
    part: bool = False

    def normaliser(self) -> Float[Tensor, " token"]:
        """The logarithm of the sum of the exponentiated logits; of a part of them without shifting what needs none."""
        if self.part:
            total = _summed(torch.exp, self.logits)
            if bool(((total > 1 / _UNSHIFTED) & (total < _UNSHIFTED)).all()):
                return total.log()
        return self.logits.logsumexp(1)

    def above(self, own: Float[Tensor, "token 1"]) -> Float[Tensor, " token"]:
        """How many of them are larger, counted in floats, which is several times as fast."""
        return _summed(torch.gt, self.logits, own)


def _summed(op: Callable[..., Tensor], logits: Tensor, *beside: Tensor) -> Float[Tensor, " token"]:
    """The sum over tokens of what ``op`` makes of them; on a processor so few rows at a time that they stay next to
    it."""
    n = max(1, _BLOCK // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    scratch = torch.empty_like(logits[:n])
    blocks = zip(*(each.split(n) for each in (logits, *beside)), strict=True)
    return torch.cat([op(*block, out=scratch[: len(block[0])]).sum(1) for block in blocks])


def _cut(wrapper: Wrapper, n: int) -> tuple[Columns | None, int]:
    """The vocabulary in tiles (None: as a whole), and how many rows a tile has at most."""
    scale = 1 if wrapper.device.type == "cpu" else ELSEWHERE
    width = wrapper.head_width
    if width is None or width <= COLUMNS * scale or n * width <= TILE * scale:
        return None, rows_at_once(wrapper)
    count = -(-width // (COLUMNS * scale))
    ends = [width * i // count for i in range(count + 1)]
    return tuple(map(slice, ends, ends[1:])), TILE // COLUMNS


def _even(values: Tensor, size: int) -> tuple[Tensor, ...]:
    """Parts of about the same length: few rows go through other kernels, with other rounding."""
    return values.tensor_split(-(-len(values) // size)) if len(values) else ()


def _tiles(wrapper: Wrapper, states: Tensor, bias: Tensor | None, columns: Columns | None) -> Iterator[_Tile]:
    if columns is None:
        yield _Tile(0, biased(wrapper.head(states), bias).float())
        return
    for part in columns:
        logits = wrapper.head_part(states, part)
        yield _Tile(part.start, biased(logits, None if bias is None else bias[part]).float(), True)


def _of_rows(
    wrapper: Wrapper, states: Tensor, target: Tensor, bias: Tensor | None, columns: Columns | None,
    wanted: Collection[Statistic],
) -> Mapping[Statistic, Tensor]:  # fmt: skip
    """The statistics of so many rows as a tile has."""
    sums, known = _Sums(wanted), None
    if columns is not None and "rank" in wanted:
        every, column = target.unique(return_inverse=True)
        known = some_logits(wrapper, states, every, bias).gather(1, column[:, None])
    for tile in _tiles(wrapper, states, bias, columns):
        sums.add(tile, target, known)
    return sums.results()


class _Sums:
    """What is kept of the tiles of some rows."""

    def __init__(self, wanted: Collection[Statistic]) -> None:
        self.wanted = wanted
        self.normalisers: list[Tensor] = []
        self.entropies: list[Tensor] = []
        self.variances: list[Tensor] = []
        self.owns: list[Tensor] = []
        self.others: list[Tensor] = []
        self.better: list[Tensor] = []

    def add(self, tile: _Tile, target: Int[Tensor, " token"], known: Float[Tensor, "token 1"] | None) -> None:
        """Sum a tile up. ``known``: the targets' logits, where they stand in several tiles."""
        logits, place = tile.logits, (target - tile.first)[:, None]
        inside = (place >= 0) & (place < logits.shape[1])
        place = place.clamp(0, logits.shape[1] - 1)
        own_logit = logits.gather(1, place)
        self.owns.append(own_logit.masked_fill(~inside, -torch.inf))
        if {"logprob", *_SPREAD} & set(self.wanted):
            self.normalisers.append(tile.normaliser())
        if _SPREAD & set(self.wanted):
            logprob = logits - self.normalisers[-1][:, None]
            self.entropies.append(_entropy(logprob))
            if "varentropy" in self.wanted:
                self.variances.append(_variance(logprob, self.entropies[-1]))
        if "margin" in self.wanted:
            others = logits.scatter(1, place, own_logit.masked_fill(inside, -torch.inf))
            self.others.append(others.amax(1))
        if "rank" in self.wanted:
            own = own_logit if known is None else known
            self.better.append(tile.above(own) - (inside & (own_logit > own))[:, 0].float())

    def results(self) -> Mapping[Statistic, Float[Tensor, " token"]]:
        """The statistics over all tiles."""
        result: dict[Statistic, Tensor] = {}
        own = self.owns[0][:, 0] if len(self.owns) == 1 else torch.cat(self.owns, 1).amax(1)
        total = _joined(self.normalisers) if self.normalisers else own
        if "logprob" in self.wanted:
            result["logprob"] = own - total
        if "rank" in self.wanted:
            result["rank"] = torch.stack(self.better).sum(0)
        if "entropy" in self.wanted:
            result["entropy"] = self._entropy_of(total)
        if "varentropy" in self.wanted:
            result["varentropy"] = self._variance_of(total)
        if "margin" in self.wanted:
            result["margin"] = own - torch.stack(self.others).amax(0)
        return result

    def _entropy_of(self, total: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
        """The entropy of the tiles' shares, and what each tile's tokens have beside it."""
        if len(self.entropies) == 1:
            return self.entropies[0]
        shares = torch.stack(self.normalisers, 1) - total[:, None]
        within = torch.stack(self.entropies, 1)
        return _entropy(shares) + (shares.exp() * within.nan_to_num()).sum(1)

    def _variance_of(self, total: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
        """The variance within the tiles, and that of their means, weighed by the tiles' shares."""
        if len(self.variances) == 1:
            return self.variances[0]
        shares = torch.stack(self.normalisers, 1) - total[:, None]
        means = (torch.stack(self.entropies, 1) - shares.clamp_min(_FORBIDDEN)).nan_to_num()
        around = (means - self._entropy_of(total)[:, None]) ** 2
        return (shares.exp() * (torch.stack(self.variances, 1).nan_to_num() + around)).sum(1)


def _joined(normalisers: list[Tensor]) -> Float[Tensor, " token"]:
    return normalisers[0] if len(normalisers) == 1 else torch.stack(normalisers, 1).logsumexp(1)


def _entropy(logprob: Float[Tensor, "token column"]) -> Float[Tensor, " token"]:
    return -(logprob.exp() * logprob.clamp_min(_FORBIDDEN)).sum(1)


def _variance(logprob: Float[Tensor, "token column"], entropy: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
    """Of the log-probability around its mean, which is minus the entropy."""
    return (logprob.exp() * (logprob.clamp_min(_FORBIDDEN) + entropy[:, None]) ** 2).sum(1)
