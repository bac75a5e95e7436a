"""A decoder run in two parts: the keys and values of what stands first, and what follows it, any number of times.

Under a causal mask the first tokens of a row know nothing of the rest: rows that begin alike share what the blocks
compute of their beginning.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from audit.wrappers.text_core import core_of


class KeyValues(NamedTuple):
    """Keys and values of every block for rows of one length."""

    blocks: tuple[tuple[Float[Tensor, "row head pos d"], Float[Tensor, "row head pos d"]], ...]

    def take(self, index: Int[Tensor, " row"]) -> "KeyValues":
        """Those of some rows, which may be asked for more than once."""
        return KeyValues(tuple((keys[index], values[index]) for keys, values in self.blocks))


def first_part(model: PreTrainedModel, ids: Int[Tensor, "row pos"]) -> KeyValues:
    """Run rows of one length, and keep what later tokens look at."""
    past = DynamicCache()
    core_of(model)(inputs_embeds=model.get_input_embeddings()(ids), past_key_values=past, use_cache=True)
    return kept_in(past)


def kept_in(cache: DynamicCache) -> KeyValues:
    """The keys and values that a pass has put into a cache."""
    layers: Any = cache.layers
    return KeyValues(tuple((layer.keys, layer.values) for layer in layers))


def states_after(
    model: PreTrainedModel, past: KeyValues | None, ids: Int[Tensor, "row pos"]
) -> tuple[Float[Tensor, "row pos d"], KeyValues]:
    """The final states (what the head reads) of tokens that stand after ``past``, and the keys and values of both."""
    cache = DynamicCache(None if past is None else past.blocks)
    embeds = model.get_input_embeddings()(ids)
    states: Tensor = core_of(model)(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state
    return states, kept_in(cache)


class Continued:
    """Rows that go on token by token after ``past``: their keys and values stay where the model puts them."""

    def __init__(self, model: PreTrainedModel, past: KeyValues | None) -> None:
        self._model, self._cache = model, DynamicCache(None if past is None else past.blocks)

    def states(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        """The final states (what the head reads) of the rows' next tokens, which later ones then look at."""
        embeds = self._model.get_input_embeddings()(ids)
        core = core_of(self._model)
        states: Tensor = core(inputs_embeds=embeds, past_key_values=self._cache, use_cache=True).last_hidden_state
        return states

    def keep(self, index: Int[Tensor, " row"]) -> None:
        """Only these rows go on."""
        self._cache.batch_select_indices(index)


def reads_key_values(model: PreTrainedModel, vocabulary: int) -> bool:
    """Whether a model says the same in two parts as in one: tried on a few tokens, since families differ in what they
    keep (a state in place of keys, tokens that see one another)."""
    ids = torch.arange(2, 14, device=model.device)[None] % vocabulary
    padding = getattr(model.config.get_text_config(), "pad_token_id", None)
    if isinstance(padding, int):
        ids = torch.where(ids == padding, 1, ids)  # of padding without a mask libraries warn
    try:
        with torch.inference_mode():
            plain: Tensor = core_of(model)(input_ids=ids, use_cache=False).last_hidden_state
            beginning = first_part(model, ids[:, :3]).take(torch.zeros(1, dtype=torch.long, device=ids.device))
            parted, _ = states_after(model, beginning, ids[:, 3:])
    except (TypeError, ValueError, AttributeError, RuntimeError, LookupError, AssertionError):
        return False
    scale = float(plain.float().abs().max())
    return bool((plain[:, 3:].float() - parted.float()).abs().max() <= _SAME[plain.dtype] * scale)


_SAME = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Two orders of summation differ by so much of the largest state."""
