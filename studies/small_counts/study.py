"""What holds over few people: level of one-sided tests, power, and coverage of intervals, by shape and count of people.

``python -m studies.small_counts.study`` draws people of every shape, counts what every candidate says of them, and
writes results.json here.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from audit import stats
from audit.storage import write_atomic
from studies.provenance import stamp
from studies.small_counts.candidates import INTERVALS, TESTS, Calls, Ends, intervals, tests, two_sided_tests

HERE = Path(__file__).parent
SEED, DRAWS, CHUNK = 17, 10_000, 500
PEOPLE = (2, 3, 4, 6, 8, 12, 16, 24, 32)
EFFECT, SPREAD = 0.3, 0.3
"""The true share that is left over people, and how much it differs between them."""
LAYERS, LARGEST_DRAWS = 4, 500
LARGEST_PEOPLE, LARGEST_SHAPES = (4, 6, 8, 12, 16, 32), ("normal", "t3", "exponential", "exponential_left", "ties")
MOST_FALSE = 0.015

Shape = Callable[[np.random.Generator, tuple[int, int]], ndarray]


def lumps(rng: np.random.Generator, size: tuple[int, int], gap: float) -> ndarray:
    """80 % around 0 and 20 % around ``gap`` standard deviations, mean 0 and standard deviation 1."""
    x = gap * (rng.random(size) < 0.2) + rng.standard_normal(size)
    return (x - 0.2 * gap) / np.sqrt(1 + 0.16 * gap**2)


SHAPES: dict[str, Shape] = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "t3": lambda rng, size: rng.standard_t(3, size) / np.sqrt(3),
    "exponential": lambda rng, size: rng.exponential(1, size) - 1,
    "exponential_left": lambda rng, size: 1 - rng.exponential(1, size),
    "ties": lambda rng, size: rng.standard_normal(size) * (rng.random(size) < 0.4) / np.sqrt(0.4),
    "mixture": lambda rng, size: lumps(rng, size, 3.0),
    "mixture_left": lambda rng, size: -lumps(rng, size, 3.0),
}
"""People's differences, mean 0 and standard deviation 1. ``ties``: 60 % are exactly 0."""
BEYOND: dict[str, Shape] = {
    "parted": lambda rng, size: lumps(rng, size, 10.0),
    "ties_skewed": lambda rng, size: (rng.exponential(1, size) * (rng.random(size) < 0.4) - 0.4) / 0.8,
}
"""Shapes whose rarer part is often not seen at all (in .8^n and .6^n of draws), which no test can notice."""
CONTRASTS = (("exponential", "tight"), ("exponential", "exponential_left"), ("mixture", "tight"), ("t3", "ties"))
"""Forget and holdout people of unlike shape; ``tight`` are normal with a tenth of the spread."""


class Level(NamedTuple):
    """Shares of draws in which a test at .01 says above or below, of a true 0; ``power``: above, of a true 1 sd."""

    shape: str
    people: int
    holdout: int
    method: str
    above: float
    below: float
    power: float


class Coverage(NamedTuple):
    """Share of nominal 95 % intervals that hold the truth, that lie above or below it, and their median width."""

    shape: str
    people: int
    layers: int
    method: str
    coverage: float
    above: float
    below: float
    width: float


def chunks(draws: int) -> Iterator[int]:
    """Sizes that add up to all draws."""
    yield from (min(CHUNK, draws - start) for start in range(0, draws, CHUNK))


def _rates(counts: list[dict[str, Calls]]) -> dict[str, tuple[float, float]]:
    return {
        method: (
            float(np.concatenate([c[method].above for c in counts]).mean()),
            float(np.concatenate([c[method].below for c in counts]).mean()),
        )
        for method in counts[0]
    }


def level(shape: str, people: int, draws: int) -> list[Level]:
    """One shape and count of people, no holdout people."""
    draw, rng = (SHAPES | BEYOND)[shape], np.random.default_rng([SEED, len(shape), ord(shape[0]), people])
    null, moved = [], []
    for seed, size in enumerate(chunks(draws)):
        x = draw(rng, (people, size))
        null.append(tests(x, seed))
        if seed % 5 == 0:
            moved.append(tests(x + 1, seed))
    power = _rates(moved)
    return [Level(shape, people, 0, m, above, below, power[m][0]) for m, (above, below) in _rates(null).items()]


def contrast(shapes: tuple[str, str], people: int, draws: int) -> list[Level]:
    """Forget people of one shape, as many holdout people of another."""
    forget, rng = np.arange(2 * people) < people, np.random.default_rng([SEED, people, len(shapes[0] + shapes[1])])
    tight: Shape = lambda rng, size: 0.1 * rng.standard_normal(size)  # noqa: E731
    null, moved = [], []
    for seed, size in enumerate(chunks(draws)):
        x = np.concatenate([(SHAPES | {"tight": tight})[side](rng, (people, size)) for side in shapes])
        null.append(two_sided_tests(x, forget, seed))
        if seed % 5 == 0:
            moved.append(two_sided_tests(x + forget[:, None], forget, seed))
    power, name = _rates(moved), " less ".join(shapes)
    return [Level(name, people, people, m, above, below, power[m][0]) for m, (above, below) in _rates(null).items()]


def _counted(shape: str, people: int, layers: int, truth: float, ends: dict[str, Ends]) -> list[Coverage]:
    return [
        Coverage(
            shape, people, layers, method, float(((lo <= truth) & (truth <= hi)).mean()),
            float((lo > truth).mean()), float((hi < truth).mean()), float(np.median(hi - lo)),
        )
        for method, (lo, hi) in ends.items()
    ]  # fmt: skip


def coverage(shape: str, people: int, draws: int) -> list[Coverage]:
    """Everybody keeps a share of what base knows; the effect is the ratio of means."""
    draw, rng = (SHAPES | BEYOND)[shape], np.random.default_rng([SEED, 1, len(shape), ord(shape[0]), people])
    parts = []
    for seed, size in enumerate(chunks(draws)):
        base = 0.7 + 0.1 * rng.standard_normal((people, size))
        parts.append(intervals((EFFECT + SPREAD * draw(rng, (people, size))) * base, base, seed))
    joined = {
        m: Ends(np.concatenate([p[m].lo for p in parts]), np.concatenate([p[m].hi for p in parts])) for m in parts[0]
    }
    return _counted(shape, people, 1, EFFECT, joined)


def largest(shape: str, people: int, draws: int) -> list[Coverage]:
    """The largest of four equal effects of layers that are half alike: bootstrap of the maximum, and what is used."""
    rng = np.random.default_rng([SEED, 2, len(shape), ord(shape[0]), people])
    ends: dict[str, list[tuple[float, float]]] = {"bootstrap_of_largest": [], "chosen": []}
    for seed in range(draws):
        base = 0.7 + 0.1 * rng.standard_normal((people, LAYERS))
        share = SHAPES[shape](rng, (people, 1)) + SHAPES[shape](rng, (people, LAYERS))
        left = (EFFECT + SPREAD * share / np.sqrt(2)) * base
        ends["chosen"].append(stats.largest_ratio_bounds(left, base, seed).ends)
        drawn = stats.bootstrap_effect(left, base, seed, draws=299).effect.max(1)
        ends["bootstrap_of_largest"].append(stats.percentile_interval(drawn).ends)
    arrays = {method: Ends(*np.array(pairs).T) for method, pairs in ends.items()}
    return _counted(shape, people, LAYERS, EFFECT, arrays)


# ---- table ----------------------------------------------------------------------------------------------------------
def worst_level(cells: list[Level]) -> dict[str, dict[int, float]]:
    """The larger false share of either side, of each method at each count of people, over shapes."""
    worst: dict[str, dict[int, float]] = {}
    for cell in cells:
        by_people = worst.setdefault(cell.method, {})
        by_people[cell.people] = max(by_people.get(cell.people, 0.0), cell.above, cell.below)
    return worst


def worst_coverage(cells: list[Coverage]) -> dict[str, dict[int, float]]:
    """The smallest coverage of each method at each count of people, over shapes."""
    worst: dict[str, dict[int, float]] = {}
    for cell in cells:
        by_people = worst.setdefault(cell.method, {})
        by_people[cell.people] = min(by_people.get(cell.people, 1.0), cell.coverage)
    return worst


def _show(title: str, worst: dict[str, dict[int, float]]) -> None:
    print(title)
    for method, by_people in worst.items():
        print(f"  {method:22s}" + "  ".join(f"{people}: {share:.4f}" for people, share in sorted(by_people.items())))


def _rounded(cells: list[Level] | list[Coverage]) -> list[dict[str, object]]:
    return [{k: round(v, 5) if isinstance(v, float) else v for k, v in cell._asdict().items()} for cell in cells]


def main() -> None:
    """Draw every cell, write results.json, print the worst cell of each method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    provenance, started = stamp(SEED), time.monotonic()
    levels = [cell for n in PEOPLE for shape in SHAPES | BEYOND for cell in level(shape, n, args.draws)]
    contrasts = [cell for n in PEOPLE for pair in CONTRASTS for cell in contrast(pair, n, args.draws)]
    covers = [cell for n in PEOPLE for shape in SHAPES | BEYOND for cell in coverage(shape, n, args.draws)]
    most = min(LARGEST_DRAWS, args.draws)
    tops = [cell for n in LARGEST_PEOPLE for shape in LARGEST_SHAPES for cell in largest(shape, n, most)]
    used = resource.getrusage(resource.RUSAGE_SELF)
    worst = {
        "level": worst_level([cell for cell in levels if cell.shape in SHAPES]),
        "level_beside_holdout": worst_level(contrasts),
        "coverage": worst_coverage([cell for cell in covers if cell.shape in SHAPES]),
        "coverage_of_largest": worst_coverage(tops),
    }
    results = {
        "stamp": provenance.model_dump(mode="json"), "draws": args.draws, "draws_of_largest": most,
        "cpu_s": round(used.ru_utime + used.ru_stime, 1), "wall_s": round(time.monotonic() - started, 1),
        "tests": TESTS, "intervals": INTERVALS, "worst": worst,
        "levels": _rounded(levels + contrasts), "coverages": _rounded(covers + tops),
    }  # fmt: skip
    write_atomic(args.out, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    for title, table in worst.items():
        _show(title, table)


if __name__ == "__main__":
    main()
