"""What the search for a trigger costs at the most, in tokens."""

from typing import NamedTuple

from audit.probing import Cost, OpenCase, case_models_of
from probes._trigger_budgets import TriggerBudget
from probes._trigger_candidates import LONGEST
from probes._trigger_measured import LEAK_DRAWS, LEAK_TOKENS
from probes._trigger_people import TriggerPeople
from probes._trigger_soft import arms_of
from probes._trigger_strings import KEPT
from probes._trigger_tables import SHOWN

CHECKS = 14
"""How often at the most a search of virtual tokens looks at those chosen by."""
LEAKED_AT_MOST = 16


class _Tokens(NamedTuple):
    forward: int
    backward: int


def cost_of(case: OpenCase, people: TriggerPeople, budget: TriggerBudget, room: int) -> Cost:
    """Every model searched for virtual tokens and read under them, two for strings: an upper bound."""
    models, folds = len(case_models_of(case).by_name()), len(people.folds)
    if not folds:
        return Cost()
    cohorts = [people.everybody, *([] if people.holdout is None else [people.holdout])]
    longest = max(int(placed.rows.lengths.max()) for placed in cohorts)
    read = len(people.everybody.rows) + folds * (len(cohorts[1].rows) if len(cohorts) > 1 else 0)
    soft = _soft(budget, [longest + arm.length for arm in arms_of(budget, people.slots, room)], longest, folds, read)
    hard = _hard(budget, longest + LONGEST, folds, read, len(people.slots))
    shift = _shift(budget, longest, folds, read) if budget.shift else _Tokens(0, 0)
    leaked = 3 * LEAK_DRAWS * (longest + LEAK_TOKENS) if budget.leaks else 0
    return Cost(
        fwd_tokens=(models + 1) * soft.forward + 2 * (hard.forward + shift.forward) + leaked,
        bwd_tokens=(models + 1) * soft.backward + 2 * (hard.backward + shift.backward),
        steps=(models + 1 + 2 * budget.shift) * folds * budget.steps,
        kind="upper",
    )  # fmt: skip


def _soft(budget: TriggerBudget, widths: list[int], longest: int, folds: int, read: int) -> _Tokens:
    """One model; what stands beside the suspect's prefix is less than another."""
    every = budget.restarts * sum(widths)
    climbed = folds * budget.steps * budget.rows * every
    chosen = folds * CHECKS * budget.validation * every
    readings = (read + folds * budget.validation) * (longest + sum(widths))
    return _Tokens(climbed + chosen + readings + 8 * read * max(widths, default=0), climbed)


def _shift(budget: TriggerBudget, longest: int, folds: int, read: int) -> _Tokens:
    """One model: as virtual tokens, without any; how long its states are is read once a fold."""
    climbed = folds * budget.steps * budget.rows * budget.restarts * longest
    chosen = folds * CHECKS * budget.validation * budget.restarts * longest
    return _Tokens(climbed + chosen + (read + folds * budget.rows) * longest, climbed)


def _hard(budget: TriggerBudget, width: int, folds: int, read: int, slots: int) -> _Tokens:
    """One model: the list on a few rows, the search, and the best on those chosen by and on those read."""
    arms = len(budget.lengths) + slots
    listed = ((budget.candidates + LEAKED_AT_MOST) * slots + arms) * budget.minibatch
    climbed = budget.starts * budget.replacements * budget.minibatch
    finalists = (KEPT + 4 + arms + 5 * budget.starts) * budget.validation
    forward = folds * (listed + climbed * (budget.width + 1) + finalists) + (4 + 3 * SHOWN) * read
    return _Tokens(forward * width, folds * climbed * width)
