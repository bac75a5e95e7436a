"""The native backend: plain torch hooks on the transformers model. The default, the fastest, the reference.

Hooks are registered with ``prepend`` so that an edit is seen by whatever else listens; nothing is read from
``hidden_states``, whose last entry is after the final norm. A block's output is taken by wrapping the block's
``forward`` for the length of the pass, which is where a prepended hook would stand: twelve registered hooks cost 7 % of
a small model's forward, twelve wrapped ones under 2 %. Blocks run without an attention mask: real positions of
right-padded rows never see padding under a causal mask (checked at load), and the mask costs time and memory.
"""

import re
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from audit.schema import AbsentPartError, Op
from audit.wrappers.anatomy import dissect
from audit.wrappers.head_rows import HeadRows
from audit.wrappers.hooked import HookedWrapper
from audit.wrappers.hooks import shown_first
from audit.wrappers.interface import Batch, text_tower
from audit.wrappers.key_values import reads_key_values
from audit.wrappers.mixtures import HiddenUnits, hidden_units
from audit.wrappers.output_head import logits_of
from audit.wrappers.placement import home_of, is_sharded, is_spread
from audit.wrappers.resuming import starts_within
from audit.wrappers.text_core import core_of
from audit.wrappers.tracing import Subject, on_embeddings, on_ids, reads_ids, tiny_ids

_PLACES = re.compile(r"(image|audio|video|vision)_\w*token_(id|index)$")


class NativeWrapper(HookedWrapper):
    """One transformers causal language model behind torch hooks."""

    supports = frozenset(Op)
    by_ids = False
    """Whether it reads more of its tokens than their embeddings, so that a pass starts from tokens."""
    starts_whole = False
    """Whether a pass that starts from a state runs the blocks below it all the same: one above reads what they keep."""

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        self.model = model.eval()
        self.name, self.attention = type(model).__name__, attention
        weight: Tensor = model.get_input_embeddings().get_parameter("weight")
        self.device, self.dtype, self.vocab_size = home_of(model), weight.dtype, weight.shape[0]
        self.core = core_of(model)
        with torch.inference_mode():
            ids = tiny_ids(self.vocab_size).to(self.device)
            embeds = self.embed(ids)
            self.by_ids = reads_ids(self.core, ids, embeds)
            subject = on_ids(self.core, ids) if self.by_ids else on_embeddings(self.core, embeds)
            self.unseen = "each rank computes a share of the heads and hidden units" if is_sharded(model) else ""
            config = None if self.unseen else model.config.get_text_config()
            dissected = dissect(model, subject, config)
            self.anatomy = replace(dissected, mlp_hidden=None) if config is None else dissected
            self.hidden = {} if is_spread(model) else self._hidden_units(subject)
        parts = set(self.anatomy.parts(getattr(model.config, "_attn_implementation", attention)))
        parts |= {"mlp_hidden"} if self.hidden else set()
        self.towers = text_tower(self.anatomy.d_model, len(self.blocks), parts, self.anatomy.width)
        self.supports = self.supports - {
            *(() if "pattern" in self.parts else (Op.PATTERN,)), *((Op.EMBEDS,) if self.by_ids else ())
        }  # fmt: skip
        with torch.inference_mode():
            self.starts_whole = not starts_within(self, Batch(ids, torch.ones_like(ids, dtype=torch.bool)))

    @cached_property
    def continues(self) -> bool:
        """Whether rows can go on after the keys and values of what stands before, in this model as it lies."""
        return not (self.takes or is_spread(self.model)) and reads_key_values(self.model, self.vocab_size)

    def _start(self, stack: ExitStack, block: int, state: Tensor) -> None:
        if not self.starts_whole:
            return super()._start(stack, block, state)
        return shown_first(stack, self.blocks[block], lambda _: state)

    def trial(self, n: int) -> Batch:
        """A batch of ``n`` made-up texts, without the tokens in whose place an image or a sound stands."""
        batch, config = super().trial(n), self.model.config.to_dict()
        special = [token for name, token in config.items() if _PLACES.search(name) and isinstance(token, int)]
        places = torch.isin(batch.ids, torch.tensor(special, device=batch.ids.device, dtype=batch.ids.dtype))
        return batch._replace(ids=torch.where(places, 0, batch.ids))

    def _hidden_units(self, subject: Subject) -> dict[int, HiddenUnits]:
        """The hidden units of every block, where MLPs are mixtures of experts."""
        paths = [self.anatomy.at(n).mlp for n in range(len(self.blocks))]
        if not all(paths):
            return {}
        mlps = [block.get_submodule(path or "") for block, path in zip(self.blocks, paths, strict=True)]
        return dict(enumerate(hidden_units(mlps, subject.run)))

    def _run(self, batch: Batch, stack: ExitStack) -> None:
        if not self.by_ids:
            embeds = self.embed(batch.ids) if batch.embeds is None else batch.embeds
            self.core(inputs_embeds=embeds, past_key_values=batch.cache, use_cache=batch.cache is not None)
        elif batch.embeds is None:
            self.core(input_ids=batch.ids, use_cache=False)
        else:
            raise AbsentPartError(
                f"{self.name} ({self.model.config.model_type}) reads more of its tokens than their embeddings: it does "
                "not run on embeddings alone",
                "ask what moves no input embedding",
            )

    def embed(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        return self.model.get_input_embeddings()(ids)

    def head(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
        """Logits, by the model's own code after its blocks: its cap and scale come along."""
        return logits_of(self.model, states)

    @cached_property
    def _head_rows(self) -> HeadRows:
        return HeadRows(self.model, self.d_model)

    @property
    def head_width(self) -> int | None:
        return self._head_rows.width

    def head_part(
        self, states: Float[Tensor, "*batch d"], tokens: slice | Int[Tensor, " token"]
    ) -> Float[Tensor, "*batch token"]:
        return self._head_rows.logits(states, tokens)
