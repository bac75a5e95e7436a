"""The descent: batches, learning rate, steps, and the transforms of gradients."""

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from audit.bench.training.learners import Learner, TrainData
from audit.bench.training.observed import show_step
from audit.bench.training.recipe import Mixture, TrainingRecipe
from audit.bench.training.two_losses import backward
from audit.schema import AuditError


def training_batches(n: int, size: int, seed: int) -> Iterator[Int[Tensor, " row"]]:
    """Endless batches of row numbers: every epoch is a new permutation, and a batch may straddle two epochs."""
    generator = torch.Generator().manual_seed(seed)
    deck = torch.empty(0, dtype=torch.long)
    while True:
        while len(deck) < size:
            deck = torch.cat([deck, torch.randperm(n, generator=generator)])
        yield deck[:size]
        deck = deck[size:]


def pairs(n: int, size: int, seed: int) -> Iterator[Int[Tensor, " row"]]:
    """Endless batches of row numbers, 2i always followed by 2i + 1: ``size`` / 2 pairs (rounded up) of ``n`` rows."""
    for first in training_batches(n // 2, (size + 1) // 2, seed):
        yield torch.stack([2 * first, 2 * first + 1], 1).flatten()


def mixed(mixture: Mixture, n: int, size: int, seed: int) -> Iterator[Int[Tensor, " row"]]:
    """Endless batches of row numbers, the last ``mixture.rows`` of each from ``mixture.start`` on, the others before.

    AuditError where one of the two kinds has no rows, or no room in a batch.
    """
    first, second = size - mixture.rows, mixture.rows
    if min(mixture.start, n - mixture.start, first, second) < 1:
        raise AuditError(f"batches of {size} cannot mix {first} and {second} rows", "give larger batches, or more rows")
    others = training_batches(n - mixture.start, second, seed + 1)
    for before, after in zip(training_batches(mixture.start, first, seed), others, strict=False):
        yield torch.cat([before, mixture.start + after])


def learning_rate(recipe: TrainingRecipe, step: int) -> float:
    """Linear warm-up to ``lr``, then constant or linear to zero after the last step. Steps count from 0."""
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return recipe.lr
    return recipe.lr * (recipe.steps - step) / (recipe.steps - recipe.warmup_steps)


def trainable(learner: Learner, pattern: str) -> dict[str, Tensor]:
    """The parameters whose names match, each tensor once (tied names would be stepped twice). AuditError if none."""
    chosen: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, parameter in learner.parameters().items():
        if re.fullmatch(pattern, name) and id(parameter) not in seen:
            seen.add(id(parameter))
            chosen[name] = parameter
    if not chosen:
        raise AuditError(f"no parameter matches {pattern!r}", "give a regular expression on parameter names")
    return chosen


def descend(
    learner: Learner,
    recipe: TrainingRecipe,
    data: TrainData,
    frozen: Learner | None = None,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """Train ``learner`` in place; ``after_step(taken)`` is called after every step with the number of steps taken.

    ``frozen`` (the model that training starts from) is scored without gradients, and only if the recipe needs it.
    ``recipe.every`` gets the steps taken and the learner. Raises AuditError if no parameter is trainable, if there are
    no rows, or if the loss stops being finite.
    """
    if data.forget is None and data.retain is None:
        raise AuditError(f"recipe {recipe.name!r} has no rows", "give forget rows, retain rows or both")
    assert not recipe.needs_frozen or frozen is not None
    with unfrozen(learner, recipe.trainable) as chosen:
        _steps(learner, chosen, recipe, data, (frozen if recipe.needs_frozen else None, after_step))


@contextmanager
def unfrozen(learner: Learner, pattern: str) -> Generator[dict[str, Tensor]]:
    """The :func:`trainable` parameters, which alone ask for gradients inside this block; flags are put back after."""
    chosen = trainable(learner, pattern)
    everything = list({id(p): p for p in learner.parameters().values()}.values())
    flags = [p.requires_grad for p in everything]
    try:
        for parameter in everything:
            parameter.requires_grad_(False)
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        yield chosen
    finally:
        for parameter, flag in zip(everything, flags, strict=True):
            parameter.grad = None
            parameter.requires_grad_(flag)


def _steps(
    learner: Learner,
    chosen: dict[str, Tensor],
    recipe: TrainingRecipe,
    data: TrainData,
    extras: tuple[Learner | None, Callable[[int], None] | None],
) -> None:
    frozen, after_step = extras
    objectives = [recipe.objective] + ([] if recipe.apart is None else [recipe.apart.objective])
    of_retain = training_batches if recipe.mixture is None else partial(mixed, recipe.mixture)
    ways = (pairs if recipe.paired else training_batches, of_retain)
    draws = [
        None if rows is None else draw(len(rows), recipe.batch, 2 * recipe.seed + side)
        for side, (rows, draw) in enumerate(zip(data, ways, strict=True))
    ]
    optimiser = torch.optim.AdamW(
        list(chosen.values()), recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    for step in range(recipe.steps):
        drawn = [None if draw is None else next(draw) for draw in draws]
        taken = [None if rows is None or n is None else rows.take(n) for rows, n in zip(data, drawn, strict=True)]
        with torch.no_grad():
            still = [None if frozen is None or r is None else frozen.answers(r, recipe.at_sites) for r in taken]
        with torch.enable_grad():
            live = [
                None if rows is None else learner.answers(rows, recipe.at_sites)._replace(drawn=n)
                for rows, n in zip(taken, drawn, strict=True)
            ]
            losses = [objective(live[0], live[1], still[0], still[1]) for objective in objectives]
        wrong = next((loss.item() for loss in losses if not torch.isfinite(loss)), None)
        if wrong is not None:
            raise AuditError(f"recipe {recipe.name!r}: loss is {wrong} at step {step}", "lower its learning rate")
        optimiser.zero_grad(set_to_none=True)
        if recipe.apart is None:
            losses[0].backward()
        else:
            backward(losses[0], losses[1], chosen, recipe.apart, optimiser)
        _transform(chosen, recipe)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step)
        optimiser.step()
        if recipe.every is not None and (step + 1) % recipe.every[0] == 0:
            recipe.every[1](step + 1, learner)
        if after_step is not None:
            after_step(step + 1)
        show_step(step + 1, recipe.steps)


def _transform(chosen: dict[str, Tensor], recipe: TrainingRecipe) -> None:
    if recipe.gradient_transform is None:
        return
    grads = {name: p.grad for name, p in chosen.items() if p.grad is not None}
    for name, grad in recipe.gradient_transform(grads).items():
        chosen[name].grad = grad
