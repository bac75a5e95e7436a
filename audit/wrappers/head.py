"""Logits of final states, through a model's own forward.

Families scale, cap or bias their logits in code of their own. Instead of repeating that code, the model's forward runs
with its blocks replaced by the states that are given, so that whatever it does after the blocks is done.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions


@contextmanager
def _blocks_give(model: PreTrainedModel, states: Float[Tensor, "row pos d"]) -> Iterator[None]:
    """Inside, the blocks of ``model`` do not run and give ``states``."""
    blocks: Any = model.base_model
    assert "forward" not in vars(blocks), "the blocks' forward is already replaced"
    blocks.forward = lambda *_args, **_settings: BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states)
    try:
        yield
    finally:
        del blocks.forward


def logits_of(model: PreTrainedModel, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
    """What does the model predict from these final (normed) states? Exactly as it computes it itself."""
    flat = states.reshape(1, -1, states.shape[-1])
    with _blocks_give(model, flat):
        out: Any = model(inputs_embeds=flat, use_cache=False)
    return out.logits.reshape(*states.shape[:-1], -1)
