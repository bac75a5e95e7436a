"""The matrix through which an MLP writes to the stream: a value vector for each of its hidden units."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from audit.schema import AuditError
from audit.wrappers.interface import Wrapper
from audit.wrappers.native import NativeWrapper
from audit.wrappers.placement import gathered


class ValueMap(NamedTuple):
    """The last matrix of one block's MLP: ``name`` among the model's parameters, and whether it is stored [in, out]."""

    name: str
    weight: Float[Tensor, "rows columns"]
    by_unit: bool

    @property
    def vectors(self) -> Float[Tensor, "unit d"]:
        """A view: the value vector of every hidden unit. MLP output = sum over units of m_unit(x) v_unit (+ bias)."""
        return self.weight if self.by_unit else self.weight.T

    def stored(self, vectors: Float[Tensor, "unit d"]) -> Float[Tensor, "rows columns"]:
        """Value vectors as the parameter holds them."""
        return vectors if self.by_unit else vectors.T


def value_map(wrapper: Wrapper, block: int) -> ValueMap:
    """The value vectors of one block. AuditError where its MLP has no one matrix that writes to the stream (experts, a
    backend that hides modules)."""
    from transformers.pytorch_utils import Conv1D

    do = "use the native backend and a model whose blocks have one MLP with one down-projection"
    if not isinstance(wrapper, NativeWrapper) or wrapper.anatomy.mlp is None or wrapper.anatomy.mlp_hidden is None:
        raise AuditError(f"the value vectors of {wrapper.name}'s MLPs were not found", do)
    module = wrapper.blocks[block].get_submodule(wrapper.anatomy.mlp_hidden)
    weight = getattr(module, "weight", None)
    if not isinstance(module, nn.Linear | Conv1D) or not isinstance(weight, Tensor):
        raise AuditError(f"block {block} of {wrapper.name} writes through {type(module).__name__}, no plain matrix", do)
    name = next(name for name, p in wrapper.parameters().items() if p is weight)
    return ValueMap(name, gathered(wrapper.model, name, weight).detach(), isinstance(module, Conv1D))
