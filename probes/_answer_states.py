"""States that are about to give an answer, in every model of a case, and the classes that these answers make."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import Bench, Checkpoint, Cohort, Item, OpenCase, PersonRows, Read, Rows, Site, Texts
from probes._profiles import after

COHORTS: tuple[Cohort, ...] = ("forget", "retain", "holdout")
MANY_CLASSES = 8
"""So many classes (of even size) are too many for a cohort to tell them."""


class Answering(NamedTuple):
    """Rows of one cohort that end in the first content token of their answer, and the whole of that content.

    A class of a classifier is such a row as it is. A later token would tell the class to whoever reads the earlier one.
    """

    rows: Rows
    items: tuple[Item, ...]
    content: tuple[tuple[int, ...], ...]
    left_out: int

    @property
    def groups(self) -> Int[ndarray, " row"]:
        """The groups' numbers, from 0 without gaps."""
        return np.unique(np.array(self.rows.group_ids), return_inverse=True)[1].reshape(-1)

    def take(self, index: Int[ndarray, " row"]) -> "Answering":
        """Some rows; the others count as left out."""
        chosen = index.tolist()
        return Answering(
            self.rows.take(torch.from_numpy(index)), tuple(self.items[i] for i in chosen),
            tuple(self.content[i] for i in chosen), self.left_out + len(self.items) - len(chosen),
        )  # fmt: skip

    def sheet(self) -> PersonRows:
        """The rows as tables and people's means take them."""
        people = tuple(map(str, np.unique(np.array(self.rows.group_ids))))
        return PersonRows(self.rows, self.items, people, self.groups)


def answering(case: OpenCase, cohort: Cohort, most: int | None = None) -> Answering | None:
    """A cohort's trained rows up to their first content token; whole groups drawn by the case's seed up to ``most``
    rows. None where the case has no such rows."""
    texts = Texts(cohort=cohort)
    if not case.has(texts):
        return None
    rows = case.rows(texts)
    by_id = {item.id: item for item in case.items(texts)}
    first, position = rows.key.int().argmax(1), torch.arange(rows.ids.shape[1])
    cut = replace(
        rows, mask=rows.mask & (position <= first[:, None]), key=rows.key & (position == first[:, None]),
        answer_spans=torch.stack([first, first + 1], 1),
    )  # fmt: skip
    content = tuple(tuple(rows.ids[i][rows.key[i]].tolist()) for i in range(len(rows)))
    every = Answering(cut, tuple(by_id[i] for i in rows.item_ids), content, 0)
    chosen = rows.key.any(1).numpy()
    if most is not None:
        chosen &= _some_groups(every.groups, most, case.case.seed)
    return every.take(np.flatnonzero(chosen))


def _some_groups(group: Int[ndarray, " row"], most: int, seed: int) -> ndarray:
    """The rows of as many groups as make at most ``most`` rows, at least of one."""
    count = np.bincount(group)
    order = np.random.default_rng(seed).permutation(len(count))
    fit = max(1, int((count[order].cumsum() <= most).sum()))
    return np.isin(group, order[:fit]) if count.sum() > most else np.ones(len(group), dtype=bool)


class States(NamedTuple):
    """One model's states of one cohort's rows: after every block, then what the head reads; and its logits of some
    tokens."""

    layers: tuple[Float[Tensor, "row _"], ...]
    logits: Float[Tensor, "row token"]


def states(bench: Bench, model: Checkpoint, rows: Rows, blocks: int, tokens: Sequence[int]) -> States:
    """One pass reads all of them."""
    sites = (*(after(n) for n in range(blocks)), Site(part="final_in"))
    reads = [Read(site=site, at="key") for site in sites]
    read = bench.run(model, rows, tuple(reads))
    logits = bench.token_logits(model, read[reads[-1]], torch.tensor(tokens, dtype=torch.long))
    return States(tuple(read[r].flatten(1).double() for r in reads), logits.double())


# ---- classes ----------------------------------------------------------------------------------------------------
class Classes(NamedTuple):
    """Rows of all cohorts whose answers are classes: the answers of enough groups. One below the other, by cohort.

    ``place`` says of every row where it stands in its cohort's rows, ``cohort`` which cohort that is (by its number in
    :data:`COHORTS`), ``tokens`` are the classes' first tokens.
    """

    place: Int[ndarray, " row"]
    cohort: Int[ndarray, " row"]
    label: Int[ndarray, " row"]
    group: Int[ndarray, " row"]
    tokens: tuple[int, ...]

    def of(self, cohort: Cohort) -> ndarray:
        """Which rows are a cohort's."""
        return self.cohort == COHORTS.index(cohort)

    def gathered(self, by_cohort: Mapping[Cohort, Float[Tensor, "_ d"]]) -> Float[Tensor, "row d"]:
        """The rows' states, of all cohorts."""
        parts = [by_cohort[c][torch.from_numpy(self.place[self.of(c)])] for c in COHORTS if c in by_cohort]
        return torch.cat(parts)

    @property
    def decided(self) -> bool:
        """Does being forgotten decide the class: are most forget rows of a few classes that no retained row has?"""
        label = self.label[self.of("forget")]
        new = label[~np.isin(label, self.label[self.of("retain")])]
        share = np.bincount(new) / max(len(new), 1)
        entropy = -float(sum(p * np.log(p) for p in share.tolist() if p > 0))
        return bool(2 * len(new) > len(label) and np.exp(entropy) < MANY_CLASSES)


def classes(cohorts: Mapping[Cohort, Answering], least_groups: int) -> Classes:
    """Contents that are the answers of at least ``least_groups`` groups."""
    names = [(COHORTS.index(c), i, content) for c in COHORTS if c in cohorts for i, content in _numbered(cohorts[c])]
    group_of = [(f"{cohort}", cohorts[COHORTS[cohort]].rows.group_ids[i]) for cohort, i, _ in names]
    holders: dict[tuple[int, ...], set[tuple[str, str]]] = {}
    for (_, _, content), group in zip(names, group_of, strict=True):
        holders.setdefault(content, set()).add(group)
    shared = sorted(content for content, groups in holders.items() if len(groups) >= least_groups)
    number = {content: n for n, content in enumerate(shared)}
    chosen = [n for n, (_, _, content) in enumerate(names) if content in number]
    groups = {group: n for n, group in enumerate(dict.fromkeys(group_of[n] for n in chosen))}
    columns = [[names[n][1], names[n][0], number[names[n][2]], groups[group_of[n]]] for n in chosen]
    table = np.array(columns, dtype=np.int64).reshape(-1, 4).T
    return Classes(table[0], table[1], table[2], table[3], tuple(content[0] for content in shared))


def _numbered(answers: Answering) -> Sequence[tuple[int, tuple[int, ...]]]:
    return list(enumerate(answers.content))
