"""Activations of a checkpoint, read by the bench a chunk of texts at a time and kept in its store.

A chunk is looked up by checkpoint, rows and site: what the store has is mapped from the disk, what it has not is run.
So memory holds a few chunks, however many rows there are, and a training that was killed reads and runs nothing twice.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from audit.bench import Bench
from audit.case import OpenCase, Rows, stacked
from audit.schema import AuditError, Checkpoint, Cohort, Item, Read, Site, Texts, content_key
from saes.activations import Activations

_CHUNK_BYTES = 16 << 20
_HELD_OUT = 16
"""Every sixteenth text is held out of training, at least one."""
_COHORTS: tuple[Cohort, ...] = ("forget", "retain", "general")
"""Holdout people are left out: they stand for those that nothing was ever fitted on."""


class CaseTexts(NamedTuple):
    """Texts of a case as rows whose answer span is every token that is read, and the item and cohort of each."""

    rows: Rows
    items: tuple[Item, ...]
    cohorts: tuple[Cohort, ...]

    def take(self, index: Int[Tensor, " row"]) -> "CaseTexts":
        """Some of the texts."""
        places = index.tolist()
        return CaseTexts(
            _kept_wide(self.rows, index), tuple(self.items[n] for n in places), tuple(self.cohorts[n] for n in places)
        )

    def split(self, seed: int) -> tuple["CaseTexts", "CaseTexts"]:
        """Texts to train on, and others to measure on; a text that stands alone is both."""
        n = len(self.items)
        order = torch.from_numpy(np.random.default_rng([seed, n]).permutation(n))
        held = max(1, n // _HELD_OUT)
        training = order[held:] if n > 1 else order
        return self.take(training.sort().values), self.take(order[:held].sort().values)


def texts_of_case(case: OpenCase, checkpoint: Checkpoint) -> CaseTexts:
    """Every text that may be trained on: forget, retain and general items of all forms with their own answers.

    Of texts, about pictures too, every token is read but the BOS token, whose state is the same in all texts and often
    a hundred times as long; of images alone the state that the head reads.
    """
    wanted = [Texts(cohort=cohort, form=form) for cohort in _COHORTS for form in case.forms()]
    present = [texts for texts in wanted if case.has(texts)]
    if case.modality == "image+text":  # rows with and without a picture are not run together
        present = [texts for texts in present if case.items(texts)[0].image is not None]
    rows = stacked([case.rows(texts) for texts in present])
    cohorts: tuple[Cohort, ...] = tuple(texts.cohort for texts in present for _ in case.items(texts))
    if checkpoint.modality != "image":
        rows = _every_token(rows, getattr(case.tokenizer, "bos_token_id", None))
    return CaseTexts(rows, tuple(item for texts in present for item in case.items(texts)), cohorts)


def _every_token(rows: Rows, bos: int | None) -> Rows:
    """The rows with spans over all tokens but a leading BOS; what is read at a span lies one before its tokens."""
    start = 1 + (rows.ids[:, 0] == (-1 if bos is None else bos)).long()
    spans = torch.stack([start, rows.lengths + 1], 1)
    return replace(_padded(rows), answer_spans=spans)


def _padded(rows: Rows) -> Rows:
    """One spare column, which spans reach into."""
    return replace(
        rows, ids=functional.pad(rows.ids, (0, 1)), mask=functional.pad(rows.mask, (0, 1)),
        key=functional.pad(rows.key, (0, 1)),
    )  # fmt: skip


def _kept_wide(rows: Rows, index: Int[Tensor, " row"]) -> Rows:
    portion = rows.take(index)
    return _padded(portion) if int(portion.answer_spans[:, 1].max()) > portion.ids.shape[1] else portion


class ItemActivations(Activations):
    """The states of a checkpoint at some sites: every row belongs to an item, and to a place in it; all rows of an item
    lie in one chunk.

    AuditError (code 2) for no site, or one twice.
    """

    def __init__(self, bench: Bench, checkpoint: Checkpoint, texts: CaseTexts, sites: Sequence[Site]) -> None:
        self.names = tuple(map(str, sites))
        if not sites or len(set(self.names)) < len(sites):
            raise AuditError(f"sites {', '.join(self.names) or 'none'}", "name one or more, each once")
        self._bench, self._checkpoint, self.texts = bench, checkpoint, texts
        self.sites = dict(zip(self.names, sites, strict=True))
        self.checkpoint = checkpoint.key

    @abstractmethod
    def owners(self, n: int) -> Int[Tensor, " row"]:
        """The number of the item to which every row of a chunk belongs."""

    @abstractmethod
    def spots(self, n: int, name: str) -> Int[Tensor, " row"]:
        """At which place of its item every row of a chunk lies, counted from 0."""

    @abstractmethod
    def spot_name(self, name: str, spot: int) -> str:
        """A place in words; empty where an item has one state alone."""


class BenchActivations(ItemActivations):
    """The states over the answer spans of some texts: of all their tokens, or of an image the one that its head reads.

    AuditError (code 2) for a site twice, one that the model does not have, or texts without a token to read.
    """

    def __init__(
        self, bench: Bench, checkpoint: Checkpoint, texts: CaseTexts, sites: Sequence[Site],
        chunk_bytes: int = _CHUNK_BYTES,
    ) -> None:  # fmt: skip
        super().__init__(bench, checkpoint, texts, sites)
        self._reads = tuple(Read(site=site, at="answer") for site in sites)
        spans = (texts.rows.answer_spans[:, 1] - texts.rows.answer_spans[:, 0]).clamp_min(0)
        # texts of like length side by side, so that little is padded
        order = torch.argsort(texts.rows.lengths, stable=True)
        order = order[spans[order] > 0]
        if not len(order):
            raise AuditError("no text has a token whose state could be read", "add longer items")
        self.widths = self._widths(order[:1])
        rows = max(1, chunk_bytes // (4 * sum(self.widths)))
        self.places = _portions(order, spans, rows)
        self.sizes = tuple(int(spans[place].sum()) for place in self.places)
        self.key = content_key("bench", bench.key(checkpoint.key), texts.rows.hash, self.names)

    def _widths(self, few: Int[Tensor, " row"]) -> tuple[int, ...]:
        """How wide the states are, by those of a text: parts and blocks of a model may differ."""
        states = self._bench.run(self._checkpoint, _kept_wide(self.texts.rows, few), self._reads)
        return tuple(states[read].shape[1] for read in self._reads)

    def chunk(self, n: int) -> Mapping[str, Float[Tensor, "row d"]]:
        rows = _kept_wide(self.texts.rows, self.places[n])
        states = self._bench.run(self._checkpoint, rows, self._reads)
        return {name: states[read] for name, read in zip(self.names, self._reads, strict=True)}

    def owners(self, n: int) -> Int[Tensor, " row"]:
        """The number of the text to which every row of a chunk belongs."""
        return self.places[n][self._targets(n)[0]]

    def spots(self, n: int, name: str) -> Int[Tensor, " row"]:
        """The token of its text at which every row of a chunk lies."""
        return self._targets(n)[1] - 1

    def spot_name(self, name: str, spot: int) -> str:
        """The number of a token, counted from 1."""
        return "" if self._checkpoint.modality == "image" else f"token {spot + 1}"

    def _targets(self, n: int) -> tuple[Int[Tensor, " row"], Int[Tensor, " row"]]:
        return _kept_wide(self.texts.rows, self.places[n]).targets("answer")


def _portions(order: Tensor, spans: Tensor, rows: int) -> tuple[Tensor, ...]:
    """The texts in order, as many at a time as have about so many rows."""
    bounds = (spans[order].cumsum(0) - 1) // rows
    return tuple(order[bounds == part] for part in bounds.unique().tolist())
