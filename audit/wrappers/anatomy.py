"""Where are a transformer's parts? Found by structure and by tracing one tiny forward, never by a list of names.

The block list is the longest homogeneous ModuleList. In one block, attention is the first child that mixes positions,
the two addends of the residual stream are the children whose outputs satisfy
``resid_out == resid_in + attn_out + mlp_out``, and q, k and v are told apart by what they do to z: scaling v scales z,
moving q at one position moves z there only. What does not check out is simply not a part. Blocks of an image are read
alike, save that their attention sees every position.
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import permutations
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from audit.schema import AuditError, ExitCode, Part, as_audit_error

Layout = Literal["whole", "concat", "grouped"]
Change = Callable[[Tensor], Tensor]


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
    """Parts as module paths inside a block; an empty path is the block's own stream (no norm in between)."""

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


class Subject(NamedTuple):
    """The model below its head, run on two tiny rows: of a causal model they differ in their first position, else in
    their last one alone."""

    core: nn.Module
    run: Callable[[], object]
    causal: bool = True

    @property
    def untouched(self) -> int:
        """A position that is the same in both rows until attention mixes positions."""
        return 1 if self.causal else 0


class Call(NamedTuple):
    """One module call: its path, its state in and out as values, and the live tensors (some families add in place)."""

    path: str
    module: nn.Module
    inp: Tensor
    out: Tensor
    live_inp: Tensor
    live_out: Tensor


def state_in(args: tuple[object, ...], kwargs: dict[str, object]) -> Tensor | None:
    """The hidden state among a module's arguments."""
    if args and isinstance(args[0], Tensor):
        return args[0]
    hidden = kwargs.get("hidden_states")
    if isinstance(hidden, Tensor):
        return hidden
    return next((v for v in kwargs.values() if isinstance(v, Tensor) and v.is_floating_point() and v.ndim == 3), None)


def state_out(output: object) -> Tensor | None:
    """The hidden state in a module's output: blocks return tensors or tuples, by release and family."""
    if isinstance(output, tuple) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def block_list(model: nn.Module, others: tuple[str, ...] = ("experts", "vision", "visual", "audio")) -> nn.ModuleList:
    """The longest homogeneous ModuleList outside experts and towers of other inputs. Raises AuditError when there is
    none."""
    longest: nn.ModuleList | None = None
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) == 0 or len({type(m) for m in module}) != 1:
            continue
        if any(word in name for word in others):
            continue
        if longest is None or len(module) > len(longest):
            longest = module
    if longest is None:
        raise AuditError(
            f"no list of blocks was found in {type(model).__name__}",
            "audit a decoder whose layers are a ModuleList",
            ExitCode.INTEGRITY,
        )
    return longest


def close(a: Tensor, b: Tensor) -> bool:
    """Equal within the rounding of their dtype, relative to their scale."""
    return a.shape == b.shape and gap(a, b) <= (2e-2 if a.element_size() < 4 else 1e-4)


def gap(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest entry."""
    scale = max(float(a.abs().max()), float(b.abs().max()), 1e-12)
    return float((a.float() - b.float()).abs().max()) / scale


class _Halt(BaseException):
    """Ends a traced forward once its block is done."""


def _trace(subject: Subject, block: nn.Module, edits: dict[str, Change]) -> list[Call]:
    """Calls inside ``block`` in order of return; ``edits`` change the output of the named modules on the way."""
    calls: list[Call] = []

    def seen(path: str) -> Callable[..., object]:
        def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> object:
            inp, out = state_in(args, kwargs), state_out(output)
            if inp is None or out is None:
                return None
            new = edits[path](out) if path in edits else out
            calls.append(Call(path, module, inp.clone(), new.clone(), inp, new))
            if path == "":
                raise _Halt
            return new if path in edits else None

        return hook

    with ExitStack() as stack:
        for path, module in block.named_modules():
            handle = module.register_forward_hook(seen(path), with_kwargs=True)
            stack.callback(handle.remove)
        with suppress(_Halt):
            subject.run()
    return calls


def on_embeddings(core: nn.Module, embeds: Float[Tensor, "row pos d"]) -> Subject:
    """A language model run on the input embeddings of :func:`tiny_ids`. Running it raises AuditError (code 2) for a
    model that does not run on embeddings alone."""

    def run() -> object:
        name, do = type(core).__name__, "audit a decoder that runs on embeddings alone; it has no place for hooks"
        with as_audit_error(f"{name} does not run on input embeddings", do):
            return core(inputs_embeds=embeds, use_cache=False)

    return Subject(core, run)


def on_pixels(core: nn.Module, pixels: Float[Tensor, "row channel height width"]) -> Subject:
    """A classifier run on two images that differ in their last patch alone. Running it raises AuditError (code 2) for a
    model that does not run on pixels alone."""

    def run() -> object:
        name, do = type(core).__name__, "audit a classifier that runs on pixel values alone"
        with as_audit_error(f"{name} does not run on pixel values", do):
            return core(pixel_values=pixels)

    return Subject(core, run, causal=False)


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


def tiny_ids(vocab: int) -> Int[Tensor, "row pos"]:
    """Two rows that differ in their first token only."""
    row = torch.arange(7) % max(vocab - 1, 1)
    return torch.stack([row, torch.cat([row[:1] + 1, row[1:]])])


def dissect(model: nn.Module, subject: Subject, config: object) -> Anatomy:
    """Find the parts. Raises AuditError when there are no blocks."""
    blocks = block_list(model) if subject.causal else block_list(model, ("experts",))
    block = blocks[0]

    def rerun(edits: dict[str, Change]) -> list[Call]:
        return _trace(subject, block, edits)

    calls = rerun({})
    block_call = calls[-1]
    core, at = subject.core, subject.untouched
    parts = Anatomy(core, blocks, _final_norm(subject, blocks), block_call.out.shape[-1])
    children = _once([c for c in calls if c.path and "." not in c.path])
    mixing = [i for i, c in enumerate(children) if not close(c.out[0, at], c.out[1, at])]
    if not mixing:
        return parts
    attn = children[mixing[0]]
    addends = _addends(children, block_call, mixing[0])
    fields: dict[str, object] = {"attn": attn.path, "attn_norm": _norm_path(children, attn, block_call.inp)}
    if addends:
        fields |= _second_half(calls, children, block_call, attn, addends)
        hidden = fields.get("mlp_hidden")
        if any(hidden not in dict(other.named_modules()) for other in blocks):
            fields["mlp_hidden"] = None  # MLPs of several kinds: what is true of the first block is not of the others
    z = _projection(calls, attn)
    heads = _heads(config, z.inp.shape[-1]) if z else None
    if z and heads:
        fields |= {"z": z.path, "heads": heads, "slots": _slots(calls, attn, z, heads, rerun, subject.causal)}
    return Anatomy(core, blocks, parts.final_norm, parts.d_model, **fields)  # type: ignore[arg-type]


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


def _final_norm(subject: Subject, blocks: nn.ModuleList) -> nn.Module | None:
    """The module after the last block whose output is the base model's output; None when there is no norm."""
    core = subject.core
    inside = {id(m) for m in blocks.modules()}
    after: list[Call] = []

    def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
        inp, out = state_in(args, kwargs), state_out(output)
        if inp is not None and out is not None:
            after.append(Call("", module, inp, out, inp, out))

    with ExitStack() as stack:
        for module in core.modules():
            if module is not core and id(module) not in inside:
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        last = blocks[-1].register_forward_hook(hook, with_kwargs=True)
        stack.callback(last.remove)
        last_hidden: Tensor | None = getattr(subject.run(), "last_hidden_state", None)
    order = [c.module for c in after]
    if last_hidden is None or blocks[-1] not in order:
        raise AuditError(
            f"the blocks of {type(core).__name__} do not hand on one state to one another and to the head",
            "audit a decoder that transformers builds as base model and head",
            ExitCode.INTEGRITY,
        )
    tail = after[order.index(blocks[-1]) :]
    return next((c.module for c in tail[1:] if close(c.inp, tail[0].out) and close(c.out, last_hidden)), None)
