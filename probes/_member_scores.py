"""Scores of membership of every item in a model, from one pass over the answers; higher means member."""

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from audit.probing import (
    ANSWER_LOGPROB,
    LOGITS,
    Bench,
    Checkpoint,
    OpenCase,
    Read,
    Rows,
    Texts,
    person_rows_of,
    stats,
)
from probes._wrong_answers import over_wrong, wrong_rows

RANK, ENTROPY, VARENTROPY = (
    Read(site=LOGITS, at="answer", reduce=reduce) for reduce in ("rank", "entropy", "varentropy")
)
READS = (ANSWER_LOGPROB, RANK, ENTROPY, VARENTROPY)
STEPS = 100
PUBLISHED_STEPS = 1000
IAM_SHARES = 0.1
"""The first constant of the signal for language models (arXiv 2506.06112)."""
ALONE = ("loss", "zlib", "min_k", "min_k_plus")
"""Of the model alone."""
BESIDE = ("windows", "error_zone")
"""Of the model beside one that never knew."""
LISTED = (*ALONE, "reference_ratio", *BESIDE, "iam", "iam_published")


class TokenScores(NamedTuple):
    """What one model says of every token of the answers, in their packed order."""

    logprob: Float[ndarray, " token"]
    rank: Float[ndarray, " token"]
    entropy: Float[ndarray, " token"]
    varentropy: Float[ndarray, " token"]


class Answers(NamedTuple):
    """The answers of some rows: the row of every token, and the bytes of each after compression."""

    rows: Rows
    row: Int[ndarray, " token"]
    zipped: Float[ndarray, " row"]

    def loss_of(self, tokens: TokenScores) -> Float[ndarray, " row"]:
        """Mean negative log-likelihood of each answer (nats a token)."""
        count = np.bincount(self.row, minlength=len(self.zipped))
        total = np.bincount(self.row, weights=-tokens.logprob, minlength=len(self.zipped))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def answers_of(rows: Rows, texts: Sequence[str]) -> Answers:
    """The answers of these rows, whose words are ``texts``."""
    zipped = [len(zlib.compress(text.encode())) for text in texts]
    return Answers(rows, rows.targets("answer")[0].numpy(), np.array(zipped, float))


def true_answers(case: OpenCase, texts: Texts) -> Answers:
    """The answers of these texts."""
    sheet = person_rows_of(case, texts)
    return answers_of(sheet.rows, [item.answer for item in sheet.items])


def wrong_answers(case: OpenCase, texts: Texts, most: int) -> list[Answers]:
    """At most so many wrong answers of each item to its question."""
    return [answers_of(rows, report_text) for rows, report_text in wrong_rows(case, texts, most)]


def token_scores(bench: Bench, model: Checkpoint, answers: Sequence[Answers]) -> list[TokenScores]:
    """What a model says of these answers; beginnings that they share are run once."""
    done = bench.run_together(model, [(each.rows, READS) for each in answers])
    return [TokenScores(*(read_of[read].double().numpy() for read in READS)) for read_of in done]


def own_scores(answers: Answers, tokens: TokenScores, k: float) -> dict[str, Float[ndarray, " row"]]:
    """Loss, loss over compressed bytes (the sum, as first published), Min-K% and Min-K%++."""
    rows = len(answers.zipped)
    sums = np.bincount(answers.row, weights=tokens.logprob, minlength=rows)
    normed = stats.membership.min_k_plus(tokens.logprob, tokens.entropy, tokens.varentropy)
    return {
        "loss": -answers.loss_of(tokens),
        "zlib": np.where(np.bincount(answers.row, minlength=rows) > 0, sums / answers.zipped, np.nan),
        "min_k": stats.min_k(tokens.logprob, answers.row, rows, k),
        "min_k_plus": stats.min_k(normed, answers.row, rows, k),
    }


def beside(
    answers: Answers, tokens: Mapping[str, TokenScores], name: str, sigma: Float[ndarray, " step"]
) -> dict[str, Float[ndarray, " row"]]:
    """Window votes, error zone, IAM and the ratio to the model that never knew (in logs), of one of the models."""
    own, never, rows = tokens[name], tokens["null"], len(answers.zipped)
    delta = own.logprob - never.logprob
    loss = {who: answers.loss_of(tokens[who]) for who in (name, "null", "base")}
    signal = {who: stats.membership.gumbel_signal(np.exp(-x), IAM_SHARES) for who, x in loss.items()}
    return {
        "reference_ratio": loss["null"] - loss[name],
        "windows": stats.membership.window_votes(delta, answers.row, rows, stats.membership.window_sizes()),
        "error_zone": stats.membership.error_zone(delta, own.rank > 0, answers.row, rows),
        "iam": stats.membership.interpolated(signal[name], signal["null"], signal["base"], sigma, STEPS),
    }


def spread_of(answers: Sequence[Answers], tokens: Sequence[Mapping[str, TokenScores]]) -> Float[ndarray, " step"]:
    """The spread of interpolated signals over items that are not audited themselves, where there are any."""
    ends: list[ndarray] = []
    for who in ("null", "base"):
        losses = [each.loss_of(read[who]) for each, read in zip(answers, tokens, strict=True)]
        ends.append(stats.membership.gumbel_signal(np.exp(-np.concatenate(losses)), IAM_SHARES))
    retained = np.isfinite(ends[0]) & np.isfinite(ends[1])
    return stats.membership.interpolation_spread(ends[0][retained], ends[1][retained], STEPS)


def iam_published(
    answers: Sequence[Answers], tokens: Sequence[Mapping[str, TokenScores]], name: str
) -> Float[ndarray, " item"]:
    """IAM as its code scores language models: the chance of error, 1 - exp(-loss), stands for the probability, the way
    leads from base to the model that never knew, and one spread is taken over all steps and items of the batch."""
    signal: dict[str, ndarray] = {}
    for who in ("base", "null", name):
        losses = np.concatenate([each.loss_of(read[who]) for each, read in zip(answers, tokens, strict=True)])
        signal[who] = stats.membership.gumbel_signal(1 - np.exp(-losses), IAM_SHARES)
    place = np.linspace(0.0, 1.0, PUBLISHED_STEPS)[:, None]
    sigma = float(np.nanstd(signal["base"] + place * (signal["null"] - signal["base"])))
    far = stats.membership.interpolated(signal[name], signal["base"], signal["null"], sigma, PUBLISHED_STEPS)
    return 1 - far


Statistics = Mapping[str, Mapping[str, Float[ndarray, " row"]]]
"""Statistic -> model -> a score of every row."""


def statistics(
    answers: Answers, tokens: Mapping[str, TokenScores], k: float, sigma: Float[ndarray, " step"] | None
) -> dict[str, dict[str, ndarray]]:
    """Every statistic of every model; those beside a model that never knew where ``sigma`` is given."""
    result: dict[str, dict[str, ndarray]] = {}
    for name, own in tokens.items():
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # of words that a filter forbids
            each = own_scores(answers, own, k) | ({} if sigma is None else beside(answers, tokens, name, sigma))
        for statistic, values in each.items():
            result.setdefault(statistic, {})[name] = values
    return result


def lifts(
    true: Statistics, wrong: Sequence[tuple[Answers, Statistics]], ids: Sequence[str]
) -> dict[str, dict[str, ndarray]]:
    """Each score of the true answer less the mean of those of wrong answers; NaN for an item that has none."""
    return {
        statistic: {
            name: over_wrong(values, ids, [(of[statistic][name], a.rows.item_ids) for a, of in wrong])
            for name, values in models.items()
        }
        for statistic, models in true.items()
    }
