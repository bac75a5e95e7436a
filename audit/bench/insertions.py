"""What many strings do to the content tokens of many rows: each beginning that rows have in common is run once.

A string before everything that differs between the rows (a prefix) makes a beginning that all rows share: its keys and
values are computed once for each string. Anywhere else (an infix, a suffix) a row's own beginning is shared by all
strings. The rest of every pair of a string and a row goes forward after it, many pairs in a batch, up to the last
content token. Exact up to the order of summation; a model that is edited by a hook, whose places are those of whole
rows, and one that keeps no keys and values, run whole rows instead.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from audit.bench.batching import batches
from audit.bench.passes import LoadedModel
from audit.bench.reads.vocabulary_sweep import swept
from audit.case import Rows, row_mean, row_means, with_tokens
from audit.schema import Checkpoint, Read, Site
from audit.wrappers import KeyValues, NativeWrapper, first_part, reads_key_values, states_after

if TYPE_CHECKING:
    from audit.bench.bench import Bench

Strings = Sequence[Int[Tensor, " token"]]
_LOGPROB = Read(site=Site(part="logits"), at="key", reduce="logprob")


def means(
    bench: "Bench", ckpt: Checkpoint, rows: Rows, strings: Strings, at: Int[Tensor, " row"]
) -> Float[ndarray, "string row"]:
    """The mean log-probability (nats) of every row's content tokens with every string before position ``at`` of the
    row: with shared beginnings where the model can, else whole rows, a string at a time."""
    done = insertions(bench.pool.loaded(ckpt), rows, strings, at, bench.token_budget)
    if done is not None:
        bench.fwd_tokens += done.tokens
        return done.means.numpy()
    with bench.without_store():
        return np.stack([_of_whole_rows(bench, ckpt, with_tokens(rows, ids, at)) for ids in strings])


def _of_whole_rows(bench: "Bench", ckpt: Checkpoint, rows: Rows) -> Float[ndarray, " row"]:
    return row_means(bench.run(ckpt, rows, (_LOGPROB,))[_LOGPROB], rows)


class Inserted(NamedTuple):
    """The means, and how many tokens went forward for them."""

    means: Float[Tensor, "string row"]
    tokens: int


class Places(NamedTuple):
    """The rows, where strings are put into them, and how much of them all rows begin with alike."""

    rows: Rows
    at: Int[Tensor, " row"]
    first: Int[Tensor, " row"]
    end: Int[Tensor, " row"]

    @classmethod
    def of(cls, rows: Rows, at: Int[Tensor, " row"]) -> "Places":
        """``first``, ``end``: each row's first content token, and the position after its last."""
        position = torch.arange(rows.ids.shape[1])
        first = torch.where(rows.key, position, rows.ids.shape[1]).amin(1)
        end = torch.where(rows.key, position, -1).amax(1) + 1
        return cls(rows, at.long(), first, end)

    @property
    def shared(self) -> bool:
        """Whether all rows are the same before the one place."""
        at = int(self.at[0])
        return bool((self.at == at).all()) and bool((self.rows.ids[:, :at] == self.rows.ids[0, :at]).all())


def insertions(
    opened: LoadedModel, rows: Rows, strings: Strings, at: Int[Tensor, " row"], budget: int
) -> Inserted | None:
    """The means with shared beginnings; None where the model or the rows ask for whole rows."""
    wrapper = opened.wrapper
    if opened.plays or not isinstance(wrapper, NativeWrapper) or not len(rows) or not bool(rows.key.any(1).all()):
        return None
    if rows.extra:  # keys and values are made of tokens alone
        return None
    places = Places.of(rows, at)
    if bool((places.first < places.at.clamp_min(1)).any()) or not (places.shared or bool((places.at > 0).all())):
        return None
    if not reads_key_values(wrapper.model, wrapper.vocab_size):
        return None
    task = _Task(wrapper, places, strings, budget)
    results, forward = torch.zeros(len(strings), len(rows), dtype=torch.double), 0
    with torch.inference_mode():
        for length in sorted({len(ids) for ids in strings}):
            same = torch.tensor([n for n, ids in enumerate(strings) if len(ids) == length])
            forward += task.by_string(same, results) if places.shared else task.by_row(same, results)
    return Inserted(results, forward)


class _Task(NamedTuple):
    """The model, the places, the strings, and how many padded tokens go forward at once."""

    wrapper: NativeWrapper
    places: Places
    strings: Strings
    budget: int

    def by_string(self, same: Int[Tensor, " string"], results: Tensor) -> int:
        """Strings of one length before what differs: what is shared is each string's, over all rows."""
        at, strings = int(self.places.at[0]), self._stacked(same)
        beginning = self.places.rows.ids[0, :at].expand(len(same), -1)
        cut = at + strings.shape[1] - int((self.places.first == at).any())
        tails = self.places.end + strings.shape[1] - cut
        parts = self._parts(torch.arange(len(tails)), tails)
        most = max(len(part) * int(tails[part].max()) for part in parts)
        forward = 0
        for block in torch.arange(len(same)).split(max(1, self.budget // most)):
            heads = torch.cat([beginning[block], strings[block]], 1)[:, :cut]
            past = first_part(self.wrapper.model, heads.to(self.wrapper.device))
            forward += heads.numel()
            for part in parts:
                pairs = _Pairs(block.repeat_interleave(len(part)), part.repeat(len(block)), cut)
                local = torch.arange(len(block)).repeat_interleave(len(part))
                forward += self._scored(pairs, strings, past.take(local.to(self.wrapper.device)), same, results)
        return forward

    def by_row(self, same: Int[Tensor, " string"], results: Tensor) -> int:
        """Strings of one length within the rows: what is shared is each row's own beginning, over all strings."""
        strings, forward = self._stacked(same), 0
        tails = self.places.end + strings.shape[1] - self.places.at
        for cut in sorted(set(self.places.at.tolist())):
            rows = (self.places.at == cut).nonzero()[:, 0]
            for part in self._parts(rows, tails[rows]):
                heads = self.places.rows.ids[part, :cut]
                past = first_part(self.wrapper.model, heads.to(self.wrapper.device))
                forward += heads.numel()
                size = max(1, self.budget // (len(part) * int(tails[part].max())))
                for block in torch.arange(len(same)).split(size):
                    pairs = _Pairs(block.repeat_interleave(len(part)), part.repeat(len(block)), cut)
                    local = torch.arange(len(part)).repeat(len(block))
                    forward += self._scored(pairs, strings, past.take(local.to(self.wrapper.device)), same, results)
        return forward

    def _stacked(self, same: Int[Tensor, " string"]) -> Int[Tensor, "string token"]:
        return torch.stack([self.strings[n].long() for n in same.tolist()])

    def _parts(self, rows: Int[Tensor, " row"], tails: Int[Tensor, " row"]) -> list[Int[Tensor, " _"]]:
        """The rows in parts of like lengths that fit the budget."""
        each = batches(tails, int(tails.max()), self.budget, self.wrapper.device)
        return [rows if index is None else rows[index] for index in each]

    def _scored(
        self, pairs: "_Pairs", strings: Int[Tensor, "string token"], past: KeyValues, same: Tensor, results: Tensor
    ) -> int:
        """Run what follows the shared beginnings, and write the means of the pairs' content tokens."""
        device, rows = self.wrapper.device, self.places.rows
        width = strings.shape[1]
        ends = self.places.end[pairs.row] + width
        column = pairs.cut + torch.arange(int(ends.max()) - pairs.cut).expand(len(ends), -1)
        at = self.places.at[pairs.row, None]
        inside = (column >= at) & (column < at + width)
        source = torch.where(column < at, column, column - width).clamp(0, rows.ids.shape[1] - 1)
        own = rows.ids[pairs.row[:, None], source].long()
        ids = torch.where(inside, strings[pairs.string[:, None], (column - at).clamp(0, width - 1)], own)
        ids = torch.where(column < ends[:, None], ids, 0)
        key = rows.key[pairs.row[:, None], source] & ~inside & (column < ends[:, None])
        states, _ = states_after(self.wrapper.model, past, ids.to(device))
        pair, place = key.nonzero(as_tuple=True)
        read = states[pair.to(device), place.to(device) - 1]
        logprob = swept(self.wrapper, read, ids[pair, place].to(device), None, ("logprob",))["logprob"]
        means = row_mean(logprob.double().cpu(), pair, len(ends))
        results[same[pairs.string], pairs.row] = means
        return int((column < ends[:, None]).sum())


class _Pairs(NamedTuple):
    """Strings (by their place among those of their length) and rows, and after how many tokens they go forward."""

    string: Int[Tensor, " pair"]
    row: Int[Tensor, " pair"]
    cut: int
