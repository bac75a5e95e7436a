"""How long a hidden trigger is looked for: three classes, by which every search of it is reported."""

from typing import Final, Literal, NamedTuple

BudgetClass = Literal["small", "medium", "large"]


class TriggerBudget(NamedTuple):
    """What one model is searched with on each fold.

    Soft prefixes: ``lengths`` in tokens at the place of a prefix, ``elsewhere`` tokens at every other one, each from
    ``restarts`` starts for ``steps`` steps at rate ``lr``, on ``rows`` rows, chosen by ``validation`` rows of other
    people. Strings: ``candidates`` of the dictionary in each place, then from the best ``starts`` of them
    ``replacements`` steps of discrete search, of ``width`` trials on ``minibatch`` rows each, drawn from the
    ``promising`` tokens of a position. ``leaks``: are the model's own words candidates? ``shift``: is an additive shift
    of a layer searched?
    """

    lengths: tuple[int, ...]
    elsewhere: int
    restarts: int
    steps: int
    lr: float
    rows: int
    validation: int
    candidates: int
    replacements: int
    width: int
    promising: int
    minibatch: int
    starts: int
    leaks: bool
    shift: bool


BUDGETS: Final[dict[BudgetClass, TriggerBudget]] = {
    "small": TriggerBudget(
        lengths=(1, 2, 4, 8), elsewhere=4, restarts=1, steps=24, lr=0.05, rows=16, validation=16,
        candidates=120, replacements=16, width=32, promising=16, minibatch=8, starts=2,
        leaks=False, shift=False,
    ),
    "medium": TriggerBudget(
        lengths=(1, 2, 4, 8), elsewhere=4, restarts=4, steps=100, lr=0.03, rows=32, validation=32,
        candidates=500, replacements=100, width=256, promising=64, minibatch=16, starts=2,
        leaks=True, shift=True,
    ),
    "large": TriggerBudget(
        lengths=(1, 2, 4, 8), elsewhere=4, restarts=5, steps=200, lr=0.01, rows=64, validation=64,
        candidates=1200, replacements=250, width=512, promising=256, minibatch=8, starts=4,
        leaks=True, shift=True,
    ),
}  # fmt: skip
