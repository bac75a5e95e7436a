"""Several tests at once: family-wise error and false discovery rate."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def holm(p: Float[ndarray, " test"]) -> Float[ndarray, " test"]:
    """Family-wise adjusted p (Holm 1979, Scand. J. Stat. 6:65)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def benjamini_hochberg(p: Float[ndarray, " test"]) -> Float[ndarray, " test"]:
    """False-discovery-rate adjusted p (Benjamini & Hochberg 1995, JRSS-B 57:289)."""
    order = np.argsort(p)
    stepped = np.minimum.accumulate((p[order] * len(p) / np.arange(1, len(p) + 1))[::-1])[::-1]
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
