"""The value vectors of a case's models, their coefficients, and the columns that write each group's answers in base."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.probing import Bench, Checkpoint, PersonRows, Read, Rows, Site, value_map

_BYTES_AT_ONCE = 256 << 20
_HEAD_AT_ONCE = 256


class Columns(NamedTuple):
    """So many columns a group, strongest first: their blocks and their units; ``strength`` is what orders them."""

    block: Int[Tensor, "group column"]
    unit: Int[Tensor, "group column"]
    strength: Float[Tensor, "group column"]

    def at(self, block: int, group: Int[Tensor, " row"]) -> Int[Tensor, "row column"]:
        """The units of one block that each row's group has, -1 where a column is in another block."""
        units = torch.where(self.block == block, self.unit, -1).sort(1, descending=True).values
        most = int((units >= 0).sum(1).max()) if len(units) else 0
        return units[group, :most]


def coefficient_site(block: int) -> Site:
    """Where the coefficients of a block's value vectors lie."""
    return Site(part="mlp_hidden", block=block)


class ValueModel:
    """One model as a sum of value vectors: tensors are views of the opened model's, so that nothing is copied, save
    where experts keep theirs by output.

    AuditError where its MLPs do not write to the stream by one matrix or as fused experts.
    """

    def __init__(self, bench: Bench, checkpoint: Checkpoint) -> None:
        self.bench, self.checkpoint = bench, checkpoint
        self.wrapper = bench.open(checkpoint)
        self.blocks = self.wrapper.n_blocks
        self.width = max(value_map(self.wrapper, block).units for block in range(self.blocks))
        self._kept: dict[tuple[str, int], Tensor] = {}

    def vectors(self, block: int) -> Float[Tensor, "unit d"]:
        """The value vectors of one block."""
        return value_map(self.wrapper, block).vectors

    @cached_property
    def is_mixture(self) -> bool:
        """Whether some value vectors are those of experts, to which not every token is sent."""
        maps = [value_map(self.wrapper, block) for block in range(self.blocks)]
        return any(tensor.weight.ndim == 3 for values in maps for tensor in values.tensors.values())

    @cached_property
    def unembedding(self) -> Float[Tensor, "vocab d"]:
        """The output head as it acts, without the final norm: logits of unit states less those of the zero state."""
        eye = torch.eye(self.wrapper.d_model, device=self.wrapper.device, dtype=self.wrapper.dtype)
        with torch.inference_mode():
            nothing = self.wrapper.head(torch.zeros_like(eye[:1]))
            return torch.cat([self.wrapper.head(units) - nothing for units in eye.split(_HEAD_AT_ONCE)]).T.float()

    def coefficients(self, rows: Rows, block: int) -> Float[Tensor, "token unit"]:
        """The coefficients of one block where content tokens are predicted; as many blocks are read in one pass, and
        kept, as memory likes."""
        key = rows.hash, block
        if key not in self._kept:
            size = 4 * max(len(rows.targets("key")[0]), 1) * self.width
            ahead = range(block, min(block + max(1, _BYTES_AT_ONCE // size), self.blocks))
            reads = {n: Read(site=coefficient_site(n), at="key") for n in ahead}
            with self.bench.without_store():
                outputs = self.bench.run(self.checkpoint, rows, tuple(reads.values()))
            if 2 * len(ahead) * size > _BYTES_AT_ONCE:
                self._kept.clear()
            self._kept |= {(rows.hash, n): outputs[read].float().cpu() for n, read in reads.items()}
        return self._kept[key]


class Groups(NamedTuple):
    """Groups of one cohort and the columns that write their answers in base."""

    sheet: PersonRows
    columns: Columns


class Values(NamedTuple):
    """The models whose value vectors are compared; ``null`` never knew."""

    base: ValueModel
    suspect: ValueModel
    null: ValueModel | None


def groups_of(rows: Rows, names: Sequence[str]) -> Int[Tensor, " row"]:
    """The number of every row's group among ``names``."""
    number: Mapping[str, int] = {name: i for i, name in enumerate(names)}
    return torch.tensor([number[name] for name in rows.group_ids])


def toward_answers(model: ValueModel, rows: Rows) -> Float[Tensor, "token d"]:
    """For every content token the direction that raises its logit above all tokens' mean."""
    row, position = rows.targets("key")
    head = model.unembedding
    return (head[rows.ids[row, position].to(head.device)] - head.mean(0)).cpu()


def activity(model: ValueModel, rows: Rows) -> tuple[Float[Tensor, " unit"], ...]:
    """Mean size of every coefficient of every block where content tokens are predicted."""
    return tuple(model.coefficients(rows, block).abs().mean(0) for block in range(model.blocks))


def writing_columns(model: ValueModel, rows: Rows, names: Sequence[str], most: int) -> Columns:
    """Per group the columns whose activated trace is largest: mean over the answers' content tokens of the size of what
    coefficient times value vector adds to the token's logit, less what it adds to all tokens' on average."""
    toward = toward_answers(model, rows)
    group = groups_of(rows, names)[rows.targets("key")[0]]
    share = torch.zeros(len(names), len(group))
    share[group, torch.arange(len(group))] = 1.0
    share /= share.sum(1, keepdim=True).clamp_min(1)
    strongest = Columns(*(torch.zeros(len(names), 0, dtype=t) for t in (torch.long, torch.long, torch.float)))
    for block in range(model.blocks):
        written = model.coefficients(rows, block) * (toward @ model.vectors(block).float().cpu().T)
        strength, unit = (share @ written.abs()).topk(min(most, written.shape[1]), dim=1)
        both = torch.cat([strongest.strength, strength], 1)
        best, place = both.topk(min(most, both.shape[1]), dim=1)
        blocks = torch.cat([strongest.block, torch.full_like(unit, block)], 1).gather(1, place)
        strongest = Columns(blocks, torch.cat([strongest.unit, unit], 1).gather(1, place), best)
    return strongest
