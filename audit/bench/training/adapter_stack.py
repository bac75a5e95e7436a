"""Several low-rank adapters over one resident base, whose rows pass through it side by side.

LoRA (Hu et al. 2021, arXiv 2106.09685): a linear map W of a block gains (alpha / rank) B A. The base is never copied
and never changed; a batch holds as many rows of one learner as of every other, one learner's below another's, and every
row's low-rank term comes from its own learner's matrices. So losses, gradients and steps are those of each learner
alone. Adapters stand in the blocks from ``first`` on: what lies below them is the same for all learners and steps.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from audit.schema import AuditError, Site
from audit.wrappers import NativeWrapper, Tap, Wrapper

FULLY: Final = "train whole copies of it (form full)"
_TRIED = 2


class LowRankForm(NamedTuple):
    """Rank and alpha of every adapter, and the first block that has any (counted from 0). ``ratio``: the rate of B over
    that of A (LoRA+, Hayou et al. 2024, arXiv 2402.12354); a recipe states B's."""

    rank: int = 8
    alpha: float = 16.0
    first: int = 0
    ratio: float = 1.0

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / self.rank


class _Map(NamedTuple):
    """One linear map: its name in the model, the module, and its widths."""

    name: str
    module: nn.Module
    width_in: int
    width_out: int


class AdapterStack:
    """``learners`` adapters, which start as ``seeds`` say: A uniform as PEFT draws it, B zero.

    ``wrapper`` is the resident base, which must lie whole. AuditError (code 2): a backend that is not native, blocks
    whose matrices are not all linear maps of their own (stacked experts, quantised ones), or whose rows meet on the
    way.
    """

    def __init__(self, wrapper: Wrapper, form: LowRankForm, seeds: Sequence[int]) -> None:
        if not isinstance(wrapper, NativeWrapper):
            raise AuditError(f"{wrapper.name} is behind the backend {wrapper.backend}", "use the native backend")
        self.wrapper, self.form = wrapper, form
        self.maps = _maps(wrapper, form.first)
        self.learners = [self._start(seed) for seed in seeds]
        self._check_apart()

    def _start(self, seed: int) -> dict[str, Tensor]:
        """One learner's matrices by name, ``<map>.lora_A`` [rank in] and ``<map>.lora_B`` [out rank]."""
        generator, dtype = torch.Generator().manual_seed(seed), torch.promote_types(self.wrapper.dtype, torch.float32)
        matrices: dict[str, Tensor] = {}
        for name, _, width_in, width_out in self.maps:
            bound = 1 / math.sqrt(width_in)
            a = (torch.rand(self.form.rank, width_in, generator=generator, dtype=torch.float64) * 2 - 1) * bound
            matrices[f"{name}.lora_A"] = a.to(self.wrapper.device, dtype)
            matrices[f"{name}.lora_B"] = torch.zeros(width_out, self.form.rank, device=a.device, dtype=dtype)
        return {name: value.to(self.wrapper.device).requires_grad_() for name, value in matrices.items()}

    @contextmanager
    def attached(self, learners: Sequence[int]) -> Generator[None]:
        """For the length of a block, batches are read as as many rows of each of these learners, in this order."""
        with ExitStack() as stack:
            for each in self.maps:
                pairs = [tuple(self.learners[n][f"{each.name}.lora_{side}"] for side in "AB") for n in learners]
                a, b = (torch.stack(matrices).mT for matrices in zip(*pairs, strict=True))
                stack.callback(each.module.register_forward_hook(_Added(each.name, a, b, self.form.scale)).remove)
            yield

    def _check_apart(self) -> None:
        """AuditError (code 2) unless an adapter moves the rows of its own learner, by every map, and no others."""
        batch, final = self.wrapper.trial(2 * _TRIED), Site(part="final_in")
        seen: list[Tensor] = []
        retained = self.learners
        moved = {name: value + value.new_ones(()) / value.shape[-1] for name, value in retained[0].items()}
        with torch.no_grad():
            for first in (retained[0], moved):
                self.learners = [first, retained[0]]
                try:
                    with self.attached([0, 1]), _called(self.maps):
                        self.wrapper.forward(batch, [Tap(final, lambda state: seen.append(state.clone()))])
                finally:
                    self.learners = retained
        same = torch.allclose(seen[0][_TRIED:], seen[1][_TRIED:], rtol=1e-4, atol=1e-5)
        if not same or torch.equal(seen[0][:_TRIED], seen[1][:_TRIED]):
            raise AuditError(f"{self.wrapper.name}: rows of a batch meet on the way through its blocks", FULLY)

    def tensors(self, learner: int) -> Mapping[str, Tensor]:
        """One learner's matrices as PEFT names them, on the CPU."""
        return {
            f"base_model.model.{name}.weight": value.detach().cpu().clone().contiguous()
            for name, value in self.learners[learner].items()
        }

    @property
    def transposed(self) -> bool:
        """Whether the maps keep their matrices as [in, out]."""
        return all(isinstance(each.module, Conv1D) for each in self.maps)

    def bytes_of_training(self) -> int:
        """Bytes of all matrices, their gradients, and the two moments of Adam."""
        return 4 * sum(value.nbytes for matrices in self.learners for value in matrices.values())


class _Added:
    """Adds the low-rank terms to what a linear map gives. a: [learner in rank], b: [learner rank out]."""

    def __init__(self, name: str, a: Tensor, b: Tensor, scale: float) -> None:
        self.name, self.a, self.b, self.scale = name, a, b, scale

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        x, count = args[0], len(self.a)
        if x.shape[0] % count:
            raise AuditError(f"{self.name} does not read the rows of a batch one below another", FULLY)
        inner = torch.bmm(x.reshape(count, -1, x.shape[-1]).to(self.a.dtype), self.a)
        wide: Float[Tensor, "learner token out"] = out.reshape(count, -1, out.shape[-1])
        if wide.dtype == self.b.dtype:
            return torch.baddbmm(wide, inner, self.b, alpha=self.scale).view(out.shape)
        return (wide + (self.scale * torch.bmm(inner, self.b)).to(wide.dtype)).view(out.shape)


def _maps(wrapper: NativeWrapper, first: int) -> list[_Map]:
    """The linear maps of the blocks from ``first`` on. AuditError (code 2) for matrices of another kind."""
    names = {id(module): name for name, module in wrapper.model.named_modules()}
    maps: dict[int, _Map] = {}
    for block in list(wrapper.blocks)[first:]:
        for module in block.modules():
            own = dict(module.named_parameters(recurse=False))
            if type(module) in (nn.Linear, Conv1D) and own["weight"].is_floating_point():
                shape = own["weight"].shape
                width_in, width_out = shape if isinstance(module, Conv1D) else reversed(shape)
                maps[id(module)] = _Map(names[id(module)], module, width_in, width_out)
            elif odd := [name for name, value in own.items() if value.ndim > 1]:
                where = f"{names[id(module)]}.{odd[0]}"
                raise AuditError(f"{where} is {list(own[odd[0]].shape)}, and no linear map of its own", FULLY)
    if not maps:
        raise AuditError(f"{wrapper.name} has no linear map in its blocks from {first} on", FULLY)
    return list(maps.values())


@contextmanager
def _called(maps: Sequence[_Map]) -> Generator[None]:
    """AuditError (code 2) unless each of these maps runs by itself within the block."""
    ran: set[str] = set()
    with ExitStack() as stack:
        for each in maps:
            handle = each.module.register_forward_hook(lambda *_, name=each.name: ran.add(name))
            stack.callback(handle.remove)
        yield
    if missing := [each.name for each in maps if each.name not in ran]:
        raise AuditError(f"{missing[0]} is read without being run: an adapter beside it would change nothing", FULLY)
