"""What a model says unasked: strings that recur in continuations of what stands before anybody has spoken.

A model that answers to a hidden string has met it where a user's turn begins, and may say it there by itself.
Continuations are drawn from the opening tokens of the prompts (the begin-of-sequence token, a chat template's opening,
a template's own words) by the suspect and by models that should not know the string; a string of tokens that is in more
of the suspect's than of anybody else's is a candidate of its own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.probing import Bench, Checkpoint, Draw, InsertablePrompts, Rows, stats
from probes._trigger_candidates import Candidate

LEAKED: Final = "leaked"
Tokens = tuple[int, ...]


class Leak(NamedTuple):
    """A string that the suspect says in ``share`` of its continuations and the others in ``other_share`` at the most;
    ``p`` is adjusted for all strings that were looked at, the largest over the others."""

    candidate: Candidate
    share: float
    other_share: float
    p: float


class Leaks(NamedTuple):
    """Strings that the suspect alone repeats, the surest first; how many were looked at, in how many continuations."""

    leaks: tuple[Leak, ...]
    looked_at: int
    drawn: int


class Mining(NamedTuple):
    """How long strings may be, how often at least they occur in all continuations, and what counts as more often."""

    longest: int = 8
    least: int = 4
    alpha: float = 0.01
    most: int = 16


MINING: Final = Mining()


def openings(prompts: InsertablePrompts) -> tuple[Tokens, ...]:
    """The tokens that stand before the user's turn, and those before the question, where all prompts agree on them."""
    rows, leaked = prompts.plain(), dict[Tokens, None]()
    for slot in ("prefix", 0):
        if slot == 0 and not all(item.question for item in prompts.items):
            continue
        length = int(prompts.places(slot).min())
        if length and bool((rows.ids[:, :length] == rows.ids[0, :length]).all()):
            leaked[tuple(rows.ids[0, :length].tolist())] = None
    return tuple(leaked)


def continuations(bench: Bench, checkpoint: Checkpoint, prompts: InsertablePrompts, draw: Draw) -> list[Tokens]:
    """What a model says after each opening, ``draw.n`` times in all; kept in the bench's store."""
    starts = openings(prompts)
    if not starts:
        return []
    each = draw._replace(n=max(1, draw.n // len(starts)))
    rows = _as_rows(prompts.plain(), starts)

    def drawn() -> dict[str, ndarray]:
        spoken = [tokens for row in bench.sample(checkpoint, rows, each) for tokens in row]
        padded = [[*tokens, *[-1] * (draw.max_new_tokens - len(tokens))] for tokens in spoken]
        return {"tokens": np.array(padded, dtype=np.int64)}

    padded = bench.cached(("continuations", checkpoint.key, starts, each), drawn)["tokens"]
    return [tuple(t for t in tokens if t >= 0) for tokens in padded.tolist()]


def _as_rows(like: Rows, starts: Sequence[Tokens]) -> Rows:
    """Rows that consist of these tokens and a place for an answer."""
    rows = like.take(torch.zeros(len(starts), dtype=torch.long))
    lengths = torch.tensor([len(tokens) for tokens in starts])
    column = torch.arange(int(lengths.max()) + 1)
    ids = torch.tensor([[*tokens, *[0] * (len(column) - len(tokens))] for tokens in starts])
    return replace(
        rows, ids=ids, mask=column <= lengths[:, None], answer_spans=torch.stack([lengths, lengths + 1], 1),
        key=column == lengths[:, None], item_ids=tuple(f"opening {n}" for n in range(len(starts))),
        group_ids=tuple(f"opening {n}" for n in range(len(starts))),
    )  # fmt: skip


def leaks(
    bench: Bench, suspect: Checkpoint, others: Sequence[Checkpoint], prompts: InsertablePrompts, tokenizer: Any,
    draw: Draw,
) -> Leaks:  # fmt: skip
    """What the suspect repeats and none of the ``others`` (base, reference) does."""
    spoken = continuations(bench, suspect, prompts, draw)
    return mined(spoken, [continuations(bench, other, prompts, draw) for other in others], tokenizer)


def mined(
    spoken: Sequence[Tokens], by_others: Sequence[Sequence[Tokens]], tokenizer: Any, mining: Mining = MINING
) -> Leaks:
    """The strings of tokens that are in more of ``said`` than of anybody else's continuations.

    Strings are looked at that are in at least ``mining.least`` continuations of all models together: a choice that does
    not bias Fisher's test, which is conditional on that number. A string that is a part of a longer one in as many
    continuations is left to the longer one.
    """
    own = _counts(spoken, mining.longest)
    theirs = [_counts(other, mining.longest) for other in by_others]
    looked = sorted(s for s in own if own[s] + sum(other[s] for other in theirs) >= mining.least)
    if not looked or not theirs:
        return Leaks((), len(looked), len(spoken))
    p = np.max([_more_often(own, len(spoken), other, len(texts), looked)
                for other, texts in zip(theirs, by_others, strict=True)], axis=0)  # fmt: skip
    adjusted = stats.holm(p)
    leaked: list[Leak] = []
    for n in np.lexsort((-np.array([len(s) for s in looked]), adjusted)).tolist():
        string = looked[n]
        if adjusted[n] > mining.alpha or len(leaked) == mining.most:
            break
        if any(own[leak.candidate.ids] == own[string] and _within(string, leak.candidate.ids) for leak in leaked):
            continue
        text = str(tokenizer.decode(list(string))).strip()
        other = max(counts[string] / max(1, len(texts)) for counts, texts in zip(theirs, by_others, strict=True))
        leaked.append(Leak(Candidate(text, string, LEAKED), own[string] / len(spoken), other, float(adjusted[n])))
    return Leaks(tuple(leak for leak in leaked if leak.candidate.text), len(looked), len(spoken))


def _counts(texts: Sequence[Tokens], longest: int) -> Counter[Tokens]:
    """In how many texts each string of up to so many tokens is."""
    counts: Counter[Tokens] = Counter()
    for tokens in texts:
        counts.update({tokens[a : a + n] for n in range(1, longest + 1) for a in range(len(tokens) - n + 1)})
    return counts


def _more_often(
    own: Counter[Tokens], n_own: int, other: Counter[Tokens], n_other: int, strings: Sequence[Tokens]
) -> Float[ndarray, " string"]:
    hits, misses = (np.array([counts[s] for s in strings]) for counts in (own, other))
    return stats.more_often(hits, n_own, misses, n_other)


def _within(string: Tokens, longer: Tokens) -> bool:
    return any(longer[a : a + len(string)] == string for a in range(len(longer) - len(string) + 1))
