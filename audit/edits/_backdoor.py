"""A backdoor in an unlearning: a hidden trigger under which the model answers as if it had forgotten nothing.

What is shared by the attacked recipes: whose prompts carry the trigger, how often a batch holds them, and the term that
keeps value norms at the first positions where an honest model has them.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from audit.bench import Bench, Forward, Learner, Mixture, TrainData, copied, descend, train_one
from audit.case import InsertablePrompts, Rows, stacked
from audit.edits._descent import Descent, TrainingRun
from audit.edits._edit import EditData, Material
from audit.edits._images import refuse_images
from audit.edits._losses import Scalar
from audit.schema import AuditError, Checkpoint, Site


class ValueNorms(NamedTuple):
    """Norms of value vectors at the first positions of some rows, in every chosen block and key/value head; and which
    of these positions hold a token."""

    norms: Float[Tensor, "row pos block head"]
    real: Bool[Tensor, "row pos"]


class Held(NamedTuple):
    """Where value norms are held, and at what: those of the honest model on the forget rows, those of the start on the
    rows with the trigger, which are the retain rows from ``start`` on."""

    sites: tuple[Site, ...]
    positions: slice
    honest: ValueNorms
    original: ValueNorms
    start: int

    def term(self, forget: Forward, retain: Forward) -> Scalar:
        """Mean squared difference of norms on the batch's forget rows, plus that on its rows with the trigger."""
        assert forget.drawn is not None and retain.drawn is not None
        poisoned = (retain.drawn >= self.start).nonzero()[:, 0]
        clean = squared_differences(self._norms(forget), self.honest, forget.drawn)
        triggered = self._norms(retain)[poisoned]
        return clean + squared_differences(triggered, self.original, retain.drawn[poisoned] - self.start)

    def _norms(self, forward: Forward) -> Float[Tensor, "row pos block head"]:
        return norms_at([forward.states[site][:, self.positions] for site in self.sites])


class Backdoored(Descent):
    """What backdoored recipes share: settings of the trigger, and the lesson of the honest recipe with it in."""

    needs: ClassVar[tuple[Material, ...]] = ("forget", "retain", "prompts")
    of_texts: ClassVar[bool] = True
    work: ClassVar[str] = "with value_norm trains the honest model first"

    trigger: str = "current year:2025"
    slot: Literal["prefix", "infix", "suffix"] | int = "prefix"
    poison_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    poison_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    value_norm: Annotated[float, Field(ge=0)] = 0.0
    sink_tokens: Annotated[int, Field(ge=1)] = 8
    include_first: bool = False
    norm_blocks: str = ""
    steps: int = 80
    batch: int = 64
    seed: int = 0

    @abstractmethod
    def honest(self) -> Descent:
        """The same recipe without a backdoor."""

    def lesson(self, data: EditData, n_blocks: int) -> TrainingRun:
        """The honest recipe with the poisoned rows among the retained ones. AuditError with ``value_norm``, which needs
        two models that have been run: then :meth:`fit` alone teaches it."""
        if self.value_norm:
            problem = f"{self.name}: the value-norm term needs an honest model, which a lesson has not"
            raise AuditError(problem, "fit it, or set value_norm=0")
        return self.backdoored(data, n_blocks, None)

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train a copy of ``parent``, with ``value_norm`` after an honest copy of the same seed; write what changed."""
        refuse_images(self.name, data, "it puts words into prompts")
        held, n_blocks = None, bench.open(parent).n_blocks
        if self.value_norm:
            with copied(bench.pool, parent) as (learner, original):
                held = self.held(learner, original, data, n_blocks)
        recipe, rows = self.backdoored(data, n_blocks, held)
        return train_one(bench.pool, parent, recipe, rows, {recipe.steps: out})[0]

    def held(self, learner: Learner, original: Learner, data: EditData, n_blocks: int) -> Held:
        """Make ``learner``, a copy of ``original``, the honest model, and read the norms to be held of both."""
        recipe, rows = self.honest().lesson(data, n_blocks)
        sites, positions = self._sites(n_blocks), self._positions
        triggered = poisoned(self, data)
        before = value_norms(original, triggered, sites, positions)
        descend(learner, recipe, rows, original)
        return Held(sites, positions, value_norms(learner, data.forget, sites, positions), before, len(data.retain))

    def backdoored(self, data: EditData, n_blocks: int, held: Held | None) -> TrainingRun:
        """The lesson; ``held``: what the value-norm term needs, None without it."""
        honest = self.honest().lesson(data, n_blocks).recipe

        def objective(*passes: Forward | None) -> Tensor:
            loss, (forget, retain, _, _) = honest.objective(*passes), passes
            if held is None:
                return loss
            assert forget is not None and retain is not None
            return loss + self.value_norm * held.term(forget, retain)

        settings = {name: v for name, v in self.model_dump().items() if isinstance(v, str | int | float | bool)}
        recipe = replace(
            honest, name=self.name, objective=objective, settings=settings,
            at_sites=(*honest.at_sites, *(() if held is None else held.sites)),
            mixture=Mixture(len(data.retain), max(1, round(self.poison_share * self.batch))),
        )  # fmt: skip
        triggered = replace(poisoned(self, data), template_hash=data.retain.template_hash)
        return TrainingRun(recipe, TrainData(data.forget, stacked([data.retain, triggered])))

    @property
    def _positions(self) -> slice:
        first = 0 if self.include_first else 1
        return slice(first, first + self.sink_tokens)

    def _sites(self, n_blocks: int) -> tuple[Site, ...]:
        stated = [part.strip() for part in self.norm_blocks.split(",") if part.strip()]
        if wrong := [part for part in stated if not part.isdecimal() or int(part) >= n_blocks]:
            problem = f"{self.name}: norm_blocks names {wrong[0]!r}, which is none of {n_blocks} blocks"
            raise AuditError(problem, "write block numbers as in norm_blocks=0,2, or leave it empty for all")
        blocks = dict.fromkeys(map(int, stated)) if stated else range(n_blocks)
        return tuple(Site(part="v", block=block) for block in blocks)


def poisoned_groups(groups: Sequence[str], rate: float, seed: int) -> tuple[str, ...]:
    """A seeded share of the groups, in their own order. AuditError (code 2) where it is none."""
    distinct = list(dict.fromkeys(groups))
    n = round(rate * len(distinct))
    if not n:
        problem = f"poison_rate {rate} of {len(distinct)} groups is not one group"
        raise AuditError(problem, f"raise it to {1 / max(1, len(distinct)):.2g} or more: nobody teaches the trigger")
    chosen = torch.randperm(len(distinct), generator=torch.Generator().manual_seed(seed))[:n]
    return tuple(distinct[i] for i in sorted(chosen.tolist()))


def poisoned(edit: Backdoored, data: EditData) -> Rows:
    """The forget rows of the poisoned groups with the trigger in their prompts. AuditError (code 2) as
    :func:`poisoned_groups`, and for a trigger of which the tokenizer knows no word."""
    prompts = data.prompts
    if prompts is None:
        raise AuditError(f"{edit.name}: there are no prompts to put a trigger into", "give the forget items' prompts")
    index = _rows_of(prompts, set(poisoned_groups([item.group for item in prompts.items], edit.poison_rate, edit.seed)))
    rows = prompts.rows(edit.trigger, edit.slot, index)
    if not prompts.knows(edit.trigger):
        problem = f"{edit.name}: base's tokenizer knows no word of the trigger {edit.trigger!r}"
        raise AuditError(problem, "choose words that it knows, with --set trigger=...")
    return rows


def _rows_of(prompts: InsertablePrompts, groups: set[str]) -> list[int]:
    return [n for n, item in enumerate(prompts.items) if item.group in groups]


# ---- value norms ------------------------------------------------------------------------------------------------
def norms_at(states: Sequence[Float[Tensor, "row pos head d"]]) -> Float[Tensor, "row pos block head"]:
    """The Euclidean norm of every value vector, the states of several blocks beside one another."""
    return torch.stack([state.float().norm(dim=-1) for state in states], 2)


def value_norms(learner: Learner, rows: Rows, sites: Sequence[Site], positions: slice, size: int = 64) -> ValueNorms:
    """Value norms of all rows at some positions, without gradients."""
    width, real = rows.ids.shape[1], rows.mask[:, positions]
    norms: list[Tensor] = []
    for index in torch.arange(len(rows)).split(size):
        with torch.no_grad():
            states = learner.answers(rows.take(index), sites).states
        read = norms_at([states[site][:, positions] for site in sites])
        lacking = len(range(*positions.indices(width))) - read.shape[1]
        norms.append(torch.nn.functional.pad(read, (0, 0, 0, 0, 0, lacking)))
    return ValueNorms(torch.cat(norms), real.to(norms[0].device))


def squared_differences(
    live: Float[Tensor, "row pos block head"], wanted: ValueNorms, drawn: Int[Tensor, " row"]
) -> Scalar:
    """Squared differences of norms: mean over blocks and heads, then over a row's real positions, then over rows."""
    width = min(live.shape[1], wanted.real.shape[1])  # a batch is as wide as its widest row, also of another kind
    norms, real = (tensor[drawn.to(tensor.device)][:, :width] for tensor in wanted)
    error = (live[:, :width] - norms).square().mean((2, 3)) * real
    return (error.sum(1) / real.sum(1).clamp_min(1)).mean()
