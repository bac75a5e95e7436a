"""Many models trained at once: weights stacked along a first axis, one forward and one backward pass for them all.

Models of one size and batch differ in rows, data order, learning rate, length and start, and in nothing else; they
share no weight, so that the gradient of the sum of their losses is each model's own. On a large device a step of many
small models should then take hardly more kernels than a step of one. What a model becomes is what :func:`training.make`
makes of it, up to rounding. Rounding grows with the steps, so that models trained together never lie among those whose
bytes are promised: they are kept apart (:func:`places_of`). On a CPU next to nothing is gained (``stacking.py``
measures it), and nothing comes here unless it is asked to. Only what learns a corpus is stacked: edits are made one by
one from it.
"""

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from audit.bench import TrainingRecipe, learning_rate, training_batches
from audit.case import Rows
from audit.schema import AuditError
from audit.zoo import builder, training
from audit.zoo.recipes import Learning, Plan, Zoo

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

EPS = 1e-8
"""Of AdamW, as in torch."""


def device_for(requested: str) -> str | None:
    """Where models are trained together: ``auto`` is a CUDA device where there is one; None is nowhere, one by one.

    ``none`` is nowhere; anything else names a device of torch. AuditError (code 2) if it does not, or is not there.
    """
    if requested == "none" or (requested == "auto" and not torch.cuda.is_available()):
        return None
    name = "cuda" if requested == "auto" else requested
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise AuditError(
            f"models cannot be stacked on {requested!r} ({reason})", "name a device, auto or none"
        ) from None
    return name


def described(device: str) -> str:
    """A device in words: as it was named, and what it is where it is a CUDA device."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if torch.device(device).type == "cuda" else device


def places_of(folder: Path, device: str) -> Path:
    """Beside ``folder``: where models trained together on such a device, and what is made of them, are kept.

    The key of a model names its recipe, which is the same; its low bits are not those that one by one give.
    """
    return folder.with_name(f"{folder.name}-stacked-{torch.device(device).type}")


# ---- one stack --------------------------------------------------------------------------------------------------
class Pupil(NamedTuple):
    """One model of a stack, live on the CPU; the rows that it learns from, and how."""

    model: "PreTrainedModel"
    rows: Rows
    by: Learning


def descend_together(pupils: Sequence[Pupil], device: str) -> list[bool]:
    """Train models of one architecture, size and batch in place, all at once; was each one's loss finite throughout?

    Every model draws its own batches in its own order, and steps at its own learning rates, as in
    :func:`audit.bench.descend`; one that is through before the others waits with a learning rate of zero.
    """
    recipes = [training.recipe_of(pupil.by) for pupil in pupils]
    shared, where = recipes[0], torch.device(device)
    assert {(r.batch, r.betas, r.weight_decay) for r in recipes} == {(shared.batch, shared.betas, shared.weight_decay)}
    lessons = _Lessons.of([pupil.rows for pupil in pupils], where)
    scored = _Scored(pupils[0].model, lessons.ids.shape[-1], where)
    draws = [training_batches(len(p.rows), r.batch, 2 * r.seed + 1) for p, r in zip(pupils, recipes, strict=True)]
    weights = torch.stack([_flat(pupil.model) for pupil in pupils]).to(where).requires_grad_(True)
    optimiser, finite = StackedAdamW(weights, shared), torch.ones(len(pupils), dtype=torch.bool, device=where)
    rates = torch.tensor([[_rate(r, step) for r in recipes] for step in range(max(r.steps for r in recipes))])
    for lr in rates.to(where):
        drawn = torch.stack([next(draw) for draw in draws]).to(where)
        losses = vmap(partial(_loss, scored))(scored.parameters_by_name(weights), *lessons.take(drawn))
        (grad,) = torch.autograd.grad(losses.sum(), weights)
        finite &= losses.detach().isfinite()
        optimiser.step(grad, lr[:, None])
    with torch.no_grad():
        for name, learned in scored.parameters_by_name(weights.cpu()).items():
            for pupil, own in zip(pupils, learned, strict=True):
                pupil.model.get_parameter(name.removeprefix(f"{_MODEL}.")).copy_(own)
    return finite.tolist()


class _Lessons(NamedTuple):
    """Every model's rows, padded to one shape; a row's answer is predicted at ``at`` and counted where it is one."""

    ids: Int[Tensor, "model row pos"]
    at: Int[Tensor, "model row token"]
    target: Int[Tensor, "model row token"]
    counted: Bool[Tensor, "model row token"]

    @classmethod
    def of(cls, all_rows: Sequence[Rows], device: torch.device) -> "_Lessons":
        n, width = (max(rows.ids.shape[axis] for rows in all_rows) for axis in (0, 1))
        longest = max(int((rows.answer_spans[:, 1] - rows.answer_spans[:, 0]).max()) for rows in all_rows)
        ids = torch.zeros(len(all_rows), n, width, dtype=torch.long)
        spans = torch.ones(len(all_rows), n, 2, dtype=torch.long)
        for k, rows in enumerate(all_rows):
            ids[k, : len(rows), : rows.ids.shape[1]] = rows.ids
            spans[k, : len(rows)] = rows.answer_spans
        position = spans[..., :1] + torch.arange(longest)
        counted, position = position < spans[..., 1:], position.clamp(max=width - 1)
        return cls(*(t.to(device) for t in (ids, position - 1, ids.gather(2, position), counted)))

    def take(self, index: Int[Tensor, "model drawn"]) -> "_Lessons":
        """The rows that every model has drawn."""
        every = torch.arange(len(index), device=index.device)[:, None]
        return _Lessons(*(lesson[every, index] for lesson in self))


_MODEL = "model"


class _Scored(nn.Module):
    """The architecture of a stack: the mean loss of the answers' tokens, as a function of weights and rows.

    The model's own forward pass runs, with attention spelled out (fused attention has no batching rule on every device)
    and under a mask that is given whole, because the library looks into the tokens for one that is not.
    """

    def __init__(self, model: "PreTrainedModel", width: int, device: torch.device) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(device)  # pyright: ignore[reportArgumentType]
        self.model.set_attn_implementation("eager")
        self.names = [f"{_MODEL}.{name}" for name, _ in model.named_parameters()]
        self.shapes = [p.shape for p in model.parameters()]
        later = torch.full((width, width), torch.finfo(torch.float32).min, device=device).triu(1)
        self.mask = later[None, None]

    def parameters_by_name(self, weights: Float[Tensor, "model d"]) -> dict[str, Tensor]:
        """Every parameter of all models by name, as views of their weights."""
        parts = weights.split([shape.numel() for shape in self.shapes], 1)
        return {n: part.unflatten(1, shape) for n, part, shape in zip(self.names, parts, self.shapes, strict=True)}

    def forward(
        self,
        ids: Int[Tensor, "row pos"],
        at: Int[Tensor, "row token"],
        target: Int[Tensor, "row token"],
        counted: Bool[Tensor, "row token"],
    ) -> Float[Tensor, ""]:
        states = self.model.base_model(input_ids=ids, attention_mask=self.mask, use_cache=False).last_hidden_state
        before = states.gather(1, at[..., None].expand(*at.shape, states.shape[-1]))
        head = self.model.get_output_embeddings()
        assert head is not None
        logprob = head(before).log_softmax(-1).gather(-1, target[..., None])[..., 0]
        return -(logprob * counted).sum() / counted.sum()


def _loss(scored: _Scored, weights: dict[str, Tensor], *rows: Tensor) -> Tensor:
    return functional_call(scored, weights, rows)


def _flat(model: "PreTrainedModel") -> Float[Tensor, " d"]:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def _rate(recipe: TrainingRecipe, step: int) -> float:
    return learning_rate(recipe, step) if step < recipe.steps else 0.0


class StackedAdamW:
    """AdamW as torch computes it (Loshchilov and Hutter 2019, arXiv 1711.05101), each model at a rate of its own."""

    def __init__(self, weights: Float[Tensor, "model d"], recipe: TrainingRecipe) -> None:
        self.weights, self.betas, self.decay = weights, recipe.betas, recipe.weight_decay
        self.first, self.second, self.taken = torch.zeros_like(weights), torch.zeros_like(weights), 0

    @torch.no_grad()
    def step(self, grad: Float[Tensor, "model d"], lr: Float[Tensor, "model 1"]) -> None:
        """Take one step in place."""
        self.taken += 1
        b1, b2 = self.betas
        self.first.lerp_(grad, 1 - b1)
        self.second.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        scale = (self.second / (1 - b2**self.taken)).sqrt_().add_(EPS)
        self.weights.mul_(1 - lr * self.decay).sub_(lr / (1 - b1**self.taken) * (self.first / scale))


# ---- all that is to be learned ----------------------------------------------------------------------------------
class _Wanted(NamedTuple):
    """A model that is not there yet."""

    seed: int
    zoo: Zoo
    plan: Plan
    by: Learning

    def folder(self, root: Path) -> Path:
        return builder.folder_of(self.zoo, self.seed, root, self.plan.name)

    def parent(self, root: Path) -> Path | None:
        name = self.plan.parent
        return None if name is None else builder.folder_of(self.zoo, self.seed, root, name)


def make_learned(
    zoos: Mapping[int, Zoo], root: Path, device: str, notify: Callable[[str], None] = log.info
) -> dict[int, float]:
    """Train all that learns a corpus and is not there, by seed of its world: a generation of all worlds at a time.

    Models of one size and batch are one stack, whatever their worlds. Returns CPU-seconds of this process by seed. A
    model whose loss stopped being finite is not written: whoever needs it makes it alone, and is told.
    """
    root.mkdir(parents=True, exist_ok=True)
    waiting = [
        _Wanted(seed, zoo, plan, plan.by)
        for seed, zoo in zoos.items()
        for plan in zoo.plans
        if isinstance(plan.by, Learning) and not builder.folder_of(zoo, seed, root, plan.name).exists()
    ]
    spent = dict.fromkeys(zoos, 0.0)
    while waiting:
        born = [wanted for wanted in waiting if (parent := wanted.parent(root)) is None or parent.exists()]
        if not born:
            break
        waiting = [wanted for wanted in waiting if wanted not in born]
        stacks: dict[object, list[_Wanted]] = {}
        for wanted in born:
            stacks.setdefault((wanted.zoo.sizes, wanted.by.batch), []).append(wanted)
        for stack in stacks.values():
            since = time.process_time()
            notify(_make_stack(stack, root, device))
            each = (time.process_time() - since) / len(stack)
            for wanted in stack:
                spent[wanted.seed] += each
    return spent


def _make_stack(stack: Sequence[_Wanted], root: Path, device: str) -> str:
    """Train and write the models of one stack; what was done, in words."""
    since, sizes = time.monotonic(), stack[0].zoo.sizes
    with training.one_thread():
        pupils = [
            Pupil(
                training.start(wanted.zoo, wanted.seed, wanted.plan, wanted.parent(root)),
                training.rows_for(wanted.zoo, wanted.seed, wanted.by),
                wanted.by,
            )
            for wanted in stack
        ]
        finite = descend_together(pupils, device)
        for wanted, pupil, good in zip(stack, pupils, finite, strict=True):
            if good:
                forms = wanted.zoo.shape.forms
                builder.write_whole(wanted.folder(root), partial(training.write, pupil.model, forms=forms))
            else:
                log.warning("world %d: the loss of %s is not finite", wanted.seed, wanted.plan.name)
    shape = f"{sizes.architecture}, d {sizes.d}, {sizes.blocks} blocks"
    steps = max(wanted.by.steps for wanted in stack)
    return f"{len(stack)} models together on {device} ({shape}): {steps} steps, {time.monotonic() - since:.1f} s"
