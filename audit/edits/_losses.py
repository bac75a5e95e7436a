"""The losses of unlearning, each a function of scored answers (:class:`~audit.bench.shapes.Forward`) to one scalar.

Only answer tokens ever count; the question is context. Formulas follow the
papers named at each loss; where public code differs from the paper's text, the docstring says which is meant.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from audit.bench.shapes import Forward

Scalar = Float[Tensor, ""]


def sequence_nll(forward: Forward, rows: int) -> Float[Tensor, " row"]:
    """Summed negative log-likelihood of each row's answer, in nats."""
    return torch.zeros(rows, device=forward.logprob.device).index_add(0, forward.row, -forward.logprob)


def n_rows(forward: Forward) -> int:
    """Rows that were scored: answers are never empty, so that the last token belongs to the last row."""
    return int(forward.row[-1]) + 1


def nll(forward: Forward) -> Scalar:
    """Mean negative log-likelihood over the batch's answer tokens, in nats."""
    return -forward.logprob.mean()


def ascent(forward: Forward) -> Scalar:
    """Gradient ascent: the negated :func:`nll`. Unbounded below, so that it destroys a model if it runs on."""
    return forward.logprob.mean()


def unlikelihood(forward: Forward) -> Scalar:
    """Unlikelihood of the content tokens: mean of -log(1 - p). Bounded below by 0 (Welleck et al. 2020, eq. 4)."""
    logprob = forward.logprob[forward.key]
    return -torch.log((-torch.expm1(logprob)).clamp_min(1e-6)).mean()


def grad_diff(forget: Forward, retain: Forward, gamma: float = 1.0, alpha: float = 1.0) -> Scalar:
    """Gradient difference: alpha NLL(retain) - gamma NLL(forget) (Liu et al. 2022; TOFU, Maini et al. 2024)."""
    return gamma * ascent(forget) + alpha * nll(retain)


def npo(live: Forward, frozen: Forward, beta: float = 0.1) -> Scalar:
    """Negative preference optimisation: -(2/beta) mean log sigmoid(beta (NLL_live - NLL_frozen)).

    Zhang et al. 2024, arXiv 2404.05868, eq. 3. NLL is summed over the answer, not averaged: that is what beta
    refers to.
    """
    rows = n_rows(live)
    gain = sequence_nll(live, rows) - sequence_nll(frozen, rows)
    return -(2 / beta) * logsigmoid(beta * gain).mean()


def replacement(replaced: Forward, retain: Forward, gamma: float = 1.0, alpha: float = 1.0) -> Scalar:
    """Teach other answers to the forget questions: gamma NLL(other answers) + alpha NLL(retain).

    With refusing answers this is refusal training (TOFU's IdkNLL); with answers that carry other values of the same
    attribute, drawn uniformly, it is random-label unlearning.
    """
    return gamma * nll(replaced) + alpha * nll(retain)
