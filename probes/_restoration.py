"""What restoration tests stand on: a dictionary of base's states, the features that speak for each answer, the models'
states of the forget rows, and a model that goes on from states that were edited."""

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import (
    KEY_LOGPROB,
    KEY_RANK,
    Bench,
    CaseModels,
    Checkpoint,
    OpenCase,
    PersonRows,
    Read,
    Rows,
    Start,
    Texts,
    person_rows_of,
    row_means,
    stacked,
)
from probes._profiles import after
from saes import Activity, SparseCoder, StatePair, activity, expert_features, matched_sets

FORGET, RETAIN = Texts(cohort="forget"), Texts(cohort="retain")
LEAST_ROWS = 3
"""An answer that is in fewer rows of a fold has no experts there."""
_BYTES_AT_ONCE = 64 << 20


class Scores(NamedTuple):
    """One model's answers: mean probability of each row's content tokens, and whether all of them come first."""

    probability: Float[ndarray, " row"]
    hit: Float[ndarray, " row"]


def scores(bench: Bench, reader: Checkpoint, rows: Rows, start: Start | None = None) -> Scores:
    """What a model answers, or answers when it goes on from given states."""
    outputs = bench.run(reader, rows, (KEY_LOGPROB, KEY_RANK), start=start)
    first = (outputs[KEY_RANK] == 0).float()
    return Scores(np.exp(row_means(outputs[KEY_LOGPROB], rows)), (row_means(first, rows) == 1).astype(float))


class Answers(NamedTuple):
    """Rows by what they answer: ``kind`` numbers the content tokens, ``fold`` the part of whole groups."""

    rows: Rows
    kind: Int[ndarray, " row"]
    fold: Int[ndarray, " row"]


def _tokens(rows: Rows) -> list[tuple[int, ...]]:
    """The content tokens of every row: its answer."""
    return [tuple(rows.ids[i][rows.key[i]].tolist()) for i in range(len(rows))]


def _number(case: OpenCase) -> dict[tuple[int, ...], int]:
    """The answers of the trained forget and retain rows, numbered as they come."""
    every = [answer for texts in (FORGET, RETAIN) for answer in _tokens(case.rows(texts))]
    return {answer: n for n, answer in enumerate(dict.fromkeys(every))}


def answers_of(case: OpenCase, texts: Texts, number: Mapping[tuple[int, ...], int]) -> Answers:
    """Rows with the numbers of their answers, in two folds of whole groups."""
    rows = case.rows(texts)
    second = set(case.folds(texts, 2)[-1].group_ids)
    fold = np.array([int(group in second) for group in rows.group_ids])
    return Answers(rows, np.array([number[answer] for answer in _tokens(rows)]), fold)


class Strangers(NamedTuple):
    """For every forget row a row of base's with another answer and as many states: where it is among ``states``, -1
    where there is none."""

    states: Float[Tensor, "other pos d"]
    at: Int[ndarray, " row"]


class Experts(NamedTuple):
    """The features that speak for each answer, chosen in base on the other fold: ``columns`` by (fold, kind), -1 where
    there are fewer; ``by_row`` those of every forget row; ``scored`` the rows that have any."""

    columns: dict[tuple[int, int], Int[Tensor, " expert"]]
    by_row: Int[Tensor, "row expert"]
    scored: Bool[ndarray, " row"]


class Scene:
    """One case, one block, one dictionary. States are read once a model and kept while the scene lives."""

    def __init__(self, bench: Bench, case: OpenCase, cast: CaseModels, layer: int, coder: SparseCoder) -> None:
        self.bench, self.case, self.cast, self.layer, self.coder = bench, case, cast, layer, coder
        self.sheet: PersonRows = person_rows_of(case, FORGET)
        self._number = _number(case)
        self.forget, self.retain = (answers_of(case, texts, self._number) for texts in (FORGET, RETAIN))
        self.models = cast.by_name()
        self._states: dict[tuple[str, str], Tensor] = {}
        self._codes: dict[str, Tensor] = {}
        self._matched: Tensor | None = None

    @property
    def label(self) -> str:
        """The dictionary, in words."""
        active = f", {self.coder.k} active" if self.coder.k else ""
        return f"a dictionary of {self.coder.features} features{active} of base's states after block {self.layer}"

    # ---- states --------------------------------------------------------------------------------------------------
    def states(self, name: str, rows: Rows | None = None) -> Float[Tensor, "row pos d"]:
        """A model's states after the block, of the forget rows or others."""
        rows = self.sheet.rows if rows is None else rows
        key = name, rows.hash
        if key not in self._states:
            read = Read(site=after(self.layer), at="all")
            self._states[key] = self.bench.run(self.models[name], rows, (read,))[read]
        return self._states[key]

    def codes(self, name: str) -> Float[Tensor, "row pos feature"]:
        """What base's dictionary says of a model's states of the forget rows."""
        if name not in self._codes:
            self._codes[name] = self.coder.encode(self.states(name))
        return self._codes[name]

    def encoded(self, rows: Rows) -> Bool[Tensor, "row pos"]:
        """The states that the dictionary describes: all of an image's; of a text all but the BOS token's."""
        if not self._by_token:
            return torch.ones(self.states("base", rows).shape[:2], dtype=torch.bool)
        bos = getattr(self.case.tokenizer, "bos_token_id", None)
        return rows.mask & (rows.ids != (-1 if bos is None else bos))

    def summary(self, rows: Rows) -> Bool[Tensor, "row pos"]:
        """The states that predict the answer: the class token's, or those before the content tokens."""
        marked = torch.zeros(self.states("base", rows).shape[:2], dtype=torch.bool)
        if self._by_token:
            row, position = rows.targets("key")[:2]
            marked[row, position - 1] = True
        elif self.bench.open(self.cast.base).tower().summary == "class":
            marked[:, 0] = True
        return marked

    @property
    def _by_token(self) -> bool:
        return self.bench.open(self.cast.base).tower().by_token

    def described(self, name: str, rows: Rows) -> Float[Tensor, "state d"]:
        """A model's states of some rows that the dictionary describes, one after the other."""
        return self.states(name, rows)[self.encoded(rows)]

    def reversed_by(self, name: str, rows: Rows) -> Float[ndarray, " row"]:
        """What base answers from its own states with the dictionary's features as they are in another model."""
        own, other = self.states("base", rows), self.states(name, rows)
        change = self.coder.decode(self.coder.encode(other)) - self.coder.decode(self.coder.encode(own))
        encoded = self.encoded(rows)[..., None]
        return self.run_on("base", torch.where(encoded, own + change.to(own.dtype), own), rows).probability

    def pair(self, own: str, donor: str) -> StatePair:
        """The forget rows' states in two models."""
        rows = self.sheet.rows
        return StatePair(self.states(own), self.states(donor), self.encoded(rows), self.summary(rows))

    # ---- features ------------------------------------------------------------------------------------------------
    @cached_property
    def experts(self) -> Experts:
        """By F1 in base's states of the other fold's forget rows and of all retained ones."""
        count = math.floor(5 * (self.coder.k or 16) / 4)
        columns: dict[tuple[int, int], Tensor] = {}
        by_row = torch.full((len(self.sheet.rows), count), -1)
        for fold in (0, 1):
            active, kind = self._activity[fold].active, self._kinds(fold)
            for of in np.unique(self.forget.kind[self.forget.fold == fold]).tolist():
                if int((kind == of).sum()) < LEAST_ROWS:
                    continue
                chosen = expert_features(active, torch.from_numpy(kind), of, count)
                columns[fold, of] = torch.cat([chosen, chosen.new_full((count - len(chosen),), -1)])
                by_row[torch.from_numpy((self.forget.fold == fold) & (self.forget.kind == of))] = columns[fold, of]
        return Experts(columns, by_row, (by_row >= 0).any(1).numpy())

    def _kinds(self, fold: int) -> Int[ndarray, " row"]:
        """The answers of the rows in which experts for this fold are sought."""
        return np.concatenate([self.forget.kind[self.forget.fold != fold], self.retain.kind])

    @cached_property
    def _activity(self) -> tuple[Activity, Activity]:
        """What base's features do in the rows in which experts for either fold are sought."""
        gathered: list[Activity] = []
        for fold in (0, 1):
            others = torch.from_numpy(np.flatnonzero(self.forget.fold != fold))
            rows = stacked([self.forget.rows.take(others), self.retain.rows])
            codes = self.coder.encode(self.states("base", rows))
            gathered.append(activity(self.coder, codes, self.encoded(rows)))
        return gathered[0], gathered[1]

    def other_experts(self) -> dict[tuple[int, int], Int[Tensor, " expert"]]:
        """The features that speak for any answer, a retained one's included, by (fold, kind)."""
        count, gathered = self.experts.by_row.shape[1], dict[tuple[int, int], Tensor]()
        for fold in (0, 1):
            kind = self._kinds(fold)
            for of in np.unique(kind).tolist():
                if int((kind == of).sum()) >= LEAST_ROWS:
                    chosen = expert_features(self._activity[fold].active, torch.from_numpy(kind), of, count)
                    gathered[fold, of] = torch.cat([chosen, chosen.new_full((count - len(chosen),), -1)])
        return gathered

    def class_mean(self, of: int, columns: Int[Tensor, " expert"]) -> Float[Tensor, " expert"]:
        """Mean codes of some features in base's states of all forget rows with an answer."""
        rows = torch.from_numpy(self.forget.kind == of)
        return self.codes("base")[rows][self.encoded(self.sheet.rows)[rows]].mean(0)[columns.clamp_min(0)]

    def kinds_of(self, rows: Rows) -> Int[ndarray, " row"]:
        """The numbers of some rows' answers, -1 for one that no trained row has."""
        return np.array([self._number.get(answer, -1) for answer in _tokens(rows)])

    def strangers(self, seed: int) -> Strangers:
        """Rows of base's with other answers: forget and retained ones."""
        rows = stacked([self.forget.rows, self.retain.rows])
        kind = np.concatenate([self.forget.kind, self.retain.kind])
        states = self.states("base", rows)
        length = self.encoded(rows).sum(1).numpy()
        rng, at = np.random.default_rng(seed), np.full(len(self.sheet.rows), -1)
        for n in range(len(at)):
            fits = np.flatnonzero((kind != kind[n]) & (length == length[n]))
            if len(fits):
                at[n] = rng.choice(fits)
        return Strangers(states[:, : self.states("base").shape[1]], at)

    def matched(self, draws: int, seed: int) -> Int[Tensor, "draw row expert"]:
        """Random sets in the experts' place, one a draw for every fold and answer, alike in rate and size."""
        if self._matched is None or len(self._matched) < draws:
            self._matched = self._drawn(draws, seed)
        return self._matched[:draws]

    def _drawn(self, draws: int, seed: int) -> Int[Tensor, "draw row expert"]:
        columns = torch.full((draws, *self.experts.by_row.shape), -1)
        for n, ((fold, of), chosen) in enumerate(self.experts.columns.items()):
            own = chosen[chosen >= 0]
            if not len(own):
                continue
            rows = torch.from_numpy(np.flatnonzero((self.forget.fold == fold) & (self.forget.kind == of)))
            sets = matched_sets(own, own, self._activity[fold], draws, seed + n)
            columns[:, rows, : len(own)] = sets[:, None, :].expand(-1, len(rows), -1)
        return columns

    # ---- edited runs ---------------------------------------------------------------------------------------------
    def run_on(self, reader: str, states: Float[Tensor, "row pos d"], rows: Rows | None = None) -> Scores:
        """What a model answers when it goes on from these states."""
        rows = self.sheet.rows if rows is None else rows
        return scores(self.bench, self.models[reader], rows, Start(after(self.layer), states))

    def run_many(
        self,
        reader: str,
        sets: Int[Tensor, "set row expert"],
        edit: Callable[[Int[Tensor, "row expert"]], Float[Tensor, "row pos d"]],
    ) -> Float[ndarray, "set row"]:
        """Probabilities of the answers after one edit a set, as many sets in one pass as memory likes; NaN for a row
        without experts, which is not run."""
        chosen = torch.from_numpy(np.flatnonzero(self.experts.scored))
        rows = self.sheet.rows.take(chosen)
        width = rows.ids.shape[1] if self._by_token else None
        gathered = np.full((len(sets), len(self.sheet.rows)), np.nan)
        size = 4 * (self.states("base").numel() + sum(x.numel() for x in rows.extra.values()))
        at_once = max(1, _BYTES_AT_ONCE // max(size, 1))
        for first in range(0, len(sets), at_once):
            together = sets[first : first + at_once]
            states = torch.cat([edit(columns)[chosen, :width] for columns in together])
            everyone = rows.take(torch.arange(len(rows)).repeat(len(together)))
            probability = self.run_on(reader, states, everyone).probability
            gathered[first : first + len(together), chosen.numpy()] = probability.reshape(len(together), -1)
        return gathered
