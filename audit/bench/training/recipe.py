"""How to train: the loss, the rows, the optimiser, for how long; named by content."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor

from audit.bench.results import Forward
from audit.schema import Site

Objective = Callable[[Forward | None, Forward | None, Forward | None, Forward | None], Tensor]
"""A training loss of (forget, retain, frozen forget, frozen retain), one scalar."""


class SecondLoss(NamedTuple):
    """A second loss whose gradient is taken apart from the first's, and the rule that makes one gradient of the two.

    ``combine(first, second, scale)`` gets gradients by parameter name and the factor 1 / (sqrt(v) + eps) by which Adam
    scales each of their entries: v is its bias-corrected second moment after one more gradient with the squares of
    both. (Before the step v is zero where an entry has had no gradient yet, and along the sum it may be near zero where
    the two cancel; such entries would rule every inner product.)
    """

    objective: Objective
    combine: Callable[[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]


class Mixture(NamedTuple):
    """Two kinds of retain rows: those from ``start`` on are drawn apart, ``rows`` of them at the end of every batch."""

    start: int
    rows: int


@dataclass(frozen=True)
class TrainingRecipe:
    """How to train: what the loss is, on which rows, by which optimiser, for how long. Named by content.

    ``objective(forget, retain, frozen_forget, frozen_retain) -> scalar``; the frozen passes are of the checkpoint that
    training starts from and are None unless ``needs_frozen``. ``trainable`` is a regular expression on parameter names.
    ``at_sites``: whose states all these passes carry. ``apart``: a second loss, for methods that weigh two gradients.
    ``paired``: forget rows 2i and 2i + 1 belong together and are drawn together, half of ``batch`` (rounded up) pairs a
    step. ``mixture``: retain rows of two kinds, each with a share of every batch of its own. ``settings`` is what the
    record of the result states beside the settings of the descent.
    """

    name: str
    objective: Objective
    steps: int
    lr: float
    batch: int = 64
    warmup_steps: int = 30
    schedule: Literal["linear", "constant"] = "linear"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    trainable: str = ".*"
    needs_frozen: bool = False
    at_sites: tuple[Site, ...] = ()
    apart: SecondLoss | None = None
    paired: bool = False
    mixture: Mixture | None = None
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict[str, str | int | float | bool])
    every: tuple[int, Callable[[int, Any], None]] | None = None
    gradient_transform: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    seed: int = 0
