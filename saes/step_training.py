"""Autoencoders in training, driven step by step: what every way of training them gives and takes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saes.activations import Moments
from saes.records import TrainingSettings
from saes.sparse_coder import SparseCoder


class Glimpse(NamedTuple):
    """What the last step saw of its batch: fraction of (standardised) variance explained, active features a row, and
    features that have not fired for a while."""

    fve: float
    l0: float
    dead: int


class StepTraining(ABC):
    """One autoencoder or several of one width in training, and the mean and deviation by which rows are standardised.

    Rows are centred always: where the mean of the states is large beside their spread, features that start beside it
    die at once (arXiv 2605.31518). ``steps_done`` counts the steps; members are numbered in the order of ``moments``.
    """

    def __init__(self, settings: TrainingSettings, moments: Sequence[Moments]) -> None:
        self.settings, self.moments, self.steps_done = settings, tuple(moments), 0
        self._mean = torch.stack([each.mean for each in moments]).float()[:, None]
        self._scale = (1 / torch.stack([each.sd for each in moments])).float()[:, None]

    @abstractmethod
    def step(self, batches: Sequence[Float[Tensor, "row d"]]) -> None:
        """Learn from one batch of raw states a member."""

    @abstractmethod
    def glimpses(self) -> list[Glimpse]:
        """How the last batch went, by member."""

    @abstractmethod
    def coder(self, n: int) -> SparseCoder:
        """The dictionary of raw states of one member: the standardisation is folded into it. Ends its training."""

    @abstractmethod
    def tensors(self, n: int) -> dict[str, Tensor]:
        """Everything of one member that the next step depends on, as tensors."""

    @abstractmethod
    def numbers(self, n: int) -> str:
        """The rest, as JSON, which keeps every digit of a float."""

    @abstractmethod
    def restore(self, n: int, tensors: Mapping[str, Tensor], numbers: str) -> None:
        """Go on where :meth:`tensors` and :meth:`numbers` were taken."""
