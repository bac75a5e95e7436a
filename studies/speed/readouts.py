"""Read-outs against the loops they replace: grouped leave-one-out with permutations, and neighbours in one pass."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from audit.bench import Bench
from audit.case import Rows
from audit.readouts import grouped_ridge as ridge
from audit.readouts import label_swaps as swaps
from audit.schema import Checkpoint
from probes._landscape import Neighbours, landscape
from studies.speed.results import ReadoutRow
from studies.speed.sizes import SIZES, checkpoint

LAYERS, ROWS, WIDTH, GROUPS, DRAWS = 4, 240, 512, 20, 1000
NEIGHBOURS, TEXTS, LENGTH = 16, 32, 24


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
    label = f"grouped leave-one-out, {LAYERS} layers x {DRAWS} swaps, {ROWS} rows x {WIDTH}, {GROUPS} groups"
    reference = f"scikit-learn Ridge, measured for one layer and one labelling ({once:.3g} CPU-s), times {times}"
    return ReadoutRow(what=label, cpu_s=mine, against=reference, against_cpu_s=once * times, ratio=once * times / mine)


def neighbour_scoring(folder: Path, repeats: int, seed: int) -> tuple[ReadoutRow, ReadoutRow]:
    """Losses of texts and their neighbours in shared batches, against one forward each, and in bare forwards."""
    model, vocab, rng = checkpoint("T", folder, seed), SIZES["T"].vocab, np.random.default_rng(seed)
    texts = _texts(torch.from_numpy(rng.integers(1, vocab, (TEXTS, LENGTH))))
    swapped = torch.from_numpy(rng.random((TEXTS, NEIGHBOURS, LENGTH)) < 0.2)
    swapped[:, :, 0] = False
    other = torch.from_numpy(rng.integers(1, vocab, swapped.shape))
    drawn = Neighbours(torch.where(swapped, other, texts.ids[:, None]), swapped, torch.ones(TEXTS, NEIGHBOURS))
    none = Neighbours(drawn.ids[:, :0], swapped[:, :0], drawn.distance[:, :0])
    bench = Bench()
    mine = _cpu_s(lambda: landscape(bench, model, texts, drawn), repeats)
    single_cpu_s = _cpu_s(lambda: _one_by_one(bench, model, texts, drawn), max(1, repeats // 5))
    bare = _cpu_s(lambda: landscape(bench, model, texts, none), repeats)
    label = f"{NEIGHBOURS} neighbours of {TEXTS} texts of {LENGTH} tokens, {SIZES['T'].blocks} blocks of width 64"
    return (
        ReadoutRow(
            what=label,
            cpu_s=mine,
            against="one neighbour at a time",
            against_cpu_s=single_cpu_s,
            ratio=single_cpu_s / mine,
        ),
        ReadoutRow(what=label, cpu_s=mine, against="the texts alone, once", against_cpu_s=bare, ratio=mine / bare),
    )


def _texts(ids: torch.Tensor) -> Rows:
    """Full rows whose tokens are all content but the first."""
    n, length = ids.shape
    key = torch.ones(n, length, dtype=torch.bool)
    key[:, 0] = False
    names = tuple(str(i) for i in range(n))
    spans = torch.tensor([[1, length]]).repeat(n, 1)
    return Rows(ids, torch.ones(n, length, dtype=torch.bool), spans, key, names, names)


def _one_by_one(bench: Bench, model: Checkpoint, texts: Rows, drawn: Neighbours) -> None:
    """Every neighbour of every text in a pass of its own."""
    for i in range(len(texts)):
        text = texts.take(torch.tensor([i]))
        for k in range(drawn.ids.shape[1]):
            neighbour = Neighbours(
                drawn.ids[i : i + 1, k : k + 1], drawn.replaced[i : i + 1, k : k + 1], torch.ones(1, 1)
            )
            landscape(bench, model, text, neighbour)
