"""Read-outs against the loops they replace: grouped leave-one-out with permutations, and neighbours in one pass."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from audit.bench import Bench
from audit.bench.shapes import Rows
from audit.nouns import Checkpoint
from audit.readouts import grouped_ridge as ridge
from audit.readouts import label_swaps as swaps
from probes._landscape import Neighbours, landscape
from studies.speed.results import ReadoutRow
from studies.speed.sizes import checkpoint, rows

LAYERS, ROWS, WIDTH, GROUPS, DRAWS = 4, 240, 512, 20, 1000
NEIGHBOURS = 16


def _cpu_s(call: Callable[[], object], repeats: int) -> float:
    """Median CPU-seconds of a call of one thread, after one that is not counted."""
    call()
    taken: list[float] = []
    for _ in range(repeats):
        since = time.process_time()
        call()
        taken.append(time.process_time() - since)
    return median(taken)


def grouped(repeats: int, seed: int) -> ReadoutRow:
    """All layers and 1,000 label swaps by our closed form, against scikit-learn refitted without each group.

    The loop is timed for one layer and one labelling and multiplied: nobody waits for all of it.
    """
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(LAYERS, ROWS, WIDTH, generator=rng, dtype=torch.float64)
    unit = torch.arange(ROWS) * GROUPS // ROWS
    side = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(ROWS // 2)
    signs = swaps.swaps(GROUPS, DRAWS, seed)

    def ours() -> float:
        z = ridge.standardised(x)
        smoother = ridge.ridge_smoother(ridge.linear_gram(z), unit, WIDTH)
        margins = swaps.margins(swaps.pair_form(smoother, side, unit), signs)
        return swaps.max_t(swaps.studentised(margins)).p

    def loop() -> None:
        raw, y, group = x[0].numpy(), side.numpy(), unit.numpy()
        for g in range(GROUPS):
            scaler = StandardScaler().fit(raw[group != g])
            Ridge(alpha=WIDTH).fit(scaler.transform(raw[group != g]), y[group != g]).predict(
                scaler.transform(raw[group == g])
            )

    mine, once = _cpu_s(ours, repeats), _cpu_s(loop, repeats)
    times = LAYERS * (DRAWS + 1)
    what = f"grouped leave-one-out, {LAYERS} layers x {DRAWS} swaps, {ROWS} rows x {WIDTH}, {GROUPS} groups"
    said = f"scikit-learn Ridge, measured for one layer and one labelling ({once:.3g} CPU-s), times {times}"
    return ReadoutRow(what=what, cpu_s=mine, against=said, against_cpu_s=once * times, ratio=once * times / mine)


def neighbour_scoring(folder: Path, repeats: int, seed: int, size: str = "smoke") -> tuple[ReadoutRow, ReadoutRow]:
    """Losses of a text and its neighbours in shared batches, against one forward each, and in bare forwards."""
    model, some = checkpoint(size, folder, seed), rows(size, seed)  # type: ignore[arg-type]
    some = _marked(some)
    rng = np.random.default_rng(seed)
    swapped = torch.from_numpy(rng.random((len(some), NEIGHBOURS, some.ids.shape[1])) < 0.2)
    swapped[:, :, 0] = False
    other = torch.from_numpy(rng.integers(0, int(some.ids.max()) + 1, swapped.shape))
    drawn = Neighbours(
        torch.where(swapped, other, some.ids[:, None]), swapped, torch.ones(len(some), NEIGHBOURS)
    )  # fmt: skip
    bench = Bench()
    mine = _cpu_s(lambda: landscape(bench, model, some, drawn), repeats)
    alone = _cpu_s(lambda: _one_by_one(bench, model, some, drawn), max(1, repeats // 3))
    bare = _cpu_s(lambda: landscape(bench, model, some, drawn._replace(
        ids=drawn.ids[:, :0], replaced=swapped[:, :0], distance=drawn.distance[:, :0])), repeats)  # fmt: skip
    what = f"{NEIGHBOURS} neighbours of {len(some)} texts of {some.ids.shape[1]} tokens, size {size}"
    return (
        ReadoutRow(what=what, cpu_s=mine, against="one neighbour at a time", against_cpu_s=alone, ratio=alone / mine),
        ReadoutRow(what=what, cpu_s=mine, against="the texts alone, once", against_cpu_s=bare, ratio=mine / bare),
    )


def _marked(some: Rows) -> Rows:
    """The same rows with every answer token marked as content."""
    from dataclasses import replace

    key = some.mask.clone()
    key[:, 0] = False
    return replace(some, key=key)


def _one_by_one(bench: Bench, model: Checkpoint, some: Rows, drawn: Neighbours) -> None:
    """Every neighbour of every text in a pass of its own."""
    for i in range(len(some)):
        text = some.take(torch.tensor([i]))
        for k in range(drawn.ids.shape[1]):
            one = Neighbours(drawn.ids[i : i + 1, k : k + 1], drawn.replaced[i : i + 1, k : k + 1], torch.ones(1, 1))
            landscape(bench, model, text, one)
