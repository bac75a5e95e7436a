"""What is said of an edit that was made from a case: kept in the edited folder, beside its record."""

from typing import Literal

from audit.schema.case import Role
from audit.schema.measurement import Listing
from audit.schema.record import Record


class EditSummary(Record):
    """An edit that was made: of whom, with which settings, on which rows, what it changed and what it cost.

    ``key`` names everything that the result depends on, so that the same command finds its own folder. ``change`` is
    the norm of the change over that of the changed weights (None for a hook), ``rounding`` the norm of what rounding to
    the written dtype moved over that of the change. ``of_blocks``: which share of the entries of the blocks' weights
    (norms and biases aside) the edit changed. ``general``: what became of the case's general texts.
    """

    key: str
    edit: str
    plays: str
    form: Literal["edited", "merged"]
    case: str
    role: Role
    parent: str
    settings: dict[str, str | int | float | bool]
    rows: dict[str, int]
    general: Literal["none", "left out", "half kept"]
    fingerprint: str
    tensors: int
    of_tensors: int
    change: float | None
    dtype: str
    rounding: float
    changed: Listing
    of_blocks: float | None = None
    cpu_s: float
    wall_s: float
    steps: int
