"""What comes out when answers are continued from their prompts: verbatim, nearly so, or not, counted over groups."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import Bench, Checkpoint, Guidance, Interval, Item, OpenCase, Rows, Texts, stats

DRAWS = 999


class Prompted(NamedTuple):
    """Rows whose answers are to be continued: how many tokens each may take, and the group of each."""

    rows: Rows
    items: tuple[Item, ...]
    limits: Int[Tensor, " row"]
    group: Int[ndarray, " row"]
    unread: int

    @property
    def answers(self) -> list[list[int]]:
        """The tokens to be said."""
        return [
            self.rows.ids[i, a : a + n].tolist()
            for i, (a, n) in enumerate(zip(self.rows.answer_spans[:, 0].tolist(), self.limits.tolist(), strict=True))
        ]

    @property
    def tokens(self) -> int:
        """Tokens that go forward in one model, each step running whole rows; at the most."""
        starts = self.rows.answer_spans[:, 0]
        return int((self.limits * starts + self.limits * (self.limits - 1) // 2).sum())


def prompted(case: OpenCase, texts: Texts, most_items: int, most_tokens: int) -> Prompted:
    """At most so many items of these texts, every group's first before any group's second. Of a text without a question
    the first half of its tokens is the prompt (arXiv 2505.24379)."""
    rows = case.rows(texts)
    by_id = {item.id: item for item in case.items(texts)}
    items = [by_id[name] for name in rows.item_ids]
    spans = rows.answer_spans.clone()
    plain = torch.tensor([not item.question.strip() for item in items], dtype=torch.bool)
    half = (spans[:, 1] - spans[:, 0]) // 2
    spans[:, 0] += torch.where(plain, half, torch.zeros_like(half))
    group = np.unique(np.array(rows.group_ids), return_inverse=True)[1].reshape(-1)
    usable = np.flatnonzero(((spans[:, 0] > 0) & (spans[:, 1] > spans[:, 0])).numpy()).tolist()
    chosen = torch.tensor(_spread(usable, group, most_items), dtype=torch.long)
    retained = replace(rows, answer_spans=spans).take(chosen)
    lengths = (retained.answer_spans[:, 1] - retained.answer_spans[:, 0]).clamp_max(most_tokens)
    report_text = tuple(items[i] for i in chosen.tolist())
    return Prompted(retained, report_text, lengths, group[chosen.numpy()], len(rows) - len(chosen))


def _spread(rows: Sequence[int], group: Int[ndarray, " row"], most: int) -> list[int]:
    """At most so many of the rows, as evenly over groups as can be, in their order."""
    turn = [int((group[list(rows[:n])] == group[row]).sum()) for n, row in enumerate(rows)]
    return sorted(rows[n] for n in np.argsort(turn, kind="stable")[:most])


class Said(NamedTuple):
    """What one way of asking brings out of every row: the whole answer word for word, and how much of its words."""

    verbatim: Float[ndarray, " row"]
    recall: Float[ndarray, " row"]


def transcripts(
    bench: Bench, case: OpenCase, pair: tuple[Checkpoint, Checkpoint], prompts: Prompted, guidance: Guidance
) -> Said:
    """The continuations of a pair of checkpoints (of the first alone at a weight of 1), set against the answers."""

    def compute() -> dict[str, ndarray]:
        spoken = bench.generate_guided(*pair, prompts.rows, prompts.limits, guidance)
        answers = prompts.answers
        verbatim = np.array([float(a == b) for a, b in zip(spoken, answers, strict=True)])
        texts = [(case.tokenizer.decode(a), case.tokenizer.decode(b)) for a, b in zip(answers, spoken, strict=True)]
        return {"verbatim": verbatim, "recall": np.array([_recall(*both) for both in texts])}

    keys = [model.key for model in pair[: 1 if guidance.weight == 1 else 2]]
    parts = ["extraction", *keys, prompts.rows.hash, prompts.limits.tolist(), list(guidance)]
    return Said(**bench.cached(parts, compute))


def _recall(answer: str, spoken: str) -> float:
    """ROUGE-L recall: the share of the answer's words that were said in their order."""
    words = answer.split()
    return stats.longest_common_subsequence(words, spoken.split()) / len(words) if words else 0.0


def mean_over_groups(
    values: Float[ndarray, " row"], group: Int[ndarray, " row"], seed: int
) -> tuple[float, Interval | None]:
    """The mean over items, and 95 % from resampled groups; no interval of fewer than two groups."""
    number = np.unique(group, return_inverse=True)[1].reshape(-1)
    totals, counts = np.bincount(number, weights=values), np.bincount(number).astype(float)
    if len(totals) < 2:
        return float(values.mean()), None
    drawn = np.random.default_rng(seed).multinomial(len(totals), np.full(len(totals), 1 / len(totals)), size=DRAWS)
    ends, mean = stats.percentile_interval((drawn @ totals) / (drawn @ counts)), float(values.mean())
    if ends.lo == ends.hi and mean in (0.0, 1.0):  # no draw differs: the exact bound for as many groups
        ends = stats.clopper_pearson(round(mean * len(totals)), len(totals))
    return mean, ends


def counted(values: Sequence[float] | ndarray, least: float) -> int:
    """How many are above so much."""
    return int((np.asarray(values) > least).sum())
