"""The descent of several adapters at once, each by its own loss, rows, order, optimiser and end.

Every learner goes the way that it goes alone, to rounding: its batches are drawn as :func:`descend` draws them, its
loss sees its own rows, and its optimiser its own gradients. What lies below the first adapter is computed once a row
and kept where that is small, for it is the same at every step. A batch too long for the memory is passed in parts.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.results import Forward
from audit.bench.training.adapter_stack import AdapterStack
from audit.bench.training.descent import learning_rate, mixed, training_batches
from audit.bench.training.learners import score_answers
from audit.bench.training.observed import show_step
from audit.bench.training.recipe import TrainingRecipe
from audit.case import Rows, stacked
from audit.schema import AuditError, Site
from audit.wrappers import Batch, Resume, Stop, Tap

_MOST_KEPT: Final = 1 / 8
"""States below the first adapter are kept where they take at most this share of the model's own memory."""
Stopping = Callable[[int], bool]


class StackedLesson(NamedTuple):
    """What one learner is taught: its rows and its recipe, whose loss is of them alone; ``after_step(taken)`` says
    whether it has learnt enough."""

    rows: Rows
    recipe: TrainingRecipe
    after_step: Stopping | None = None


class StackedRows:
    """The rows of all lessons below one another, equal ones once, and what the base makes of them below the first
    adapter."""

    def __init__(self, stack: AdapterStack, lessons: Sequence[Rows], kept_share: float = _MOST_KEPT) -> None:
        self.stack, self.lessons = stack, tuple(lessons)
        everything = stacked(lessons)
        seen: dict[bytes, int] = {}
        chosen: list[int] = []
        place: list[int] = []
        for n in range(len(everything)):
            ids = everything.ids[n, : int(everything.lengths[n])].numpy().tobytes()
            content = ids + everything.answer_spans[n].numpy().tobytes() + everything.key[n].numpy().tobytes()
            if content not in seen:
                seen[content] = len(chosen)
                chosen.append(n)
            place.append(seen[content])
        self.rows = everything.take(torch.tensor(chosen))
        starts = torch.tensor([0, *(len(rows) for rows in lessons)]).cumsum(0)
        self.place = [torch.tensor(place[starts[i] : starts[i + 1]]) for i in range(len(lessons))]
        self.first = torch.cat([torch.zeros(1, dtype=torch.long), self.rows.lengths.cumsum(0)])
        wrapper = stack.wrapper
        size = int(self.first[-1]) * wrapper.d_model * wrapper.dtype.itemsize
        within = stack.form.first > 0 and not wrapper.starts_whole and not self.rows.extra
        self.states = self._below() if within and size <= kept_share * wrapper.size_bytes() else None

    def answers(self, index: Int[Tensor, " row"], learners: Sequence[int]) -> Forward:
        """Score the answers of these rows, as many of each of these learners."""
        rows, wrapper = self.rows.take(index), self.stack.wrapper
        batch = _batch(self.stack, rows)
        final = Site(part="final_in")
        seen: list[Tensor] = []
        resume = None if self.states is None else Resume(self.stack.form.first - 1, self._resumed(index, rows))
        with self.stack.attached(learners):
            wrapper.forward(batch, [Tap(final, seen.append)], resume)
        return score_answers(rows, seen[0], wrapper.head, {})

    @torch.no_grad()
    def _below(self) -> Float[Tensor, "token d"]:
        """The states that enter the first block with adapters, row after row without padding."""
        below = self.stack.form.first - 1
        site, parts = Site(part="resid_out", block=below), list[Tensor]()
        for index in torch.arange(len(self.rows)).split(16):
            rows, seen = self.rows.take(index), list[Tensor]()
            self.stack.wrapper.forward(_batch(self.stack, rows), [Tap(site, seen.append)], stop=Stop(below))
            parts.append(seen[0][rows.mask.to(seen[0].device)].clone())
        return torch.cat(parts)

    def _resumed(self, index: Int[Tensor, " row"], rows: Rows) -> Float[Tensor, "row pos d"]:
        assert self.states is not None
        pos = torch.arange(rows.ids.shape[1])
        place = self.first[index][:, None] + torch.minimum(pos, rows.lengths[:, None] - 1)
        return self.states[place.to(self.states.device)]


def _batch(stack: AdapterStack, rows: Rows) -> Batch:
    device = stack.wrapper.device
    extra = {name: value.to(device) for name, value in rows.extra.items()}
    return Batch(rows.ids.to(device), rows.mask.to(device), None, extra)


class StackLearner:
    """One learner of a stack behind the interface of all that are trained."""

    def __init__(self, rows: StackedRows, learner: int) -> None:
        self.rows, self.learner = rows, learner

    def parameters(self) -> dict[str, Tensor]:
        """The two matrices of every map, by its name."""
        return self.rows.stack.learners[self.learner]

    def answers(self, index: Int[Tensor, " row"]) -> Forward:
        """Score the answers of some rows of its own lesson."""
        return self.rows.answers(self.rows.place[self.learner][index], [self.learner])


def descend_stacked(rows: StackedRows, lessons: Sequence[StackedLesson], tokens: int | None = None) -> list[int]:
    """Train every learner of a stack by its lesson, in place; the steps that each took.

    ``tokens``: how many tokens, padding counted, a pass has at most (None: whole batches); in parts a loss must be a
    mean over the answers' tokens. All recipes have one size of batch. AuditError (code 2) for a recipe with a second
    loss, frozen passes or states; where a loss stops being finite.
    """
    _check(lessons)
    learning = [_Learning(rows.stack.learners[n], lesson, n, rows.stack.form.ratio) for n, lesson in enumerate(lessons)]
    active, step = list(learning), 0
    while active:
        drawn = torch.stack([rows.place[each.number][next(each.batches)] for each in active])
        _pass(rows, active, drawn, tokens)
        for each in active:
            each.step(step)
        step += 1
        show_step(step, max(lesson.recipe.steps for lesson in lessons))
        active = [each for each in active if not each.finished(step)]
    return [each.taken for each in learning]


class _Learning:
    """One learner on its way: its batches and its optimiser."""

    def __init__(self, matrices: dict[str, Tensor], lesson: StackedLesson, number: int, ratio: float) -> None:
        recipe = lesson.recipe
        self.matrices, self.lesson, self.number, self.taken = matrices, lesson, number, 0
        draw = training_batches if recipe.mixture is None else partial(mixed, recipe.mixture)
        self.batches: Iterator[Tensor] = draw(len(lesson.rows), recipe.batch, 2 * recipe.seed + 1)
        self.slower = 1 / ratio
        groups = [{"params": [p for name, p in matrices.items() if name.endswith(side)]} for side in "AB"]
        self.optimiser = torch.optim.AdamW(
            groups, recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=True
        )

    def step(self, number: int) -> None:
        """One step along the gradients that lie there."""
        recipe = self.lesson.recipe
        if recipe.gradient_transform is not None:
            grads = {name: p.grad for name, p in self.matrices.items() if p.grad is not None}
            for name, grad in recipe.gradient_transform(grads).items():
                self.matrices[name].grad = grad
        for group, share in zip(self.optimiser.param_groups, (self.slower, 1.0), strict=True):
            group["lr"] = share * learning_rate(recipe, number)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def finished(self, taken: int) -> bool:
        """Whether it ends after so many steps."""
        self.taken = taken
        enough = self.lesson.after_step is not None and self.lesson.after_step(taken)
        return enough or taken >= self.lesson.recipe.steps


def _pass(
    rows: StackedRows, active: Sequence[_Learning], drawn: Int[Tensor, "learner row"], tokens: int | None
) -> None:
    """Leave the gradients of one batch of every learner on its matrices."""
    learners, batch = [each.number for each in active], drawn.shape[1]
    # the shortest rows first, learner by learner: a part is then padded to what its own rows need
    order = rows.rows.lengths[drawn].argsort(dim=1, stable=True) if tokens is not None else None
    drawn = drawn if order is None else drawn.gather(1, order)
    spans = rows.rows.answer_spans[drawn]
    counts = (spans[..., 1] - spans[..., 0]).float()
    total = counts.sum(1)
    longest = rows.rows.lengths[drawn].amax(0)
    start = 0
    while start < batch:
        end = start + 1
        while end < batch and (tokens is None or len(active) * int(longest[end]) * (end + 1 - start) <= tokens):
            end += 1
        share = counts[:, start:end].sum(1) / total
        _part(rows, active, learners, drawn[:, start:end], share)
        start = end


def _part(
    rows: StackedRows, active: Sequence[_Learning], learners: list[int], drawn: Int[Tensor, "learner row"],
    share: Float[Tensor, " learner"],
) -> None:  # fmt: skip
    size = drawn.shape[1]
    with torch.enable_grad():
        scored = rows.answers(drawn.flatten(), learners)
        counts = torch.bincount(scored.row // size, minlength=len(learners)).tolist()
        losses: list[Tensor] = []
        start = 0
        for n, (each, count) in enumerate(zip(active, counts, strict=True)):
            mine = _slice(scored, slice(start, start + count), n * size)
            losses.append(each.lesson.recipe.objective(None, mine, None, None))
            start += count
        joint = torch.stack(losses)
        if not bool(torch.isfinite(joint).all()):
            wrong = next(i for i, loss in enumerate(losses) if not torch.isfinite(loss))
            name = active[wrong].lesson.recipe.name
            raise AuditError(f"recipe {name!r}: loss is {losses[wrong].item()}", "lower its learning rate")
        (joint * share.to(joint)).sum().backward()


def _slice(scored: Forward, tokens: slice, first: int) -> Forward:
    """One learner's tokens, its rows counted from ``first`` on."""
    at = None if scored.at is None else scored.at[tokens]
    return Forward(scored.logprob[tokens], scored.logits[tokens], scored.target[tokens], scored.row[tokens] - first,
                   scored.key[tokens], {}, at)  # fmt: skip


def _check(lessons: Sequence[StackedLesson]) -> None:
    """AuditError (code 2) for recipes that ask for more than one loss of their own rows, or batches of other sizes."""
    for _, recipe, _ in lessons:
        if recipe.needs_frozen or recipe.apart is not None or recipe.paired or recipe.at_sites or recipe.every:
            raise AuditError(f"recipe {recipe.name!r} is no single loss of its own rows", "train it on a copy (train)")
    if len({lesson.recipe.batch for lesson in lessons}) > 1:
        raise AuditError("the lessons' batches are of several sizes", "give all recipes one batch size")
