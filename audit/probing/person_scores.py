"""Scores of a case's rows in every model that plays a part: per item, then averaged over each person.

The unit of replication is the person, so everything that is tested is a person's mean. Models are compared on the same
items: an item that any of them cannot score drops out for all of them, and is counted.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from audit.bench import Bench
from audit.case import OpenCase, Rows, row_means
from audit.schema import Checkpoint, Count, Item, Need, Read, Role, Site, Texts

LOGITS = Site(part="logits")
KEY_LOGPROB = Read(site=LOGITS, at="key", reduce="logprob")
KEY_RANK = Read(site=LOGITS, at="key", reduce="rank")
ANSWER_LOGPROB = Read(site=LOGITS, at="answer", reduce="logprob")


def every_variant(role: Role, reference: int, texts: Texts, reads: tuple[Read, ...]) -> tuple[Need, ...]:
    """What reads the paraphrased and all perturbed answers of these texts, as many of either as the data has."""
    paraphrased, perturbed = (
        texts.model_copy(update={"answer": answer, "index": 0}) for answer in ("paraphrased", "perturbed")
    )
    return (
        Need(role=role, reference=reference, texts=paraphrased, reads=reads),
        Need(role=role, reference=reference, texts=perturbed, reads=reads, every=True),
    )


class PersonRows(NamedTuple):
    """The rows of one set of texts, their items, and the person that each row belongs to."""

    rows: Rows
    items: tuple[Item, ...]
    people: tuple[str, ...]
    person: Int[ndarray, " row"]


def person_rows_of(case: OpenCase, texts: Texts) -> PersonRows:
    """The audited rows of these texts. Raises AuditError where there are none."""
    rows = case.rows(texts)
    people, person = np.unique(np.array(rows.group_ids), return_inverse=True)
    by_id = {item.id: item for item in case.items(texts)}
    return PersonRows(rows, tuple(by_id[i] for i in rows.item_ids), tuple(str(p) for p in people), person.reshape(-1))


def key_logprob(bench: Bench, checkpoint: Checkpoint, rows: Rows) -> Float[ndarray, " row"]:
    """Mean log-probability (nats) of each row's content tokens in the model's output."""
    return row_means(bench.run(checkpoint, rows, (KEY_LOGPROB,))[KEY_LOGPROB], rows)


def aligned(values: Float[ndarray, " other"], source: Sequence[str], target: Sequence[str]) -> Float[ndarray, " row"]:
    """Values of ``source`` item ids in the order of ``target`` item ids; NaN where an item has none."""
    by_id = dict(zip(source, values.tolist(), strict=True))
    return np.array([by_id.get(i, np.nan) for i in target])


def variants(case: OpenCase, texts: Texts, most: int | None = None) -> list[Rows]:
    """The rows of these texts with answer variant 0, 1, ... as far as the data has them; at most ``most``, or all."""
    return [case.rows(numbered) for numbered in case.numbered(texts)[:most]]


class ModelScores(NamedTuple):
    """Person means [person layer] per named model over the items that all of them score, and how many those are.

    ``groups`` are the people's groups, in their order.
    """

    people: Mapping[str, Float[ndarray, "person layer"]]
    n: Count
    groups: tuple[str, ...]


def by_person(sheet: PersonRows, scores: Mapping[str, Float[ndarray, "row layer"]]) -> ModelScores:
    """Average each model's item scores over people.

    An item without content tokens (or variants) in the texts is unscored, one for which a model's number is not finite
    is errored; both leave every model's mean. A person without any item left drops out.
    """
    stack = np.concatenate(list(scores.values()), axis=1)
    absent, complete = np.isnan(stack).sum(1) == stack.shape[1], np.isfinite(stack).sum(1) == stack.shape[1]
    n = Count(scored=int(complete.sum()), errored=int((~complete & ~absent).sum()), unscored=int(absent.sum()))
    member = np.zeros((len(sheet.people), len(complete)))
    member[sheet.person[complete], np.flatnonzero(complete)] = 1.0
    present = member.sum(1) > 0
    member = member[present]
    member /= member.sum(1, keepdims=True)
    people = {name: member[:, complete] @ score[complete] for name, score in scores.items()}
    return ModelScores(people, n, tuple(np.array(sheet.people)[present].tolist()))
