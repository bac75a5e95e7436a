"""The native backend: plain torch hooks on the transformers model. The default, the fastest, the reference.

Hooks are registered with ``prepend`` so that an edit is seen by whatever else listens; nothing is read from
``hidden_states``, whose last entry is after the final norm. A block's output is taken by wrapping the block's
``forward`` for the length of the pass, which is where a prepended hook would stand: twelve registered hooks cost 7 % of
a small model's forward, twelve wrapped ones under 2 %. Blocks run without an attention mask: real positions of
right-padded rows never see padding under a causal mask (checked at load), and the mask costs time and memory.
"""

from contextlib import ExitStack
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from audit.schema import Op
from audit.wrappers.anatomy import dissect, on_embeddings, tiny_ids
from audit.wrappers.hooked import HookedWrapper
from audit.wrappers.interface import Batch, text_tower
from audit.wrappers.output_head import logits_of
from audit.wrappers.placement import home_of, is_sharded


class NativeWrapper(HookedWrapper):
    """One transformers causal language model behind torch hooks."""

    supports = frozenset(Op)

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        self.model = model.eval()
        self.name, self.attention = type(model).__name__, attention
        weight: Tensor = model.get_input_embeddings().get_parameter("weight")
        self.device, self.dtype, self.vocab_size = home_of(model), weight.dtype, weight.shape[0]
        self.core = model.base_model
        with torch.inference_mode():
            embeds = self.embed(tiny_ids(self.vocab_size).to(self.device))
            self.unseen = "each rank computes a share of the heads and hidden units" if is_sharded(model) else ""
            config = None if self.unseen else model.config.get_text_config()
            found = dissect(model, on_embeddings(self.core, embeds), config)
            self.anatomy = replace(found, mlp_hidden=None) if config is None else found
        parts = self.anatomy.parts(getattr(model.config, "_attn_implementation", attention))
        self.towers = text_tower(self.anatomy.d_model, len(self.blocks), parts)
        if "pattern" not in self.parts:
            self.supports = self.supports - {Op.PATTERN}

    def _run(self, batch: Batch, stack: ExitStack) -> None:
        embeds = self.embed(batch.ids) if batch.embeds is None else batch.embeds
        self.core(inputs_embeds=embeds, use_cache=False)

    def embed(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        return self.model.get_input_embeddings()(ids)

    def head(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
        """Logits, by the model's own code after its blocks: its cap and scale come along."""
        return logits_of(self.model, states)
