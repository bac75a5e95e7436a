"""Texts that were learned and their matched alternates, as rows of one case."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import (
    ANSWER_LOGPROB,
    Bench,
    Checkpoint,
    Cohort,
    Item,
    Likelihoods,
    Matched,
    OpenCase,
    PersonRows,
    Rows,
    Texts,
    checked,
    matched,
    nearest,
    row_means,
    stacked,
)

MOST_WORDS = 512
"""So many different tokens are looked at where texts are told apart by their words alone."""


class Pairs(NamedTuple):
    """Rows of the same items, in one order: learned texts, and two alternates of each that nobody learned.

    ``person`` numbers the items' groups without gaps, in the order of ``people``.
    """

    learned: Rows
    control: Rows
    second: Rows
    items: tuple[Item, ...]
    people: tuple[str, ...]
    person: Int[ndarray, " item"]
    note: str

    def sheet(self) -> PersonRows:
        """The learned rows as other probes' tables and means take them."""
        return PersonRows(self.learned, self.items, self.people, self.person)

    def beside(self, other: "Pairs") -> "Pairs":
        """These pairs and another cohort's below them."""
        return Pairs(
            stacked([self.learned, other.learned]), stacked([self.control, other.control]),
            stacked([self.second, other.second]), self.items + other.items, self.people + other.people,
            np.concatenate([self.person, other.person + len(self.people)]), f"{self.note}; beside them {other.note}",
        )  # fmt: skip


def pairs(bench: Bench, case: OpenCase, cohort: Cohort, blind: Checkpoint | None, most: int = 4) -> Pairs | None:
    """The pairs of a cohort's trained items in the audit part; None where fewer than two people have any.

    With a model that never knew (``blind``) the two alternates of every item are the two of its first ``most`` that
    this model finds about as probable as the learned text; else its first two. Alternates by rule are checked first.
    """
    if not case.has(Texts(cohort=cohort)):
        return None
    matching, note = _holding(bench, case, cohort, blind, most)
    people, person = np.unique(np.array([m.item.group for m in matching.matches]), return_inverse=True)
    if len(people) < 2:
        return None
    learned = _rows(case, matching, [m.learned for m in matching.matches])
    others = _others(case, matching, most)
    order = np.tile(np.arange(most), (len(matching.matches), 1))
    if blind is not None:
        order = nearest(_logprob(bench, blind, learned), _several(bench, blind, matching, others))
    control, second = (_chosen(others, order[:, rank]) for rank in (0, 1))
    items = tuple(m.item for m in matching.matches)
    return Pairs(learned, control, second, items, tuple(map(str, people)), person.reshape(-1), note)


def _holding(bench: Bench, case: OpenCase, cohort: Cohort, blind: Checkpoint | None, most: int) -> tuple[Matched, str]:
    """The matches of a cohort with the alternates that hold up in base and in a model that never knew."""
    matching = matched(case.items(Texts(cohort=cohort)), case.case.seed)
    taught = cohort == "forget"  # what base was never taught it need not prefer
    if all(m.item.alternates_from == "given" for m in matching.matches) or (blind is None and not taught):
        return matching, matching.said()
    learned, others = _rows(case, matching, [m.learned for m in matching.matches]), _others(case, matching, most)

    def read(model: Checkpoint) -> Likelihoods:
        return Likelihoods(_logprob(bench, model, learned), _several(bench, model, matching, others))

    items = [m.item for m in matching.matches]
    check = checked(items, None if blind is None else read(blind), read(case.base) if taught else None)
    fit = [tuple(np.flatnonzero(row).tolist()) for row in check.fit]
    matches = tuple(
        m if m.item.alternates_from == "given" else m._replace(others=tuple(m.others[k] for k in its))
        for m, its in zip(matching.matches, fit, strict=True) if its
    )  # fmt: skip
    return matching._replace(matches=matches), f"{matching.said()}; {check.note}"


def longest_tokens(case: OpenCase, cohort: Cohort, most: int = 4) -> int:
    """Tokens of a cohort's items, each in the longest of its matched texts."""
    if not case.has(Texts(cohort=cohort)):
        return 0
    matching = matched(case.items(Texts(cohort=cohort)), case.case.seed)
    texts = [[m.learned for m in matching.matches]]
    texts += [[m.others[min(k, len(m.others) - 1)] for m in matching.matches] for k in range(most)]
    every = [_rows(case, matching, answers).lengths for answers in texts] if matching.matches else []
    return int(torch.stack(every).amax(0).sum()) if every else 0


def _rows(case: OpenCase, matching: Matched, answers: Sequence[str]) -> Rows:
    return case.rows_of([m.item for m in matching.matches], answers)


def _others(case: OpenCase, matching: Matched, most: int) -> list[Rows]:
    """The first ``most`` alternates of every item; an item with fewer has its last one again."""
    return [_rows(case, matching, [m.others[min(k, len(m.others) - 1)] for m in matching.matches]) for k in range(most)]


def _chosen(others: Sequence[Rows], index: Int[ndarray, " item"]) -> Rows:
    """One alternate of every item, by its number."""
    n = len(others[0])
    return stacked(others).take(torch.from_numpy(index * n + np.arange(n)))


def _logprob(bench: Bench, model: Checkpoint, rows: Rows) -> Float[ndarray, " row"]:
    return row_means(bench.run(model, rows, (ANSWER_LOGPROB,))[ANSWER_LOGPROB], rows, "answer")


def _several(
    bench: Bench, blind: Checkpoint, matching: Matched, others: Sequence[Rows]
) -> Float[ndarray, "item other"]:
    """Log-probabilities of every item's alternates in a model that never knew; NaN where an item has fewer."""
    exists = np.array([[k < len(m.others) for k in range(len(others))] for m in matching.matches])
    return np.where(exists, np.stack([_logprob(bench, blind, rows) for rows in others], 1), np.nan)


def logprob_and_length(bench: Bench, model: Checkpoint, rows: Rows) -> Float[Tensor, "row 2"]:
    """What predictability is: mean log-probability (nats) of each text in this model, and its tokens."""
    length = (rows.answer_spans[:, 1] - rows.answer_spans[:, 0]).double()
    return torch.stack([torch.from_numpy(_logprob(bench, model, rows)), length], 1)


def words(rows: Rows, most: int = MOST_WORDS) -> Float[Tensor, "row feature"]:
    """What a text says without any model: its answer's tokens (counted), its length, and its last token.

    Of more than ``most`` different tokens the most frequent are columns: a rare one says nothing of other people.
    """
    row, at = rows.targets("answer")
    tokens, column, count = torch.unique(rows.ids[row, at], return_inverse=True, return_counts=True)
    columns = count.argsort(stable=True, descending=True)[:most].sort().values
    bag = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    place = torch.full((len(tokens),), -1).index_put((columns,), torch.arange(len(columns)))[column]
    bag.index_put_((row[place >= 0], place[place >= 0]), torch.ones(1, dtype=torch.float64), accumulate=True)
    last = torch.cat([(row[1:] != row[:-1]).nonzero()[:, 0], torch.tensor([len(row) - 1])])
    last = last[place[last] >= 0]
    closing, end = torch.unique(place[last], return_inverse=True)
    ends = torch.zeros(len(rows), len(closing), dtype=torch.float64)
    ends[row[last], end] = 1.0
    length = torch.bincount(row, minlength=len(rows)).double()
    return torch.cat([bag, ends, length[:, None]], 1)
