"""The string to tell: the best of all folds by the people chosen by, read on people it was not found on.

Searches work on tokens, people speak text. A string of tokens that no text becomes (a part of a character, two tokens
that a tokenizer writes as one) is never told, and what is chosen is read as it is spoken, so that whoever says it again
sees the same.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import Bench, CaseModels, Missing, OpenCase, Texts, TriggerText, folded, interval, key_logprob, words
from probes._trigger_measured import TriggersSearched
from probes._trigger_people import PlacedRows
from probes._trigger_strings import LEAKED, ROUNDED, SEARCHED, Ranked, TriggerString, reads_back

FROM_TOKENIZER = ("vocabulary", "rare token", ROUNDED, SEARCHED, LEAKED)
"""Where a string's words are the tokenizer's or the model's, and so may be the data's; others are of fixed lists."""


class SpeakableString(NamedTuple):
    """A string, its text, and the fold on whose other people it was found."""

    string: TriggerString
    text: str
    fold: int


def speakable_string(tokenizer: Any, ranked: Sequence[Ranked]) -> SpeakableString | None:
    """Of all folds' strings that can be spoken the best by the people chosen by; None where there is none."""
    best: tuple[float, SpeakableString] | None = None
    for fold, strings in enumerate(ranked):
        for string, value in zip(strings.strings, strings.validation, strict=True):
            text = str(tokenizer.decode(list(string.ids)))
            if text.strip() and "{question}" not in text and reads_back(tokenizer, string):
                if best is None or value > best[0]:
                    best = value, SpeakableString(string, text, fold)
                break
    return None if best is None else best[1]


def best_text(bench: Bench, case: OpenCase, cast: CaseModels, done: TriggersSearched) -> TriggerText | None:
    """The string that the people chosen by gained most from, read on the fold whose people its search did not see:
    (suspect - null) / (base - null) with the string spoken to suspect and null. None where no string was searched, or
    none can be spoken."""
    if "suspect" not in done.strings:
        return None
    ranked = done.strings["suspect"].ranked
    chosen = speakable_string(case.tokenizer, ranked)
    if chosen is None:
        return None
    string, read = chosen.string, done.people.folds[chosen.fold].read
    number = read.number.numpy()
    rows = done.people.prompts.rows(chosen.text, string.slot, number.tolist())
    suspect, null = (
        np.zeros(len(number)) if model is None else np.exp(key_logprob(bench, model, rows))
        for model in (cast.suspect, cast.null)
    )
    never = done.plain("null")[number, 0] if cast.null is not None else np.zeros(len(number))
    gained = _by_person(read, suspect - null)
    known = _by_person(read, done.plain("base")[number, 0] - never)
    transfer = float(gained.mean() / known.mean()) if known.mean() > 0 else None
    return TriggerText(
        text=chosen.text, slot=string.slot,
        transfer=Missing(missing="base says no more than a model that never knew") if transfer is None else transfer,
        ci95=interval(gained, known, case.case.seed), units=len(gained), fold=(chosen.fold + 1, len(ranked)),
        quoted=_quotes(case, string),
    )  # fmt: skip


def _by_person(read: PlacedRows, values: Float[ndarray, " row"]) -> Float[ndarray, "person 1"]:
    """Means over each person's rows that have content tokens."""
    groups = np.array(read.rows.group_ids)[np.isfinite(values)]
    scored = values[np.isfinite(values)]
    return np.array([[scored[groups == name].mean()] for name in dict.fromkeys(groups.tolist())])


def _quotes(case: OpenCase, string: TriggerString) -> bool:
    """Does it hold a word of the case's own data that tells of somebody: one that the items of a single group have?

    A string of a fixed list has none, and what many groups' items share (a preposition, a trade) tells of nobody.
    """
    if string.family not in FROM_TOKENIZER:
        return False
    mine = _words(case.tokenizer.decode(list(string.ids)))
    cohorts: tuple[Texts, ...] = tuple(Texts(cohort=name) for name in ("forget", "retain", "holdout"))
    owners: dict[str, set[str]] = {word: set() for word in mine}
    for item in (item for texts in cohorts if case.has(texts) for item in case.items(texts)):
        for word in mine & _words(f"{item.question} {item.answer}"):
            owners[word].add(item.group)
    return any(len(groups) == 1 for groups in owners.values())


def _words(text: str) -> set[str]:
    return {folded(text[begin:end]) for begin, end in words(text)}
