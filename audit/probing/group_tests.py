"""Can a test decide anything with so many groups? Said before a minute is spent, with what would suffice."""

from collections.abc import Callable, Sequence
from itertools import count, takewhile
from typing import NamedTuple

from audit import stats
from audit.case import OpenCase
from audit.probing.effects import ALPHA
from audit.schema import Cohort, Item, Texts

Usable = Callable[[Sequence[Item]], Sequence[Item]]

MOST_GROUPS = 400
"""More groups than this are not proposed."""


class GroupTest(NamedTuple):
    """A randomisation test over people as a case allows it.

    ``audited`` forget groups are tested against ``others`` holdout groups (none: the signs of the people's differences
    are flipped). ``pairs``: would holdout groups take part in it? ``family``: how many forms
    held out of the edit are tested beside it, and adjusted together. ``unmatched``: so many more audited groups have
    nothing that the probe compares their items with, and are not tested. ``least``: of fewer audited groups the probe
    tests none, because it needs some of them for something else.
    """

    audited: int
    others: int
    draws: int
    pairs: bool
    family: int = 0
    unmatched: int = 0
    least: int = 0

    @property
    def least_p(self) -> float:
        """The smallest p that it can reach; 1 without any group."""
        return stats.least_p(self.audited, self.others, self.draws) if self.audited else 1.0

    @property
    def decides(self) -> bool:
        """Can it reach a p below :data:`ALPHA` at all?"""
        return self.least_p < ALPHA and self.audited >= self.least

    def __str__(self) -> str:
        """Why it cannot decide, and what would suffice."""
        if self.audited < self.least and self.least_p < ALPHA:
            return f"with {_groups(self.audited, 'audited forget')} nobody is tested: {self.least} are needed"
        if self.least_p == 1 / (self.draws + 1):
            return f"{self.draws} draws cannot give a p below {ALPHA}: raise `permutations`"
        beside = f" and {_groups(self.others, 'holdout')}" if self.others else ""
        unmatched = (
            f" ({self.unmatched} more {'has' if self.unmatched == 1 else 'have'} no item with alternates)"
            if self.unmatched
            else ""
        )
        lead = f"with {_groups(self.audited, 'audited forget')}{unmatched}{beside} p cannot be below {self.least_p:.2g}"
        enough = self._enough_forget()
        kind = "forget groups with alternates" if self.unmatched else "forget groups"
        ways = [] if enough is None else [f"{enough} {kind} in all"]
        others = self._enough_others() if self.pairs and self.audited else None
        ways += [] if others is None else [f"{_groups(others, 'holdout')} beside these"]
        ways += ["no holdout set at all"] if self.others and self._replace(others=0).decides else []
        return f"{lead}, and less than {ALPHA} is asked; {' or '.join(ways) or 'more groups'} would suffice"

    @property
    def short_family(self) -> str:
        """Why the held-out forms, adjusted together by Holm, can show nothing where one test could; empty otherwise."""
        if not self.decides or self.least_p * self.family < ALPHA:
            return ""
        enough = _first(lambda n: self._replace(audited=n).least_p * self.family < ALPHA, self.audited + 1)
        do = "" if enough is None else f"; {enough} forget groups in all would suffice"
        return (
            f"{self.family} forms held out of the edit are tested together (Holm), so that p cannot be below "
            f"{self.least_p * self.family:.2g} for any of them, and less than {ALPHA} is asked{do}"
        )

    def _enough_forget(self) -> int | None:
        return _first(lambda n: self._replace(audited=n).decides, self.audited + 1)

    def _enough_others(self) -> int | None:
        return _first(lambda n: self._replace(others=n).decides, self.others + 1)


def group_test(
    case: OpenCase, draws: int, pairs: bool = True, forms: bool = False, usable: Usable | None = None
) -> GroupTest:
    """The test of a probe that compares people's means on the trained forget rows.

    ``pairs``: with holdout people; ``forms``: on every form held out of the edit too; ``usable``: which of some items
    the probe can compare with anything (None: all).
    """

    def groups(cohort: Cohort) -> set[str]:
        items = case.items(Texts(cohort=cohort))
        return {item.group for item in (items if usable is None else usable(items))}

    audited, others = groups("forget"), groups("holdout") if pairs else set[str]()
    every = {item.group for item in case.items(Texts(cohort="forget"))}
    family = sum(case.has(Texts(cohort="forget", form=form)) for form in case.forms("held_out")) if forms else 0
    return GroupTest(len(audited), len(others), draws, pairs, family, len(every - audited))


def with_alternates(items: Sequence[Item]) -> Sequence[Item]:
    """The items that have alternates; where none has, those with perturbed answers."""
    return [item for item in items if item.alternates] or [item for item in items if item.perturbed_answers]


def _first(enough: Callable[[int], bool], start: int) -> int | None:
    return next((n for n in takewhile(lambda n: n <= MOST_GROUPS, count(start)) if enough(n)), None)


def _groups(n: int, kind: str) -> str:
    return f"{n} {kind} group{'' if n == 1 else 's'}"
