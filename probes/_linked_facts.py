"""The two errors of an edit among facts that hang together.

A linked fact (:data:`LINKED`) follows from a forgotten one and should go with it; a retained one should stay, also
where it has the same answer.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from audit.probing import Form, Item, Listing, stats
from probes._forms import FormSheet

LINKED: Final[tuple[Form, ...]] = ("two_hop", "reversed")
KEPT: Final = 0.5
"""A fact is kept where the suspect gives it more than half of what base gives it beyond a model that never knew."""


class Counted(NamedTuple):
    """An error of one kind of facts: how many of those that base knows, with the exact 95 % interval of the share."""

    error: str
    facts: str
    k: int
    n: int

    def row(self) -> tuple[str | int | float | None, ...]:
        """Error, facts, k, n, share and both ends of its interval."""
        if not self.n:
            return self.error, self.facts, 0, 0, None, None, None
        bounds = stats.clopper_pearson(self.k, self.n)
        return self.error, self.facts, self.k, self.n, self.k / self.n, bounds.lo, bounds.hi


COLUMNS: Final = ("error", "facts", "k", "of", "share", "lo", "hi")
_MOST_ROWS: Final = 20


def known_and_kept(
    models: Mapping[str, Float[ndarray, "fact form"]], least_gap: float
) -> tuple[Bool[ndarray, "fact form"], Bool[ndarray, "fact form"]]:
    """Which facts base knows in which form, and which of them the suspect keeps."""
    null = models.get("null", np.zeros_like(models["base"]))
    gap, left = models["base"] - null, models["suspect"] - null
    known = np.nan_to_num(gap, nan=0.0) >= least_gap
    return known, known & (np.nan_to_num(left, nan=0.0) > KEPT * np.nan_to_num(gap, nan=1.0))


def linked_counts(
    sheet: FormSheet, models: Mapping[str, Float[ndarray, "fact form"]], least_gap: float
) -> list[Counted]:
    """Facts that follow from a forgotten one and are kept, by form; only those whose forgotten fact base knows."""
    known, remaining = known_and_kept(models, least_gap)
    direct = known[:, 0]
    return [
        Counted("kept, and should go", form, int(remaining[direct, n].sum()), int(known[direct, n].sum()))
        for n, form in enumerate(sheet.forms) if form in LINKED
    ]  # fmt: skip


def unlinked_counts(
    sheet: FormSheet, models: Mapping[str, Float[ndarray, "fact form"]], answers: set[str], least_gap: float
) -> list[Counted]:
    """Facts of people who stay and are lost, by form; those of the trained form also where the answer is a forgotten
    one's."""
    known, remaining = known_and_kept(models, least_gap)
    same = np.array([value_of(fact.item) in answers for fact in sheet.paired.facts])
    counts = [
        Counted("lost, and should stay", form, int((known & ~remaining)[:, n].sum()), int(known[:, n].sum()))
        for n, form in enumerate(sheet.forms)
    ]
    shared = Counted("lost, and should stay", "trained, with a forgotten fact's answer",
                     int((known & ~remaining)[same, 0].sum()), int(known[same, 0].sum()))  # fmt: skip
    return [*counts, shared]


def value_of(item: Item) -> str:
    """What an item's answer says of its fact."""
    return item.answer if item.key is None else item.key


def listed(counts: Sequence[Counted]) -> tuple[Listing, ...]:
    """The counts of facts that base knows, a kind a row; nothing where there are none."""
    rows = tuple(count.row() for count in counts if count.n)
    shown = rows[:_MOST_ROWS]
    return (Listing(title="Facts that hang together", columns=COLUMNS, rows=shown, of=len(rows)),) if rows else ()
