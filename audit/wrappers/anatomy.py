"""Where are a transformer's parts? Found by structure and by tracing one tiny forward, never by a list of names.

In one block, attention is the first child that mixes positions, the two addends of the residual stream are the
children whose outputs satisfy ``resid_out == resid_in + attn_out + mlp_out``, and q, k and v are told apart by what
they do to z: scaling v scales z, moving q at one position moves z there only. Heads are looked for where a softmax over
positions runs: a state-space mixer has none. What does not check out is simply not a part. Blocks of several kinds are
looked at kind by kind, and the model has the parts that all of them have. Blocks of an image are read alike, save that
their attention sees every position.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from audit.schema import Part
from audit.wrappers.block_chain import blocks_of, end_of, kinds_of
from audit.wrappers.tracing import Call, Change, Streams, Subject, close, gap, trace

Layout = Literal["whole", "concat", "grouped"]
_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax, F.scaled_dot_product_attention)


class Heads(NamedTuple):
    """Attention heads: query heads, key/value heads, and the width of one."""

    n: int
    n_kv: int
    width: int


class Slot(NamedTuple):
    """Where q, k or v lies in a projection's output: alone, in [q|k|v], or grouped by key/value head as (q.., k, v)."""

    module: str
    layout: Layout
    role: Literal["q", "k", "v"]
    heads: Heads

    def view(self, out: Float[Tensor, "row pos width"]) -> Float[Tensor, "row pos head d_head"]:
        """The slot's heads, as a view of the projection's output where the layout allows one."""
        n, n_kv, width = self.heads
        if self.layout == "whole":
            return out.unflatten(-1, (-1, width))
        if self.layout == "concat":
            q, k, v = out.split([n * width, n_kv * width, n_kv * width], dim=-1)
            return {"q": q, "k": k, "v": v}[self.role].unflatten(-1, (-1, width))
        groups = out.unflatten(-1, (n_kv, n // n_kv + 2, width))
        if self.role == "q":
            return groups[..., :-2, :].flatten(-3, -2)
        return groups[..., -2 if self.role == "k" else -1, :]

    def put(
        self, out: Float[Tensor, "row pos width"], new: Float[Tensor, "row pos head d_head"]
    ) -> Float[Tensor, "row pos width"]:
        """The projection's output with this slot's heads replaced."""
        n, n_kv, width = self.heads
        if self.layout == "whole":
            return new.flatten(-2)
        if self.layout == "concat":
            parts = list(out.split([n * width, n_kv * width, n_kv * width], dim=-1))
            parts["qkv".index(self.role)] = new.flatten(-2)
            return torch.cat(parts, -1)
        groups = list(out.unflatten(-1, (n_kv, n // n_kv + 2, width)).split([n // n_kv, 1, 1], dim=-2))
        groups["qkv".index(self.role)] = new.unflatten(-2, (n_kv, -1))
        return torch.cat(groups, -2).flatten(-3)


@dataclass(frozen=True)
class Anatomy:
    """Parts as module paths inside a block; an empty path is the block's own stream (no norm in between).

    ``final_norm`` runs ``final_calls`` times in a pass, the last of them after the last block; where ``reads_stream``
    is False it reads a mixture of what blocks hand on, and is the norm of no state. ``d_model`` is the head's width,
    ``width`` that of what blocks hand on.
    """

    core: nn.Module
    blocks: nn.ModuleList
    final_norm: nn.Module | None
    d_model: int
    attn: str | None = None
    mlp: str | None = None
    attn_out: str | None = None
    mlp_out: str | None = None
    attn_norm: str | None = None
    mlp_norm: str | None = None
    mid_reader: str | None = None
    parallel: bool = False
    z: str | None = None
    heads: Heads | None = None
    mlp_hidden: str | None = None
    slots: dict[str, Slot] = field(default_factory=dict[str, Slot])
    final_calls: int = 1
    reads_stream: bool = True
    streams: Streams = Streams()
    width: int = 0
    kinds: tuple["Anatomy", ...] = ()
    kind_of: tuple[int, ...] = ()

    def at(self, block: int | None) -> "Anatomy":
        """The parts of one block; they lie elsewhere in another where blocks are of several kinds."""
        return self.kinds[self.kind_of[block]] if self.kinds and block is not None else self

    def parts(self, attention: str) -> frozenset[Part]:
        """The parts that were found; attention patterns exist only where eager attention computes them."""
        present: dict[Part, bool] = {
            "attn_in": self.attn is not None, "mlp_in": self.mlp is not None, "resid_mid": self.mid_reader is not None,
            "attn_out": self.attn_out is not None, "mlp_out": self.mlp_out is not None,
            "q": "q" in self.slots, "k": "k" in self.slots, "v": "v" in self.slots, "z": self.z is not None,
            "mlp_hidden": self.mlp_hidden is not None, "pattern": self.z is not None and attention == "eager",
        }  # fmt: skip
        always: tuple[Part, ...] = ("embed", "resid_in", "resid_out", "final_in", "logits")
        return frozenset([*always, *(part for part, is_present in present.items() if is_present)])


def _once(calls: list[Call]) -> list[Call]:
    """Calls of modules that ran once: one that runs twice cannot be hooked as one place."""
    paths = [c.path for c in calls]
    return [c for c in calls if paths.count(c.path) == 1]


def _matrices(module: nn.Module) -> bool:
    return any(p.ndim >= 2 for p in module.parameters())


class Addends(NamedTuple):
    """The calls whose outputs a block adds to its residual stream."""

    attn_out: Call
    mlp_out: Call


def _addends(children: list[Call], block: Call, first: int) -> Addends | None:
    """The two children whose outputs, added to the block's input, give its output; the latest pair among equals."""
    best, pair = 2e-2 if block.out.element_size() < 4 else 1e-4, None
    for i in range(first, len(children)):
        for j in range(i + 1, len(children)):
            a, m = children[i].out, children[j].out
            if a.shape != block.out.shape or m.shape != block.out.shape:
                continue
            error = gap(block.inp + a + m, block.out)
            if error <= best + 1e-9:
                best, pair = min(best, error), Addends(children[i], children[j])
    return pair


def _norm_path(children: list[Call], reader: Call, stream: Tensor) -> str | None:
    """The child that turns ``stream`` into what ``reader`` reads; empty when it reads the stream itself."""
    if close(reader.inp, stream):
        return ""
    norms = [c for c in children if close(c.out, reader.inp) and close(c.inp, stream)]
    return next((c.path for c in norms if c.live_out is reader.live_inp), norms[0].path if norms else None)


def _projection(calls: list[Call], parent: Call) -> Call | None:
    """The last matrix inside ``parent`` whose output is the parent's output."""
    inside = [c for c in calls if c.path.startswith(parent.path + ".") and hasattr(c.module, "weight")]
    return next((c for c in reversed(inside) if _matrices(c.module) and close(c.out, parent.out)), None)


def _does_what_it_says(slots: dict[str, Slot], z_of: Callable[[Slot, Change], Tensor], z: Tensor, causal: bool) -> bool:
    """v scales z; q at one position moves z there only; k at that position moves z elsewhere too, but in a causal model
    not before it."""
    at = min(2, z.shape[1] - 1)

    def nudged(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, at] = x[:, at] * -1.5 + 0.5
        return x

    if not close(z_of(slots["v"], lambda x: 2 * x), 2 * z):
        return False
    moved = {role: (z_of(slots[role], nudged) - z).abs().amax((0, 2)) / z.abs().max() > 1e-6 for role in "qk"}
    q, k = moved["q"], moved["k"]
    local = bool(q[at]) and not bool(q[:at].any() | q[at + 1 :].any())
    if causal:
        return local and bool(k[at + 1 :].any()) and not bool(k[:at].any())
    return local and bool(k[:at].any() | k[at + 1 :].any())


def _slots(
    calls: list[Call], attn: Call, z: Call, heads: Heads, rerun: Callable[..., list[Call]], causal: bool
) -> dict[str, Slot]:
    """q, k and v as separate projections or one fused, told apart by function; empty when nothing checks out."""

    def z_of(slot: Slot, change: Change) -> Tensor:
        again = rerun({slot.module: lambda out: slot.put(out, change(slot.view(out)))})
        return next(c.inp for c in again if c.path == z.path)

    n, n_kv, width = heads
    readers = [
        c for c in calls if c.path.startswith(attn.path + ".") and hasattr(c.module, "weight")
        and _matrices(c.module) and close(c.inp, attn.inp)
    ]  # fmt: skip
    fused = [c for c in readers if c.out.shape[-1] == (n + 2 * n_kv) * width]
    options: list[dict[str, Slot]] = []
    for c in fused:
        layouts: tuple[Layout, ...] = ("concat", "grouped")
        options += [{role: Slot(c.path, layout, role, heads) for role in ("q", "k", "v")} for layout in layouts]
    for q, k, v in permutations(readers, 3):
        if (q.out.shape[-1], k.out.shape[-1], v.out.shape[-1]) == (n * width, n_kv * width, n_kv * width):
            by_role = {"q": q, "k": k, "v": v}
            options.append({role: Slot(by_role[role].path, "whole", role, heads) for role in ("q", "k", "v")})
    return next((o for o in options if _does_what_it_says(o, z_of, z.inp, causal)), {})


def _heads(config: object, width: int) -> Heads | None:
    n = getattr(config, "num_attention_heads", None)
    if not isinstance(n, int) or width % n:
        return None
    n_kv = getattr(config, "num_key_value_heads", None)
    return Heads(n, n_kv if isinstance(n_kv, int) and n % n_kv == 0 else n, width // n)


def dissect(model: nn.Module, subject: Subject, config: object) -> Anatomy:
    """Find the parts. AuditError (code 2) where no list of blocks runs like blocks, or where they lead to no state."""
    blocks = blocks_of(model, subject)
    end = end_of(subject, blocks)
    first = trace(subject, blocks[0], {})
    entering, streams = first[-1].inp, subject.streams(first[-1].out) or Streams()
    anatomy = Anatomy(
        subject.core, blocks, end.module, end.width, final_calls=end.calls, reads_stream=end.reads_stream,
        streams=streams, width=streams.n * first[-1].out.shape[-1],
    )  # fmt: skip
    if streams.n > 1 or first[-1].out.shape[-1] != end.width:
        return anatomy
    kind_of, places = kinds_of(blocks)
    kinds = [
        replace(anatomy, **_parts_of(_Opened(subject, blocks[n], entering if n else None), _of_layer(config, n)))
        for n in places
    ]
    return kinds[0] if len(kinds) == 1 else _common(kinds, kind_of)


def _common(kinds: list[Anatomy], kind_of: tuple[int, ...]) -> Anatomy:
    """The parts that blocks of every kind have; their paths are those of the first kind."""
    first, lacking = kinds[0], dict[str, object]()
    for name in ("attn", "mlp", "attn_out", "mlp_out", "attn_norm", "mlp_norm", "mid_reader", "mlp_hidden"):
        if any(getattr(kind, name) is None for kind in kinds):
            lacking[name] = None
    if len({kind.heads for kind in kinds}) > 1 or any(kind.z is None for kind in kinds):
        lacking |= {"z": None, "heads": None, "slots": {}}
    slots = {role: slot for role, slot in first.slots.items() if all(role in kind.slots for kind in kinds)}
    parallel = all(kind.parallel for kind in kinds)
    shared: dict[str, object] = {"slots": slots, "parallel": parallel, **lacking}
    return replace(first, kinds=tuple(kinds), kind_of=kind_of, **shared)  # type: ignore[arg-type]


def _of_layer(config: object, block: int) -> object:
    """The config of one block, where blocks have configs of their own."""
    layers = getattr(config, "per_layer_config", None)
    if layers is None or block >= getattr(config, "num_hidden_layers", 0):
        return config
    return layers[block]


class _Opened(NamedTuple):
    """One block that is looked into, and what is given to it instead of what the block before it gives."""

    subject: Subject
    block: nn.Module
    given: Tensor | None

    def calls(self, edits: dict[str, Change]) -> list[Call]:
        """The calls inside the block, with some outputs changed."""
        return trace(self.subject, self.block, edits, self.given)

    def attends(self, path: str) -> bool:
        """Does a softmax over positions run inside one of its modules?"""
        module, view = self.block.get_submodule(path), _AttentionView()

        def enter(*_: object) -> None:
            view.inside = True

        def leave(*_: object) -> None:
            view.inside = False

        with ExitStack() as stack:
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
            stack.enter_context(view)
            self.calls({})
        return view.seen


class _AttentionView(TorchFunctionMode):
    """Notices a softmax over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = self.seen = False

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (), kwargs: object = None
    ) -> object:
        out = func(*args, **(kwargs if isinstance(kwargs, dict) else {}))
        if self.inside and func in _SOFTMAX and isinstance(out, Tensor) and out.ndim >= 3:
            self.seen = True
        return out


def _parts_of(opened: _Opened, config: object) -> dict[str, Any]:
    """The parts of one block, as the fields of an :class:`Anatomy`."""
    subject = opened.subject
    calls, at = opened.calls({}), subject.untouched
    block_call = calls[-1]
    children = _once([c for c in calls if c.path and "." not in c.path])
    mixing = [i for i, c in enumerate(children) if c.out.ndim >= 3 and not close(c.out[0, at], c.out[1, at])]
    if not mixing:
        return {}
    attn = children[mixing[0]]
    addends = _addends(children, block_call, mixing[0])
    fields: dict[str, Any] = {"attn": attn.path, "attn_norm": _norm_path(children, attn, block_call.inp)}
    if addends:
        fields |= _second_half(calls, children, block_call, attn, addends)
    z = _projection(calls, attn)
    heads = _heads(config, z.inp.shape[-1]) if z and z.inp.ndim == 3 else None
    if z and heads and (_own_kernel(config) or opened.attends(attn.path)):
        fields |= {"z": z.path, "heads": heads, "slots": _slots(calls, attn, z, heads, opened.calls, subject.causal)}
    return fields


def _own_kernel(config: object) -> bool:
    """Is attention computed by a kernel that no view of torch's functions sees?"""
    return getattr(config, "_attn_implementation", None) not in (None, "eager", "sdpa")


def _second_half(
    calls: list[Call], children: list[Call], block_call: Call, attn: Call, addends: Addends
) -> dict[str, object]:
    """What follows attention in a block whose residual identity holds."""
    mid = block_call.inp + addends.attn_out.out
    fields: dict[str, object] = {"attn_out": addends.attn_out.path, "mlp_out": addends.mlp_out.path}
    reader = next((c for c in children if c.path != attn.path and close(c.inp, mid)), None)
    fields |= {"parallel": reader is None, "mid_reader": reader.path if reader else None}
    stop = [c.path for c in children].index(addends.mlp_out.path) + 1
    mlp = next((c for c in reversed(children[:stop]) if c.path != attn.path and _matrices(c.module)), None)
    if mlp is not None and mlp.inp.shape[-1] == block_call.out.shape[-1]:
        norm = _norm_path(children, mlp, block_call.inp if reader is None else mid)
        down = _projection(calls, mlp)
        fields |= {"mlp": mlp.path, "mlp_norm": norm, "mlp_hidden": down.path if down else None}
    return fields
