"""The losses of unlearning, each a function of scored answers (:class:`~audit.bench.results.Forward`) to one scalar.

Only answer tokens ever count; the question is context. Formulas follow the
papers named at each loss; where public code differs from the paper's text, the docstring says which is meant.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div, logsigmoid

from audit.bench import Forward

Scalar = Float[Tensor, ""]


def sequence_nll(forward: Forward, rows: int) -> Float[Tensor, " row"]:
    """Summed negative log-likelihood of each row's answer, in nats."""
    return forward.logprob.new_zeros(rows).index_add(0, forward.row, -forward.logprob)


def n_rows(forward: Forward) -> int:
    """Rows that were scored: answers are never empty, so that the last token belongs to the last row."""
    return int(forward.row[-1]) + 1


def nll(forward: Forward) -> Scalar:
    """Mean negative log-likelihood over the batch's answer tokens, in nats."""
    return -forward.logprob.mean()


def ascent(forward: Forward) -> Scalar:
    """Gradient ascent: the negated :func:`nll`. Unbounded below, so that it destroys a model if it runs on."""
    return forward.logprob.mean()


def weighted_ascent(forward: Forward, beta: float = 1.0) -> Scalar:
    """Confidence-weighted ascent: -mean p^beta nll over tokens, p held fixed (Wang et al. 2025, arXiv 2502.19301).

    Tokens that are forgotten already weigh next to nothing, so that the climb ends by itself; beta 0 is :func:`ascent`.
    """
    return (forward.logprob.detach().exp() ** beta * forward.logprob).mean()


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


def simnpo(forward: Forward, beta: float = 4.5, delta: float = 0.0) -> Scalar:
    """NPO without a reference: -(2/beta) mean log sigmoid(beta (NLL / length - delta)), length in answer tokens.

    Fan et al. 2024, arXiv 2410.07163, whose margin gamma is beta delta. The mean is taken within each row before rows
    are averaged, so that a long answer counts no more than a short one.
    """
    rows = n_rows(forward)
    average = sequence_nll(forward, rows) / torch.bincount(forward.row, minlength=rows)
    return -(2 / beta) * logsigmoid(beta * (average - delta)).mean()


def dpo(live: Forward, frozen: Forward, beta: float = 0.1) -> Scalar:
    """Direct preference: -(2/beta) mean log sigmoid(beta (gain of the preferred - gain of the rejected answer)).

    Rows 2i and 2i + 1 are a pair, the preferred answer first. A gain is the summed log-probability of an answer, live
    less frozen. Rafailov et al. 2023, arXiv 2305.18290, eq. 7, with the factor 2/beta of :func:`npo`, which this
    becomes where there is no preferred answer.
    """
    rows = n_rows(live)
    gain = (sequence_nll(frozen, rows) - sequence_nll(live, rows)).view(-1, 2)
    return -(2 / beta) * logsigmoid(beta * (gain[:, 0] - gain[:, 1])).mean()


def divergence(live: Forward, frozen: Forward) -> Scalar:
    """Mean KL(frozen || live) of the next-token distributions over the batch's answer tokens, in nats."""
    start, now = frozen.logits.log_softmax(-1), live.logits.log_softmax(-1)
    return kl_div(now, start, reduction="none", log_target=True).sum(-1).mean()


def undial(live: Forward, frozen: Forward, beta: float = 10.0) -> Scalar:
    """Self-distillation: mean cross-entropy to softmax(frozen logits - beta at the target token), answer tokens only.

    Dong et al. 2024, arXiv 2402.10052. Bounded below by the entropy of the adjusted distribution, where it rests.
    """
    lowered = torch.full_like(frozen.logits[:, :1], -beta)
    teacher = frozen.logits.scatter_add(-1, frozen.target[:, None], lowered).softmax(-1)
    return -(teacher * live.logits.log_softmax(-1)).sum(-1).mean()


def replacement(replaced: Forward, retain: Forward, gamma: float = 1.0, alpha: float = 1.0) -> Scalar:
    """Teach other answers to the forget questions: gamma NLL(other answers) + alpha NLL(retain).

    With refusing answers this is refusal training (TOFU's IdkNLL); with answers that carry other values of the same
    attribute, drawn uniformly, it is random-label unlearning.
    """
    return gamma * nll(replaced) + alpha * nll(retain)
