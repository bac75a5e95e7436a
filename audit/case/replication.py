"""Are the groups what they are counted as: independent people, each under one name?

Two names for one person count the same evidence twice, and rows of one person under names of their own count it as
often as there are rows. Seen by texts alone: groups with the same rows are refused, groups that share what sets them
apart from all others are said, and so are names of people that run on over the borders of groups.
"""

import logging
import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Final, NamedTuple

from audit.schema import AuditError, Cohort, Item

SHINGLE: Final = 3
"""Words in a row that are compared."""
ALIKE, ALIKE_ROW = 0.5, 0.8
"""Two groups share this much of what sets them apart: one person under two names, in part or with changes. The second
is for groups of a row or two, where a turn of phrase is half of all words. Different people of TOFU share at most .06,
of templated worlds .28, single questions on world facts .49."""
RARE: Final = 10
"""A run of words in more groups than this makes no two of them worth comparing."""
RUNS_ON: Final = 0.25
"""By this much more often neighbouring rows share a rare word than rows far from each other, where rows of one person
follow one another: .40 to .90 in TOFU, .64 in templated worlds, and at most .03 where rows are independent."""
FEW_ROWS: Final = 60
"""In fewer rows every other word is rare, and neighbours say nothing."""
_MOST_LOGGED = 5
log = logging.getLogger(__name__)
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class GroupKey(NamedTuple):
    """A group of a cohort."""

    cohort: Cohort
    group: str

    def __str__(self) -> str:
        return f"{self.group!r} ({self.cohort})"


class Alike(NamedTuple):
    """Two groups and the share (0 to 1) of the smaller one's own runs of words that they have in common."""

    first: GroupKey
    second: GroupKey
    share: float


def words(text: str) -> list[str]:
    """The words of a text without case; a character each in scripts without spaces."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def check_identical(cohorts: Mapping[Cohort, Sequence[Item]]) -> None:
    """AuditError (code 2) where two groups of a cohort hold the same texts: one person would count as two."""
    faults: list[str] = []
    for cohort in ("forget", "holdout"):
        by_texts: dict[frozenset[tuple[str, ...]], list[str]] = {}
        for group, items in _by_group(cohorts.get(cohort, ())).items():
            texts = frozenset((*words(item.question), "", *words(item.answer), item.image or "") for item in items)
            by_texts.setdefault(texts, []).append(group)
        twins = [names for names in by_texts.values() if len(names) > 1]
        if twins:
            n, people = sum(map(len, twins)), len(twins)
            shown = "; ".join(" and ".join(map(repr, names[:3])) for names in twins[:3])
            faults.append(f"{cohort}: {n} groups are {people}: the same texts under several names ({shown})")
    if faults:
        raise AuditError("; ".join(faults), "give the rows of one person one group, or take the copies out")


def alike(cohorts: Mapping[Cohort, Sequence[Item]]) -> tuple[Alike, ...]:
    """Pairs of groups that share too much of what sets them apart (:data:`ALIKE`), the likest first.

    Runs of words are weighed by how few groups have them, so that questions of one form make nobody alike.
    """
    groups = {
        GroupKey(cohort, group): items
        for cohort, everyone in cohorts.items() if cohort not in ("general", "neighbour", "forms")
        for group, items in _by_group(everyone).items()
    }  # fmt: skip
    runs = {key: set(_runs(items)) for key, items in groups.items()}
    holders: defaultdict[int, list[GroupKey]] = defaultdict(list)
    for key, mine in runs.items():
        for run in mine:
            holders[run].append(key)
    weight = {run: math.log((len(runs) + 1) / len(keys)) for run, keys in holders.items()}
    rare = Counter(
        pair for keys in holders.values() if 2 <= len(keys) <= RARE for pair in combinations(sorted(keys), 2)
    )
    total = {key: math.fsum(weight[run] for run in mine) for key, mine in runs.items()}
    pairs: list[Alike] = []
    for (a, b), shared in rare.items():
        if shared < 2:
            continue
        share = math.fsum(weight[run] for run in runs[a] & runs[b]) / min(total[a], total[b])
        if share >= (ALIKE if min(len(groups[a]), len(groups[b])) > 2 else ALIKE_ROW):
            pairs.append(Alike(a, b, share))
    return tuple(sorted(pairs, key=lambda pair: (-pair.share, pair)))


def remarks(cohorts: Mapping[Cohort, Sequence[Item]], group_rows: int | None = None) -> tuple[str, ...]:
    """What is to be said of the groups as units of replication; quotes nothing of the data, which the log does."""
    pairs = [pair for pair in alike(cohorts) if {pair.first.cohort, pair.second.cohort} != {"retain"}]
    between: dict[tuple[Cohort, Cohort], list[Alike]] = {}
    for pair in pairs:
        between.setdefault((pair.first.cohort, pair.second.cohort), []).append(pair)
    for pair in pairs[:_MOST_LOGGED]:
        log.warning("%s and %s share %.0f %% of their own words", pair.first, pair.second, 100 * pair.share)
    remarked: list[str] = []
    for (first, second), likest in between.items():
        where = first if first == second else f"{first} and {second}"
        pairs_share = "1 pair of groups shares" if len(likest) == 1 else f"{len(likest)} pairs of groups share"
        remarked.append(
            f"{where}: {pairs_share} most of what sets them apart from all others (the likest "
            f"{100 * likest[0].share:.0f} %): one person under two names counts as two"
        )
    for cohort in ("forget", "holdout"):
        items = [item for item in cohorts.get(cohort, ()) if item.question]
        remarked += [f"{cohort}: {remark}" for remark in _borders(items, group_rows)]
    return tuple(remarked)


class Neighbours(NamedTuple):
    """How often (0 to 1) neighbouring rows share a rare word, and rows far from each other."""

    near: float
    far: float

    @property
    def run_on(self) -> bool:
        """Do rows of one person follow one another?"""
        return self.near - self.far >= RUNS_ON

    def __str__(self) -> str:
        return f"{100 * self.near:.0f} % of neighbouring rows share a rare word, {100 * self.far:.0f} % of distant ones"


def neighbours(items: Sequence[Item], starts: Sequence[int] | None = None) -> Neighbours:
    """Do the rows at ``starts`` (all of them) share rare words with those before them, more than distant rows do?"""
    rows = [{*words(item.question), *words(item.answer)} for item in items]
    times = Counter(word for row in rows for word in row)
    rare = {word for word, n in times.items() if 2 <= n <= max(2, min(40, len(rows) // 4))}
    rows = [row & rare for row in rows]

    def share(distance: int, at: Iterable[int]) -> float:
        shared = [not rows[n].isdisjoint(rows[n - distance]) for n in at]
        return sum(shared) / max(len(shared), 1)

    far = [share(len(rows) // part + step, range(len(rows))) for part in (2, 3, 5) for step in range(-2, 3)]
    return Neighbours(share(1, range(1, len(rows)) if starts is None else starts), sum(far) / len(far))


def _borders(items: Sequence[Item], group_rows: int | None) -> list[str]:
    """Where groups are rows, or a number of rows: what that counts, and whether people run on over their borders."""
    n_groups = len({item.group for item in items})
    if group_rows is not None and group_rows > 1:
        if len(items) < FEW_ROWS:
            return []
        inside, starts = neighbours(items), range(group_rows, len(items), group_rows)
        if not inside.run_on:
            return [f"{inside}: are the rows still in the order in which {group_rows} of them are one person?"]
        border = neighbours(items, starts).near
        if border <= (inside.near + inside.far) / 2:
            return []
        shared = f"{100 * border:.0f} % of groups share a rare word with the one before at their border"
        return [f"{shared}: is every {group_rows}th row the first of a person?"]
    if n_groups < len(items) or n_groups < 2:
        return []
    counted = f"every row is a group of its own, so that {n_groups} rows count as {n_groups} independent people"
    if len(items) >= FEW_ROWS and (near := neighbours(items)).run_on:
        return [f"{counted}, but {near}: rows of one person belong in one group"]
    return [counted]


def _by_group(items: Iterable[Item]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    return groups


def _runs(items: Iterable[Item]) -> Iterable[int]:
    """Runs of words of questions and answers, by hash; the ends of a text are words too."""
    for item in items:
        for text in (item.question, item.answer):
            row = ["", *words(text), ""]
            for start in range(max(len(row) - SHINGLE + 1, 1) if len(row) > 2 else 0):
                yield hash(tuple(row[start : start + SHINGLE]))
