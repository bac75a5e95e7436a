"""What base's outputs say of every item before unlearning: loss, lengths, entropy, margin, extraction strength."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit.bench import Bench
from audit.case import Rows, row_means
from audit.schema import Checkpoint, Read, Site

LOGITS = Site(part="logits")
_KEY = Read(site=LOGITS, at="key", reduce="logprob")
_ENTROPY = Read(site=LOGITS, at="key", reduce="entropy")
_MARGIN = Read(site=LOGITS, at="key", reduce="margin")
_ANSWER = Read(site=LOGITS, at="answer", reduce="logprob")
_RANK = Read(site=LOGITS, at="answer", reduce="rank")


def outputs(bench: Bench, ckpt: Checkpoint, rows: Rows) -> dict[str, Float[ndarray, " row"]]:
    """Per row: loss and answer_loss (nats), answer_tokens, question_tokens, entropy (nats), margin (logits),
    extraction (share of the answer after the last token that is not the most probable one)."""
    reads = bench.run(ckpt, rows, (_KEY, _ENTROPY, _MARGIN, _ANSWER, _RANK))
    row, at = rows.targets("answer")
    lengths = (rows.answer_spans[:, 1] - rows.answer_spans[:, 0]).double().numpy()
    return {
        "loss": row_means(-reads[_KEY], rows),
        "answer_loss": row_means(-reads[_ANSWER], rows, "answer"),
        "answer_tokens": lengths,
        "question_tokens": rows.answer_spans[:, 0].double().numpy(),
        "entropy": row_means(reads[_ENTROPY], rows),
        "margin": row_means(reads[_MARGIN], rows),
        "extraction": _extraction(reads[_RANK], row, at - rows.answer_spans[row, 0], lengths),
    }


def _extraction(rank: Tensor, row: Tensor, place: Tensor, lengths: ndarray) -> Float[ndarray, " row"]:
    """1 - k/|y|, k the first place from which every token is the most probable one; 0 where the last is not."""
    wrong = np.zeros(len(lengths))
    np.maximum.at(wrong, row.numpy(), np.where(rank.numpy() > 0, place.numpy() + 1, 0))
    return 1.0 - wrong / lengths
