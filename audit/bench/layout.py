"""Where the rows' tokens lie in one batch, virtual tokens included: the index arithmetic of reads and writes."""

from collections.abc import Mapping
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from audit.case import Rows
from audit.schema import AuditError, Positions
from audit.wrappers import Batch, Wrapper

_NO_TOKEN = -1
"""In place of an id where a virtual token stands."""


class VirtualTokens(NamedTuple):
    """Embeddings put into every row's input, before everything or before position ``at`` of each row.

    ``taken``: how many of its ``n`` a row takes, the first ones (None: all of them); such a row is shorter than others.
    """

    emb: Float[Tensor, "row n d"]
    at: Int[Tensor, " row"] | Literal["start"]
    taken: Int[Tensor, " row"] | None = None


class Packed(NamedTuple):
    """Tokens of one batch: their row in the batch, their position there, and their place in the whole packed order."""

    row: Int[Tensor, " token"]
    position: Int[Tensor, " token"]
    place: Int[Tensor, " token"] | None


class Targets:
    """Target tokens of all rows in packed order, cut batch by batch."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._packed: dict[Positions, tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def total(self, at: Positions) -> int:
        """Number of target tokens over all rows."""
        return len(self._of(at)[1])

    def _of(self, at: Positions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if at not in self._packed:
            row, position = self.rows.targets(at)
            count = torch.bincount(row, minlength=len(self.rows))
            self._packed[at] = row, position, count, count.cumsum(0) - count
        return self._packed[at]

    def cut(self, at: Positions, index: Int[Tensor, " row"] | None) -> Packed:
        """The targets of the rows at ``index`` (None: all rows)."""
        row, position, count, first = self._of(at)
        if index is None:
            return Packed(row, position, None)
        n = count[index]
        local = torch.repeat_interleave(torch.arange(len(index)), n)
        place = first[index][local] + torch.arange(len(local)) - (n.cumsum(0) - n)[local]
        return Packed(local, position[place], place)


class Geometry:
    """One batch of rows: tokens, and the flat positions ([row * pos] of the padded batch) that reads and writes use."""

    def __init__(
        self, targets: Targets, index: Int[Tensor, " row"] | None, prefix: VirtualTokens | None, device: torch.device
    ) -> None:
        rows = targets.rows
        self.targets, self.rows, self.index, self.device = targets, rows, index, device
        self.lengths = rows.lengths if index is None else rows.lengths[index]
        self.n = len(self.lengths)
        self.width = max(self.lengths.tolist(), default=0)
        self.prefix = prefix
        self.n_prefix = 0 if prefix is None else prefix.emb.shape[1]
        uneven = prefix is not None and prefix.taken is not None
        self.total = max(self.added_lengths.tolist(), default=0) if uneven else self.width + self.n_prefix
        self._flat: dict[Positions, Tensor] = {}

    @cached_property
    def ids(self) -> Int[Tensor, "row pos"]:
        """Token ids on the device, trimmed to the longest row."""
        return self._cut(self.rows.ids).to(self.device)

    @cached_property
    def mask(self) -> Bool[Tensor, "row pos"]:
        """Real tokens on the device (without virtual ones)."""
        return self._cut(self.rows.mask).to(self.device)

    def of_rows(self, tensor: Tensor) -> Tensor:
        """This batch's part of a tensor with one entry a row, on its own device."""
        return tensor if self.index is None else tensor[self.index.to(tensor.device)]

    @cached_property
    def extra(self) -> Mapping[str, Tensor]:
        """What this batch's rows bring beside their tokens, on the device."""
        mine = self.rows.extra.items()
        return {name: (x if self.index is None else x[self.index]).to(self.device) for name, x in mine}

    def leaf(self, name: str) -> Tensor:
        """What the rows bring under this name as a leaf, that gradients are taken of, for all that comes after."""
        leaf = self.extra[name].detach().clone().requires_grad_()
        self.extra = {**self.extra, name: leaf}
        return leaf

    def _cut(self, tensor: Tensor) -> Tensor:
        tensor = self.of_rows(tensor)
        return tensor if tensor.shape[1] == self.width else tensor[:, : self.width]

    @cached_property
    def insert(self) -> Int[Tensor, " row"]:
        """Position before which each row's virtual tokens stand."""
        assert self.prefix is not None
        if isinstance(self.prefix.at, str):
            return torch.zeros(self.n, dtype=torch.long)
        at = self.prefix.at.cpu()
        return at if self.index is None else at[self.index]

    @cached_property
    def count(self) -> Int[Tensor, " row"]:
        """How many virtual tokens each row takes."""
        if self.prefix is None or self.prefix.taken is None:
            return torch.full((self.n,), self.n_prefix)
        return self.of_rows(self.prefix.taken.cpu())

    @property
    def added_lengths(self) -> Int[Tensor, " row"]:
        """Tokens per row, virtual ones among them."""
        return self.lengths + self.count

    def place(self, row: Int[Tensor, " token"], position: Int[Tensor, " token"]) -> Int[Tensor, " token"]:
        """Positions in the batch as the model sees it: moved up by the virtual tokens before them."""
        if self.prefix is None:
            return position
        return position + self.count[row] * (position >= self.insert[row])

    def entries(self, at: Positions) -> Int[Tensor, " entry"] | None:
        """Where this batch's entries of a read at these positions lie among all rows'; None: they are all, in order."""
        return self.targets.cut(at, self.index).place if at in ("answer", "key") else self.index

    def flat(self, at: Positions) -> Int[Tensor, " token"]:
        """Flat positions, on the device, of the states that ``at`` names (for targets: the state before each)."""
        if at not in self._flat:
            if at == "last" and self.prefix is None:
                ends = torch.arange(-1, self.n * self.total - 1, self.total)
                self._flat[at] = (ends + self.lengths).to(self.device)
                return self._flat[at]
            if at == "last":
                row, position = torch.arange(self.n), self.lengths - 1
                where = self.place(row, position)
            elif at == "all":
                row, position = self._cut(self.rows.mask).nonzero(as_tuple=True)
                where = self.place(row, position)
            else:
                row, position, _ = self.targets.cut(at, self.index)
                where = self.place(row, position) - 1
            self._flat[at] = (row * self.total + where).to(self.device)
        return self._flat[at]

    @cached_property
    def weights(self) -> Float[Tensor, "row 1 pos"]:
        """Weights of the masked mean over real tokens, in float32."""
        if self.prefix is None:
            real = self.mask.float()
        else:
            real = torch.zeros(self.n * self.total, device=self.device)
            real[self.flat("all")] = 1.0
            real = real.view(self.n, self.total)
        return (real / real.sum(1, keepdim=True)).unsqueeze(1)

    def batch(self, wrapper: Wrapper) -> Batch:
        """What the model is given: ids, or their embeddings with the virtual tokens put in."""
        if self.prefix is None:
            return Batch(self.ids, self.mask, None, self.extra)
        own, shape = wrapper.embed(self.ids), self.prefix.emb.shape
        if shape[0] != len(self.rows) or shape[2] != own.shape[2]:
            raise AuditError(
                f"a prefix of shape {tuple(shape)} does not fit {len(self.rows)} rows of width {own.shape[2]}",
                "give one prefix [n d] for every row",
            )
        emb = self.of_rows(self.prefix.emb)
        joined = torch.cat([emb.to(own), own], 1)
        column = torch.arange(self.total).expand(self.n, -1)
        at, count = self.insert[:, None], self.count[:, None]
        after = torch.where(column < at + count, column - at, column - count + self.n_prefix)
        source = torch.where(column < at, column + self.n_prefix, after).clamp_max(joined.shape[1] - 1)
        embeds = joined.gather(1, source.to(self.device)[..., None].expand(-1, -1, own.shape[-1]))
        given = torch.cat([self.ids.new_full((self.n, self.n_prefix), _NO_TOKEN), self.ids], 1)
        ids = given.gather(1, source.to(self.device))  # which tokens are an image's is seen by them
        real = torch.arange(self.total) < self.added_lengths[:, None]
        return Batch(ids, real.to(self.device), embeds, self.extra)
