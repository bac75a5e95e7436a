"""Training, as the bench does it: a plain loop on live tensors, and the same loop on checkpoints.

:func:`descend` trains whatever can score rows (:class:`Learner`); :func:`train` runs it on checkpoints and leaves each
result as an :class:`~audit.nouns.EditRecord` of whole tensors. The loop is deterministic: same recipe, same rows, same
start, same number of threads give the same bytes. Checkpoints are trained one by one; training several at once
(stacked with torch.func where shapes agree) is not declared.
"""

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.apart import backward
from audit.bench.shapes import Forward, Recipe, Rows
from audit.nouns import AuditError, Checkpoint, EditRecord, Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from audit.bench.bench import Bench
    from audit.wrappers.backend import Wrapper


class TrainData(NamedTuple):
    """The rows that a recipe's objective sees; either may be missing, then the objective gets None in its place."""

    forget: Rows | None = None
    retain: Rows | None = None


class Learner(Protocol):
    """Anything that can be trained: live parameters by name, and a scored forward pass of some rows."""

    def parameters(self) -> Mapping[str, Tensor]: ...
    def answers(self, rows: Rows, at_sites: Sequence[Site] = ()) -> Forward: ...


def score_answers(
    rows: Rows, final: Float[Tensor, "row pos d"], head: Callable[[Tensor], Tensor], states: Mapping[Site, Tensor]
) -> Forward:
    """Score the answer tokens of ``rows`` from final states: only their positions go through the head."""
    row, position = (index.to(final.device) for index in rows.targets("answer"))
    logits = head(final[row, position - 1]).float()
    target = rows.ids.to(final.device)[row, position]
    logprob = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
    return Forward(logprob, logits, target, row, rows.key.to(final.device)[row, position], states, position - 1)


class CausalLearner:
    """A live Hugging Face causal language model. Rows are right-padded, so causal attention needs no mask.

    Scores take the model's own forward pass; only where states are asked for is it put behind the native backend.
    """

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model = model

    def parameters(self) -> Mapping[str, Tensor]:
        """Live parameters by their checkpoint names."""
        return dict(self.model.named_parameters())

    @cached_property
    def _wrapped(self) -> "WrapperLearner":
        from audit.wrappers import wrap

        return WrapperLearner(wrap(self.model))

    def answers(self, rows: Rows, at_sites: Sequence[Site] = ()) -> Forward:
        """Score the answers of ``rows``, and keep the states at ``at_sites``."""
        from audit.wrappers.head import logits_of

        if at_sites:
            return self._wrapped.answers(rows, at_sites)
        ids = rows.ids.to(self.model.device)
        states = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return score_answers(rows, states, partial(logits_of, self.model), {})


class WrapperLearner:
    """A model behind a backend, trained through its own forward pass."""

    def __init__(self, wrapper: "Wrapper") -> None:
        self.wrapper = wrapper

    def parameters(self) -> Mapping[str, Tensor]:
        """Live parameters by their checkpoint names."""
        return self.wrapper.parameters()

    def answers(self, rows: Rows, at_sites: Sequence[Site] = ()) -> Forward:
        """Score the answers of ``rows``, and keep the states at ``at_sites``."""
        from audit.wrappers.backend import Batch, Tap

        final, seen = Site(part="final_in"), dict[Site, Tensor]()
        batch = Batch(rows.ids.to(self.wrapper.device), rows.mask.to(self.wrapper.device))
        self.wrapper.forward(batch, [Tap(site, partial(seen.__setitem__, site)) for site in (final, *at_sites)])
        return score_answers(rows, seen[final], self.wrapper.head, {site: seen[site] for site in at_sites})


def batches(n: int, size: int, seed: int) -> Iterator[Int[Tensor, " row"]]:
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
    for first in batches(n // 2, (size + 1) // 2, seed):
        yield torch.stack([2 * first, 2 * first + 1], 1).flatten()


def learning_rate(recipe: Recipe, step: int) -> float:
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
    recipe: Recipe,
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
    recipe: Recipe,
    data: TrainData,
    extras: tuple[Learner | None, Callable[[int], None] | None],
) -> None:
    frozen, after_step = extras
    objectives = [recipe.objective] + ([] if recipe.apart is None else [recipe.apart.objective])
    draws = [
        None if rows is None else draw(len(rows), recipe.batch, 2 * recipe.seed + side)
        for side, (rows, draw) in enumerate(zip(data, (pairs if recipe.paired else batches, batches), strict=True))
    ]
    optimiser = torch.optim.AdamW(
        list(chosen.values()), recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    for step in range(recipe.steps):
        taken = [
            rows.take(next(draw)) if rows is not None and draw is not None else None
            for rows, draw in zip(data, draws, strict=True)
        ]
        with torch.no_grad():
            still = [None if frozen is None or r is None else frozen.answers(r, recipe.at_sites) for r in taken]
        with torch.enable_grad():
            live = [None if rows is None else learner.answers(rows, recipe.at_sites) for rows in taken]
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


def _transform(chosen: dict[str, Tensor], recipe: Recipe) -> None:
    if recipe.gradient_transform is None:
        return
    grads = {name: p.grad for name, p in chosen.items() if p.grad is not None}
    for name, grad in recipe.gradient_transform(grads).items():
        chosen[name].grad = grad


# ---- on checkpoints ---------------------------------------------------------------------------------------------
def train(
    bench: "Bench",
    ckpts: Sequence[Checkpoint],
    recipes: Sequence[Recipe],
    data: TrainData,
    at_steps: Sequence[int],
    out: Path,
) -> list[EditRecord]:
    """Train each checkpoint by its recipe, one by one, and write what changed at each of ``at_steps``.

    ``ckpts`` and ``recipes`` are paired (a single checkpoint is paired with every recipe). The record of pair i at step
    s is written to ``out/<i>-<recipe name>-<s>`` as an edited checkpoint folder; records come pair by pair, step by
    step. Errors are those of :func:`train_one`.
    """
    starts = list(ckpts) * len(recipes) if len(ckpts) == 1 else list(ckpts)
    assert len(starts) == len(recipes)
    records: list[EditRecord] = []
    for i, (ckpt, recipe) in enumerate(zip(starts, recipes, strict=True)):
        folders = {step: out / f"{i}-{recipe.name}-{step}" for step in at_steps}
        records += [edited.edits[-1] for edited in train_one(bench, ckpt, recipe, data, folders)]
    return records


def train_one(
    bench: "Bench", ckpt: Checkpoint, recipe: Recipe, data: TrainData, folders: Mapping[int, Path]
) -> list[Checkpoint]:
    """Train one checkpoint and write an edited checkpoint folder at each of the named steps, in order of steps.

    The weights of ``ckpt`` are never touched: training runs on a fresh copy. Raises AuditError for steps outside the
    recipe, for a checkpoint that is edited by a hook (a hook has nothing to train), and where no byte changed.
    """
    from audit.checkpoints import write_edited

    outside = [step for step in folders if not 1 <= step <= recipe.steps]
    if outside:
        raise AuditError(f"recipe {recipe.name!r} has no step {outside[0]}", f"name steps from 1 to {recipe.steps}")
    written: list[Checkpoint] = []
    with copied(bench, ckpt) as (learner, original):

        def save(taken: int) -> None:
            if taken in folders:
                changed = changed_tensors(learner, original)
                if not changed:
                    raise AuditError(
                        f"recipe {recipe.name!r} changed no weight", "raise its learning rate or its steps"
                    )
                settings = _settings(recipe, taken)
                written.append(write_edited(folders[taken], ckpt, recipe.name, settings, "weights", changed))

        descend(learner, recipe, data, original, save)
    return written


class Copied(NamedTuple):
    """A live model that may be changed, and the checkpoint's own, which may not."""

    learner: WrapperLearner
    original: WrapperLearner


@contextmanager
def copied(bench: "Bench", ckpt: Checkpoint) -> Generator[Copied]:
    """A fresh copy of a checkpoint beside the bench's own, which stays open meanwhile.

    Raises AuditError for a checkpoint that is edited by a hook: a copy of its weights is not a copy of it.
    """
    if any(edit.plays != "weights" for edit in ckpt.edits):
        raise AuditError("a checkpoint edited by a hook cannot be trained", "train its parent, or merge the edit")
    with bench.hold(ckpt) as (wrapper,):
        yield Copied(WrapperLearner(_fresh_copy(bench, ckpt)), WrapperLearner(wrapper))


def changed_tensors(learner: Learner, original: Learner) -> dict[str, Tensor]:
    """The whole tensors in which two learners of one architecture differ, copied to the CPU."""
    before = original.parameters()
    return {
        name: p.detach().cpu().clone().contiguous()
        for name, p in learner.parameters().items()
        if not torch.equal(p, before[name])
    }


def _settings(recipe: Recipe, taken: int) -> dict[str, str | int | float | bool]:
    return {
        **recipe.settings,
        "steps": taken, "of_steps": recipe.steps, "lr": recipe.lr, "batch": recipe.batch, "seed": recipe.seed,
        "schedule": recipe.schedule, "warmup_steps": recipe.warmup_steps, "trainable": recipe.trainable,
    }  # fmt: skip


def _fresh_copy(bench: "Bench", ckpt: Checkpoint) -> "Wrapper":
    """A second live model of this checkpoint, shared with nobody."""
    from audit.bench import playback
    from audit.wrappers import open_wrapper

    def play(model: "PreTrainedModel") -> None:
        playback.opened(ckpt, model)

    return open_wrapper(ckpt, *bench.settings, prepare=play)
