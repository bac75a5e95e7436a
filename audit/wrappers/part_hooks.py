"""Taps at the parts of one tower's blocks, by its anatomy: which hook shows which part, and how a pass ends in one."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from types import MappingProxyType

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.schema import AuditError, Part
from audit.wrappers.anatomy import Anatomy
from audit.wrappers.hooks import (
    SoftmaxView,
    Visit,
    end_pass,
    last_of,
    merged_visits,
    shown_after,
    shown_before,
    shown_first,
    written_into,
)
from audit.wrappers.interface import Tap
from audit.wrappers.mixtures import HiddenUnits


class PartHooks:
    """The parts of one list of blocks behind torch hooks."""

    model: PreTrainedModel
    anatomy: Anatomy
    hidden: Mapping[int, HiddenUnits] = MappingProxyType({})
    """The hidden units of blocks whose MLPs are mixtures, and of the others beside them."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks in the order in which they run."""
        return self.anatomy.blocks

    @property
    @abstractmethod
    def parts(self) -> Set[Part]:
        """The parts that can be hooked."""

    @abstractmethod
    def head(self, states: Tensor) -> Tensor:
        """Logits of what the head reads."""

    def _shown(self, visit: Visit) -> Visit:
        """A visit of [row pos d] states as a visit of what the blocks hand on."""
        streams = self.anatomy.streams
        if streams.n == 1:
            return visit

        def seen(state: Tensor) -> Tensor | None:
            new = visit(streams.shown(state))
            return None if new is None else streams.handed(new)

        return seen

    @property
    def _last(self) -> nn.Module:
        """The module whose output the head reads."""
        return self.anatomy.final_norm or self.blocks[-1]

    def _put(self, number: int, block: nn.Module) -> None:
        """Put a module into a block's place in the model."""
        self.anatomy.blocks[number] = block

    def _install(self, stack: ExitStack, taps: Sequence[Tap], resumed: int, stop: int | None) -> None:
        sites: dict[tuple[str, int | None], list[Visit]] = {}
        for site, visit in taps:
            sites.setdefault((site.part, site.block), []).append(visit)
        if stop is not None:
            sites.setdefault(("resid_out", stop), []).append(end_pass)
        softmax: SoftmaxView | None = None
        for (part, block), visits in sites.items():
            given = part == "resid_out" and block == resumed
            if block is not None and not (resumed < block < len(self.blocks) or given):
                raise AuditError(
                    f"{block}.{part} is not computed in this pass ({len(self.blocks)} blocks, started after {resumed})",
                    "name a block above the start and below the number of blocks",
                )
            visit = merged_visits(visits)
            if part == "resid_out":
                shown_first(stack, self._block(block), self._shown(visit))
                continue
            if part == "pattern":
                self._need(part)
                if softmax is None:
                    softmax = stack.enter_context(SoftmaxView())
                self._watch(stack, softmax, block, visit)
                continue
            if part == "mlp_hidden" and block is not None and block in self.hidden:
                self.hidden[block].show(stack, visit)
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
        a = self.anatomy.at(block)
        if part in ("final_in", "logits"):
            seen = visit if part == "final_in" else self._logits_for(visit)
            seen = self._shown(seen) if a.final_norm is None else last_of(a.final_calls, seen)
            return self._last.register_forward_hook(shown_after(seen), prepend=part == "final_in")
        module = self.blocks[0] if part == "embed" else self._block(block)
        if part in ("embed", "resid_in"):
            return module.register_forward_pre_hook(shown_before(self._shown(visit)), with_kwargs=True)
        if part == "resid_mid":
            reader = module.get_submodule(a.mid_reader or "")
            return reader.register_forward_pre_hook(shown_before(written_into(visit)), with_kwargs=True)
        if part in ("attn_in", "mlp_in"):
            reader = module.get_submodule((a.attn if part == "attn_in" else a.mlp) or "")
            return reader.register_forward_pre_hook(shown_before(visit), with_kwargs=True)
        if part in ("attn_out", "mlp_out"):
            writer = module.get_submodule((a.attn_out if part == "attn_out" else a.mlp_out) or "")
            return writer.register_forward_hook(shown_after(visit), prepend=True)
        if part == "mlp_hidden":
            return module.get_submodule(a.mlp_hidden or "").register_forward_pre_hook(
                shown_before(visit), with_kwargs=True
            )
        if part == "z":
            return module.get_submodule(a.z or "").register_forward_pre_hook(
                shown_before(self._by_head(a, visit)), with_kwargs=True
            )
        slot = a.slots[part]

        def projected(out: Tensor) -> Tensor | None:
            new = visit(slot.view(out))
            return None if new is None else slot.put(out, new)

        return module.get_submodule(slot.module).register_forward_hook(shown_after(projected), prepend=True)

    def _logits_for(self, visit: Visit) -> Visit:
        """Logits feed nothing, so a state put in their place would be lost: that is an AuditError."""

        def seen(state: Tensor) -> None:
            if visit(self.head(state)) is not None:
                raise AuditError("logits are read, never written inside a pass", "add a LogitBias to the run instead")

        return seen

    def _by_head(self, parts: Anatomy, visit: Visit) -> Visit:
        heads = parts.heads
        assert heads is not None

        def seen(z: Tensor) -> Tensor | None:
            new = visit(z.unflatten(-1, (heads.n, heads.width)))
            return None if new is None else new.flatten(-2)

        return seen

    def _watch(self, stack: ExitStack, softmax: SoftmaxView, block: int | None, visit: Visit) -> None:
        """Open the softmax to ``visit`` while this block's attention runs."""
        attention = self._block(block).get_submodule(self.anatomy.at(block).attn or "")

        def enter(*_: object) -> None:
            softmax.visit = visit

        def leave(*_: object) -> None:
            softmax.visit = None

        stack.callback(attention.register_forward_pre_hook(enter).remove)
        stack.callback(attention.register_forward_hook(leave).remove)
