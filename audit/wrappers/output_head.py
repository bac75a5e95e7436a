"""Logits of final states, through a model's own forward.

Families scale, cap or bias their logits in code of their own. Instead of repeating that code, the model's forward runs
with its blocks replaced by the states that are given, so that whatever it does after the blocks is done.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions, BaseModelOutputWithPooling

from audit.schema import AuditError, Site, as_audit_error
from audit.wrappers.interface import Tap
from audit.wrappers.text_core import core_name, core_of

_OTHER_MODEL = "audit a decoder whose logits follow from the states of its last block alone"
_OTHER_CLASSIFIER = "audit a classifier whose logits follow from one state of its last block"
Visit = Callable[[Tensor], Tensor | None]


@dataclass
class _States(BaseModelOutputWithPastAndCrossAttentions):
    """Final states and nothing else: whatever a family hands on beside them (router logits, caches) is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


@dataclass
class _Summaries(BaseModelOutputWithPooling):
    """What a classifier's head reads of every image, as a sequence of one position and as a map of one place."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("_"):
            raise AttributeError(name)


class _GivenSummaries(nn.Module):
    """Stands in for the blocks of a classifier: gives the same states whatever it is asked."""

    def __init__(self, states: Float[Tensor, "row d"]) -> None:
        super().__init__()
        self.states = states

    def forward(self, *_args: object, **_settings: object) -> _Summaries:
        states: Any = self.states
        return _Summaries(last_hidden_state=states[:, None], pooler_output=states[:, :, None, None])


class _Given(nn.Module):
    """Stands in for the blocks: gives the same states whatever it is asked."""

    def __init__(self, states: Float[Tensor, "row pos d"], real: nn.Module) -> None:
        super().__init__()
        self.states = states
        self.__dict__["_real"] = real  # no submodule: what it is asked for is no part of this one

    def forward(self, *_args: object, **_settings: object) -> _States:
        return _States(last_hidden_state=cast(Any, self.states))

    def __getattr__(self, name: str) -> Any:
        """Some families (OPT) call a decoder inside the base model: whoever holds blocks gives the same; a scale or an
        embedding that a head reads of its base model is that of the base model."""
        known = name in self.__dict__.get("_modules", {}) or name in self.__dict__.get("_buffers", {})
        if known or name.startswith("_"):
            return super().__getattr__(name)
        real = getattr(self.__dict__["_real"], name)
        holds = isinstance(real, nn.Module) and any(isinstance(inner, nn.ModuleList) for inner in real.modules())
        return self if holds else real


def logits_of(model: PreTrainedModel, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
    """What does the model predict from these final (normed) states? Exactly as it computes it itself.

    The blocks are swapped as a module, so that hooks on them stay silent: this is asked in the middle of passes too.
    AuditError (code 2) for a model whose head does not run without its blocks.
    """
    flat, name, blocks = states.reshape(1, -1, states.shape[-1]), core_name(model), core_of(model)
    if not name:
        raise AuditError(f"{type(model).__name__} has no base model below its head", _OTHER_MODEL)
    try:
        setattr(model, name, _Given(flat, blocks))
        with as_audit_error(f"the head of {type(model).__name__} does not run on states alone", _OTHER_MODEL):
            out: Any = model(inputs_embeds=flat, use_cache=False)
    finally:
        setattr(model, name, blocks)
    return out.logits.reshape(*states.shape[:-1], -1)


def class_logits_of(model: PreTrainedModel, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch label"]:
    """What does a classifier of images predict from these states that its head reads? Exactly as it computes it itself.

    AuditError (code 2) for a model whose head does not run without its blocks.
    """
    flat, name, blocks = states.reshape(-1, states.shape[-1]), model.base_model_prefix, model.base_model
    try:
        setattr(model, name, _GivenSummaries(flat))
        with as_audit_error(f"the head of {type(model).__name__} does not run on states alone", _OTHER_CLASSIFIER):
            out: Any = model(pixel_values=flat)
    finally:
        setattr(model, name, blocks)
    return out.logits.reshape(*states.shape[:-1], -1)


@contextmanager
def logits_read_after(taps: Sequence[Tap], head: Callable[[Tensor], Tensor]) -> Generator[list[Tap]]:
    """The taps for a pass without LM head: those at ``logits`` are served from ``final_in`` when the pass is over.

    Logits feed nothing, so a state put in their place would be lost: that is an AuditError.
    """
    visits = [tap.visit for tap in taps if tap.site.part == "logits"]
    final: list[Tensor] = []
    others = [tap for tap in taps if tap.site.part != "logits"]
    yield [*others, Tap(Site(part="final_in"), final.append)] if visits else others
    for state in final:
        logits = head(state)
        if any([visit(logits) is not None for visit in visits]):
            raise AuditError("logits are read, never written inside a pass", "add a LogitBias to the run instead")


def written_in_place(visit: Visit) -> Visit:
    """The middle of a block is read by a norm and by the sum: a state put there must reach both, so it is copied in."""

    def visited(state: Tensor) -> None:
        new = visit(state.clone() if torch.is_grad_enabled() else state)
        if new is not None:
            state.copy_(new)

    return visited
