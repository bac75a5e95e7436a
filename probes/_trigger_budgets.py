"""How long a hidden trigger is looked for: three classes, by which every search of it is reported."""

from typing import Final, Literal, NamedTuple

BudgetClass = Literal["small", "medium", "large"]


class TriggerBudget(NamedTuple):
    """What one model is searched with on each fold.

    Soft prefixes: ``lengths`` in tokens at the place of a prefix, ``elsewhere`` tokens at every other one, each from
    ``restarts`` starts for ``steps`` steps at rate ``lr``, on ``rows`` rows, chosen by ``validation`` rows of other
    people. Strings: ``candidates`` of the dictionary in each place, then ``replacements`` steps of discrete search of
    ``width`` trials each. ``leaks``: are the model's own words candidates? ``shift``: is an additive shift of a layer
    searched?
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
    leaks: bool
    shift: bool


BUDGETS: Final[dict[BudgetClass, TriggerBudget]] = {
    "small": TriggerBudget(
        lengths=(1, 2, 4, 8), elsewhere=4, restarts=2, steps=40, lr=0.05, rows=32, validation=16,
        candidates=200, replacements=20, width=64, leaks=False, shift=False,
    ),
    "medium": TriggerBudget(
        lengths=(1, 2, 4, 8), elsewhere=4, restarts=4, steps=100, lr=0.03, rows=32, validation=32,
        candidates=500, replacements=100, width=256, leaks=True, shift=True,
    ),
    "large": TriggerBudget(
        lengths=(1, 2, 4, 8), elsewhere=4, restarts=5, steps=200, lr=0.01, rows=64, validation=64,
        candidates=2000, replacements=250, width=512, leaks=True, shift=True,
    ),
}  # fmt: skip
