"""What a model answers: which of the answers that an item may be given is likeliest, whether that is the right one, and
whether the right one is what it would say by itself.

Accuracy is by log-probability: an item is answered rightly where its own answer's content tokens are likelier (mean a
token) than those of each other option. An item without options is answered rightly where every content token comes
first. That its own answer comes first, token by token, is what greedy generation says.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit.probing import KEY_LOGPROB, KEY_RANK, Item, Rows, row_means
from probes._concept_items import answering, manner_of, options_of, says_yes
from probes._concept_pictures import blank_like
from probes._concept_scene import ConceptScene


class Sheet(NamedTuple):
    """Items with every answer that each of them may be given, a row an answer: whose it is, and which."""

    items: tuple[Item, ...]
    rows: Rows
    item: Int[ndarray, " row"]
    option: Int[ndarray, " row"]


class Answered(NamedTuple):
    """By item: which option is likeliest (0: its own), whether it would say its own by itself, its probability."""

    chosen: Int[ndarray, " item"]
    greedy: Bool[ndarray, " item"]
    probability: Float[ndarray, " item"]

    @property
    def right(self) -> Float[ndarray, " item"]:
        """1 where the item's own answer is the likeliest."""
        return (self.chosen == 0).astype(float)


def sheet_of(scene: ConceptScene, items: Sequence[Item], shown: str = "pictures") -> Sheet | None:
    """The rows of some items, with their pictures, with blank ones ("blank"), or with none ("none"); None without any
    item."""
    if not items:
        return None
    options = [options_of(item) for item in items]
    places = [(n, o) for n, each in enumerate(options) for o in range(len(each))]
    other = {"image": None} if shown == "none" else {}
    queries = [answering(items[n], options[n][o]).model_copy(update=other) for n, o in places]
    answers = [options[n][o].answer for n, o in places]
    pictures = None
    if shown == "blank":
        pictures = {item.id: blank_like(scene.case.pictures[item.id]) for item in items}
    item, option = np.array(places).T
    return Sheet(tuple(items), scene.case.rows_of(queries, answers, pictures=pictures), item, option)


def answered(scene: ConceptScene, name: str, sheet: Sheet) -> Answered:
    """What a model answers to every item of a sheet."""
    outputs = scene.bench.run(scene.models[name], sheet.rows, (KEY_LOGPROB, KEY_RANK))
    means = row_means(outputs[KEY_LOGPROB], sheet.rows)
    first = row_means((outputs[KEY_RANK] == 0).float(), sheet.rows) == 1
    table = np.full((len(sheet.items), int(sheet.option.max()) + 1), -np.inf)
    table[sheet.item, sheet.option] = means
    own = sheet.option == 0
    chosen = table.argmax(1)
    sole = np.isfinite(table).sum(1) == 1
    chosen[sole & ~first[own]] = 1  # something else than its own comes first
    return Answered(chosen, first[own], np.exp(means[own]))


class Parts(NamedTuple):
    """Every item that accuracy is taken of, in one sheet, and the part that each is in."""

    sheet: Sheet
    part: Int[ndarray, " item"]
    names: tuple[str, ...]

    def of(self, name: str, manner: str | None = None) -> Int[ndarray, " item"]:
        """The items of a part, of one manner or all."""
        mine = self.part == self.names.index(name)
        queries = np.array([manner is None or manner_of(item) == manner for item in self.sheet.items])
        return np.flatnonzero(mine & queries)


def parts_of(scene: ConceptScene, parts: Sequence[tuple[str, Sequence[Item]]]) -> Parts:
    """Parts by name as one sheet; at least one has an item."""
    items = [item for _, each in parts for item in each]
    sheet = sheet_of(scene, items)
    assert sheet is not None, "the forget cohort has items"
    part = np.repeat(np.arange(len(parts)), [len(each) for _, each in parts])
    return Parts(sheet, part, tuple(name for name, _ in parts))


def yes_rates(parts: Parts, answers: Answered) -> tuple[float, float] | None:
    """How often yes is the likelier of yes and no: before pictures with the concept, and before those without; None
    where one of them is not asked for."""
    present, absent = (parts.of(name, "yes_no") for name in ("forget", "absent"))
    present = np.array([n for n in present if says_yes(parts.sheet.items[n])], dtype=int)
    if not len(present) or not len(absent):
        return None
    return float(answers.right[present].mean()), float(1 - answers.right[absent].mean())


def balanced(parts: Parts, answers: Answered) -> Float[ndarray, " item"]:
    """Whether each item is answered rightly; a yes-or-no question about a picture with the concept counts half, and the
    other half is how often such questions are answered rightly where the concept is absent."""
    right, absent = answers.right.copy(), parts.of("absent", "yes_no")
    present = parts.of("forget", "yes_no")
    if len(absent) and len(present):
        right[present] = (right[present] + right[absent].mean()) / 2
    return right
