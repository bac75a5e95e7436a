"""How much a model's states say of a class that a read-out fitted on other groups can use, row by row, in nats.

A row's information is log q(y|x) - log p(y) for its true class y: p is how often a class is among all rows, and q is
of the family (1 - e) softmax(log p + b s) + e p of the read-out's scores s, less their mean over rows. b >= 0, how far
scores are trusted, is the likeliest one on retained rows; e, the share of rows of which the scores say nothing, the
likeliest one on each cohort. Since e = 1 is in the family, a cohort's mean is never below 0, and no row is below log e.
Sources: usable information, Xu et al. 2020 (arXiv 2002.10689); of one row, Ethayarajh et al. 2022 (arXiv 2110.08420).

Of two models' states the *redundant part* is, row by row, the smaller of both informations:
R = mean_i min(i_A(i), i_B(i)), so that R <= min(I_A, I_B) and R = I_A where the states say the same; a row on which
either misleads counts against it, and R is given as 0 where that is all there is. The idea of asking what two models'
states say of an answer in common is that of arXiv 2601.15111; the formula is ours, of the kind of pointwise minima
(Williams and Beer 2010, arXiv 1004.2515, of whole classes; Finn and Lizier 2018, arXiv 1801.09010, of single events).
"""

from collections.abc import Callable
from math import isnan

import scipy
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_LARGEST = 1e3
_LEAST_DOUBT = 1e-3


def information(
    scores: Float[Tensor, "row class"],
    label: Int[Tensor, " row"],
    trusted: Bool[Tensor, " row"],
    cohort: Int[Tensor, " row"],
) -> Float[Tensor, " row"]:
    """Information of every row about its class, in nats.

    ``trusted`` are the rows on which the scale of the scores is fitted, ``cohort`` numbers the parts that each have
    their own share of rows of which nothing is known.
    """
    prior = torch.bincount(label, minlength=scores.shape[1]).to(scores) / len(label)
    scores = scores - scores.mean(0)
    scale = _scale(scores[trusted], prior, label[trusted])
    ratio = (_log_softmax(scores * scale, prior) - prior.log())[torch.arange(len(label)), label].exp()
    out = torch.zeros_like(ratio)
    for number in torch.unique(cohort).tolist():
        own = cohort == number
        doubt = _doubt(ratio[own])
        out[own] = ((1 - doubt) * ratio[own] + doubt).log()
    return out


def redundant(first: Float[Tensor, "*row"], second: Float[Tensor, "*row"]) -> Float[Tensor, "*row"]:
    """What both say of each row: the smaller of both informations."""
    return torch.minimum(first, second)


def _log_softmax(scores: Tensor, prior: Tensor) -> Tensor:
    return torch.log_softmax(scores + prior.log(), 1)


def _scale(scores: Tensor, prior: Tensor, label: Tensor) -> float:
    """The likeliest b: its derivative, the mean of s_y less its expectation under q, falls as b grows."""
    own = scores[torch.arange(len(label)), label].mean() if len(label) else torch.zeros(())

    def slope(b: float) -> float:
        return float(own - (_log_softmax(scores * b, prior).exp() * scores).sum(1).mean())

    return _root(slope, 0.0, _LARGEST) if len(label) else 1.0


def _doubt(ratio: Tensor) -> float:
    """The likeliest e: the derivative of the mean of log((1 - e) r + e) falls as e grows."""

    def slope(e: float) -> float:
        return float(((1 - ratio) / ((1 - e) * ratio + e)).mean())

    return _root(slope, _LEAST_DOUBT, 1.0)


def _root(falling: Callable[[float], float], lo: float, hi: float) -> float:
    """Where a falling function crosses 0; the end that is nearer to it where it does not. No number counts as below."""

    def height(x: float) -> float:
        value = falling(x)
        return -1.0 if isnan(value) else value

    if height(lo) <= 0:
        return lo
    if height(hi) >= 0:
        return hi
    return float(scipy.optimize.brentq(height, lo, hi, xtol=1e-14, rtol=1e-14))
