"""What a model's heads do at the first positions of texts: norms of keys and values, attention received, directions.

Texts are rows of the case put one after another, each text beginning as a row does, so that all are of one length. The
keys and values of the first position are a function of the weights and of that token alone, whatever follows it: their
norms need no data. Those of the next positions are read over texts.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from audit.probing import Bench, Checkpoint, Cohort, Op, OpenCase, Read, Rows, Site, Texts

COHORTS: tuple[Cohort, ...] = ("general", "retain", "forget")
SHALLOW = 9
"""Positions 0 to 8: before them lies nothing, after them the positions that they are compared with."""
SINK = 0.3
"""Attention received on average by which a position is a sink (epsilon of Gu et al., arXiv 2410.10781)."""
_LEAST_SPREAD = 1e-3
_TINY = 1e-12
_DIRECTIONS = 16
"""Texts of which whole vectors are compared: norms are read of all."""


class Heads(NamedTuple):
    """What one model's key/value heads show. ``received`` is of the heads of queries, and None where the backend gives
    no patterns; ``values`` are vectors of the first positions of some texts; ``first`` the norms of the values of the
    first token alone (None: texts begin with different tokens)."""

    value: Float[ndarray, "block row pos head"]
    key: Float[ndarray, "block row pos head"]
    received: Float[ndarray, "block row query pos"] | None
    values: Float[ndarray, "block row pos head d"]
    first: Float[ndarray, "block head"] | None

    def grouped(self) -> Float[ndarray, "block row head query pos"]:
        """Attention received, the heads of queries by the key/value head that they read."""
        assert self.received is not None
        blocks, rows, queries, positions = self.received.shape
        heads = self.value.shape[-1]
        return self.received.reshape(blocks, rows, heads, queries // heads, positions)


class Anomalies(NamedTuple):
    """One model against base: log ratios of norms at the first positions (medians over texts), how many spreads of
    later positions that no head uses as a sink these lie off (nan: no text is long enough), and cosines to base."""

    value: Float[ndarray, "block head shallow"]
    key: Float[ndarray, "block head shallow"]
    value_z: Float[ndarray, "block head shallow"]
    key_z: Float[ndarray, "block head shallow"]
    cosine: Float[ndarray, "block head shallow"]
    first: Float[ndarray, "block head"] | None
    first_z: Float[ndarray, "block head"] | None

    @property
    def largest(self) -> float:
        """The largest |z| of a value norm at the first position; nan where there is none."""
        return float("nan") if self.first_z is None else float(np.abs(self.first_z).max())


# ---- texts ------------------------------------------------------------------------------------------------------
def sink_texts(case: OpenCase, count: int, length: int) -> Rows:
    """At most ``count`` texts of at most ``length`` tokens, as many of each cohort that the case has."""
    length = min(length, case.max_length or length)
    present = [Texts(cohort=cohort) for cohort in COHORTS if case.has(Texts(cohort=cohort))]
    every = [row for texts in present for row in _tokens(case.rows(texts))]
    opening = {row[0] for row in every}
    chains = [
        _chained(_tokens(case.rows(texts)), -(-count // len(present)), length, len(opening) == 1) for texts in present
    ]
    return _rows([text for chain in chains for text in chain][:count])


def _tokens(rows: Rows) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(rows.ids, rows.mask, strict=True)]


def _chained(rows: Sequence[list[int]], count: int, length: int, alike: bool) -> list[list[int]]:
    """Rows one after another until a text is full; the token that all begin with stands at its beginning alone."""
    texts: list[list[int]] = []
    for row in rows:
        if texts and len(texts[-1]) < length:
            texts[-1] += row[1:] if alike else row
        elif len(texts) == count:
            break
        else:
            texts.append(list(row))
    return [text[:length] for text in texts]


def _rows(texts: Sequence[list[int]]) -> Rows:
    """Texts as rows without answers: nothing is scored on them."""
    lengths = torch.tensor([len(text) for text in texts])
    width = int(lengths.max())
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    names = tuple(f"text {n}" for n in range(len(texts)))
    mask = torch.arange(width) < lengths[:, None]
    spans = torch.stack([lengths - 1, lengths], 1).clamp_min(1)
    return Rows(ids, mask, spans, torch.zeros_like(mask), names, names, "texts of the first positions")


def first_token(texts: Rows) -> int | None:
    """The token that every text begins with; None: they begin with different ones."""
    opening = set(texts.ids[:, 0].tolist())
    return opening.pop() if len(opening) == 1 else None


# ---- reading ----------------------------------------------------------------------------------------------------
def heads_of(bench: Bench, model: Checkpoint, texts: Rows) -> Heads:
    """Read one model's heads on these texts. AuditError for a model without keys and values."""
    blocks = range(bench.open(model).n_blocks)
    norms = [Read(site=Site(part=p, block=b), at="all", reduce="norm") for p in ("v", "k") for b in blocks]
    patterns = [Read(site=Site(part="pattern", block=b), at="all", reduce="received") for b in blocks]
    patterned = Op.PATTERN in bench.supports
    outputs = bench.run(model, texts, [*norms, *(patterns if patterned else [])]).reads
    vectors = [Read(site=Site(part="v", block=b), at="all") for b in blocks]
    values = bench.run(model, _few(texts), vectors).reads
    n = len(blocks)

    def stacked(reads: Sequence[Read]) -> ndarray:
        return torch.stack([outputs[read] for read in reads]).double().numpy()

    token, first = first_token(texts), None
    if token is not None:
        single = bench.run(model, shallow(texts.take(torch.tensor([0])), 1), norms[:n]).reads
        first = torch.stack([single[read][0, 0] for read in norms[:n]]).double().numpy()
    return Heads(
        value=stacked(norms[:n]), key=stacked(norms[n:]), received=stacked(patterns) if patterned else None,
        values=torch.stack([values[read] for read in vectors]).double().numpy(), first=first,
    )  # fmt: skip


def shallow(texts: Rows, n: int) -> Rows:
    """The first ``n`` tokens of every text: what stands there is not moved by what followed."""
    mask = texts.mask[:, :n]
    spans = torch.stack([mask.sum(1) - 1, mask.sum(1)], 1).clamp_min(1)
    return Rows(texts.ids[:, :n], mask, spans, texts.key[:, :n], texts.item_ids, texts.group_ids, texts.template_hash)


def _few(texts: Rows) -> Rows:
    """The first positions of the longest texts."""
    longest = texts.lengths.argsort(descending=True, stable=True)[:_DIRECTIONS]
    return shallow(texts.take(longest), SHALLOW)


def passes(texts: Rows) -> int:
    """Tokens that :func:`heads_of` reads of one model: norms, patterns, and the first positions of some again."""
    return 2 * int(texts.mask.sum()) + SHALLOW * min(_DIRECTIONS, len(texts)) + 1


# ---- comparing --------------------------------------------------------------------------------------------------
def anomalies(base: Heads, other: Heads, texts: Rows) -> Anomalies:
    """How a model's heads differ from base's at the first positions, beside how they differ later."""
    deep = compared(base, other, texts)
    mask = texts.mask.numpy()[:, :SHALLOW]
    logs = {name: _log(getattr(other, name), getattr(base, name)) for name in ("value", "key")}
    cells = {name: _medians(each[:, :, :SHALLOW], mask) for name, each in logs.items()}
    spreads = {name: _spread(each, deep) for name, each in logs.items()}
    z = {name: (cells[name] - spreads[name][0][..., None]) / spreads[name][1][..., None] for name in cells}
    first = None if base.first is None or other.first is None else _log(other.first, base.first)
    first_z = None if first is None else (first - spreads["value"][0]) / spreads["value"][1]
    return Anomalies(cells["value"], cells["key"], z["value"], z["key"], _cosines(base, other, texts), first, first_z)


def compared(base: Heads, other: Heads, texts: Rows) -> Bool[ndarray, "block row pos head"]:
    """The positions after the first ones, without padding and without what either model uses as a sink."""
    deep = np.broadcast_to(texts.mask.numpy()[None, :, :, None], base.value.shape).copy()
    deep[:, :, :SHALLOW] = False
    for heads in (base, other):
        if heads.received is not None:
            deep &= ~(heads.grouped().max(3) > SINK).transpose(0, 1, 3, 2)
    return deep


def _log(other: ndarray, base: ndarray) -> ndarray:
    return np.log(np.maximum(other, _TINY) / np.maximum(base, _TINY))


def _medians(
    logs: Float[ndarray, "block row shallow head"], mask: Bool[ndarray, "row shallow"]
) -> Float[ndarray, "block head shallow"]:
    """Over the texts that are long enough."""
    masked = np.where(mask[None, :, :, None], logs, np.nan)
    return np.nanmedian(masked, 1).transpose(0, 2, 1)


def _spread(
    logs: Float[ndarray, "block row pos head"], deep: Bool[ndarray, "block row pos head"]
) -> tuple[Float[ndarray, "block head"], Float[ndarray, "block head"]]:
    """Median and spread (1.4826 median absolute deviations) of every head's log ratios at later positions; nan where
    there are none. A spread of less than a thousandth is taken as a thousandth: it is rounding."""
    blocks, _, _, heads = logs.shape
    centre, spread = np.full((blocks, heads), np.nan), np.full((blocks, heads), np.nan)
    for b in range(blocks):
        for h in range(heads):
            own = logs[b, :, :, h][deep[b, :, :, h]]
            if len(own):
                centre[b, h] = np.median(own)
                spread[b, h] = max(1.4826 * float(np.median(np.abs(own - centre[b, h]))), _LEAST_SPREAD)
    return centre, spread


def _cosines(base: Heads, other: Heads, texts: Rows) -> Float[ndarray, "block head shallow"]:
    dots = (base.values * other.values).sum(-1)
    norms = np.linalg.norm(base.values, axis=-1) * np.linalg.norm(other.values, axis=-1)
    cosines = np.where(_few(texts).mask.numpy()[None, :, :, None], dots / np.maximum(norms, _TINY), np.nan)
    return np.nanmean(cosines, 1).transpose(0, 2, 1)


# ---- sinks ------------------------------------------------------------------------------------------------------
def sink_rates(heads: Heads, texts: Rows, epsilon: float = SINK) -> Float[ndarray, "block head shallow"]:
    """Over texts and the heads of queries that read a key: how often a position is a sink, at the first positions."""
    return _over_texts((heads.grouped() > epsilon).astype(np.float64), texts)


def attention_received(heads: Heads, texts: Rows) -> Float[ndarray, "block head shallow"]:
    """The same of the attention that is received there on average."""
    return _over_texts(heads.grouped(), texts)


def _over_texts(each: Float[ndarray, "block row head query pos"], texts: Rows) -> Float[ndarray, "block head shallow"]:
    mask = texts.mask.numpy()[None, :, None, None, :SHALLOW]
    return np.nanmean(np.where(mask, each[..., :SHALLOW], np.nan), (1, 3))


def beside_tokens(heads: Heads, texts: Rows) -> Float[ndarray, "block query"]:
    """The share of attention that no token receives: 0 of softmax over tokens, more where a head has a learned sink.

    The mean over queries of 1 less the sum of a pattern's row, from what every position receives on average.
    """
    assert heads.received is not None
    lengths = texts.lengths.numpy()
    followers = np.maximum(lengths[:, None] - np.arange(heads.received.shape[-1]), 0)
    paid = (heads.received * followers[None, :, None, :]).sum(-1) / lengths[None, :, None]
    return np.maximum(1 - paid.mean(1), 0.0)


def learned_sinks(names: Iterable[str]) -> list[str]:
    """The parameters that are of a sink: a logit of each head beside those of the tokens, or what one is read with."""
    return [name for name in names if any("sink" in part for part in name.split(".")[-2:])]
