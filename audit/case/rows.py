"""Tokenised rows, named by content."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from audit.schema import Positions


@dataclass(frozen=True, eq=False)
class Rows:
    """Tokenised rows, right-padded, in the caller's order.

    ids, mask: Int/Bool [row pos]. answer_spans: Int [row 2], token positions [start, end) of the answer; start >= 1.
    key: Bool [row pos], content tokens of the answer (targets; the state that predicts target t lies at t - 1).
    ``template_hash`` is part of the hash; ``extra`` carries inputs beside the tokens
    (pixel values ...), one entry a row; a model that would ignore one refuses the rows.
    """

    ids: Int[Tensor, "row pos"]
    mask: Bool[Tensor, "row pos"]
    answer_spans: Int[Tensor, "row 2"]
    key: Bool[Tensor, "row pos"]
    item_ids: tuple[str, ...]
    group_ids: tuple[str, ...]
    template_hash: str = ""
    extra: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __len__(self) -> int:
        return self.ids.shape[0]

    @cached_property
    def lengths(self) -> Int[Tensor, " row"]:
        """Real tokens per row."""
        return self.mask.sum(1)

    @cached_property
    def hash(self) -> str:
        """sha256 over tokens, mask, spans, content marks, template and extra. Item names do not enter."""
        digest = hashlib.sha256(self.template_hash.encode())
        digest.update(json.dumps(sorted(self.extra)).encode() if self.extra else b"")
        for tensor in (self.ids, self.mask, self.answer_spans, self.key, *(self.extra[k] for k in sorted(self.extra))):
            digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def targets(self, at: Positions) -> tuple[Int[Tensor, " token"], Int[Tensor, " token"]]:
        """Row and position of every target token for ``answer`` or ``key``, row by row (the packed order)."""
        if at == "key":
            chosen = self.key
        else:
            pos = torch.arange(self.ids.shape[1])
            chosen = (pos >= self.answer_spans[:, :1]) & (pos < self.answer_spans[:, 1:])
        row, position = chosen.nonzero(as_tuple=True)
        return row, position

    def take(self, index: Int[Tensor, " row"]) -> "Rows":
        """The rows at ``index``, trimmed to their longest row."""
        n = int(self.lengths[index].max()) if len(index) else 0
        names = index.tolist()
        return Rows(
            ids=self.ids[index, :n], mask=self.mask[index, :n], answer_spans=self.answer_spans[index],
            key=self.key[index, :n], item_ids=tuple(self.item_ids[i] for i in names),
            group_ids=tuple(self.group_ids[i] for i in names), template_hash=self.template_hash,
            extra={k: v[index] for k, v in self.extra.items()},
        )  # fmt: skip


def shortened(rows: Rows) -> Rows:
    """The rows without what follows their last content token, which no score depends on; of one without such tokens
    the first token."""
    if not len(rows):
        return rows
    place = torch.arange(rows.ids.shape[1])
    end = (torch.where(rows.key, place, -1).amax(1) + 1).clamp(min=1)
    mask = rows.mask & (place < end[:, None])
    spans = torch.minimum(rows.answer_spans, end[:, None])
    short = replace(rows, ids=rows.ids.masked_fill(~mask, 0), mask=mask, answer_spans=spans)
    return short.take(torch.arange(len(rows)))
