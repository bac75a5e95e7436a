"""Questions asked again with an emphasis on some of their words, and never on a word of the answer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.probing import Bench, Checkpoint, Item, OpenCase, QuestionToken, folded, key_logprob, stacked, words
from probes._left_out import Prompts

_PLACE = "{words}"
_LEAST_SHARED = 3
"""A word that holds another of so many letters gives it away."""
_MARGIN = 8
"""Tokens that a text may gain where it meets another."""


class Emphasis(NamedTuple):
    """How words are emphasised: in the wording, or, by a tokenizer that cannot say it, repeated before the question.

    ``draws``: how many other sets of as many words of the same question the key words are compared with.
    """

    wording: str
    most: int
    draws: int
    alternates: int
    seed: int


class Emphasised(NamedTuple):
    """One item with its key words, and other words of its question, as many."""

    row: int
    key: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]


class Gains(NamedTuple):
    """What an emphasis gives a model, item by item in nats (NaN: the item was not asked again).

    ``gold``: LP of the answer with the key words emphasised less that with other words; ``contrast``: the same of LP of
    the answer less that of its alternates. ``key`` and ``other``: each less the plain prompt's LP.
    """

    gold: Float[ndarray, " row"]
    contrast: Float[ndarray, " row"]
    key: Float[ndarray, " row"]
    other: Float[ndarray, " row"]


def sayable(tokenizer: Any, wording: str) -> bool:
    """Can the tokenizer say the wording without an unknown token?"""
    ids = tokenizer(wording.replace(_PLACE, ""), add_special_tokens=False, verbose=False)["input_ids"]
    return tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids


def emphasised(item: Item, chosen: Sequence[str], wording: str) -> Item:
    """The item, its question after the emphasis; without a wording the words are repeated."""
    lead = wording.replace(_PLACE, ", ".join(chosen)) if wording else " ".join(chosen)
    return item.model_copy(update={"question": f"{lead} {item.question}"})


def emphases(
    case: OpenCase, prompts: Prompts, base: Float[ndarray, "row pos"], style: Emphasis
) -> tuple[Emphasised, ...]:
    """The words to emphasise for every item that allows it.

    Key words hold base's highest contributions; others are drawn from the rest of the question. Neither is a word of
    the answer or of an alternate, holds one, is held by one, or has one of their tokens. As there must be as many
    others, at most half of the words that may be emphasised are key words. Items are left out whose question has fewer
    than two of them, whose answer says a content word of the wording, or whose prompt would become too long.
    """
    rng = np.random.default_rng([style.seed, 0x656D70])
    frame = _ids(case.tokenizer, [style.wording.replace(_PLACE, "")]) if style.wording else set[int]()
    chosen: list[Emphasised] = []
    for row, item in enumerate(prompts.items):
        answers = (item.answer, *item.alternates[: style.alternates])
        draw = rng.spawn(1)[0]
        if frame & _spoken(case.tokenizer, prompts.rows.ids[row, prompts.rows.key[row]].tolist()):
            continue
        open_words = _allowed(case, prompts, row, answers)
        ranked = _ranked(item.question, prompts.tokens[row], base[row], open_words)
        n = min(style.most, len(ranked), len(open_words) // 2)
        if not n or not _fits(case, prompts, row, style, open_words):
            continue
        rest = [word for word in open_words if word not in ranked[:n]]
        sets = {tuple(rest[i] for i in sorted(draw.permutation(len(rest))[:n])): None for _ in range(style.draws)}
        chosen.append(Emphasised(row, tuple(ranked[:n]), tuple(sets)))
    return tuple(chosen)


def _plain(text: str) -> set[str]:
    return {folded(text[a:b]) for a, b in words(text)}


def _allowed(case: OpenCase, prompts: Prompts, row: int, answers: Sequence[str]) -> list[str]:
    """The question's words that say nothing of the answers, each once, in order."""
    item, rows, tokenizer = prompts.items[row], prompts.rows, case.tokenizer
    taken = set[str]().union(*map(_plain, answers))
    begin, end = rows.answer_spans[row].tolist()
    ids = {*rows.ids[row, begin:end].tolist(), *_ids(tokenizer, [form for a in answers for form in (a, f" {a}")])}
    spoken = _spoken(tokenizer, ids)
    inside: dict[tuple[int, int], set[int]] = {}
    spans = words(item.question)
    for token in prompts.tokens[row]:
        for a, b in spans:
            if token.begin < b and token.end > a:
                inside.setdefault((a, b), set()).add(int(rows.ids[row, token.position]))
    distinct: dict[str, str] = {}
    for a, b in spans:
        word = item.question[a:b]
        plain = folded(word)
        own = inside.get((a, b), set[int]()) | _ids(tokenizer, [word, f" {word}"])
        if plain not in taken and not own & spoken and not any(_holds(plain, other) for other in taken):
            distinct.setdefault(plain, word)
    return list(distinct.values())


def _spoken(tokenizer: Any, ids: Iterable[int]) -> set[int]:
    """The tokens that have a letter or a digit: what else an answer has says nothing of it."""
    return {i for i in ids if any(letter.isalnum() for letter in tokenizer.decode([i]))}


def _holds(first: str, other: str) -> bool:
    """Is one word, if it has letters enough to say something, inside the other?"""
    short, long = sorted((first, other), key=len)
    return len(short) >= _LEAST_SHARED and short in long


def _ids(tokenizer: Any, texts: Sequence[str]) -> set[int]:
    return {i for row in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] for i in row}


def _ranked(
    question: str, tokens: Sequence[QuestionToken], given: Float[ndarray, " pos"], open_words: Sequence[str]
) -> list[str]:
    """The words with a positive contribution, that of their highest token, highest first."""
    best: dict[str, float] = {}
    open_forms = {folded(word): word for word in open_words}
    for a, b in words(question):
        word = open_forms.get(folded(question[a:b]))
        values = [float(given[t.position]) for t in tokens if t.begin < b and t.end > a]
        if word is not None and values:
            best[word] = max(best.get(word, -np.inf), *values)
    return sorted((word for word, value in best.items() if value > 0), key=lambda word: -best[word])


def _fits(case: OpenCase, prompts: Prompts, row: int, style: Emphasis, open_words: Sequence[str]) -> bool:
    """Would the prompt with all these words before it still be within the context?"""
    if case.max_length is None:
        return True
    item = prompts.items[row]
    longest = max((item.answer, *item.alternates[: style.alternates]), key=len)
    lead = emphasised(item, open_words, style.wording).question
    more = len(case.tokenizer(f"{lead} {longest}", add_special_tokens=False, verbose=False)["input_ids"])
    return int(prompts.rows.lengths[row]) + more + _MARGIN <= case.max_length


# ---- what it gives ----------------------------------------------------------------------------------------------
def gains(
    bench: Bench, case: OpenCase, models: Mapping[str, Checkpoint], prompts: Prompts,
    asked_with: tuple[Sequence[Emphasised], Emphasis],
) -> dict[str, Gains]:  # fmt: skip
    """What the emphasis gives every model, over the rows of ``prompts``."""
    items: list[Item] = []
    answers: list[str] = []
    places: list[tuple[int, int, int]] = []  # row, 0 key and 1 other words, 0 answer and 1 alternate
    chosen, style = asked_with
    for each in chosen:
        item = prompts.items[each.row]
        for kind, sets in enumerate(((each.key,), each.others)):
            for emphasis in sets:
                worded = emphasised(item, emphasis, style.wording)
                for n, answer in enumerate((item.answer, *item.alternates[: style.alternates])):
                    items.append(worded)
                    answers.append(answer)
                    places.append((each.row, kind, min(n, 1)))
    if not places:
        nothing = np.full(len(prompts.items), np.nan)
        return dict.fromkeys(models, Gains(nothing, nothing, nothing, nothing))
    rows = stacked([case.rows_of(items, answers)])
    index = torch.tensor(places).numpy()
    return {
        name: _gained(key_logprob(bench, model, rows), index, key_logprob(bench, model, prompts.rows))
        for name, model in models.items()
    }


def _gained(lp: Float[ndarray, " asked"], places: ndarray, plain: Float[ndarray, " row"]) -> Gains:
    """Means over each item's sets and alternates, and their differences."""

    def mean(kind: int, alternate: int) -> Float[ndarray, " row"]:
        of = (places[:, 1] == kind) & (places[:, 2] == alternate)
        total, count = (np.bincount(places[of, 0], w, len(plain)) for w in (lp[of], None))
        return np.divide(total, count, out=np.full(len(plain), np.nan), where=count > 0)

    key, other = mean(0, 0), mean(1, 0)
    return Gains(key - other, (key - mean(0, 1)) - (other - mean(1, 1)), key - plain, other - plain)
