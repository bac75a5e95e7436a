"""What a model says of given tokens after states that its head reads: no other token's logits are kept."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.passes import LoadedModel, bias_of
from audit.bench.reads.vocabulary_sweep import given_logprobs, some_logits


def logits(
    opened: LoadedModel, states: Float[Tensor, "state d"], tokens: Int[Tensor, " token"]
) -> Float[Tensor, "state token"]:
    """Logits of these tokens after every state, on the CPU in float32, with what the checkpoint's edits add to them."""
    wrapper = opened.wrapper
    with torch.inference_mode():
        given, bias = states.to(wrapper.device, wrapper.dtype), bias_of(opened.plays, wrapper.device)
        values = some_logits(wrapper, given, tokens, bias).cpu()
    return values.clone()


def logprobs(
    opened: LoadedModel, states: Float[Tensor, "state d"], entry: Int[Tensor, " pair"], token: Int[Tensor, " pair"]
) -> Float[Tensor, " pair"]:
    """Log-probabilities (nats) of ``token`` after state number ``entry``, on the CPU in float32."""
    wrapper = opened.wrapper
    with torch.inference_mode():
        given, bias = states.to(wrapper.device, wrapper.dtype), bias_of(opened.plays, wrapper.device)
        values = given_logprobs(wrapper, given, entry.to(given.device), token.to(given.device), bias).cpu()
    return values.clone()
