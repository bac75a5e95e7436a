"""What read-outs of the answer's class say of every model's states, always fitted on other groups."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import Cohort, PersonRows, grouped_ridge, usable_information
from probes._answer_states import COHORTS, Answering, Classes, States

NEIGHBOURS = 5
LEAST_TRUSTED = 20


class Task(NamedTuple):
    """Rows with classes as tensors: labels, groups, one-hot labels, and on which rows scores are scaled: the retained
    ones, or all where these are few."""

    label: Int[Tensor, " row"]
    group: Int[Tensor, " row"]
    cohort: Int[Tensor, " row"]
    trusted: Bool[Tensor, " row"]
    sides: Float[Tensor, "row class"]


class Answers(NamedTuple):
    """Rows of every cohort, their classes, and every model's states of them."""

    cohorts: Mapping[Cohort, Answering]
    classes: Classes
    states: Mapping[str, Mapping[Cohort, States]]

    def task(self) -> Task:
        """The classes as tensors."""
        of = self.classes
        label, group, cohort = (torch.from_numpy(part) for part in (of.label, of.group, of.cohort))
        sides = torch.nn.functional.one_hot(label, len(of.tokens)).double()
        retained = cohort == COHORTS.index("retain")
        few = int(retained.sum()) < LEAST_TRUSTED
        # forget and holdout people as one, so that under the null they are told apart by nothing that was fitted
        return Task(label, group, retained.long(), torch.ones_like(retained) if few else retained, sides)

    def layers(self, name: str) -> list[Float[Tensor, "row _"]]:
        """A model's states of the rows that have classes, after every block and at the head."""
        read = self.states[name]
        sites = range(len(read["forget"].layers))
        return [self.classes.gathered({c: part.layers[site] for c, part in read.items()}) for site in sites]

    def logits(self, name: str) -> Float[Tensor, "row class"]:
        """A model's logits of the classes' first tokens."""
        return self.classes.gathered({cohort: part.logits for cohort, part in self.states[name].items()})

    def sheet(self, cohort: Cohort) -> PersonRows | None:
        """A cohort's rows that have classes, as tables and people's means take them."""
        rows = self.classes.of(cohort)
        return self.cohorts[cohort].take(self.classes.place[rows]).sheet() if rows.any() else None

    def unscored(self, cohort: Cohort) -> int:
        """How many of a cohort's rows have no class."""
        part = self.cohorts[cohort]
        return len(part.items) + part.left_out - int(self.classes.of(cohort).sum())

    def of(self, cohort: Cohort, values: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """Every model's values of a cohort's rows."""
        rows = self.classes.of(cohort)
        return {name: value[rows] for name, value in values.items()}


def scores(x: Float[Tensor, "row d"], of: Task, kappa: float) -> Float[Tensor, "row class"]:
    """Out-of-group scores of ridge on every class's labels less their mean."""
    return grouped_ridge.ridge_scores(x[None], of.sides - of.sides.mean(0), of.group, kappa)[0]


def informed(layers: Sequence[Float[Tensor, "row _"]], of: Task, kappa: float) -> Float[Tensor, "row layer"]:
    """Information (nats) of a model's states about each row's class."""
    nats = [usable_information.information(scores(x, of, kappa), of.label, of.trusted, of.cohort) for x in layers]
    return torch.stack(nats, 1)


def right_by_ridge(x: Float[Tensor, "row d"], of: Task, kappa: float) -> Float[ndarray, "row 1"]:
    """1 where the largest out-of-group score is the true class's."""
    guess = (scores(x, of, kappa) + of.sides.mean(0)).argmax(1)
    return (guess == of.label).double().numpy()[:, None]


def right_by_neighbours(x: Float[Tensor, "row d"], of: Task) -> Float[ndarray, "row 1"]:
    """1 where most of the nearest rows of other groups (cosine) have the true class; the nearest decides a tie."""
    unit = x / x.norm(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    nearest = min(NEIGHBOURS, len(x) - int(torch.bincount(of.group).max()))
    votes, first = (grouped_ridge.nearest_readout(unit, of.group, k).scores(of.sides) for k in (nearest, 1))
    return ((votes + first / (2 * nearest)).argmax(1) == of.label).double().numpy()[:, None]


def recognised(answers: Answers, name: str, of: Task, kappa: float) -> dict[str, Float[ndarray, "row 1"]]:
    """Which rows' classes are found from a model's states that its head reads, and from its logits of the classes, by
    neighbours and by ridge."""
    final, logits = answers.layers(name)[-1], answers.logits(name)
    return {
        "neighbours": right_by_neighbours(final, of), "ridge": right_by_ridge(final, of, kappa),
        "neighbours_logits": right_by_neighbours(logits, of), "ridge_logits": right_by_ridge(logits, of, kappa),
    }  # fmt: skip


def gap(people: Mapping[str, Float[ndarray, "person 1"]], name: str) -> float:
    """|accuracy of a model - accuracy of the null|, means of people's means."""
    return float(np.abs(people[name].mean() - people["null"].mean()))
