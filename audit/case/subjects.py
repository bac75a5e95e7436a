"""Where each question names its group, token by token: the subjects of a case, found in the wording of its questions.

A name is what the data state as an item's ``subject``, or else what stands in a question where the like questions of
other groups have other words (:mod:`audit.case.question_forms`). No list of names is needed, and no model is asked.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from audit.case.prompts import folded
from audit.case.question_forms import readings
from audit.case.rows import Rows
from audit.schema import Cohort, Item

MOST_WORDINGS: Final = 6
"""So many questions of a group are enough: the edits that are looked for take as many contexts."""


class Subject(NamedTuple):
    """One group as its questions name it: the cohort, the name, and some of the items whose questions have it."""

    cohort: Cohort
    group: str
    name: str
    items: tuple[Item, ...]


def subjects(cohorts: Mapping[Cohort, Sequence[Item]]) -> tuple[Subject, ...]:
    """The groups that questions name, in the order of the data; a group that none names is left out."""
    listed: list[tuple[Cohort, Item]] = [
        (cohort, item) for cohort, items in cohorts.items() if cohort != "forms" for item in items if item.question
    ]
    mentions: defaultdict[tuple[Cohort, str], list[tuple[str, Item]]] = defaultdict(list)
    questions: list[Item] = [item for _, item in listed]
    for (cohort, item), its in zip(listed, readings(questions), strict=True):
        stated = item.subject if item.subject and item.subject in item.question else ""
        name = stated or next((reading.name for reading in its if reading.name), "")
        if name:
            mentions[cohort, item.group].append((name, item))
    groups: list[Subject] = []
    for (cohort, group), mine in mentions.items():
        name = Counter(folded(name) for name, _ in mine).most_common(1)[0][0]
        spelled = next(written for written, _ in mine if folded(written) == name)
        items = tuple(item for written, item in mine if folded(written) == name)
        groups.append(Subject(cohort, group, spelled, items[:MOST_WORDINGS]))
    return tuple(groups)


class NamedRows(NamedTuple):
    """Rows whose prompts name a subject: the token with which the name is whole is at ``end`` - 1."""

    rows: Rows
    end: Int[Tensor, " row"]

    def take(self, index: Int[Tensor, " some"]) -> "NamedRows":
        """The rows at ``index``."""
        return NamedRows(self.rows.take(index), self.end[index])

    def cut(self) -> Rows:
        """The rows up to that token, which is their last and their only target."""
        pos = torch.arange(self.rows.ids.shape[1])
        mask, last = self.rows.mask & (pos < self.end[:, None]), pos == self.end[:, None] - 1
        spans, ids = torch.stack([self.end - 1, self.end], 1), self.rows.ids.masked_fill(~mask, 0)
        return replace(self.rows, ids=ids, mask=mask, key=last, answer_spans=spans)

    def before(self) -> Bool[Tensor, "row pos"]:
        """The real tokens before those, but for the first of a row, which has no context."""
        pos = torch.arange(self.rows.ids.shape[1])
        return self.rows.mask & (pos > 0) & (pos < self.end[:, None] - 1)

    def besides(self) -> Bool[Tensor, "row pos"]:
        """Every real token but those, and but the first of a row."""
        pos = torch.arange(self.rows.ids.shape[1])
        return self.rows.mask & (pos > 0) & (pos != self.end[:, None] - 1)


def named_rows(rows: Rows, names: Sequence[str], tokenizer: Any) -> NamedRows:
    """The rows in whose prompt each one's name stands, as the tokenizer spells it; others are left out."""
    ends = [_end(rows.ids[n], int(rows.answer_spans[n, 0]), name, tokenizer) for n, name in enumerate(names)]
    present = torch.tensor([n for n, end in enumerate(ends) if end], dtype=torch.int64)
    return NamedRows(rows.take(present), torch.tensor([end for end in ends if end], dtype=torch.int64))


def _end(ids: Tensor, stop: int, name: str, tokenizer: Any) -> int:
    """How many tokens of the prompt it takes until the name stands in them; 0: it never does, or at once."""
    wanted = folded(name)

    def stands(n: int) -> bool:
        return wanted in folded(tokenizer.decode(ids[:n].tolist()))

    low, high = 1, stop
    if not stands(high):
        return 0
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if stands(middle) else (middle + 1, high)
    return low if low > 1 else 0
