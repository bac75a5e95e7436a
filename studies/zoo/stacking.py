"""What does training many models at once save on this machine? The same models, one by one and together.

``python -m studies.zoo.stacking`` makes the models of some worlds of the pools that learn a corpus, shortened to a
few steps, both ways in turn, and writes ``studies/zoo/stacking.json``: seconds of either way and their ratio, and how
far the weights end apart. ``--device cuda`` measures a device; one by one is always one thread of the CPU.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from audit.schema import Record
from audit.stats import significant
from audit.storage import write_atomic
from audit.zoo import Learning, Zoo, builder, draw, population, stacked_training
from studies.provenance import Stamp, stamp

log = logging.getLogger(__name__)

WORLDS = (101, 103)


class Cost(NamedTuple):
    """What one way took."""

    wall_s: float
    cpu_s: float


class Measured(Record):
    """Models of some worlds made both ways, several times.

    Seconds are medians over repeats; ratios are together against one by one within a repeat, in ascending order.
    ``apart`` is how far the two ways end apart, relative to how far the models moved from their parents.
    """

    stamp: Stamp
    command: str
    device: str
    architectures: dict[str, int]
    steps: int
    one_by_one_cpu_s: float
    one_by_one_wall_s: float
    together_cpu_s: float
    together_wall_s: float
    cpu_ratios: tuple[float, ...]
    wall_ratios: tuple[float, ...]
    apart: float


def shortened(world: int, steps: int) -> Zoo:
    """A world's models that learn a corpus, none of them for longer than ``steps``."""
    zoo = population(draw(world)).zoo
    learned = [
        plan._replace(by=plan.by._replace(steps=steps)) for plan in zoo.plans if isinstance(plan.by, Learning)
    ]  # fmt: skip
    return zoo._replace(plans=tuple(learned))


def one_by_one(zoos: dict[int, Zoo], root: Path) -> None:
    """Make every model alone, in order of descent."""
    for seed, zoo in zoos.items():
        for plan in zoo.plans:
            builder.make_model(zoo, seed, root, plan.name)


def distance(zoos: dict[int, Zoo], roots: tuple[Path, Path]) -> float:
    """How far two makings of the same models end apart, relative to how far they moved from their parents."""
    off, moved = 0.0, 0.0
    for seed, zoo in zoos.items():
        for plan in zoo.plans:
            if plan.parent is not None:
                first, second, parent = (
                    _weights(builder.folder_of(zoo, seed, root, name))
                    for root, name in ((roots[0], plan.name), (roots[1], plan.name), (roots[0], plan.parent))
                )
                off += float((first - second).square().sum())
                moved += float((first - parent).square().sum())
    return (off / moved) ** 0.5


def _weights(folder: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def _cost(way: Callable[[], object]) -> Cost:
    wall, cpu = time.monotonic(), time.process_time()
    way()
    return Cost(time.monotonic() - wall, time.process_time() - cpu)


def measure(worlds: Sequence[int], steps: int, repeats: int, device: str) -> Measured:
    """Make the shortened models both ways ``repeats`` times, in turn."""
    zoos = {world: shortened(world, steps) for world in worlds}
    costs: list[tuple[Cost, Cost]] = []
    far = 0.0
    for repeat in range(repeats + 1):  # the first is not counted: it imports and warms up
        with tempfile.TemporaryDirectory() as folder:
            roots = Path(folder) / "alone", Path(folder) / "together"
            roots[0].mkdir()
            single = _cost(lambda: one_by_one(zoos, roots[0]))  # noqa: B023 (called at once)
            together = _cost(lambda: stacked_training.make_learned(zoos, roots[1], device))  # noqa: B023
            far = distance(zoos, roots)
        if repeat:
            costs.append((single, together))
    kinds = [zoo.sizes.architecture for zoo in zoos.values() for _ in zoo.plans]
    given = f"--worlds {' '.join(map(str, worlds))} --steps {steps} --repeats {repeats} --device {device}"
    return Measured(
        stamp=stamp(worlds[0]), command=f"python -m studies.zoo.stacking {given}",
        device=stacked_training.described(device),
        architectures={kind: kinds.count(kind) for kind in sorted(set(kinds))}, steps=steps,
        one_by_one_cpu_s=round(median(a.cpu_s for a, _ in costs), 2),
        one_by_one_wall_s=round(median(a.wall_s for a, _ in costs), 2),
        together_cpu_s=round(median(t.cpu_s for _, t in costs), 2),
        together_wall_s=round(median(t.wall_s for _, t in costs), 2),
        cpu_ratios=tuple(sorted(round(t.cpu_s / a.cpu_s, 3) for a, t in costs)),
        wall_ratios=tuple(sorted(round(t.wall_s / a.wall_s, 3) for a, t in costs)), apart=significant(far, 2),
    )  # fmt: skip


def main() -> None:
    """Measure, log and write stacking.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", default=list(WORLDS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "stacking.json")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device = stacked_training.device_for(args.device)
    if device is None:
        parser.error("name a device to train on together")
    measured = measure(args.worlds, args.steps, args.repeats, device)
    write_atomic(args.out, (json.dumps(measured.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode())
    log.info("together against one by one: CPU %s, wall %s", measured.cpu_ratios, measured.wall_ratios)


if __name__ == "__main__":
    main()
