"""What candidate strings do to the content tokens of some people's rows, in one model, slot by slot."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.probing import Bench, Checkpoint, InsertablePrompts, Rows, Slot, key_logprob
from probes._trigger_candidates import Candidate


class Scores(NamedTuple):
    """Of every candidate, slot and group: the mean log-probability (nats) of the content tokens of the group's rows,
    and their mean probability (per row the geometric mean over its content tokens).

    ``plain_logprob`` and ``plain_probability`` [group]: the same without any string.
    """

    slots: tuple[Slot, ...]
    groups: tuple[str, ...]
    logprob: Float[ndarray, "candidate slot group"]
    probability: Float[ndarray, "candidate slot group"]
    plain_logprob: Float[ndarray, " group"]
    plain_probability: Float[ndarray, " group"]

    @property
    def gain(self) -> Float[ndarray, "candidate slot"]:
        """By how much each string raises the probability, mean over groups: what is compared between strings.

        A model that was made to answer something else is sure of it, and whatever disturbs it gains many nats of next
        to nothing: in log-probability a trigger does not stand out from that.
        """
        return (self.probability - self.plain_probability).mean(-1)

    @property
    def gain_nats(self) -> Float[ndarray, "candidate slot"]:
        """By how much each string raises the log-probability, in nats, mean over groups."""
        return (self.logprob - self.plain_logprob).mean(-1)


def score(
    bench: Bench, checkpoint: Checkpoint, prompts: InsertablePrompts, candidates: Sequence[Candidate],
    slots: Sequence[Slot] = ("prefix",),
) -> Scores:  # fmt: skip
    """Score every candidate at every slot on the rows of ``prompts`` and no others: give it the search people alone.

    Strings are put in as tokens. Kept in the bench's store, so that base and reference are scored once a case.
    """
    rows = prompts.plain()
    strings = [torch.tensor(candidate.ids) for candidate in candidates]
    plain = key_logprob(bench, checkpoint, rows)
    by_slot = [bench.insertions(checkpoint, rows, strings, prompts.places(slot)) for slot in slots]
    means = np.stack(by_slot, 1) if candidates else np.zeros((0, len(slots), len(rows)))
    groups, (logprob, probability) = by_group(rows, means, np.exp(means))
    _, (plain_logprob, plain_probability) = by_group(rows, plain, np.exp(plain))
    return Scores(tuple(slots), groups, logprob, probability, plain_logprob, plain_probability)


def by_group(rows: Rows, *values: Float[ndarray, "*kind row"]) -> tuple[tuple[str, ...], tuple[ndarray, ...]]:
    """The groups of the rows in the order of their names, and the mean of each array over the rows of each group."""
    groups = tuple(sorted(set(rows.group_ids)))
    member = np.array([[group == name for group in rows.group_ids] for name in groups], float)
    weights = (member / member.sum(1, keepdims=True)).T
    return groups, tuple(array @ weights for array in values)
