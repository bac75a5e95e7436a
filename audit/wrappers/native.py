"""The native backend: plain torch hooks on the transformers model. The default, the fastest, the reference.

Hooks are registered with ``prepend`` so that an edit is seen by whatever else listens; nothing is read from
``hidden_states``, whose last entry is after the final norm. A block's output is taken by wrapping the block's
``forward`` for the length of the pass, which is where a prepended hook would stand: twelve registered hooks cost 7 % of
a small model's forward, twelve wrapped ones under 2 %. Blocks run without an attention mask: real positions of
right-padded rows never see padding under a causal mask (checked at load), and the mask costs time and memory.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from audit.schema import AuditError, Op
from audit.wrappers.anatomy import Anatomy, dissect, state_in, tiny_ids
from audit.wrappers.interface import Batch, Resume, Stop, Tap, Wrapper, text_tower
from audit.wrappers.output_head import logits_of

Visit = Callable[[Tensor], Tensor | None]


class _Stop(Exception):
    """Nothing after this block is wanted."""


class _Given(nn.Module):
    """Stands in for a block that is not run: returns the given state, whatever comes in."""

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.state = state

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        return self.state


class _Softmax(TorchFunctionMode):
    """Sees the attention pattern of the block that is running: the output of its softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.visit: Visit | None = None

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (), kwargs: object = None
    ) -> object:
        out = func(*args, **(kwargs if isinstance(kwargs, dict) else {}))
        if self.visit is not None and func is F.softmax and isinstance(out, Tensor) and out.ndim == 4:
            new = self.visit(out)
            return out if new is None else new.to(out.dtype)
        return out


def _merge(visits: list[Visit]) -> Visit:
    """Several visits as one, each seeing what the one before it left."""
    if len(visits) == 1:
        return visits[0]

    def visit(state: Tensor) -> Tensor | None:
        changed = None
        for visitor in visits:
            new = visitor(state)
            if new is not None:
                state = changed = new
        return changed

    return visit


def _after(visit: Visit) -> Callable[..., object]:
    """A forward hook that shows a module's state to ``visit``."""

    def hook(module: nn.Module, args: object, output: object) -> object:
        if isinstance(output, tuple):
            new = visit(output[0])
            return None if new is None else (new, *output[1:])
        return visit(output)  # type: ignore[arg-type]

    return hook


def _wrap(stack: ExitStack, module: nn.Module, visit: Visit) -> None:
    """Show a module's output to ``visit`` before any of its hooks sees it, until the stack closes."""
    inner, before = module.forward, module.__dict__.get("forward")

    def forward(*args: object, **kwargs: object) -> object:
        output = inner(*args, **kwargs)
        if isinstance(output, tuple):
            new = visit(output[0])
            return output if new is None else (new, *output[1:])
        new = visit(output)
        return output if new is None else new

    def restore() -> None:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before

    module.__dict__["forward"] = forward
    stack.callback(restore)


def _before(visit: Visit) -> Callable[..., object]:
    """A forward pre-hook that shows the state a module reads to ``visit``."""

    def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        state = state_in(args, kwargs)
        assert state is not None, "a traced module reads a state"
        new = visit(state)
        if new is None:
            return None
        if args and args[0] is state:
            return (new, *args[1:]), kwargs
        return args, {name: new if value is state else value for name, value in kwargs.items()}

    return hook


class NativeWrapper(Wrapper):
    """One transformers causal language model behind torch hooks."""

    supports = frozenset(Op)
    backend = "native"

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        self.model = model.eval()
        self.name, self.attention = type(model).__name__, attention
        weight: Tensor = model.get_input_embeddings().get_parameter("weight")
        self.device, self.dtype, self.vocab_size = weight.device, weight.dtype, weight.shape[0]
        self.core: nn.Module = model.base_model
        with torch.inference_mode():
            embeds = self.embed(tiny_ids(self.vocab_size).to(self.device))
            self.anatomy: Anatomy = dissect(model, self.core, embeds, model.config.get_text_config())
        self.blocks = self.anatomy.blocks
        parts = self.anatomy.parts(getattr(model.config, "_attn_implementation", attention))
        self.towers = text_tower(self.anatomy.d_model, len(self.blocks), parts)
        if "pattern" not in self.parts:
            self.supports = self.supports - {Op.PATTERN}

    # ---- the forward ---------------------------------------------------------------------------------------------
    def run_blocks(self, batch: Batch, taps: Sequence[Tap], resume: Resume | None, stop: Stop | None) -> None:
        embeds = self.embed(batch.ids) if batch.embeds is None else batch.embeds
        with ExitStack() as stack:
            if resume is not None:
                stack.enter_context(self._resumed(resume))
            self._install(stack, taps, -1 if resume is None else resume.block, None if stop is None else stop.block)
            with suppress(_Stop):
                self.core(inputs_embeds=embeds, use_cache=False)

    @contextmanager
    def _resumed(self, resume: Resume) -> Generator[None]:
        """Blocks up to and with ``resume.block`` are swapped for the given state and swapped back."""
        own = [self.blocks[i] for i in range(resume.block + 1)]
        given = _Given(resume.state)
        try:
            for i in range(len(own)):
                self.blocks[i] = given
            yield
        finally:
            for i, block in enumerate(own):
                self.blocks[i] = block

    def _install(self, stack: ExitStack, taps: Sequence[Tap], resumed: int, stop: int | None) -> None:
        sites: dict[tuple[str, int | None], list[Visit]] = {}
        for site, visit in taps:
            sites.setdefault((site.part, site.block), []).append(visit)
        if stop is not None:
            sites.setdefault(("resid_out", stop), []).append(_halt)
        softmax: _Softmax | None = None
        for (part, block), visits in sites.items():
            given = part == "resid_out" and block == resumed
            if block is not None and not (resumed < block < self.n_blocks or given):
                raise AuditError(
                    f"{block}.{part} is not computed in this pass ({self.n_blocks} blocks, started after {resumed})",
                    "name a block above the start and below the number of blocks",
                )
            visit = _merge(visits)
            if part == "resid_out":
                _wrap(stack, self._block(block), visit)
                continue
            if part == "pattern":
                self._need(part)
                if softmax is None:
                    softmax = stack.enter_context(_Softmax())
                self._watch(stack, softmax, self._block(block), visit)
                continue
            stack.callback(self._hook(part, block, visit).remove)

    def _block(self, block: int | None) -> nn.Module:
        assert block is not None
        return self.blocks[block]

    def _need(self, part: str) -> None:
        if part not in self.parts:
            reason = (
                "attention patterns need eager attention" if part == "pattern" else "it was not found in this model"
            )
            raise AuditError(
                f"{type(self.model).__name__} has no part {part!r} here: {reason}",
                "open it with attention='eager'" if part == "pattern" else f"choose one of {sorted(self.parts)}",
            )

    def _hook(self, part: str, block: int | None, visit: Visit) -> torch.utils.hooks.RemovableHandle:
        """Register one visit for one part."""
        self._need(part)
        a = self.anatomy
        if part in ("final_in", "logits"):
            seen = visit if part == "final_in" else self._logits_for(visit)
            return (a.final_norm or self.blocks[-1]).register_forward_hook(_after(seen), prepend=part == "final_in")
        module = self.blocks[0] if part == "embed" else self._block(block)
        if part in ("embed", "resid_in"):
            return module.register_forward_pre_hook(_before(visit), with_kwargs=True)
        if part == "resid_mid":
            reader = module.get_submodule(a.mid_reader or "")
            return reader.register_forward_pre_hook(_before(_in_place(visit)), with_kwargs=True)
        if part in ("attn_in", "mlp_in"):
            reader = module.get_submodule((a.attn if part == "attn_in" else a.mlp) or "")
            return reader.register_forward_pre_hook(_before(visit), with_kwargs=True)
        if part in ("attn_out", "mlp_out"):
            writer = module.get_submodule((a.attn_out if part == "attn_out" else a.mlp_out) or "")
            return writer.register_forward_hook(_after(visit), prepend=True)
        if part == "mlp_hidden":
            return module.get_submodule(a.mlp_hidden or "").register_forward_pre_hook(_before(visit), with_kwargs=True)
        if part == "z":
            return module.get_submodule(a.z or "").register_forward_pre_hook(
                _before(self._by_head(visit)), with_kwargs=True
            )
        slot = a.slots[part]

        def projected(out: Tensor) -> Tensor | None:
            new = visit(slot.view(out))
            return None if new is None else slot.put(out, new)

        return module.get_submodule(slot.module).register_forward_hook(_after(projected), prepend=True)

    def _logits_for(self, visit: Visit) -> Visit:
        """Logits feed nothing, so a state put in their place would be lost: that is an AuditError."""

        def seen(state: Tensor) -> None:
            if visit(self.head(state)) is not None:
                raise AuditError("logits are read, never written inside a pass", "add a LogitBias to the run instead")

        return seen

    def _by_head(self, visit: Visit) -> Visit:
        heads = self.anatomy.heads
        assert heads is not None

        def seen(z: Tensor) -> Tensor | None:
            new = visit(z.unflatten(-1, (heads.n, heads.width)))
            return None if new is None else new.flatten(-2)

        return seen

    def _watch(self, stack: ExitStack, softmax: _Softmax, block: nn.Module, visit: Visit) -> None:
        """Open the softmax to ``visit`` while this block's attention runs."""
        attention = block.get_submodule(self.anatomy.attn or "")

        def enter(*_: object) -> None:
            softmax.visit = visit

        def leave(*_: object) -> None:
            softmax.visit = None

        stack.callback(attention.register_forward_pre_hook(enter).remove)
        stack.callback(attention.register_forward_hook(leave).remove)

    # ---- the ends ------------------------------------------------------------------------------------------------
    def embed(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        return self.model.get_input_embeddings()(ids)

    def norm(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        final = self.anatomy.final_norm  # its forward, not the module: taps may be on it while this is asked
        return states if final is None else final.forward(states)

    def reader_norm(self, part: str, block: int, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The norm that ``attn_in`` or ``mlp_in`` reads the residual stream through (edge patching needs it)."""
        path = self.anatomy.attn_norm if part == "attn_in" else self.anatomy.mlp_norm
        if path is None:
            raise AuditError(
                f"the norm before {part!r} was not found in {type(self.model).__name__}",
                "edges need a model whose attention and mlp read one norm of the residual stream",
            )
        return self.blocks[block].get_submodule(path).forward(states) if path else states

    def head(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
        """Logits, by the model's own code after its blocks: its cap and scale come along."""
        return logits_of(self.model, states)

    def parameters(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters(remove_duplicate=False))


def _halt(state: Tensor) -> None:
    raise _Stop


def _in_place(visit: Visit) -> Visit:
    """The middle of a block is read twice, by its norm and by the sum: writing into the tensor reaches both."""

    def seen(mid: Tensor) -> None:
        new = visit(mid.clone() if torch.is_grad_enabled() and mid.requires_grad else mid)
        if new is not None:
            mid.copy_(new)

    return seen
