"""Input-loss landscapes: the losses of a text's neighbours, token by token, and what they say of the text.

A neighbour replaces each token, with some probability, by one of the nearest in a table of embeddings. Every text's
neighbours are drawn from its own tokens, so that all models are asked about the same ones. Two channels: ``all``, the
mean loss of the answer (as published), and ``kept``, the change on content tokens that are not replaced themselves,
which leaves out that a replaced token is surprising anyway.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from audit.bench import Bench, Replace
from audit.case import Rows, row_mean
from audit.probing import ANSWER_LOGPROB
from audit.schema import Checkpoint, Read, Site

EMBED = Site(part="embed")
LEAST_SPREAD_NATS = 0.05
"""Spreads are read no finer than this: below it a landscape is flat."""
_ROWS_AT_ONCE = 4096
_TABLE_AT_ONCE = 1024


class Neighbours(NamedTuple):
    """The neighbours of some rows: which tokens are replaced, by what, and how far that is in the table."""

    ids: Int[Tensor, "row k pos"]
    replaced: Bool[Tensor, "row k pos"]
    distance: Float[Tensor, "row k"]


class Draw(NamedTuple):
    """How neighbours are drawn: how many of a row (``size``), the share of its tokens replaced, and the seed."""

    size: int
    share: float
    seed: int


class Landscape(NamedTuple):
    """Losses of texts and their neighbours in one model, in nats; NaN where a neighbour keeps no content token.

    ``all`` [row k + 1] has the text itself first; ``kept`` [row k] is the change on content tokens that are kept.
    """

    all: Float[ndarray, "row loss"]
    kept: Float[ndarray, "row k"]


def embeddings(bench: Bench, model: Checkpoint) -> Float[Tensor, "token d"]:
    """A model's input embeddings, in float32 on the CPU."""
    wrapper = bench.open(model)
    every = torch.arange(wrapper.vocab_size, device=wrapper.device)
    with torch.inference_mode():
        parts = [wrapper.embed(tokens[None])[0].float().cpu() for tokens in every.split(_TABLE_AT_ONCE)]
    return torch.cat(parts).clone()


def nearest_tokens(table: Float[Tensor, "token d"], tokenizer: Any, m: int) -> Int[Tensor, "token m"]:
    """The nearest tokens of every token by cosine: another text than its own, no special token, word for word.

    A token with fewer such neighbours repeats its nearest ones; one with none stays as it is.
    """
    n = len(table)
    texts = [str(t) for t in tokenizer.convert_ids_to_tokens(list(range(min(n, len(tokenizer)))))]
    plain = [t.replace("▁", " ").replace("Ġ", " ").strip().casefold() for t in texts]
    special = set(tokenizer.all_special_ids)
    word = torch.tensor([i not in special and any(c.isalnum() for c in p) for i, p in enumerate(plain)])
    name = {p: i for i, p in enumerate(dict.fromkeys(plain))}
    same = torch.tensor([name[p] for p in plain])
    usable = torch.tensor([i not in special for i in range(len(plain))])
    unit = torch.nn.functional.normalize(table[: len(plain)], dim=1)
    nearest = torch.arange(n)[:, None].repeat(1, m)
    for ids in torch.arange(len(plain)).split(_TABLE_AT_ONCE):
        cosine = unit[ids] @ unit.T
        allowed = usable[None] & usable[ids, None] & (same[ids, None] != same[None]) & (word[ids, None] == word[None])
        best = cosine.masked_fill(~allowed, -torch.inf).topk(min(m, len(plain)))
        valid = torch.isfinite(best.values)
        many = valid.sum(1).clamp_min(1)
        column = torch.arange(m)[None] % many[:, None]
        picked = best.indices.gather(1, column)
        nearest[ids] = torch.where(valid.any(1)[:, None], picked, ids[:, None])
    return nearest


def neighbours(rows: Rows, near: Int[Tensor, "token m"], table: Float[Tensor, "token d"], draw: Draw) -> Neighbours:
    """So many neighbours of every row, drawn from the row's own tokens."""
    k, share, seed = draw
    n, width = rows.ids.shape
    ids, replaced = rows.ids[:, None].repeat(1, k, 1), torch.zeros(n, k, width, dtype=torch.bool)
    for i in range(n):
        length = int(rows.lengths[i])
        own = rows.ids[i, :length]
        key = hashlib.sha256(f"{seed} {own.tolist()}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key[:8], "big"))
        swap = torch.from_numpy(rng.random((k, length)) < share)
        pick = torch.from_numpy(rng.integers(0, near.shape[1], (k, length)))
        other = near[own[None].expand(k, -1), pick]
        swap &= other != own
        swap[:, 0] = False
        replaced[i, :, :length] = swap
        ids[i, :, :length] = torch.where(swap, other, own)
    distance = (table[ids] - table[rows.ids[:, None]]).square().sum(-1).sum(-1).sqrt()
    return Neighbours(ids, replaced, distance)


def landscape(bench: Bench, model: Checkpoint, rows: Rows, near: Neighbours) -> Landscape:
    """Losses of every text and neighbour, in portions: neighbours have their text's length, so nothing is padded."""
    each = max(1, _ROWS_AT_ONCE // (1 + near.ids.shape[1]))
    parts = [_portion(bench, model, rows, near, index) for index in torch.arange(len(rows)).split(each)]
    return Landscape(np.concatenate([p.all for p in parts]), np.concatenate([p.kept for p in parts]))


def _portion(bench: Bench, model: Checkpoint, rows: Rows, near: Neighbours, index: Tensor) -> Landscape:
    k = near.ids.shape[1]
    width = rows.take(index).ids.shape[1]
    ids = torch.cat([rows.ids[index, None], near.ids[index]], 1)[..., :width].flatten(0, 1)
    every = _repeated(rows, index, k + 1, ids)
    loss = -bench.run(model, every, (ANSWER_LOGPROB,))[ANSWER_LOGPROB].double()
    row, at = every.targets("answer")
    mean = row_mean(loss, row, len(every)).view(-1, k + 1)
    token = torch.arange(len(loss))
    count = torch.bincount(row, minlength=len(every))
    first = (count.cumsum(0) - count)[row // (k + 1) * (k + 1)]
    change = loss - loss[first + token - (count.cumsum(0) - count)[row]]
    swapped = torch.cat([near.replaced.new_zeros(len(index), 1, near.replaced.shape[2]), near.replaced[index]], 1)
    retained = every.key[row, at] & ~swapped[..., :width].flatten(0, 1)[row, at]
    changes = row_mean(change[retained], row[retained], len(every)).view(-1, k + 1)
    return Landscape(mean.numpy(), changes[:, 1:].numpy())


def _repeated(rows: Rows, index: Tensor, times: int, ids: Int[Tensor, "row pos"]) -> Rows:
    """Some rows, each so many times in a row, with other tokens."""
    repeated = rows.take(index.repeat_interleave(times))
    names = tuple(f"{name} {i % times}" for i, name in enumerate(repeated.item_ids))
    return replace(repeated, ids=ids, item_ids=names)


def curvature(
    bench: Bench, model: Checkpoint, rows: Rows, directions: int, seed: int
) -> tuple[Float[ndarray, " row"], Float[ndarray, " row"]]:
    """Mean second difference and mean absolute slope of a text's loss along random directions of its embeddings.

    (l(e + d) + l(e - d) - 2 l(e)) / |d|^2, of which the mean is about the Hessian's trace over its dimension, and
    |l(e + d) - l(e - d)| / 2|d|; d is Gaussian with a tenth of the embeddings' root mean square, the same for every
    model.
    """
    read = Read(site=EMBED, at="all")
    e = bench.run(model, rows, (read,))[read]
    real = rows.mask[..., None].float()
    size = 0.1 * (e.square() * real).sum().div(real.sum() * e.shape[-1]).sqrt()
    generator = torch.Generator().manual_seed(seed)
    row = rows.targets("answer")[0]

    def loss(states: Tensor) -> Tensor:
        written = (Replace(EMBED, states, "all"),)
        return row_mean(-bench.run(model, rows, (ANSWER_LOGPROB,), written)[ANSWER_LOGPROB].double(), row, len(rows))

    centre, second, slope = loss(e), 0.0, 0.0
    for _ in range(directions):
        d = torch.randn(e.shape, generator=generator) * size * real
        ahead, behind, square = loss(e + d), loss(e - d), d.double().square().sum((1, 2))
        second = second + (ahead + behind - 2 * centre) / square
        slope = slope + (ahead - behind).abs() / (2 * square.sqrt())
    return np.asarray(second) / directions, np.asarray(slope) / directions


# ---- what a landscape says of a text ----------------------------------------------------------------------------
def sharpness(losses: Landscape) -> Float[ndarray, "row 1"]:
    """log of the spread of the kept changes over neighbours (nats), read no finer than :data:`LEAST_SPREAD_NATS`.

    NaN with fewer than three neighbours.
    """
    count = np.isfinite(losses.kept).sum(1)
    mean = np.nansum(losses.kept, 1) / np.maximum(count, 1)
    square = np.nansum((losses.kept - mean[:, None]) ** 2, 1) / np.maximum(count - 1, 1)
    return np.where(count >= 3, 0.5 * np.log(square + LEAST_SPREAD_NATS**2), np.nan)[:, None]


def rise(losses: Landscape) -> Float[ndarray, "row 1"]:
    """Mean of the kept changes over neighbours (nats); NaN with fewer than three."""
    count = np.isfinite(losses.kept).sum(1)
    return np.where(count >= 3, np.nansum(losses.kept, 1) / np.maximum(count, 1), np.nan)[:, None]


FEATURES = (
    "loss", "mean", "max", "min", "sd", "variance", "mean_change", "max_change", "min_change", "variance_change",
    "mean_gradient", "max_gradient", "variance_gradient", "volatility", "skew", "fell", "by_replacements",
)  # fmt: skip


def features(losses: Landscape, near: Neighbours) -> Float[ndarray, "row feature"]:
    """The published 14 by definitions of ours, then skew, share of falls and slope on the number of replacements.

    Gradients are |change| over the distance of the neighbour in the table; volatility is the coefficient of variation.
    """
    loss, others = losses.all[:, 0], losses.all[:, 1:]
    change = others - loss[:, None]
    gradient = np.abs(change) / np.maximum(near.distance.double().numpy(), 1e-9)
    mean, sd = others.mean(1), others.std(1, ddof=1)
    count = near.replaced.sum(-1).double().numpy()
    centred = count - count.mean(1, keepdims=True)
    slope = (centred * change).sum(1) / np.maximum((centred**2).sum(1), 1e-9)
    third = ((others - mean[:, None]) ** 3).mean(1) / np.maximum(sd, 1e-9) ** 3
    columns: Sequence[ndarray] = (
        loss, mean, others.max(1), others.min(1), sd, sd**2, change.mean(1), change.max(1), change.min(1),
        change.var(1, ddof=1), gradient.mean(1), gradient.max(1), gradient.var(1, ddof=1),
        sd / np.maximum(mean, 1e-9), third, (change < 0).mean(1), slope,
    )  # fmt: skip
    return np.stack(columns, 1)
