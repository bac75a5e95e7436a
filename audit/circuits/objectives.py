"""What the edges are scored for: one number a row, in loss form (larger is worse)."""

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench import Forward
from audit.case import row_mean


def _row_mean(values: Float[Tensor, " token"], forward: Forward, chosen: Tensor) -> Float[Tensor, " row"]:
    """Mean over each row's chosen tokens; a row without any has nothing to lose."""
    return row_mean(values[chosen], forward.row[chosen], int(forward.row.max()) + 1, empty=0.0)


def key_loss(forward: Forward) -> Float[Tensor, " row"]:
    """Mean negative log-likelihood of the content tokens, in nats."""
    return _row_mean(-forward.logprob, forward, forward.key)


def answer_loss(forward: Forward) -> Float[Tensor, " row"]:
    """Mean negative log-likelihood of the whole answer, in nats."""
    return _row_mean(-forward.logprob, forward, torch.ones_like(forward.key))


def key_margin(forward: Forward) -> Float[Tensor, " row"]:
    """Mean over the content tokens of the best other logit less the token's own: negative where the fact wins."""
    others = forward.logits.scatter(-1, forward.target[:, None], -torch.inf).amax(-1)
    own = forward.logits.gather(-1, forward.target[:, None])[:, 0]
    return _row_mean(others - own, forward, forward.key)


def published(forward: Forward) -> Float[Tensor, " row"]:
    """Minus the answer's probability exp(-mean loss): what CUD's public code differentiates.

    That code passes probabilities to a KL divergence that expects their logarithms, which leaves exp(p0) (p0 - p) with
    p0 the clean run's own p. Its gradient is this one's times exp(p0), a constant of the row.
    """
    return -torch.exp(-answer_loss(forward))
