"""One perturbation of all pictures, within a budget: fitted to some of them, read on others.

The same small change of every picture is sought by signed steps on the pixels' gradient: the concept's answer should
become likelier before pictures that show it and not before those that do not. What is found is added to pictures on
which no step was taken. A perturbation fitted to a picture would say by heart what it was fitted to.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from audit.probing import Checkpoint, Forward, Rows, row_mean
from probes._concept_scene import ConceptScene, Pair, Response

PIXELS = "pixel_values"
_FIRST_STEP = 2.5
"""The steps together may go so many times the budget far."""


class Budget(NamedTuple):
    """How strong the attack is: the largest change of a pixel (of 255), steps, and pictures that it is fitted to."""

    epsilon: float
    steps: int
    pictures: int


class Bounds(NamedTuple):
    """What a model reads of a black and of a white picture: between these lies every picture."""

    black: Float[Tensor, " *pixel"]
    white: Float[Tensor, " *pixel"]


def bounds_of(scene: ConceptScene) -> Bounds:
    """The image processor's own black and white."""
    item = scene.sheet.items[0]
    picture = scene.case.pictures[item.id]
    read = [
        scene.case.rows_of([item], [item.answer], pictures={item.id: np.full_like(picture, value)}).extra[PIXELS][0]
        for value in (0, 255)
    ]
    return Bounds(torch.minimum(*read).float(), torch.maximum(*read).float())


def shifted(rows: Rows, shift: Float[Tensor, " *pixel"], bounds: Bounds) -> Rows:
    """Rows whose pictures all have the same shift, within what a picture can be."""
    pixels = rows.extra[PIXELS]
    moved = (pixels.float() + shift).clamp(bounds.black, bounds.white)
    return replace(rows, extra={**rows.extra, PIXELS: moved.to(pixels.dtype)})


def key_mean(forward: Forward) -> Float[Tensor, " row"]:
    """Mean log-probability of each row's content tokens."""
    return row_mean(forward.logprob[forward.key], forward.row[forward.key], int(forward.row.max()) + 1, 0.0)


def key_probability(forward: Forward) -> Float[Tensor, " row"]:
    """The same as a probability."""
    return key_mean(forward).exp()


def fitted_shift(
    scene: ConceptScene, model: Checkpoint, pair: Pair, bounds: Bounds, budget: Budget
) -> Float[Tensor, " *pixel"]:
    """The shift that a model's gradient leads to on these pictures, kept in the store."""

    def compute() -> dict[str, np.ndarray]:
        reach = budget.epsilon / 255 * (bounds.white - bounds.black)
        shift = torch.zeros_like(reach)
        for _ in range(budget.steps):
            up = scene.bench.gradients(model, shifted(pair.present, shift, bounds), "pixels", key_mean).at_pixels
            down = scene.bench.gradients(
                model, shifted(pair.absent, shift, bounds), "pixels", key_probability
            ).at_pixels
            assert up is not None and down is not None, "gradients were asked for at the pixels"
            step = _FIRST_STEP * reach / budget.steps * torch.sign(up.sum(0) - down.sum(0))
            shift = torch.maximum(torch.minimum(shift + step, reach), -reach)
        return {"shift": shift.numpy()}

    identity = ["concept_perturbation", model.key, pair.present.hash, pair.absent.hash, list(budget)]
    return torch.from_numpy(scene.bench.cached(identity, compute)["shift"])


def under_perturbation(scene: ConceptScene, name: str, bounds: Bounds, budget: Budget, folds: int) -> Response:
    """What a model says of every picture under the shift that was fitted to pictures of the other folds."""
    pair, fold_of = scene.plain(), scene.fold_of(folds)
    present, absent = np.zeros(len(fold_of)), np.zeros(len(fold_of))
    rng = np.random.default_rng(scene.case.case.seed)
    read: list[Pair] = []
    for fold in range(folds):
        others = np.flatnonzero(fold_of != fold)
        fit = np.sort(rng.permutation(others)[: budget.pictures])
        shift = fitted_shift(scene, scene.models[name], pair.take(torch.from_numpy(fit)), bounds, budget)
        mine = pair.take(torch.from_numpy(np.flatnonzero(fold_of == fold)))
        read.append(Pair(*(shifted(part, shift, bounds) for part in mine)))
    for fold, responses in enumerate(scene.responses(name, read)):
        present[fold_of == fold], absent[fold_of == fold] = responses
    return Response(present, absent)
