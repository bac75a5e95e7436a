"""Depth profiles: the state of one model at a layer, read by base's later blocks."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from audit.probing import (
    KEY_LOGPROB,
    Bench,
    Checkpoint,
    Curve,
    PersonRows,
    Read,
    Replace,
    Rows,
    Site,
    Start,
    row_means,
    stats,
)

Mode = Literal["all", "answer"]


class Place(NamedTuple):
    """After which layer the source's state is handed over, and at which positions."""

    layer: int
    mode: Mode


def after(layer: int) -> Site:
    """The residual stream after a block."""
    return Site(part="resid_out", block=layer)


def first_read(bench: Bench, checkpoint: Checkpoint) -> int:
    """The first block from which on the head can read every state: in a network of stages earlier ones are narrower."""
    tower = bench.open(checkpoint).tower()
    others = [block for block, width in enumerate(tower.widths) if width != tower.d_model]
    return 1 + others[-1] if others else 0


def read_by(bench: Bench, reader: Checkpoint, source: Checkpoint, rows: Rows, where: Place) -> Float[ndarray, " row"]:
    """Mean log-probability (nats) of the content tokens when ``reader`` goes on from ``source``'s state after a layer.

    ``all``: the reader resumes from the whole state; ``answer``: only the positions that predict content tokens are
    replaced in the reader's own run. Reading base's state with base is base's own output at every layer, the last
    included, because states are taken and put by hooks on the blocks (self-patching changes nothing).
    """
    layer, mode = where
    if mode == "all":
        outputs = bench.run(reader, rows, (KEY_LOGPROB,), start=Start(after(layer), source))
    else:
        outputs = bench.run(reader, rows, (KEY_LOGPROB,), (Replace(after(layer), source, "key"),))
    return row_means(outputs[KEY_LOGPROB], rows)


class Reading(NamedTuple):
    """Everything that is read on one sheet in one mode: model -> mean log-probability of its content tokens."""

    sheet: PersonRows
    mode: Mode
    logprob: Mapping[str, Float[ndarray, "row layer"]]

    def probability(self) -> dict[str, Float[ndarray, "row layer"]]:
        """Item probabilities (geometric mean over content tokens)."""
        return {name: np.exp(x) for name, x in self.logprob.items()}

    def without(self, name: str) -> "Reading":
        """The same reading, less one model."""
        return self._replace(logprob={model: x for model, x in self.logprob.items() if model != name})


def profile(
    bench: Bench,
    reader: Checkpoint,
    sources: Mapping[str, Checkpoint],
    sheet: PersonRows,
    mode: Mode,
    own: str = "base",
) -> Reading:
    """Read every source with one reader at every layer; ``own`` names the reader's plain output, at every layer."""
    layers = range(bench.open(reader).n_blocks)
    plain = row_means(bench.run(reader, sheet.rows, (KEY_LOGPROB,))[KEY_LOGPROB], sheet.rows)
    logprob = {own: np.repeat(plain[:, None], len(layers), axis=1)}
    for name, source in sources.items():
        logprob[name] = np.stack(
            [read_by(bench, reader, source, sheet.rows, Place(layer, mode)) for layer in layers], 1
        )
    return Reading(sheet, mode, logprob)


def curve(role: str, people: Float[ndarray, "person layer"], seed: int) -> Curve:
    """Mean over people at every layer, with pointwise 95 % bootstrap intervals over people."""
    drawn = stats.bootstrap_effect(people, np.ones_like(people), seed).effect
    lo, hi = np.percentile(drawn, [2.5, 97.5], axis=0)
    return Curve.model_validate(
        {
            "axis": "layer", "unit": "item probability", "scale": "probability", "role": role,
            "x": tuple(range(people.shape[1])), "y": people.mean(0).tolist(), "lo": lo.tolist(), "hi": hi.tolist(),
        }
    )  # fmt: skip


def share(part: Float[ndarray, "person layer"], reference: Float[ndarray, "person layer"], seed: int) -> Curve:
    """The gate: mean reading of one model relative to another's at every layer, with intervals over people."""
    drawn = stats.bootstrap_effect(part, reference, seed).effect
    lo, hi = np.percentile(drawn, [2.5, 97.5], axis=0)
    return Curve(
        axis="layer", unit="retain reading relative to base", scale="ratio", role="gate",
        x=tuple(range(part.shape[1])), y=tuple((part.mean(0) / reference.mean(0)).tolist()),
        lo=tuple(lo.tolist()), hi=tuple(hi.tolist()),
    )  # fmt: skip


def _donors(sheet: PersonRows) -> Int[ndarray, " row"]:
    """For every row a row of another person with as many content tokens, other ones (of the same attribute if there
    is one); -1 where there is none.
    """
    rows = sheet.rows
    tokens = [tuple(rows.ids[i][rows.key[i]].tolist()) for i in range(len(rows))]
    donors = np.full(len(rows), -1)
    for i, (item, own) in enumerate(zip(sheet.items, tokens, strict=True)):
        order = [(i + step) % len(rows) for step in range(1, len(rows))]
        fits = [
            j for j in order if sheet.person[j] != sheet.person[i] and len(tokens[j]) == len(own) and tokens[j] != own
        ]
        same = [j for j in fits if sheet.items[j].attribute == item.attribute]
        donors[i] = (same or fits or [-1])[0]
    return donors


def mismatched(bench: Bench, base: Checkpoint, sheet: PersonRows) -> Float[ndarray, "row layer"]:
    """Base's reading when the positions that predict content tokens hold base's own state for another person.

    High where base still recomputes the answer from the rest of the prompt, low where the answer has left the input.
    NaN for a row without a fitting other person.
    """
    rows, donors = sheet.rows, _donors(sheet)
    row = rows.targets("key")[0].numpy()
    first = np.searchsorted(row, np.arange(len(rows)))
    offset = np.arange(len(row)) - first[row]
    token = torch.from_numpy(np.where(donors[row] >= 0, first[donors[row]] + offset, np.arange(len(row))))
    columns: list[ndarray] = []
    for layer in range(bench.open(base).n_blocks):
        read = Read(site=after(layer), at="key")
        state = bench.run(base, rows, (read,))[read][token]
        patched = bench.run(base, rows, (KEY_LOGPROB,), (Replace(after(layer), state, "key"),))
        columns.append(np.where(donors >= 0, row_means(patched[KEY_LOGPROB], rows), np.nan))
    return np.stack(columns, 1)
