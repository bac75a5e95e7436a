"""Weights changed for a while: the bytes that stood before, and the way back to them.

Undoing copies the bytes back and never subtracts, because adding and then subtracting a delta in bfloat16 leaves a part
of the weights changed.
"""

from collections.abc import Iterable
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn


def same_bytes(a: Tensor, b: Tensor) -> bool:
    """Are two tensors equal to the bit? Unlike ``torch.equal``: NaN is itself, and -0 is not 0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))


class WeightJournal:
    """What stood in a model before it was changed. Leaving the block restores it, unless the change was kept."""

    def __init__(self) -> None:
        self._bytes: list[tuple[Tensor, Tensor]] = []
        self._ties: list[tuple[nn.Module, str, nn.Parameter]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    def remember(self, live: Iterable[Tensor]) -> None:
        """Write down what stands in live tensors, each once, before somebody changes them."""
        for tensor in {id(tensor): tensor for tensor in live}.values():
            self._bytes.append((tensor, tensor.detach().clone()))

    @torch.no_grad()
    def overwrite(self, live: Tensor, value: Tensor) -> bool:
        """Put ``value`` into a live tensor. Does that change a byte?"""
        if same_bytes(live, value):
            return False
        self.remember([live])
        live.copy_(value)
        return True

    def untie(self, module: nn.Module, name: str, value: Tensor) -> None:
        """Give a module a parameter of its own in place of the shared one."""
        shared = module.get_parameter(name)
        self._ties.append((module, name, shared))
        setattr(module, name, nn.Parameter(value.clone(), requires_grad=shared.requires_grad))

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back as it was, last change first. Twice is once."""
        while self._ties:
            module, name, shared = self._ties.pop()
            setattr(module, name, shared)
        while self._bytes:
            live, before = self._bytes.pop()
            live.copy_(before)

    def keep(self) -> None:
        """Forget what stood before: the changes are to stay."""
        self._ties.clear()
        self._bytes.clear()
