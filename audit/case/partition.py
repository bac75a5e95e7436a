"""Cohorts split once by group, so that nothing is measured on the groups it was fitted on.

What fits nothing is measured on all groups. What an audit fits itself is cross-fitted: every group is measured by what
was fitted on the other folds (:func:`deal`). Edits of ours keep the halves of :func:`split`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from audit.schema import AuditError, Cohort, Item


class Split(NamedTuple):
    """Items by part: what we fit is fitted on ``calibration`` and measured on ``audit``. No group is in both."""

    calibration: tuple[Item, ...]
    audit: tuple[Item, ...]


def split(items: tuple[Item, ...], seed: int) -> Split:
    """Halve the groups, the larger half to ``audit``. Depends on group names and seed only, not on the rows' order."""
    ranked = _ranked((item.group for item in items), seed)
    fitted = set(ranked[: len(ranked) // 2])
    return Split(
        calibration=tuple(item for item in items if item.group in fitted),
        audit=tuple(item for item in items if item.group not in fitted),
    )


def deal(groups: Iterable[str], k: int, seed: int) -> tuple[frozenset[str], ...]:
    """The groups in ``k`` folds, alike in size to within one and none empty: as many folds as groups where those are
    fewer. With two folds they are the halves of :func:`split`, the larger one last."""
    ranked = _ranked(groups, seed)
    k = max(1, min(k, len(ranked)))
    ends = [len(ranked) * fold // k for fold in range(k + 1)]
    return tuple(frozenset(ranked[start:end]) for start, end in zip(ends, ends[1:], strict=False))


def _ranked(groups: Iterable[str], seed: int) -> list[str]:
    """The groups in an order that depends on their names and the seed only."""
    return sorted(set(groups), key=lambda group: hashlib.sha256(f"{seed}\n{group}".encode()).digest())


_STRICT: tuple[Cohort, ...] = ("forget", "retain", "holdout")
_PAIRS: tuple[tuple[Cohort, Cohort], ...] = (
    *((a, b) for i, a in enumerate(_STRICT) for b in _STRICT[i + 1 :]),
    ("forget", "general"),
    ("forget", "neighbour"),
    ("holdout", "neighbour"),
)


def check_shared(
    kinds: Mapping[str, Mapping[Cohort, Mapping[str, str]]], cohorts: Mapping[Cohort, tuple[Item, ...]]
) -> None:
    """Do forget, retain and holdout share nothing of these kinds, and general nothing but groups with forget?

    ``kinds``: by the word for it, what each cohort has, with the item that it is seen by. AuditError (code 2) lists
    every overlap with examples.
    """
    faults: list[str] = []
    for a, b in _PAIRS:
        if a not in cohorts or b not in cohorts:
            continue
        for kind, held in kinds.items():
            same = [item for content, item in held[b].items() if content in held[a]]
            if same and not (kind == "group" and b == "general"):
                faults.append(_overlap((a, b), same, kind))
    if faults:
        raise AuditError("; ".join(faults), f"make the cohorts disjoint: no {' or '.join(kinds)} in two of them")


def _overlap(cohorts: tuple[Cohort, Cohort], same: Sequence[str], kind: str) -> str:
    plural = "s" if len(same) > 1 else ""
    return f"{cohorts[0]} and {cohorts[1]} share {len(same)} {kind}{plural} ({', '.join(same[:3])})"


def _content(item: Item) -> tuple[str, str, str]:
    return item.question.strip(), item.answer.strip(), item.image or ""


def check_disjoint(cohorts: Mapping[Cohort, tuple[Item, ...]]) -> None:
    """Do forget, retain and holdout share no id, no group and no text, and general no text with forget?

    AuditError (code 2) lists every overlap with examples.
    """
    faults: list[str] = []
    for a, b in _PAIRS:
        first, second = cohorts.get(a, ()), cohorts.get(b, ())
        texts = set(map(_content, first))
        same = [item.id for item in second if _content(item) in texts]
        overlaps = [("text", same)]
        if b != "general":
            overlaps.append(("id", sorted({item.id for item in first} & {item.id for item in second})))
            overlaps.append(("group", sorted({item.group for item in first} & {item.group for item in second})))
        faults += [_overlap((a, b), shared, kind) for kind, shared in overlaps if shared]
    if faults:
        raise AuditError("; ".join(faults), "make the cohorts disjoint: no item, group or text in two of them")
