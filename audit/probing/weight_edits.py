"""What kind of edit a difference of weights is: where it lies, and what form it has.

Every rule is a threshold on what :mod:`audit.bench.weight_differences` says of each parameter; none asks a model. Where
a parameter stands is read off its name: what comes before the first numbered block embeds, what comes after the last
one is the final norm and the head.
"""

import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from audit.bench import Difference

SPIKE: Final = 0.99
"""The first direction holds so much of the squared difference, rounding taken off: the matrix was changed by one."""
SPARSE: Final = 0.05
"""No more of the entries of the changed matrices than this differ: an edit of single entries, rows or columns."""

Part = Literal["embeddings", "blocks", "final norm", "head", "vision tower", "projector"]
Kind = Literal[
    "nothing", "biases alone", "norms and biases alone", "head alone", "embeddings alone", "vision tower alone",
    "projector alone", "sparse", "rank-one", "low-rank", "last block alone", "some blocks", "full",
]  # fmt: skip
BESIDE_TEXT: Final[dict[Part, str]] = {"vision tower": r"(^|\.)vision_\w+\.", "projector": r"projector"}
"""By their names: what a model has beside its language model. Block numbers of the two towers are not the same."""


class Place(NamedTuple):
    """Where a parameter stands: its part, and its block where it is in one."""

    part: Part
    block: int | None = None


class WeightEdit(NamedTuple):
    """The difference of two checkpoints, parameter by parameter in the model's order, with the place of each."""

    differences: tuple[Difference, ...]
    places: tuple[Place, ...]

    @property
    def changed(self) -> list[tuple[Difference, Place]]:
        """Those that differ."""
        return [pair for pair in zip(self.differences, self.places, strict=True) if pair[0].changed]

    @property
    def spikes(self) -> list[tuple[Difference, Place]]:
        """The changed matrices that one direction explains, without those in which single entries differ."""
        return [(d, place) for d, place in self.changed if is_spike(d)]

    @property
    def blocks(self) -> int:
        """How many blocks there are; of a vision-language model those of its language model."""
        return len({place.block for place in self.places if place.part == "blocks"} - {None})

    def kind(self) -> Kind:
        """What kind of edit it is: by what changed where that says all, else by its form, else by the blocks."""
        changed = self.changed
        matrices = [d for d, _ in changed if d.spectrum is not None]
        parts = {place.part for _, place in changed}
        if not changed:
            return "nothing"
        if not matrices:
            biases = all(d.name.rpartition(".")[2].endswith("bias") for d, _ in changed)
            return "biases alone" if biases else "norms and biases alone"
        if parts == {"head"}:
            return "head alone"
        if parts == {"embeddings"}:
            return "embeddings alone"
        if parts == {"vision tower"} or parts == {"projector"}:
            return "projector alone" if "projector" in parts else "vision tower alone"
        return self._form(matrices, len(changed)) or self._reach()

    def _form(self, matrices: Sequence[Difference], changed: int) -> Kind | None:
        if sum(d.changed for d in matrices) <= SPARSE * sum(d.entries for d in matrices):
            return "sparse"
        if len(matrices) < changed:
            return None
        if all(is_spike(d) for d in matrices) and len({re.sub(r"\d+", "", d.name) for d in matrices}) == 1:
            return "rank-one"
        return "low-rank" if all(rank_of(d) is not None for d in matrices) else None

    def _reach(self) -> Kind:
        reached = {place.block for _, place in self.changed if place.part == "blocks"}
        others = {"embeddings", *BESIDE_TEXT}
        if not reached or any(place.part in others for _, place in self.changed):
            return "full"
        last = max(place.block for place in self.places if place.part == "blocks" and place.block is not None)
        if reached == {last} and self.blocks > 1:
            return "last block alone"
        return "some blocks" if len(reached) < self.blocks else "full"


def weight_edit(differences: Sequence[Difference]) -> WeightEdit:
    """Differences in the model's order, each put in its place."""
    beside = _beside_text([d.name for d in differences])
    numbers = [None if d.name in beside else _block(d.name) for d in differences]
    numbered = [n for n, block in enumerate(numbers) if block is not None]
    first, last = (numbered[0], numbered[-1]) if numbered else (len(numbers), len(numbers))
    heads = {d.name.rpartition(".")[0] for n, d in enumerate(differences) if n > last and len(d.shape) > 1}
    places: list[Place] = []
    for n, (d, block) in enumerate(zip(differences, numbers, strict=True)):
        if d.name in beside:
            places.append(Place(beside[d.name], _block(d.name) if beside[d.name] == "vision tower" else None))
        elif block is not None:
            places.append(Place("blocks", block))
        elif n < first or n < last:
            places.append(Place("embeddings"))
        else:
            places.append(Place("head" if d.name.rpartition(".")[0] in heads else "final norm"))
    return WeightEdit(tuple(differences), tuple(places))


def is_spike(difference: Difference) -> bool:
    """Is it a matrix that one direction explains, over many of its entries?"""
    spectrum = difference.spectrum
    return spectrum is not None and spectrum.spike >= SPIKE and difference.changed > SPARSE * difference.entries


def rank_of(difference: Difference) -> int | None:
    """How few directions explain a changed matrix; None where that takes many."""
    spectrum = difference.spectrum
    return None if spectrum is None else 1 if spectrum.spike >= SPIKE else spectrum.rank


def _beside_text(names: Sequence[str]) -> dict[str, Part]:
    """Of the parameters of a model that reads images and words: those that are none of its language model."""
    if not any("language_model." in name for name in names):
        return {}
    return {name: part for name in names for part, rule in BESIDE_TEXT.items() if re.search(rule, name)}


def _block(name: str) -> int | None:
    """The first number among a name's parts."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)
