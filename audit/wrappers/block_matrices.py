"""The matrices that multiply states, in whatever way a family keeps them, and the weights of the blocks they are of.

A linear layer keeps one matrix; a list of experts keeps all of theirs in one tensor [expert rows columns], some as
[out in] and some as [in out]. Families of transformers say which; what says nothing is watched in one tiny pass: the
product in which a tensor appears tells how it is stored.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

FUSED = ("gate_up_proj", "up_proj", "down_proj")
"""What experts call the tensors that hold the matrices of all of them, where their class says how they are stored."""
_OPERAND = {"linear": 1, "matmul": 1, "__matmul__": 1, "mm": 1, "bmm": 1, "baddbmm": 2, "addmm": 2}
"""Products by name, and which of their arguments is the matrix."""


class Matrix(NamedTuple):
    """A weight that multiplies states: its parameter as it is stored, and whether that is [in out] (else [out in]).

    ``expert`` is its number where the parameter holds several, [expert rows columns].
    """

    path: str
    parameter: Tensor
    transposed: bool
    expert: int | None = None

    @property
    def name(self) -> str:
        """The parameter's name, with the number of the expert."""
        return self.path if self.expert is None else f"{self.path}[{self.expert}]"

    @property
    def weight(self) -> Float[Tensor, "out in"]:
        """The matrix as [out in], one row an output channel: a view of the live parameter."""
        weight = self.parameter.detach()
        weight = weight if self.expert is None else weight[self.expert]
        return weight.T if self.transposed else weight.flatten(1)  # a view: a kernel is contiguous


def layer_matrices(model: nn.Module) -> Iterator[tuple[nn.Module, Matrix]]:
    """Each matrix of linear layers, those that keep it transposed (GPT-2), convolutions of images, and embeddings."""
    from transformers.pytorch_utils import Conv1D

    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d | Conv1D):
            yield module, Matrix(f"{path}.weight", module.get_parameter("weight"), isinstance(module, Conv1D))


def bare_matrices(model: nn.Module, known: set[int], run: Callable[[], object]) -> Iterator[Matrix]:
    """The matrices among parameters of no such layer: those of experts one by one, and what else ``run``, a tiny pass
    of the model, multiplies states with. ``known`` are the ids of the parameters that need not be asked after."""
    bare = {path: p for path, p in model.named_parameters() if id(p) not in known and _is_wide(path, p)}
    stated = {path: turned for path in bare if (turned := _stated(model, path)) is not None}
    unstated = {path: p for path, p in bare.items() if path not in stated}
    if unstated:
        stated |= _watched(unstated, run)
    for path, parameter in bare.items():
        if path in stated:
            experts = range(len(parameter)) if parameter.ndim == 3 else (None,)
            yield from (Matrix(path, parameter, stated[path], expert) for expert in experts)


def block_weights(parameters: Mapping[str, Tensor], outside: Iterable[int] = ()) -> dict[str, Tensor]:
    """The weights of the blocks among a model's parameters: every one of two dimensions or more that stands in a
    numbered part of the model, each once. Norms and biases are none, nor are those whose ids lie ``outside``."""
    met = set(outside)
    weights: dict[str, Tensor] = {}
    for path, parameter in parameters.items():
        if id(parameter) not in met and any(part.isdigit() for part in path.split(".")) and _is_wide(path, parameter):
            met.add(id(parameter))
            weights[path] = parameter
    return weights


def covered_share(weights: Mapping[str, Tensor], matrices: Iterable[Matrix]) -> float:
    """Which share of the entries of these weights the matrices hold; 1 where there are no weights."""
    total = sum(weight.numel() for weight in weights.values())
    held = sum(matrix.weight.numel() for matrix in matrices if matrix.path in weights)
    return held / total if total else 1.0


def _is_wide(path: str, parameter: Tensor) -> bool:
    """Is it more than a vector? A bias of each of several experts is none."""
    return sum(size > 1 for size in parameter.shape) > 1 and not path.endswith("bias")


def _stated(model: nn.Module, path: str) -> bool | None:
    """Whether the class of experts that holds the parameter keeps it as [in out]; None where it does not say."""
    home, _, name = path.rpartition(".")
    turned = getattr(model.get_submodule(home), "is_transposed", None)
    return turned if isinstance(turned, bool) and name in FUSED and model.get_parameter(path).ndim == 3 else None


def _watched(unstated: Mapping[str, Tensor], run: Callable[[], object]) -> dict[str, bool]:
    view = _Products(unstated)
    with view, torch.no_grad():
        run()
    return view.turned


class _Products(TorchFunctionMode):
    """Sees in which products parameters, or parts of them, are the matrix; ``turned``: as [in out]."""

    def __init__(self, unstated: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.unstated, self.turned = unstated, dict[str, bool]()

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (), kwargs: object = None
    ) -> object:
        name = getattr(func, "__name__", "")
        at = _OPERAND.get(name)
        if at is not None and len(args) > at and isinstance(matrix := args[at], Tensor) and matrix.ndim > 1:
            self._note(matrix, of_linear=name == "linear")
        return func(*args, **(kwargs if isinstance(kwargs, dict) else {}))

    def _note(self, matrix: Tensor, of_linear: bool) -> None:
        for path, parameter in self.unstated.items():
            first = parameter.data_ptr()
            if first <= matrix.data_ptr() < first + parameter.nbytes:
                as_stored = matrix.stride()[-2:] == parameter.stride()[-2:]
                self.turned[path] = as_stored != of_linear
