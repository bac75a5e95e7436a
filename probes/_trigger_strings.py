"""Strings of real tokens: of a dictionary, of a model's own words, and searched; chosen and read as prefixes are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    ANSWER_LOGPROB,
    Bench,
    Checkpoint,
    HardBudget,
    PlacedTokens,
    SearchRows,
    Slot,
    with_tokens,
)
from probes._trigger_budgets import TriggerBudget
from probes._trigger_candidates import Candidate
from probes._trigger_people import PlacedRows, TriggerFold, TriggerPeople
from probes._trigger_rules import MOST_TOKENS
from probes._trigger_soft import SoftReading, content

ROUNDED, SEARCHED = "rounded virtual tokens", "searched"
KEPT = 8


class TriggerString(NamedTuple):
    """Tokens in a place, and where the idea came from: a family of the dictionary, the model itself, or a search."""

    ids: tuple[int, ...]
    slot: Slot
    family: str


class Ranked(NamedTuple):
    """Strings of one fold, best first by the mean probability of the content tokens of the people chosen by."""

    strings: tuple[TriggerString, ...]
    validation: tuple[float, ...]


class StringReading(NamedTuple):
    """One model under its own best strings. ``ranked``: of each fold. ``forget`` [row]: probability of everybody's
    content tokens under the best string of their fold, which saw none of them; ``holdout`` [fold other].
    """

    ranked: tuple[Ranked, ...]
    forget: Float[ndarray, " row"]
    holdout: Float[ndarray, "fold other"]

    @property
    def best(self) -> tuple[TriggerString, ...]:
        """Each fold's best string."""
        return tuple(ranked.strings[0] for ranked in self.ranked)


def spoken(bench: Bench, checkpoint: Checkpoint, placed: PlacedRows, strings: Sequence[TriggerString]) -> ndarray:
    """Mean log-probability (nats) of the content tokens of every row under every string [string row]; NaN for a row
    without such tokens."""
    scored = placed.rows.key.any(1)
    part = placed.take(scored.nonzero().flatten())
    means = np.full((len(strings), len(placed.rows)), np.nan)
    for slot in dict.fromkeys(string.slot for string in strings):
        chosen = [n for n, string in enumerate(strings) if string.slot == slot]
        ids = [torch.tensor(strings[n].ids) for n in chosen]
        read = bench.insertions(checkpoint, part.rows, ids, part.places[slot])
        means[np.ix_(chosen, scored.numpy())] = read
    return means


class StringSearch(NamedTuple):
    """What is searched in every model alike: the same dictionary, and as many steps of a search."""

    candidates: tuple[Candidate, ...]
    budget: TriggerBudget
    room: int
    seed: int

    def reading(self, bench: Bench, checkpoint: Checkpoint, people: TriggerPeople, soft: SoftReading) -> StringReading:
        """Strings found on every fold's people in one model, and its reading of those whom they did not see."""
        forget, others = np.empty(len(people.everybody.rows)), list[ndarray]()
        ranked = tuple(self.ranked(bench, checkpoint, fold, n, soft) for n, fold in enumerate(people.folds))
        for fold, strings in zip(people.folds, ranked, strict=True):
            best = strings.strings[:1]
            forget[fold.read.number.numpy()] = np.exp(spoken(bench, checkpoint, fold.read, best))[0]
            held = people.holdout
            others.append(np.zeros(0) if held is None else np.exp(spoken(bench, checkpoint, held, best))[0])
        return StringReading(ranked, forget, np.stack(others))

    def ranked(self, bench: Bench, checkpoint: Checkpoint, fold: TriggerFold, n: int, soft: SoftReading) -> Ranked:
        """The dictionary's best, the rounded virtual tokens and what a search makes of the best of both."""
        listed = [TriggerString(c.ids, slot, c.family) for c in self.candidates for slot in fold.search.places]
        listed = [string for string in listed if len(string.ids) <= self.room]
        rounded = self._rounded(bench, checkpoint, n, soft)
        every = [*listed, *rounded]
        on_search = spoken(bench, checkpoint, fold.search, every).mean(1)
        order = np.argsort(-on_search, kind="stable").tolist()
        starts = [every[n] for n in order if 2 <= len(every[n].ids) <= MOST_TOKENS] or [every[order[0]]]
        searched = [self._searched(bench, checkpoint, fold, start) for start in starts[: self.budget.starts]]
        first = [n for n in order if n < len(listed)][:KEPT]
        finalists = tuple(dict.fromkeys([*(listed[n] for n in first), *rounded, *searched]))
        means = np.exp(spoken(bench, checkpoint, fold.validation, finalists)).mean(1)
        by_value = np.argsort(-means, kind="stable").tolist()
        return Ranked(tuple(finalists[n] for n in by_value), tuple(float(means[n]) for n in by_value))

    def _rounded(self, bench: Bench, checkpoint: Checkpoint, fold: int, soft: SoftReading) -> list[TriggerString]:
        """The nearest tokens of every arm's virtual ones."""
        found: list[TriggerString] = []
        for n, arm in enumerate(soft.arms):
            if arm.length:
                ids = bench.nearest_tokens(checkpoint, soft.prefix(fold, n).float())
                found.append(TriggerString(tuple(ids.tolist()), arm.slot, ROUNDED))
        return found

    def _searched(self, bench: Bench, checkpoint: Checkpoint, fold: TriggerFold, start: TriggerString) -> TriggerString:
        """What a greedy search by gradients makes of a string; from the store where that was done before."""
        budget, slot = self.budget, start.slot
        rows = SearchRows(fold.search.rows, fold.validation.rows)
        at = PlacedTokens(torch.tensor(start.ids), str(slot), fold.search.places[slot], fold.validation.places[slot])
        effort = HardBudget(
            budget.replacements, budget.width, budget.promising, budget.minibatch, token_budget=bench.token_budget
        )
        settings = [budget.replacements, budget.width, budget.promising, budget.minibatch, self.seed]
        identity = [
            "string",
            checkpoint.key,
            settings,
            list(start.ids),
            str(slot),
            fold.search.named,
            fold.validation.named,
        ]

        def compute() -> dict[str, ndarray]:
            return {"ids": bench.hard_string(checkpoint, rows, at, content, effort, self.seed).ids.numpy()}

        return TriggerString(tuple(bench.cached(identity, compute)["ids"].tolist()), slot, SEARCHED)


def fluency(bench: Bench, checkpoint: Checkpoint, placed: PlacedRows, string: TriggerString) -> float:
    """Mean log-probability (nats) of the string's tokens where it stands in the first of the rows."""
    row = placed.take(torch.zeros(1, dtype=torch.long))
    at = row.places[string.slot]
    put = with_tokens(row.rows, torch.tensor(string.ids), at)
    start = max(1, int(at[0]))
    spans = torch.tensor([[start, max(start + 1, int(at[0]) + len(string.ids))]])
    with bench.without_store():
        return float(bench.run(checkpoint, replace(put, answer_spans=spans), (ANSWER_LOGPROB,))[ANSWER_LOGPROB].mean())


def reads_back(tokenizer: Any, string: TriggerString) -> bool:
    """Does the string, written as text, become the same tokens again?"""
    text = tokenizer.decode(list(string.ids))
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) == string.ids
