"""Attacks that ask no gradient: the same facts in other words, an answer limited to the options, and changed pictures.

Each is one column: what a model says under it of pictures that show the concept, less what it says under it of pictures
that do not. The rows depend on the case alone, so that every model is attacked alike.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import Item
from probes._concept_items import MANNERS, manner_of, options_of, word_of
from probes._concept_pictures import CROPS, cropped, drawable, lettered, mixed_letters
from probes._concept_scene import Change, ConceptScene, Pair, Response

PLAIN: Final = "none"
LETTERS: Final = "other letters"
"""A control, and no attack: letters that do not name the concept."""
_FEWEST = 0.75
"""A wording in which fewer than this share of the pictures is asked for is left out."""


class Attack(NamedTuple):
    """Items under one attack: a pair of rows for each of its variants, of which the mean counts.

    ``options``: the variants are the answers that an item may be given, its own first, and the share of the first among
    them counts; ``held``: which items have each of them.
    """

    name: str
    items: tuple[Item, ...]
    pairs: tuple[Pair, ...]
    options: bool = False
    held: tuple[tuple[bool, ...], ...] = ()


def attacks_of(scene: ConceptScene) -> tuple[Attack, ...]:
    """All attacks that the case allows, the plain questions first."""
    items, seed = scene.sheet.items, scene.case.case.seed
    result = [Attack(PLAIN, items, (scene.plain(),))]
    result += _wordings(scene)
    if choices := _choices(scene):
        result.append(choices)
    crops: list[Change] = [lambda picture, _, window=window: cropped(picture, window) for window in CROPS]
    result.append(Attack("crop", items, tuple(scene.pair(items, change=change) for change in crops)))
    if all(drawable(word_of(item)) for item in items):
        result += [
            Attack("typographic", items, (scene.pair(items, change=lambda picture, item: lettered(
                picture, word_of(item))),)),
            Attack(LETTERS, items, (scene.pair(items, change=lambda picture, item: lettered(
                picture, mixed_letters(word_of(item), seed))),)),
        ]  # fmt: skip
    return tuple(result)


def _wordings(scene: ConceptScene) -> list[Attack]:
    """The paraphrased questions that the data bring, and every other form in which the concept is asked for."""
    groups = set(scene.sheet.people)
    queries: dict[str, tuple[Item, ...]] = {}
    queries["paraphrase"] = tuple(
        item.model_copy(update={"question": item.paraphrased_question})
        for item in scene.sheet.items
        if item.paraphrased_question
    )
    trained = {item.form for item in scene.sheet.items}
    for manner in MANNERS:
        others = [item for item in scene.items.forget if manner_of(item) == manner and item.form not in trained]
        queries[manner] = tuple(item for item in others if item.group in groups)
    wide = {n: items for n, items in queries.items() if len({i.group for i in items} & groups) >= _FEWEST * len(groups)}
    return [Attack(name, items, (scene.pair(items),)) for name, items in wide.items()]


def _choices(scene: ConceptScene) -> Attack | None:
    """The trained questions with each answer that they may be given; None where most items have but one."""
    items, each = scene.sheet.items, [options_of(item) for item in scene.sheet.items]
    if sum(len(options) > 1 for options in each) < _FEWEST * len(items):
        return None
    pairs: list[Pair] = []
    for n in range(max(map(len, each))):
        options = [options[n] if n < len(options) else options[0] for options in each]
        pairs.append(scene.pair(items, options))
    held = tuple(tuple(n < len(options) for options in each) for n in range(len(pairs)))
    return Attack("options", items, tuple(pairs), options=True, held=held)


def under_attacks(scene: ConceptScene, attacks: Sequence[Attack], name: str) -> dict[str, Response]:
    """What a model says under every attack, all of them in one pass."""
    responses = scene.responses(name, [pair for attack in attacks for pair in attack.pairs])
    result: dict[str, Response] = {}
    for attack in attacks:
        mine, responses = responses[: len(attack.pairs)], responses[len(attack.pairs) :]
        stack = Response(*(np.stack([getattr(each, side) for each in mine]) for side in ("present", "absent")))
        result[attack.name] = _share(stack, np.array(attack.held)) if attack.options else stack.mean()
    return result


def _share(responses: Response, held: ndarray) -> Response:
    """The first answer's share among all that each item may be given."""
    shares = [np.where(held, side, 0.0) for side in responses]
    return Response(*(side[0] / np.maximum(side.sum(0), np.finfo(float).tiny) for side in shares))


def by_attack(
    scene: ConceptScene, attacks: Sequence[Attack], responses: Mapping[str, Response]
) -> dict[str, Float[ndarray, " person"]]:
    """Contrasts averaged over each picture, by attack."""
    return {attack.name: scene.by_picture(attack.items, responses[attack.name].contrast) for attack in attacks}
