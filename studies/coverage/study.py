"""How often does a nominal 95 % interval cover the truth, with few clusters?

``python -m studies.coverage.study`` simulates scores of known AUROC in clusters, and effects over people, makes every
kind of interval on each, counts how often it holds the truth, and writes results.json here.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy import ndarray
from scipy import stats as scipy_stats

from audit import stats
from audit.stats import Labelled, Range, clustered_auroc
from audit.storage import write_atomic
from studies.provenance import stamp

HERE = Path(__file__).parent
SEED = 20
SIMULATIONS, DRAWS = 1000, 499
NEEDED = 0.93
AUCS, MODELS, CLUSTERS = (0.7, 0.9, 0.97), (30, 120), (4, 6, 12, 30)
PEOPLE = (4, 6, 10, 16, 32, 64, 128)
WITHIN, SHARED = 0.5, 0.5
"""Correlation of two models of one label in a cluster, and of the effects that a world has on its two labels."""

Design = Literal["worlds", "recipes"]
SHAPES: dict[str, Callable[[np.random.Generator, int], ndarray]] = {
    "normal": lambda rng, n: 0.3 + 0.15 * rng.standard_normal(n),
    "exponential": lambda rng, n: rng.exponential(0.3, n),
}
"""What share of its knowledge a person keeps; .3 on average."""


class Cell(NamedTuple):
    """One row of the table: coverage of a nominal 95 % interval, and its median width.

    ``truth``: AUROC, or effect over people. ``n``: models of each label, or people. ``units``: clusters of each label,
    or people.
    """

    of: Literal["auroc", "effect"]
    design: str
    truth: float
    n: int
    units: int
    method: str
    coverage: float
    width: float


# ---- AUROC over clusters ------------------------------------------------------------------------------------------
def sample(design: Design, auc: float, n: int, clusters: int, rng: np.random.Generator) -> Labelled:
    """Scores of unit variance. ``worlds`` hold both labels and move them alike in part, ``recipes`` hold one label."""
    own = np.arange(n) * clusters // n
    knows = np.repeat([True, False], n)
    shared = rng.standard_normal((clusters, 1))
    moved = np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * rng.standard_normal((clusters, 2))
    if design == "recipes":
        moved = rng.standard_normal((clusters, 2))
    world = np.concatenate([moved[own, 0], moved[own, 1]])
    noise = np.sqrt(WITHIN) * world + np.sqrt(1 - WITHIN) * rng.standard_normal(2 * n)
    gap = np.sqrt(2) * scipy_stats.norm.ppf(auc)
    return Labelled(gap * knows + noise, knows, np.concatenate([own, own + clusters * (design == "recipes")]))


def target(design: Design, auc: float, n: int, clusters: int) -> float:
    """What the sample's AUROC estimates. Pairs within a world are part of it, and what moves both cancels in them."""
    if design == "recipes":
        return auc
    size = np.bincount(np.arange(n) * clusters // n)
    within = float((size**2).sum()) / n**2
    inside = float(scipy_stats.norm.cdf(scipy_stats.norm.ppf(auc) / np.sqrt(1 - WITHIN * SHARED)))
    return within * inside + (1 - within) * auc


def areas(simulations: int) -> Iterator[Cell]:
    """Every (design, AUC, models, clusters) by every method."""
    for d, design in enumerate(("worlds", "recipes")):
        for auc, n, clusters in ((a, n, c) for a in AUCS for n in MODELS for c in CLUSTERS):
            yield from area(design, auc, (n, clusters), simulations, SEED + d)


def area(design: Design, auc: float, counts: tuple[int, int], simulations: int, seed: int) -> list[Cell]:
    """One cell of the AUROC table."""
    n, clusters = counts
    truth = target(design, auc, n, clusters)
    rng = np.random.default_rng([seed, round(auc * 1000), n, clusters])
    ranges: dict[str, list[Range]] = {}
    for i in range(simulations):
        data = sample(design, auc, n, clusters, rng)
        for method in ("percentile", "logit_t", "bootstrap_t"):
            ranges.setdefault(method, []).append(clustered_auroc(data, i, method, DRAWS).ci95)
    return [Cell("auroc", design, auc, n, clusters, method, *counted(ends, truth)) for method, ends in ranges.items()]


class Counted(NamedTuple):
    """Share of intervals that hold the truth, and their median width."""

    coverage: float
    width: float


def counted(ends: list[Range], truth: float) -> Counted:
    """How often, and how wide."""
    held = [lo <= truth <= hi for lo, hi in ends]
    return Counted(float(np.mean(held)), float(np.median([hi - lo for lo, hi in ends])))


# ---- effects over people ------------------------------------------------------------------------------------------
def by_linear_t(numerator: ndarray, denominator: ndarray) -> Range:
    """Ratio of means plus or minus t times its linearised standard error (Cochran 1977, Sampling Techniques, 6.4)."""
    n, ratio = len(numerator), float(numerator.mean() / denominator.mean())
    rest = (numerator - ratio * denominator) / denominator.mean()
    half = float(scipy_stats.t.ppf(0.975, n - 1) * rest.std(ddof=1) / np.sqrt(n))
    return Range(ratio - half, ratio + half)


def effect(shape: str, people: int, simulations: int) -> list[Cell]:
    """Effect .3: every person keeps a share of what base knows about them, read with noise."""
    rng = np.random.default_rng([SEED, len(shape), people])
    ranges: dict[str, list[Range]] = {"people_percentile": [], "people_linear_t": []}
    for i in range(simulations):
        base = 0.7 + 0.1 * rng.standard_normal(people)
        left = SHAPES[shape](rng, people) * base + 0.05 * rng.standard_normal(people)
        drawn = stats.bootstrap_effect(left[:, None], base[:, None], i, draws=DRAWS).effect[:, 0]
        ranges["people_percentile"].append(stats.percentile_interval(drawn))
        ranges["people_linear_t"].append(by_linear_t(left, base))
    return [Cell("effect", shape, 0.3, people, people, method, *counted(ends, 0.3)) for method, ends in ranges.items()]


# ---- table --------------------------------------------------------------------------------------------------------
def worst(cells: list[Cell]) -> dict[str, dict[int, float]]:
    """The smallest coverage of each method at each number of units, over all cells that have it."""
    coverages: dict[str, dict[int, float]] = {}
    for cell in cells:
        by_units = coverages.setdefault(cell.method, {})
        by_units[cell.units] = min(by_units.get(cell.units, 1.0), cell.coverage)
    return coverages


def enough(by_units: dict[int, float]) -> int | None:
    """The least number of units from which on every larger one that was tried covers as much as is needed."""
    sufficient: int | None = None
    for units in sorted(by_units, reverse=True):
        if by_units[units] < NEEDED:
            break
        sufficient = units
    return sufficient


def main() -> None:
    """Simulate every cell, write results.json, print the worst coverage of each method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    provenance, started = stamp(SEED), time.monotonic()
    cells = list(areas(args.simulations))
    cells += [cell for shape in SHAPES for people in PEOPLE for cell in effect(shape, people, args.simulations)]
    least = worst(cells)
    used = resource.getrusage(resource.RUSAGE_SELF)
    results = {
        "stamp": provenance.model_dump(mode="json"),
        "simulations": args.simulations,
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "wall_s": round(time.monotonic() - started, 1),
        "needed": NEEDED,
        "worst": least,
        "enough_units": {method: enough(by_units) for method, by_units in least.items()},
        "cells": [cell._asdict() | {"width": round(cell.width, 4)} for cell in cells],
    }
    write_atomic(args.out, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    for method, by_units in least.items():
        shown = "  ".join(f"{units}: {share:.3f}" for units, share in sorted(by_units.items()))
        print(f"{method:18s} {shown}   enough: {results['enough_units'][method]}")


if __name__ == "__main__":
    main()
