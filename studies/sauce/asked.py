"""What is asked of a variant about one concept, and how it is answered, before pictures nothing was chosen on.

Unlearning accuracy is 1 - accuracy on questions about the concept, before pictures that show it; retain accuracy that
on other concepts of its kind, and of other kinds, before pictures that do not show it. "Is it there?" is asked of both.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from audit.case import OpenCase, Rows, stacked
from audit.schema import Item, Texts
from audit.zoo import CONCEPTS

FORMS = ("trained", "caption", "yes_no", "choice")
Answered = Callable[[Rows], torch.Tensor]
"""Which rows of a variant are right."""


class Questions(NamedTuple):
    """Rows about one concept: by form, of other concepts of the kind, of other kinds, and whether it is where it is
    not."""

    present: Mapping[str, Rows]
    same_kind: Rows
    other_kinds: Rows
    absent: Rows

    def every(self) -> Mapping[str, Rows]:
        """All of them by name."""
        retained = {"same kind": self.same_kind, "other kinds": self.other_kinds, "absent": self.absent}
        return {**self.present, **retained}


def questions(case: OpenCase, concept: str) -> Questions:
    """The questions of a case whose forget items ask for the concept."""
    kind = next(kind for kind, among in CONCEPTS.items() if concept in among)

    def retained(takes: Callable[[Item], bool]) -> Rows:
        parts = [
            case.rows_of(items, [item.answer for item in items])
            for form in FORMS
            if (items := [i for i in case.items(Texts(cohort="retain", form=form)) if takes(i)])
        ]
        return stacked(parts)

    return Questions(
        present={form: case.rows(Texts(cohort="forget", form=form)) for form in FORMS},
        same_kind=retained(lambda item: item.attribute in CONCEPTS[kind] and item.attribute != concept),
        other_kinds=retained(lambda item: item.attribute not in CONCEPTS[kind]),
        absent=retained(lambda item: item.attribute == concept),
    )


def accuracies(about: Questions, right: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Shares of right answers by form and by what is kept, and of answers on pictures without the concept that are no
    longer right, or have become so: against ``base``'s."""
    return {name: round(float(right[name].double().mean()), 4) for name in about.every()}


def flips(about: Questions, right: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> float:
    """The share of answers before pictures without the concept that are right in one model and wrong in the other."""
    names = ("same kind", "other kinds", "absent")
    return round(float(torch.cat([right[name] != base[name] for name in names]).double().mean()), 4)
