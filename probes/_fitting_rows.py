"""Which rows a case's tokenizer and context can hold, and how many tokens of them the tokenizer does not know."""

from collections.abc import Sequence
from typing import NamedTuple

from audit.probing import AuditError, Item, OpenCase, Rows


class _Group(NamedTuple):
    """Rows that are read together or not at all, by their number."""

    number: int
    rows: Sequence[tuple[Item, str]]


def fitting(case: OpenCase, groups: Sequence[Sequence[tuple[Item, str]]], kinds: Sequence[str]) -> list[int]:
    """The groups of rows (items, each with an answer) that can be held, by number. Of a kind all fit as a rule, or
    none, so that they are looked for by halves."""
    if _rows(case, [row for group in groups for row in group]) is not None:
        return list(range(len(groups)))
    each = [_Group(n, group) for n, group in enumerate(groups)]
    held = [_held(case, [group for group in each if kinds[group.number] == kind]) for kind in dict.fromkeys(kinds)]
    return sorted(group.number for groups_held in held for group in groups_held)


def most_unknown(case: OpenCase, groups: Sequence[Sequence[tuple[Item, str]]]) -> list[int]:
    """How many unknown tokens a row of each group has at the most; none where the tokenizer knows all."""
    unknown, rows = case.tokenizer.unk_token_id, [row for group in groups for row in group]
    if unknown is None or not rows:
        return [0] * len(groups)
    made = case.rows_of(*_parts(rows))
    counts = iter(((made.ids == unknown) & made.mask).sum(1).tolist())
    return [max(next(counts) for _ in group) for group in groups]


def _held(case: OpenCase, groups: list[_Group]) -> list[_Group]:
    """Those that fit, found by halves."""
    if not groups or _rows(case, [row for group in groups for row in group.rows]) is not None:
        return groups
    if len(groups) == 1:
        return []
    return [*_held(case, groups[: len(groups) // 2]), *_held(case, groups[len(groups) // 2 :])]


def _rows(case: OpenCase, rows: Sequence[tuple[Item, str]]) -> Rows | None:
    """The rows, or None where one of them does not fit."""
    try:
        return case.rows_of(*_parts(rows))
    except AuditError:
        return None


def _parts(rows: Sequence[tuple[Item, str]]) -> tuple[list[Item], list[str]]:
    return [item for item, _ in rows], [answer for _, answer in rows]
