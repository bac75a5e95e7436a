"""Interleaved timing: every repeat runs every method once, in shuffled order, and ratios are taken within a repeat.

A busy machine slows neighbours in time alike, so the ratio within a repeat is steadier than a ratio of medians.
CPU-seconds of the process (one torch thread) are counted, never wall time.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Float

from audit.schema import Interval
from studies.speed.results import Ratio

Seconds = Float[np.ndarray, " repeat"]
Sample = Float[np.ndarray, " process"]


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeats: int, calls_per_repeat: int, seed: int
) -> Iterator[dict[str, float]]:
    """CPU-seconds a call of every method, one dictionary a repeat. One unmeasured call of each comes first."""
    order = np.random.default_rng(seed)
    names = list(calls)
    for name in names:
        calls[name]()
    for _ in range(repeats):
        seconds: dict[str, float] = {}
        for name in order.permutation(names):
            gc.collect()
            begin = time.process_time()
            for _ in range(calls_per_repeat):
                calls[name]()
            seconds[str(name)] = (time.process_time() - begin) / calls_per_repeat
        yield seconds


def ratio(ours: Seconds, theirs: Seconds, against: str, seed: int, draws: int = 10_000) -> Ratio:
    """Median of the repeats' ratios, with a percentile bootstrap interval over repeats (Efron 1979)."""
    if len(ours) != len(theirs) or len(ours) == 0:
        raise ValueError("ratios are taken within repeats: both methods need the same, at least one")
    ratios = ours / theirs
    picks = np.random.default_rng(seed).integers(0, len(ratios), (draws, len(ratios)))
    lo, hi = np.quantile(np.median(ratios[picks], axis=1), [0.025, 0.975])
    return Ratio(against=against, median=float(np.median(ratios)), ci95=Interval(lo=float(lo), hi=float(hi)))


def ratio_of_medians(ours: Sample, allowed: Sample, seed: int, draws: int = 10_000) -> tuple[float, Interval]:
    """Ratio of two independent samples' medians, with a percentile bootstrap interval over both."""
    dice = np.random.default_rng(seed)
    a, b = (np.median(x[dice.integers(0, len(x), (draws, len(x)))], axis=1) for x in (ours, allowed))
    lo, hi = np.quantile(a / b, [0.025, 0.975])
    return float(np.median(ours) / np.median(allowed)), Interval(lo=float(lo), hi=float(hi))
