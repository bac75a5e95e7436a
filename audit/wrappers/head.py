"""Logits of final states, through a model's own forward.

Families scale, cap or bias their logits in code of their own. Instead of repeating that code, the model's forward runs
with its blocks replaced by the states that are given, so that whatever it does after the blocks is done.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from audit.nouns import AuditError, Site
from audit.wrappers.backend import Tap

Visit = Callable[[Tensor], Tensor | None]


@contextmanager
def _blocks_give(model: PreTrainedModel, states: Float[Tensor, "row pos d"]) -> Generator[None]:
    """Inside, the blocks of ``model`` do not run and give ``states``. A library may have put a forward there before."""
    blocks: Any = model.base_model
    before = vars(blocks).get("forward")
    blocks.forward = lambda *_args, **_settings: BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states)
    try:
        yield
    finally:
        if before is None:
            del blocks.forward
        else:
            blocks.forward = before


def logits_of(model: PreTrainedModel, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
    """What does the model predict from these final (normed) states? Exactly as it computes it itself."""
    flat = states.reshape(1, -1, states.shape[-1])
    with _blocks_give(model, flat):
        out: Any = model(inputs_embeds=flat, use_cache=False)
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
