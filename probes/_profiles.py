"""Depth profiles: the state of one model at a layer, read by base's later blocks."""

from collections.abc import Mapping, Sequence
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
    """At which site the source's state is handed over, and at which positions."""

    site: Site
    mode: Mode


def after(layer: int) -> Site:
    """The residual stream after a block."""
    return Site(part="resid_out", block=layer)


def handovers(bench: Bench, checkpoint: Checkpoint, rows: Rows, mode: Mode) -> list[Site]:
    """Where a state can be handed over, in the order of a pass: after every block of the tower that the head reads.

    Of questions about pictures, whole states can be handed over before that too: after the vision blocks up to the
    first one that is read, and where the projector gives the picture's states to the language model.
    """
    wrapper = bench.open(checkpoint)
    blocks = [after(layer) for layer in range(wrapper.n_blocks)]
    if mode == "answer" or not rows.extra or "projector" not in wrapper.towers:
        return blocks
    read = min(wrapper.tower("vision").read, default=-1)
    seen = [Site(part="resid_out", block=block, tower="vision") for block in range(read + 1)]
    return [*seen, Site(part="final_in", tower="projector"), *blocks]


LOOKS_AGAIN = (
    "the language model's later blocks look at the picture again, and it is base's own states of it that they see"
)


def handovers_in_words(sites: Sequence[Site]) -> str:
    """Which layer of a profile is what, where some are no blocks of the language model; empty where all are."""
    seen, before = sum(site.tower == "vision" for site in sites), sum(site.tower is not None for site in sites)
    if not before:
        return ""
    return (
        f"layers 0 to {seen - 1} are the vision blocks 0 to {seen - 1}, layer {seen} is what the projector gives, "
        f"layers {before} to {len(sites) - 1} the blocks 0 to {len(sites) - before - 1} of the language model"
    )


def first_read(bench: Bench, checkpoint: Checkpoint) -> int:
    """The first block from which on the head can read every state: in a network of stages earlier ones are narrower."""
    tower = bench.open(checkpoint).tower()
    others = [block for block, width in enumerate(tower.widths) if width != tower.d_model]
    return 1 + others[-1] if others else 0


Handed = tuple[tuple[Replace, ...], Start | None]
"""What a pass of the reader is given: a write or a start."""


def handed(source: Checkpoint, where: Place) -> Handed:
    """What the reader is given to go on from ``source``'s state at a site.

    ``all``: the reader resumes from the whole state; ``answer``: only the positions that predict content tokens are
    replaced in the reader's own run. Reading base's state with base is base's own output at every layer, the last
    included, because states are taken and put by hooks on the blocks (self-patching changes nothing).
    """
    site, mode = where
    if mode == "all" and site.part == "resid_out":
        return (), Start(site, source)
    return (Replace(site, source, "all" if mode == "all" else "key"),), None


def read_by(
    bench: Bench, reader: Checkpoint, rows: Rows, states: Sequence[Handed]
) -> Float[ndarray, "row state"]:  # fmt: skip
    """Mean log-probability (nats) of the content tokens when ``reader`` goes on from each of these states."""
    outputs = bench.run_variants(reader, rows, (KEY_LOGPROB,), states)
    return np.stack([row_means(each[KEY_LOGPROB], rows) for each in outputs], 1)


class Reading(NamedTuple):
    """Everything that is read on one sheet in one mode: model -> mean log-probability of its content tokens.

    ``places`` says which layer is what, where not all are blocks of the language model.
    """

    sheet: PersonRows
    mode: Mode
    logprob: Mapping[str, Float[ndarray, "row layer"]]
    places: str = ""

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
    """Read every source with one reader wherever a state can be handed over; ``own`` names the reader's plain output,
    at every layer."""
    sites = handovers(bench, reader, sheet.rows, mode)
    plain = row_means(bench.run(reader, sheet.rows, (KEY_LOGPROB,))[KEY_LOGPROB], sheet.rows)
    logprob = {own: np.repeat(plain[:, None], len(sites), axis=1)}
    states = [handed(source, Place(site, mode)) for source in sources.values() for site in sites]
    if states:
        read = read_by(bench, reader, sheet.rows, states)
        logprob |= zip(sources, np.split(read, len(sources), 1), strict=True)
    again = mode == "all" and bool(sheet.rows.extra) and getattr(bench.open(reader), "looks_again", False)
    words = "; ".join(filter(None, (handovers_in_words(sites), LOOKS_AGAIN if again else "")))
    return Reading(sheet, mode, logprob, words)


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
    reads = [Read(site=after(layer), at="key") for layer in range(bench.open(base).n_blocks)]
    states = bench.run(base, rows, reads)
    patches: list[Handed] = [((Replace(read.site, states[read][token], "key"),), None) for read in reads]
    return np.where(donors[:, None] >= 0, read_by(bench, base, rows, patches), np.nan)
