"""How far, and which way, checkpoints have moved from one another: inner products of the differences of their weights.

One pass over the tensors of all of them, by parameter name, edits applied and without building a model; memory holds
one tensor a checkpoint. A checkpoint whose weights exist only once its model is built (an adapter) is opened
and its parameters are taken.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit.bench.weight_stream import Stored
from audit.schema import AuditError, Checkpoint
from audit.wrappers import Wrapper, gathered

_CHUNK = 1 << 18


class Tensors(Protocol):
    """Tensors by parameter name; ``order`` has all names as they stand in the model."""

    order: tuple[str, ...]

    @property
    def names(self) -> set[str]: ...

    def __contains__(self, name: str) -> bool: ...

    def __getitem__(self, name: str) -> Tensor: ...


class _Opened:
    """The parameters of a model that was opened."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._parameters: Mapping[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self.names, self.order = {name for name, _ in model.named_parameters()}, tuple(self._parameters)

    def __contains__(self, name: str) -> bool:
        return name in self._parameters

    def __getitem__(self, name: str) -> Tensor:
        return gathered(self._model, name, self._parameters[name]).detach().cpu()


def displacements(
    ckpts: Sequence[Checkpoint], opener: Callable[[Checkpoint], Wrapper]
) -> Float[ndarray, "model model"]:
    """Inner products (float64) of what each checkpoint's weights differ from the first one's by, summed over all
    floating-point parameters that all of them have in one shape."""
    tensors = [tensors_of(ckpt, opener) for ckpt in ckpts]
    names = sorted(set[str]().union(*(each.names for each in tensors)))
    gram = np.zeros((len(ckpts), len(ckpts)))
    for name in names:
        if all(name in each for each in tensors):
            side_by_side = [each[name] for each in tensors]
            if side_by_side[0].is_floating_point() and len({x.shape for x in side_by_side}) == 1:
                gram += _products([x.reshape(-1) for x in side_by_side])
    return gram


def _products(flat: Sequence[Tensor]) -> Float[ndarray, "model model"]:
    gram = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for start in range(0, len(flat[0]), _CHUNK):
        part = torch.stack([x[start : start + _CHUNK].double() for x in flat])
        part -= part[0].clone()
        gram += part @ part.T
    return gram.numpy()


def tensors_of(ckpt: Checkpoint, opener: Callable[[Checkpoint], Wrapper]) -> Tensors:
    """A checkpoint's tensors by parameter name, edits applied; from its files, else from the opened model."""
    if ckpt.adapter is None:
        try:
            return Stored(ckpt)
        except AuditError:  # its tensors become parameters only when the model is built
            pass
    model = getattr(opener(ckpt), "model", None)
    if not isinstance(model, torch.nn.Module):
        raise AuditError(f"{ckpt.source}: this backend does not show the weights of its models", "use native")
    return _Opened(model)
