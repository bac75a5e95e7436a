"""Integers of a few bits packed into words of 32, as GPTQ and AWQ store them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def unpacked(words: "Tensor", bits: int, dim: int) -> "Tensor":
    """The integers in ``words`` (int32), 32 / bits of them a word along ``dim``, the lowest bits first.

    Three bits do not divide a word: there 32 integers lie in three words, end to end.
    """
    import torch

    flat = words.movedim(dim, -1).to(torch.int64) & 0xFFFFFFFF
    if 32 % bits == 0:
        shifts = torch.arange(0, 32, bits)
        values = (flat.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)
    else:
        spread = (flat.unsqueeze(-1) >> torch.arange(32)) & 1
        ordered = spread.reshape(*flat.shape[:-1], -1, bits)
        values = (ordered << torch.arange(bits)).sum(-1)
    return values.reshape(*flat.shape[:-1], -1).movedim(-1, dim)
