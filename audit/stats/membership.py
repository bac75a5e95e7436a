"""Statistics of membership inference on token log-probabilities that are already read; higher means member.

Two losses of one text are compared token by token where a model is given that was not trained on it (``delta``: the
log-probability of the model in question less that of the other one). Where a paper leaves a text without a number or
gives it an infinite one, the docstring says what stands here.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.stats import gumbel_r

EULER = 0.5772
"""As rounded in the published code."""
LEAST_SPREAD = 1e-9


def min_k_plus(
    logprob: Float[ndarray, " token"], entropy: Float[ndarray, " token"], varentropy: Float[ndarray, " token"]
) -> Float[ndarray, " token"]:
    """Log-probabilities less their mean under the model, in its standard deviations (Zhang et al. 2024, arXiv
    2404.02936): what Min-K%++ averages the lowest of. A distribution without spread gives 0."""
    spread = np.sqrt(np.maximum(varentropy, 0.0))
    return np.where(spread > LEAST_SPREAD, (logprob + entropy) / np.maximum(spread, LEAST_SPREAD), 0.0)


def gumbel_signal(probability: Float[ndarray, "*row"], e1: float = 0.1, e2: float = 1e-5) -> Float[ndarray, "*row"]:
    """-log(e1 - log(p + e2)): the bounded map under which IAM takes signals for Gumbel distributed (arXiv 2506.06112).

    With p + e2 above 1 the logarithm is positive; e1 has to exceed it.
    """
    return -np.log(e1 - np.log(probability + e2))


def interpolated(
    signal: Float[ndarray, " item"],
    out: Float[ndarray, " item"],
    fit: Float[ndarray, " item"],
    sigma: Float[ndarray, "*step"] | float,
    steps: int = 100,
) -> Float[ndarray, " item"]:
    """IAM: how far a signal lies on the way from that of a model that never saw the item to that of one that did.

    Between ``out`` and ``fit`` stand ``steps`` interpolated signals; at each a Gumbel distribution of that mean and of
    standard deviation ``sigma`` (one, or one for every step but the last) says how much of it lies below ``signal``;
    the answers are averaged, weighed by the place of the next step. 0: not a member, 1: as trained.
    Source: arXiv 2506.06112, with one model of either kind.
    """
    place = np.linspace(0.0, 1.0, steps)
    mean = out + place[:-1, None] * (fit - out)
    scale = np.sqrt(6) / np.pi * (np.broadcast_to(np.asarray(sigma, float), (steps - 1,))[:, None] + LEAST_SPREAD)
    below = np.asarray(gumbel_r.cdf(signal, mean - EULER * scale, scale), float)
    return place[1:] @ below / place[1:].sum()


def interpolation_spread(
    out: Float[ndarray, " item"], fit: Float[ndarray, " item"], steps: int = 100
) -> Float[ndarray, " step"]:
    """The standard deviation over items of each interpolated signal but the last one."""
    place = np.linspace(0.0, 1.0, steps)
    return (out + place[:-1, None] * (fit - out)).std(1)


def window_sizes(smallest: int = 2, largest: int = 40, count: int = 10) -> tuple[int, ...]:
    """Sizes of windows that grow by the same factor (arXiv 2601.02751, equation 12), repeated ones kept."""
    grown = smallest * (largest / smallest) ** (np.arange(count) / (count - 1))
    return tuple(int(size) for size in np.round(grown))


def window_votes(
    delta: Float[ndarray, " token"], row: Int[ndarray, " token"], n_rows: int, sizes: tuple[int, ...]
) -> Float[ndarray, " row"]:
    """The share of windows of consecutive tokens whose ``delta`` sums above 0, averaged over window sizes.

    Of texts shorter than a window the text is the window, as in the published code. A sum of exactly 0 is half a vote:
    a model beside itself votes for neither. NaN for rows without tokens. Source: arXiv 2601.02751, section 4.1.
    """
    votes = np.full(n_rows, np.nan)
    ends = np.searchsorted(row, np.arange(n_rows + 1))
    for i, (start, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)):
        if start < end:
            summed = np.concatenate([[0.0], np.cumsum(delta[start:end])])
            fitting = [min(size, end - start) for size in sizes]
            share = {w: float((np.sign(summed[w:] - summed[:-w]) + 1).mean() / 2) for w in set(fitting)}
            votes[i] = np.mean([share[w] for w in fitting])
    return votes


def error_zone(
    delta: Float[ndarray, " token"], wrong: Bool[ndarray, " token"], row: Int[ndarray, " token"], n_rows: int
) -> Float[ndarray, " row"]:
    """(P - N)/(P + N): P is what ``delta`` rises, N what it falls by, over tokens that the model does not put first.

    It orders texts as the published P/N does and stays between -1 and 1, so that it has a mean: where nothing fell it
    is 1, and so it is where every token is put first, the strongest sign of membership by the paper (its appendices E.5
    and E.6). Where nothing moved it is 0; NaN for rows without tokens. Source: arXiv 2601.12104, section 3.
    """
    rose, fell = (
        np.bincount(row[wrong], weights=np.maximum(sign * delta[wrong], 0.0), minlength=n_rows) for sign in (1, -1)
    )
    total = rose + fell
    score = np.where(total > 0, (rose - fell) / np.where(total > 0, total, 1.0), 0.0)
    score = np.where(np.bincount(row[wrong], minlength=n_rows) > 0, score, 1.0)
    return np.where(np.bincount(row, minlength=n_rows) > 0, score, np.nan)
