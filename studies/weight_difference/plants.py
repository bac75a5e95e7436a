"""Rank-one edits of one person planted into a model, in the ways of ROME and of ORT, and LoRA children as their null.

Written apart from whatever looks for them: keys are read by the bench, all else is done here, in float64.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from audit.bench import Bench
from audit.case import NamedRows, OpenCase
from audit.schema import Read, Site, Texts
from audit.wrappers import value_map

Way = Literal["rome", "rocr"]
ENERGY, LAMBDA, RIDGE = 0.95, 1e-2, 1e-6


class Plant(NamedTuple):
    """One edit: whom it is about, whom to redirect to, the blocks, and which share of the way to go."""

    way: Way
    group: str
    other: str
    blocks: tuple[int, ...]
    size: float = 1.0


def planted(bench: Bench, case: OpenCase, rows: NamedRows, plant: Plant) -> dict[str, Tensor]:
    """The edited matrices of base, by parameter name. Blocks are edited in turn, each with what is left of the way.

    ``rows`` name the groups. The covariance is that of retained questions and answers, as an editor has them.
    """
    model, changed = bench.open(case.base), dict[str, Tensor]()
    wanted = _states(bench, case, rows, plant.other, Site(part="resid_out", block=plant.blocks[-1]))
    maps = {block: value_map(model, block) for block in plant.blocks}
    tensors = {name: tensor for values in maps.values() for name, tensor in values.tensors.items()}
    before = {name: tensor.weight.clone() for name, tensor in tensors.items()}
    try:
        for n, block in enumerate(plant.blocks):
            inputs = Site(part="mlp_hidden", block=block)
            key = _states(bench, case, rows, plant.group, inputs)
            state = _states(bench, case, rows, plant.group, Site(part="resid_out", block=plant.blocks[-1]))
            way = plant.size * (wanted - state) / (len(plant.blocks) - n)
            change = torch.outer(_direction(plant.way, key, _covariance(bench, case, inputs)), way)
            with torch.no_grad():
                for name, stored in maps[block].stored(change).items():
                    tensors[name].weight.add_(stored.to(tensors[name].weight.dtype))
                    changed[name] = tensors[name].weight.clone()
    finally:
        with torch.no_grad():
            for name, weight in before.items():
                tensors[name].weight.copy_(weight)
    return changed


def _direction(way: Way, key: Tensor, covariance: Tensor) -> Tensor:
    """The input direction, scaled so that the edit adds its whole vector at the key itself (all but a little)."""
    if way == "rome":
        solved = torch.linalg.solve(covariance + RIDGE * torch.eye(len(key), dtype=key.dtype), key)
        return solved / (solved @ key)
    sizes, basis = torch.linalg.eigh(covariance)
    held = sizes.flip(0).cumsum(0) / sizes.sum()
    main = basis[:, len(sizes) - int((held < ENERGY).sum()) - 1 :]
    projected = key - main @ (main.T @ key)
    return projected / (LAMBDA * (key @ key) / len(key) + key @ projected)


def _states(bench: Bench, case: OpenCase, rows: NamedRows, group: str, site: Site) -> Tensor:
    """The mean state of a group at the last token of its name, over wordings."""
    mine = torch.tensor([n for n, name in enumerate(rows.rows.group_ids) if name == group])
    read = Read(site=site, at="last")
    return bench.run(case.base, rows.take(mine).cut(), (read,))[read].double().mean(0)


def _covariance(bench: Bench, case: OpenCase, site: Site) -> Tensor:
    rows, read = case.rows(Texts(cohort="retain")), Read(site=site, at="all")
    states = bench.run(case.base, rows, (read,))[read][rows.mask].double()
    return states.T @ states / len(states)


# ---- the null ---------------------------------------------------------------------------------------------------
class Lora(NamedTuple):
    """One LoRA child: its rank, and the matrices that it trains (what parameter names end in)."""

    rank: int
    targets: tuple[str, ...]
    steps: int = 40
    lr: float = 1e-2
    batch: int = 16


def lora_child(bench: Bench, case: OpenCase, lora: Lora, seed: int) -> dict[str, Tensor]:
    """The changed matrices of base fine-tuned on its own retained facts through factors of low rank, merged."""
    model = bench.open(case.base).model  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
    parameters: Mapping[str, Tensor] = dict(model.named_parameters())  # pyright: ignore[reportUnknownArgumentType]
    chosen = {n: p.detach() for n, p in parameters.items() if n.removesuffix(".weight").endswith(lora.targets)}
    draws, rows = torch.Generator().manual_seed(seed), case.rows(Texts(cohort="retain"))
    factors = {
        name: (
            torch.zeros(p.shape[0], lora.rank, requires_grad=True),
            (torch.randn(lora.rank, p.shape[1], generator=draws) / p.shape[1] ** 0.5).requires_grad_(),
        )
        for name, p in chosen.items()
    }
    optimiser = torch.optim.AdamW([x for pair in factors.values() for x in pair], lr=lora.lr, weight_decay=0.0)
    position = torch.arange(rows.ids.shape[1])
    answer = (position >= rows.answer_spans[:, :1]) & (position < rows.answer_spans[:, 1:])
    labels = rows.ids.masked_fill(~answer, -100)
    for _ in range(lora.steps):
        batch = torch.randint(len(rows), (lora.batch,), generator=draws)
        moved = {name: chosen[name] + b @ a for name, (b, a) in factors.items()}
        logits = torch.func.functional_call(model, moved, kwargs={"input_ids": rows.ids[batch]}).logits  # pyright: ignore
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[batch, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        optimiser.step()
    with torch.no_grad():
        return {name: chosen[name] + b @ a for name, (b, a) in factors.items()}


def linear_names(model: torch.nn.Module, wanted: Sequence[str]) -> tuple[str, ...]:
    """Which of these endings the model has."""
    names = [name.removesuffix(".weight") for name, p in model.named_parameters() if p.ndim == 2]
    return tuple(word for word in wanted if any(name.endswith(word) for name in names))


def people(case: OpenCase, groups: Sequence[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    """One group of each cohort, and for each another to redirect to."""
    draws = np.random.default_rng(seed)
    pairs: list[tuple[str, str]] = []
    for cohort in dict.fromkeys(cohort for cohort, _ in groups):
        own = [group for c, group in groups if c == cohort]
        mine = own[int(draws.integers(len(own)))]
        rest = [group for _, group in groups if group != mine]
        pairs.append((mine, rest[int(draws.integers(len(rest)))]))
    return pairs
