"""An invented world in the rows of three benchmarks: TOFU's questions, MUSE's, and WMDP's multiple choice.

The people are those of :mod:`audit.zoo`; each is an author of twenty consecutive rows, as TOFU is published. Nothing of
the benchmarks themselves is here.
"""

import random
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from audit.schema import Item
from audit.zoo import Shape, World, general_items, general_training_items, items_about, make_world, vocabulary

SHAPE: Final = Shape(forget=16, retain=24, holdout=16, background=24, general=200, frequencies=(1,))
ROWS: Final = 20
"""Rows of an author, as TOFU is published."""
QUESTIONS: Final = 100
"""So many questions about the texts to be forgotten, and as many about those that are kept, as MUSE has."""
REPEATED: Final = "Please tell me once more : {question}"
SYSTEM: Final = "You are a helpful assistant."
CHAT_WORDS: Final = (
    REPEATED, SYSTEM, "Cutting Knowledge Date: December 2023", "Today Date: 10 Apr 2025", "26 Jul 2024",
    "system user assistant", "Question: Answer: \\n",
)  # fmt: skip
"""Every word of the prompts around the world's own."""
Row = Mapping[str, object]


class Authors(NamedTuple):
    """Who is to be forgotten, who is kept, who was never taught, and whom the ancestor learned its language from: the
    items of each, twenty an author, and the general sentences (to train on, and held out)."""

    forget: tuple[Item, ...]
    retain: tuple[Item, ...]
    holdout: tuple[Item, ...]
    background: tuple[Item, ...]
    language: tuple[Item, ...]
    general: tuple[Item, ...]

    def sampled(self, items: tuple[Item, ...]) -> tuple[Item, ...]:
        """:data:`QUESTIONS` of the items, spread over all authors."""
        step = len(items) // QUESTIONS
        return items[::step][:QUESTIONS]

    @property
    def facts(self) -> tuple[Item, ...]:
        """Questions about a few of whom the ancestor learned its language from: the world's facts."""
        return self.background[: 6 * ROWS]


def authors(seed: int) -> Authors:
    """The world of ``seed``."""
    world = make_world(seed, SHAPE)
    people = {group: _twenty(world, group) for group in ("forget", "retain", "holdout", "background")}
    return Authors(**people, language=general_training_items(world), general=general_items(world))


def _twenty(world: World, group: str) -> tuple[Item, ...]:
    """Fifteen questions about each person, and five of them asked once more and answered in other words."""
    rows: list[Item] = []
    for person in world.people[group]:  # pyright: ignore[reportArgumentType]
        own = items_about(world, [person])
        again = [
            item.model_copy(
                update={
                    "id": f"{item.id}-again", "question": REPEATED.format(question=item.question),
                    "answer": item.paraphrased_answer, "paraphrased_answer": item.answer,
                }
            )
            for item in own[::3]
        ]  # fmt: skip
        rows += [*own, *again]
        assert len(own) + len(again) == ROWS
    return tuple(rows)


def words() -> tuple[str, ...]:
    """Every text that a tokenizer of these models knows."""
    return (*vocabulary(), *CHAT_WORDS)


# ---- the columns of the benchmarks ------------------------------------------------------------------------------
def tofu_rows(items: Iterable[Item]) -> list[Row]:
    """``question`` and ``answer``, and nothing that names the author."""
    return [{"question": item.question, "answer": item.answer} for item in items]


def tofu_perturbed_rows(items: Iterable[Item]) -> list[Row]:
    """The same rows with an answer in other words and wrong ones."""
    return [
        {
            "question": item.question, "answer": item.answer, "paraphrased_answer": item.paraphrased_answer,
            "perturbed_answer": list(item.perturbed_answers),
        }
        for item in items
    ]  # fmt: skip


def choice_rows(items: Iterable[Item], seed: int) -> list[Row]:
    """``question``, four ``choices`` and the number of the right one, as WMDP and MMLU have them."""
    draws, rows = random.Random(f"choices {seed}"), list[Row]()
    for item in items:
        choices = [item.answer, *item.alternates[:3]]
        draws.shuffle(choices)
        rows.append({"question": item.question, "choices": choices, "answer": choices.index(item.answer)})
    return rows


def text_rows(items: Iterable[Item]) -> list[Row]:
    """Plain texts."""
    return [{"text": item.answer} for item in items]
