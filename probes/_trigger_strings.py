"""Strings of real tokens: of a dictionary, of a model's own words, and searched; chosen and read as prefixes are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
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
from probes._trigger_leaks import LEAKED
from probes._trigger_people import PlacedRows, TriggerFold, TriggerPeople
from probes._trigger_rules import MOST_TOKENS
from probes._trigger_soft import SoftReading, content

ROUNDED, SEARCHED, LISTED = "rounded virtual tokens", "searched", "dictionary"
KEPT = 8


class TriggerString(NamedTuple):
    """Tokens in a place, and where the idea came from: a family of the dictionary, the model itself, or a search."""

    ids: tuple[int, ...]
    slot: Slot
    family: str

    @property
    def source(self) -> str:
        """The search that it is of."""
        return self.family if self.family in (ROUNDED, SEARCHED, LEAKED) else LISTED


class Ranked(NamedTuple):
    """Strings of one fold, best first by the mean probability of the content tokens of the people chosen by.
    ``listed``: the same of the people searched on, under every candidate of the list in every place."""

    strings: tuple[TriggerString, ...]
    validation: tuple[float, ...]
    listed: Float[ndarray, "candidate slot"]

    def best_of(self, source: str) -> int:
        """The number of the best string of a search."""
        return next(n for n, string in enumerate(self.strings) if string.source == source)


class StringReading(NamedTuple):
    """One model under its own best strings, one a search. ``forget`` [row search]: probability of everybody's content
    tokens under the strings of their fold, which saw none of them; ``holdout`` [fold other search]: of holdout people.
    """

    ranked: tuple[Ranked, ...]
    sources: tuple[str, ...]
    forget: Float[ndarray, "row search"]
    holdout: Float[ndarray, "fold other search"]

    @property
    def chosen(self) -> Int[ndarray, " fold"]:
        """Of which search each fold's best string is."""
        return np.array([self.sources.index(ranked.strings[0].source) for ranked in self.ranked])

    @property
    def listed(self) -> tuple[Float[ndarray, "candidate slot"], ...]:
        """What every candidate of the list does to the people searched on, fold by fold."""
        return tuple(ranked.listed for ranked in self.ranked)

    def string(self, fold: int, source: str) -> TriggerString:
        """The best string of a search."""
        ranked = self.ranked[fold]
        return ranked.strings[ranked.best_of(source)]

    def at_best(self, fold_of: Int[ndarray, " row"]) -> Float[ndarray, "row 1"]:
        """Probability of everybody's content tokens under the best string of their fold."""
        return self.forget[np.arange(len(fold_of)), self.chosen[fold_of]][:, None]

    def others_at_best(self) -> tuple[Float[ndarray, "other 1"], ...]:
        """Probability of holdout people's content tokens under the best string of each fold; empty without them."""
        return tuple(x[:, [n]] for x, n in zip(self.holdout, self.chosen, strict=True) if len(x))


def spoken(bench: Bench, checkpoint: Checkpoint, placed: PlacedRows, strings: Sequence[TriggerString]) -> ndarray:
    """Mean log-probability (nats) of the content tokens of every row under every string [string row]; NaN for a row
    without such tokens."""
    scored = placed.rows.key.any(1)
    part = placed.take(scored.nonzero().flatten())
    means = np.full((len(strings), len(placed.rows)), np.nan)
    slots: dict[Slot, None] = dict.fromkeys(string.slot for string in strings)
    for slot in slots:
        chosen = [n for n, string in enumerate(strings) if string.slot == slot]
        ids = [torch.tensor(strings[n].ids) for n in chosen]
        read = bench.insertions(checkpoint, part.rows, ids, part.places[slot])
        means[np.array(chosen)[:, None], np.flatnonzero(scored.numpy())] = read
    return means


class StringSearch(NamedTuple):
    """What is searched in every model alike: the same dictionary, and as many steps of a search."""

    candidates: tuple[Candidate, ...]
    budget: TriggerBudget
    room: int
    seed: int

    def reading(self, bench: Bench, checkpoint: Checkpoint, people: TriggerPeople, soft: SoftReading) -> StringReading:
        """Strings found on every fold's people in one model, and its reading of those whom they did not see."""
        ranked = tuple(self.ranked(bench, checkpoint, fold, n, soft) for n, fold in enumerate(people.folds))
        sources = tuple(dict.fromkeys(string.source for string in ranked[0].strings))
        forget, others = np.empty((len(people.everybody.rows), len(sources))), list[ndarray]()
        for fold, strings in zip(people.folds, ranked, strict=True):
            best = [strings.strings[strings.best_of(source)] for source in sources]
            forget[fold.read.number.numpy()] = np.exp(spoken(bench, checkpoint, fold.read, best)).T
            held = people.holdout
            others.append(np.zeros((0, len(best))) if held is None else np.exp(spoken(bench, checkpoint, held, best)).T)
        return StringReading(ranked, sources, forget, np.stack(others))

    def ranked(self, bench: Bench, checkpoint: Checkpoint, fold: TriggerFold, n: int, soft: SoftReading) -> Ranked:
        """The dictionary's best, the rounded virtual tokens and what a search makes of the best of both."""
        listed = [TriggerString(c.ids, slot, c.family) for c in self.candidates for slot in fold.search.places]
        listed = [string for string in listed if len(string.ids) <= self.room]
        rounded = self._rounded(bench, checkpoint, n, soft)
        every = [*listed, *rounded]
        few = fold.search.take(torch.arange(min(len(fold.search.rows), self.budget.minibatch)))
        under = spoken(bench, checkpoint, few, every)
        on_search, levels = under.mean(1), np.exp(under[: len(listed)]).mean(1)
        order = np.argsort(-on_search, kind="stable").tolist()
        starts = [every[n] for n in order if 2 <= len(every[n].ids) <= MOST_TOKENS] or [every[order[0]]]
        searched = [self._searched(bench, checkpoint, fold, start) for start in starts[: self.budget.starts]]
        first = [every[n] for n in order if n < len(listed)]
        of_each = [next(s for s in first if s.source == source) for source in {s.source: 0 for s in first}]
        finalists = tuple(dict.fromkeys([*first[:KEPT], *of_each, *rounded, *searched]))
        means = np.exp(spoken(bench, checkpoint, fold.validation, finalists)).mean(1)
        by_value = np.argsort(-means, kind="stable").tolist()
        strings, validation = tuple(finalists[n] for n in by_value), tuple(float(means[n]) for n in by_value)
        return Ranked(strings, validation, levels.reshape(-1, len(fold.search.places)))

    def _rounded(self, bench: Bench, checkpoint: Checkpoint, fold: int, soft: SoftReading) -> list[TriggerString]:
        """The nearest tokens of every arm's virtual ones."""
        rounded: list[TriggerString] = []
        for n, arm in enumerate(soft.arms):
            if arm.length:
                ids = bench.nearest_tokens(checkpoint, soft.prefix(fold, n).float())
                rounded.append(TriggerString(tuple(ids.tolist()), arm.slot, ROUNDED))
        return rounded

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
            fold.search.identity,
            fold.validation.identity,
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
