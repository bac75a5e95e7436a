"""The linear maps and norms between attention heads and the residual stream, as tensors in float32 or wider.

Both LayerNorm and RMSNorm are y = gamma * c(x) * r(x) + beta with r = (mean c(x)^2 + eps)^(-1/2), where c centres x or
leaves it alone. That form is found by asking the module, and checked against it; a norm of another form is an error.
"""

import copy
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from audit.schema import AuditError
from audit.wrappers.hooks import shown_after
from audit.wrappers.native import NativeWrapper
from audit.wrappers.placement import is_spread
from audit.wrappers.tracing import gap

_AGREE = 1e-4


class ScaleNorm(NamedTuple):
    """A norm as its gain, its epsilon, and whether it centres."""

    gamma: Float[Tensor, " d"]
    eps: float
    centred: bool

    def inner(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """c(x)."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def rate(self, inner: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch 1"]:
        """r(x), of c(x)."""
        return (inner.square().mean(-1, keepdim=True) + self.eps).rsqrt()


class BlockMaps(NamedTuple):
    """One block: what each reader makes of the normed stream, what each head writes, and the norms in between.

    reads: q [head d_head d], k and v [kv_head d_head d]. writes: [head d_head d], z of a head to the stream.
    A norm that is not there is None; ``post`` stands between attention and the stream.
    """

    reads: dict[str, Float[Tensor, "head d_head d"]]
    writes: Float[Tensor, "head d_head d"]
    writes_bias: Float[Tensor, " d"] | None
    attn_norm: ScaleNorm | None
    mlp_norm: ScaleNorm | None
    post: ScaleNorm | None

    def write_rate(self, z: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "row pos 1"] | None:
        """The scale that the post-norm gives to this run's attention; None without one."""
        if self.post is None:
            return None
        out = torch.einsum("rphk,hkd->rpd", z, self.writes)
        return self.post.rate(out if self.writes_bias is None else out + self.writes_bias)

    def written(self, z: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "row head pos d"]:
        """What every head adds to the stream (its share of the bias left out), through the post-norm at its scale."""
        rate = self.write_rate(z)
        if rate is not None:
            assert self.post is not None
            return torch.einsum("rphk,hkd->rhpd", z * rate[..., None], self.writes * self.post.gamma)
        return torch.einsum("rphk,hkd->rhpd", z, self.writes)


def taken_back(
    norm: ScaleNorm | None, weight: Float[Tensor, "head e d"] | None, grad: Float[Tensor, "k row pos head e"],
    x: Float[Tensor, "k row pos d"],
) -> Float[Tensor, "row head pos d"]:  # fmt: skip
    """Gradients of several heads at their projections, taken back through projection and norm, summed over k points.

    With y = gamma c(x) r(x) the gradient at x is c((gamma n) r - c(x) (c(x) . gamma n) r^3 / d), where n is that at the
    norm's output. Without a weight ``grad`` is n itself. Points are summed before they meet the weight.
    """
    if norm is None:
        total = grad.sum(0)
        return total.movedim(-2, 1) if weight is None else torch.einsum("bphe,hed->bhpd", total, weight)
    inner = norm.inner(x)
    rate = norm.rate(inner)
    first = (grad * rate[..., None]).sum(0)
    if weight is None:
        gained = first.movedim(-2, 1) * norm.gamma
        along = torch.einsum("kbpd,kbphd->kbph", inner * norm.gamma, grad)
    else:
        weight = weight * norm.gamma
        gained = torch.einsum("bphe,hed->bhpd", first, weight)
        along = (torch.einsum("kbpd,hed->kbphe", inner, weight) * grad).sum(-1)
    gradient = gained - torch.einsum("kbph,kbpd->bhpd", along * rate**3 / x.shape[-1], inner)
    return gradient - gradient.mean(-1, keepdim=True) if norm.centred else gradient


def block_maps(wrapper: NativeWrapper) -> tuple[BlockMaps, ...]:
    """The maps of every block. AuditError for a norm or a projection that is not of the known forms."""
    if is_spread(wrapper.model):
        raise AuditError(f"{wrapper.name} is spread: edges read its weights whole", "open it on one device")
    with torch.no_grad():
        return tuple(_maps_of(wrapper, block) for block in range(wrapper.n_blocks))


def _maps_of(wrapper: NativeWrapper, block: int) -> BlockMaps:
    anatomy, module = wrapper.anatomy.at(block), wrapper.blocks[block]
    assert anatomy.heads is not None and anatomy.z is not None, "the graph was asked for first"
    wide = torch.promote_types(wrapper.dtype, torch.float32)
    reads: dict[str, Tensor] = {}
    for name, slot in anatomy.slots.items():
        weight = _matrix(module.get_submodule(slot.module)).to(wide)
        reads[name] = slot.view(weight[None])[0].permute(1, 2, 0).contiguous()
    projection = module.get_submodule(anatomy.z)
    bias: Tensor | None = getattr(projection, "bias", None)
    return BlockMaps(
        reads=reads,
        writes=_matrix(projection).to(wide).unflatten(0, (anatomy.heads.n, anatomy.heads.width)).contiguous(),
        writes_bias=None if bias is None else bias.detach().to(wide),
        attn_norm=_norm_at(module, anatomy.attn_norm, wrapper.d_model, wide),
        mlp_norm=_norm_at(module, anatomy.mlp_norm, wrapper.d_model, wide),
        post=_post_norm(module, anatomy.attn_out, wrapper.d_model, wide),
    )


class Projections:
    """What the projections of q, k and v give in a pass: one tensor a module, whichever slots lie in it. The gradient
    at a module's output holds those at its slots, so that nothing is cut up and put together on the way."""

    def __init__(self, wrapper: NativeWrapper) -> None:
        self._blocks = wrapper.blocks
        self._slots = [wrapper.anatomy.at(block).slots for block in range(wrapper.n_blocks)]
        self._outputs: dict[tuple[int, str], Tensor] = {}

    @contextmanager
    def recorded(self) -> Generator[None]:
        """Keep the outputs of the pass in here, as whatever edits them leaves them."""
        with ExitStack() as stack:
            for block, slots in enumerate(self._slots):
                for name in {slot.module: None for slot in slots.values()}:
                    keeping = shown_after(partial(self._outputs.__setitem__, (block, name)))
                    stack.callback(self._blocks[block].get_submodule(name).register_forward_hook(keeping).remove)
            yield

    def __len__(self) -> int:
        return len(self._outputs)

    def values(self) -> list[Tensor]:
        """The outputs, [row pos width] each, in the order in which they came."""
        return [*self._outputs.values()]

    def with_values(self, values: Sequence[Tensor]) -> "Projections":
        """The same places with other tensors of their shapes, such as the gradients there."""
        other = copy.copy(self)
        other._outputs = dict(zip(self._outputs, values, strict=True))
        return other

    def of(self, block: int, part: str) -> Float[Tensor, "row pos head d_head"]:
        """q, k or v of one block."""
        slot = self._slots[block][part]
        return slot.view(self._outputs[block, slot.module])


def _matrix(module: nn.Module) -> Float[Tensor, "d_in d_out"]:
    """A projection's weight as [in, out], whichever way its class stores it."""
    from transformers.pytorch_utils import Conv1D

    weight = module.get_parameter("weight").detach()
    if isinstance(module, Conv1D):
        return weight
    if isinstance(module, nn.Linear):
        return weight.T
    raise AuditError(f"{type(module).__name__} is no plain projection", "edges need linear q, k, v and output maps")


def _norm_at(block: nn.Module, path: str | None, d: int, wide: torch.dtype) -> ScaleNorm | None:
    if path is None:
        do = "edges need a model whose attention and mlp read one norm of the residual stream"
        raise AuditError(f"a norm before attention or mlp was not found in {type(block).__name__}", do)
    return scale_norm(block.get_submodule(path), d, wide) if path else None


def _post_norm(block: nn.Module, path: str | None, d: int, wide: torch.dtype) -> ScaleNorm | None:
    """The norm that attention is added through: a module with a gain and no matrix."""
    assert path is not None, "the graph was asked for first"
    module = block.get_submodule(path)
    sizes = [p.ndim for p in module.parameters()]
    return scale_norm(module, d, wide) if sizes and max(sizes) == 1 else None


def scale_norm(module: nn.Module, d: int, wide: torch.dtype) -> ScaleNorm:
    """A norm module as a :class:`ScaleNorm`. AuditError where it is none."""
    own = next(module.parameters())
    norm, device = module if own.dtype == wide else copy.deepcopy(module).to(wide), own.device
    eps = next((float(getattr(norm, name)) for name in ("eps", "variance_epsilon") if hasattr(norm, name)), 0.0)
    signs = torch.ones(d, dtype=wide, device=device)
    signs[1::2] = -1.0
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3, d, generator=rng, dtype=wide).to(device)
    shift: Tensor = norm(torch.zeros_like(signs))
    centred = gap(norm(x + 1.0), norm(x)) < _AGREE
    plain = ScaleNorm(signs.abs(), eps, centred)
    inner = plain.inner(signs)
    fitted = plain._replace(gamma=(norm(signs) - shift) / (inner * plain.rate(inner)))
    inner = fitted.inner(x)
    if gap(inner * fitted.rate(inner) * fitted.gamma + shift, norm(x)) > _AGREE:
        raise AuditError(f"{type(module).__name__} is neither LayerNorm nor RMSNorm", "edges need one of the two")
    return fitted
