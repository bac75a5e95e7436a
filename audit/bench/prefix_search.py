"""Which virtual tokens make the objective largest? Adam on a prefix shared by all rows, many starts at once.

Starts are rows of the same batches, so that they cost one forward together; lengths are taken one after the other. The
best candidate is chosen on groups of rows that were not trained on.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.gradients import live, valued
from audit.bench.layout import Geometry, Targets
from audit.bench.passes import Job, LoadedModel
from audit.bench.results import Optimised, RowObjective
from audit.bench.writes.prefix import Prefix
from audit.case import Rows
from audit.schema import AuditError, Checkpoint


class Budget(NamedTuple):
    """How long to look: steps of Adam at ``lr``, starts, prefix lengths (none: the given one), validation share."""

    steps: int
    lr: float = 0.05
    restarts: int = 1
    lengths: tuple[int, ...] = ()
    validation: float = 0.25
    token_budget: int = 16384


class Parts(NamedTuple):
    """Row numbers to train on and to choose by."""

    train: Int[Tensor, " row"]
    validation: Int[Tensor, " row"]


def by_groups(rows: Rows, share: float, generator: torch.Generator) -> Parts:
    """Split rows so that no group is on both sides. Raises AuditError when there is only one group."""
    names = sorted(set(rows.group_ids))
    if len(names) < 2:
        raise AuditError("one group of rows cannot be split for validation", "give rows of several groups")
    order = torch.randperm(len(names), generator=generator).tolist()
    n = min(max(1, round(share * len(names))), len(names) - 1)
    held = {names[i] for i in order[:n]}
    chosen = torch.tensor([g in held for g in rows.group_ids])
    return Parts((~chosen).nonzero().flatten(), chosen.nonzero().flatten())


def _no_other(ckpt: Checkpoint) -> LoadedModel:
    raise AssertionError(f"a prefix is optimised in one model, not with {ckpt.source}")


def _starts(
    opened: LoadedModel, free: Prefix, budget: Budget, generator: torch.Generator
) -> Float[Tensor, "restart n d"]:
    """The given starts first, then prefixes of random tokens of the vocabulary."""
    given = free.emb.detach().to(opened.wrapper.device, torch.float32)
    missing = max(0, budget.restarts - len(given))
    ids = torch.randint(0, opened.wrapper.vocab_size, (missing, given.shape[1]), generator=generator)
    drawn = opened.wrapper.embed(ids.to(opened.wrapper.device)).detach().float()
    return torch.cat([given, drawn])


class Task(NamedTuple):
    """What is climbed: the objective of these rows in this model, with the prefix at these places."""

    opened: LoadedModel
    rows: Rows
    at: Int[Tensor, " row"] | Literal["start"]
    objective: RowObjective
    budget: Budget


def _chunks(task: Task, index: Int[Tensor, " row"], emb: Float[Tensor, "restart n d"]) -> list[Int[Tensor, " row"]]:
    """Row numbers, cut so that all starts of a chunk fit the token budget."""
    width = int(task.rows.lengths[index].max()) + emb.shape[1]
    return list(index.split(max(1, task.budget.token_budget // (width * len(emb)))))


def _values(task: Task, index: Int[Tensor, " row"], emb: Float[Tensor, "restart n d"]) -> Float[Tensor, "restart row"]:
    """The objective of every row under every start."""
    opened, n, restarts = task.opened, len(index), len(emb)
    many = task.rows.take(index.repeat(restarts))
    places = task.at if isinstance(task.at, str) else task.at.cpu()[index].repeat(restarts)
    prefix = Prefix(emb.repeat_interleave(n, 0), places)
    where = Geometry(Targets(many), None, prefix.virtual_tokens(), opened.wrapper.device)
    run = live(opened, _no_other, Job(many, (), (prefix,), None, None), where, ())
    return valued(task.objective, run.forward, n * restarts).view(restarts, n)


def optimise(
    opened: LoadedModel, rows: Rows, free: Prefix, objective: RowObjective, budget: Budget, seed: int
) -> Optimised:
    """Maximise the mean objective over the training groups. ``free.emb`` [restart n d]: the starts that are given."""
    generator = torch.Generator().manual_seed(seed)
    train, validation = by_groups(rows, budget.validation, generator)
    starts = _starts(opened, free, budget, generator)
    lengths = budget.lengths or (starts.shape[1],)
    if max(lengths) > starts.shape[1]:
        raise AuditError(f"length {max(lengths)} exceeds the {starts.shape[1]} given tokens", "give longer starts")
    task = Task(opened, rows, free.at, objective, budget)
    prefixes: list[Tensor] = []
    courses: list[Tensor] = []
    scores: list[Tensor] = []
    for length in lengths:
        emb = starts[:, :length].clone().requires_grad_()
        courses.append(_climb(task, train, emb))
        prefixes += list(emb.detach().cpu())
        with torch.no_grad():
            scores += [torch.cat([_values(task, p, emb) for p in _chunks(task, validation, emb)], 1).mean(1).cpu()]
    best = torch.cat(scores)
    return Optimised(prefixes[int(best.argmax())], torch.cat(courses), best)


def _climb(task: Task, train: Int[Tensor, " row"], emb: Tensor) -> Float[Tensor, "restart step"]:
    """Adam on ``emb`` in place; the mean objective of every start before each step. Starts do not touch each other."""
    optimiser = torch.optim.Adam([emb], lr=task.budget.lr)
    course = torch.zeros(len(emb), task.budget.steps)
    with torch.enable_grad():
        for step in range(task.budget.steps):
            optimiser.zero_grad()
            for part in _chunks(task, train, emb):
                values = _values(task, part, emb)
                (-values.sum() / len(train)).backward()
                course[:, step] += values.detach().float().cpu().sum(1) / len(train)
            optimiser.step()
    return course
