"""The tensors through which an MLP writes to the stream: a value vector for each of its hidden units."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from audit.schema import AuditError
from audit.wrappers.interface import Wrapper
from audit.wrappers.mixtures import ValueTensor, value_tensor
from audit.wrappers.native import NativeWrapper
from audit.wrappers.placement import gathered


class ValueMap(NamedTuple):
    """The value vectors of one block's MLP by the names of the parameters that hold them: one matrix, or those of a
    mixture's experts (a shared one first)."""

    tensors: Mapping[str, ValueTensor]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names."""
        return tuple(self.tensors)

    @property
    def vectors(self) -> Float[Tensor, "unit d"]:
        """The value vector of every hidden unit, a view where one matrix holds them. MLP output = sum over units of
        m_unit(x) v_unit (+ biases)."""
        parts = [tensor.vectors for tensor in self.tensors.values()]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @property
    def units(self) -> int:
        """How many hidden units there are."""
        return sum(tensor.units for tensor in self.tensors.values())

    def vector(self, unit: int, within: Mapping[str, Tensor] | None = None) -> Float[Tensor, " d"]:
        """A view of one value vector; ``within``: of its place in other tensors of the same names (gradients)."""
        for name, tensor in self.tensors.items():
            if unit < tensor.units:
                return (tensor if within is None else tensor._replace(weight=within[name])).vector(unit)
            unit -= tensor.units
        raise AuditError("there is no such value vector", f"name one of {self.units}")

    def stored(self, vectors: Float[Tensor, "unit d"]) -> dict[str, Tensor]:
        """Value vectors as the parameters hold them."""
        parts = vectors.split([tensor.units for tensor in self.tensors.values()])
        return {name: t.stored(part) for (name, t), part in zip(self.tensors.items(), parts, strict=True)}


def value_map(wrapper: Wrapper, block: int) -> ValueMap:
    """The value vectors of one block. AuditError where its MLP does not write to the stream by one matrix, nor as a
    mixture of experts whose sum was found, and for a backend that hides modules."""
    from transformers.pytorch_utils import Conv1D

    do = "use the native backend and a model whose blocks have one MLP with one down-projection, or fused experts"
    if not isinstance(wrapper, NativeWrapper):
        raise AuditError(f"the value vectors of {wrapper.name}'s MLPs were not found", do)
    if block in wrapper.hidden:
        tensors = wrapper.hidden[block].tensors
    else:
        parts = wrapper.anatomy.at(block)
        if parts.mlp is None or parts.mlp_hidden is None:
            raise AuditError(f"the value vectors of {wrapper.name}'s MLPs were not found", do)
        module = wrapper.blocks[block].get_submodule(parts.mlp_hidden)
        if not isinstance(module, nn.Linear | Conv1D):
            kind = type(module).__name__
            raise AuditError(f"block {block} of {wrapper.name} writes through {kind}, no plain matrix", do)
        tensors = (value_tensor(module),)
    names = {id(p): name for name, p in reversed(wrapper.parameters().items())}
    by_name = {names[id(t.weight)]: t for t in tensors}
    return ValueMap({
        name: t._replace(weight=gathered(wrapper.model, name, t.weight).detach()) for name, t in by_name.items()
    })  # fmt: skip
