"""Measure every world of the study in parallel processes, and keep what is measured: a killed study goes on.

One file a world and run under the work folder: ``said`` (predictors, circuits, what ties retained items to the forget
set) and ``<method>-<seed>`` (how hard every item was).
"""

import logging
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray

from audit.bench import Bench
from audit.circuits import circuit_size, jaccard, top_n
from audit.storage import write_atomic
from audit.zoo import one_thread
from studies.difficulty.truth import METHODS, SEEDS, Label, course, label, levels
from studies.difficulty.worlds import WORLDS, BaseReadings, Opened, base_readings, opened

log = logging.getLogger(__name__)


class Measured(NamedTuple):
    """Everything about one world, as it lies in the work folder."""

    number: int
    arrays: dict[str, ndarray]
    labels: dict[tuple[str, int], Label]


def measure(work: Path, workers: int, worlds: tuple[int, ...] = WORLDS) -> list[Measured]:
    """Measure what is not there yet, and return it all."""
    work.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for number in pool.map(_world, [work] * len(worlds), worlds):
            log.info("world %d is measured", number)
    return [load(work, number) for number in worlds]


def load(work: Path, number: int) -> Measured:
    """One world's files."""
    labels = {
        (name, seed): Label(**_read(_file(work, number, f"{name}-{seed}"))) for name in METHODS for seed in SEEDS
    }  # fmt: skip
    return Measured(number, _read(_file(work, number, "said")) | {"parameters": np.array(parameters(number))}, labels)


def parameters(number: int) -> int:
    """Entries of the base's tensors."""
    from safetensors import safe_open

    with safe_open(opened(number).world.base / "model.safetensors", "np") as file:
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118


def _file(work: Path, number: int, part: str) -> Path:
    return work / f"{number}-{part}.npz"


def _read(path: Path) -> dict[str, ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _write(path: Path, arrays: Mapping[str, ndarray]) -> None:
    buffer = BytesIO()
    np.savez_compressed(buffer, **dict(arrays))
    write_atomic(path, buffer.getvalue())


def _world(work: Path, number: int) -> int:
    """One world, in a process of its own."""
    wanted = [(name, seed) for name in METHODS for seed in SEEDS]
    missing = [(name, seed) for name, seed in wanted if not _file(work, number, f"{name}-{seed}").exists()]
    if not missing and _file(work, number, "said").exists():
        return number
    with one_thread(), tempfile.TemporaryDirectory(dir=work) as folder:
        setup, bench = opened(number), Bench()
        if not _file(work, number, "said").exists():
            _write(_file(work, number, "said"), arrays(setup, base_readings(bench, setup)))
        ends = levels(bench, setup.world) if missing else None
        for name, seed in missing:
            assert ends is not None
            run = course(Bench(), setup.world, name, seed, Path(folder) / f"{name}-{seed}")
            _write(_file(work, number, f"{name}-{seed}"), label(run, ends)._asdict())
    return number


def arrays(setup: Opened, base: BaseReadings) -> dict[str, ndarray]:
    """What base said, as arrays: predictors ``p_*``, entanglement ``e_*``, circuits ``c_*``, stability ``s_*``."""
    graph = base.circuits["partner_0"].graph
    n = circuit_size(int(graph.exists.sum()))
    first = top_n(base.circuits["partner_0"].scores, graph, n)
    columns = {f"p_{name}": values for name, values in base.predictors.items()}
    columns |= {f"e_{name}": values for name, values in base.entangled.items()}
    for name, circuits in base.circuits.items():
        columns[f"c_{name}"] = circuits.vectors().numpy()
        columns[f"s_{name}"] = jaccard(first, top_n(circuits.scores, graph, n)).numpy()
        columns[f"g_{name}"] = np.array(base.gaps[name])
    columns["c_paper"] = base.paper.numpy()
    columns["person"] = np.unique(np.array([item.group for item in setup.forget]), return_inverse=True)[1].reshape(-1)
    columns["frequency"] = np.array([item.frequency or 0 for item in setup.forget])
    return columns


if __name__ == "__main__":
    import sys

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    measure(Path(sys.argv[1]), int(sys.argv[2]))
