"""Log-probabilities of content tokens of many rows, each input read once.

Rows that differ in their last content token alone (the options of a choice, other people's values in one answer) have
the same input up to there: one of them goes forward, and all their tokens are read off its last states. All others go
forward as they are, cut off after their last content token. Both kinds are sorted by length into batches.
"""

from collections import defaultdict
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit.probing import KEY_LOGPROB, Bench, Checkpoint, Read, Rows, Site, row_means, shortened

FINAL: Final = Read(site=Site(part="final_in"), at="key")


class RowLogprob(NamedTuple):
    """Of every row, in nats: the mean log-probability of its content tokens, and of all of them together."""

    mean: Float[ndarray, " row"]
    total: Float[ndarray, " row"]


def shared_inputs(rows: Rows) -> list[list[int]]:
    """Rows by their input: the same tokens before the last content token, and content tokens at the same places."""
    by_input: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for n, length in enumerate(rows.lengths.tolist()):
        by_input[tuple(rows.ids[n, : length - 1].tolist()), tuple(rows.key[n].nonzero()[:, 0].tolist())].append(n)
    return list(by_input.values())


def packed_logprob(bench: Bench, checkpoint: Checkpoint, rows: Rows) -> RowLogprob:
    """What a model gives to the content tokens of every row."""
    short = shortened(rows)
    groups = shared_inputs(short)
    single = [n for group in groups if len(group) == 1 for n in group]
    several = [group for group in groups if len(group) > 1]
    mean, tokens = np.full(len(rows), np.nan), rows.key.sum(1).numpy()
    if single:
        part = short.take(torch.tensor(single))
        mean[single] = row_means(bench.run(checkpoint, part, (KEY_LOGPROB,))[KEY_LOGPROB], part)
    if several:
        parts = ("shared inputs", checkpoint.key, short.hash)
        means = bench.cached(parts, lambda: {"mean": _of_shared(bench, checkpoint, short, several)})["mean"]
        mean[[n for group in several for n in group]] = means
    return RowLogprob(mean, mean * tokens)


def _of_shared(bench: Bench, checkpoint: Checkpoint, rows: Rows, groups: list[list[int]]) -> Float[ndarray, " member"]:
    """Means of all members, group after group."""
    first = rows.take(torch.tensor([group[0] for group in groups]))
    with bench.without_store():
        states = bench.run(checkpoint, first, (FINAL,))[FINAL]
    row, place = first.targets("key")
    counts = torch.bincount(row, minlength=len(groups)).tolist()
    entries, tokens, members = list[Tensor](), list[Tensor](), list[int]()
    for group, mine, places in zip(groups, torch.arange(len(row)).split(counts), place.split(counts), strict=True):
        entries.append(mine.repeat(len(group)))
        tokens.append(rows.ids[group][:, places].flatten())
        members += [len(mine)] * len(group)
    logprob = bench.token_logprobs(checkpoint, states, torch.cat(entries), torch.cat(tokens))
    return torch.stack([each.double().mean() for each in logprob.split(members)]).numpy()
