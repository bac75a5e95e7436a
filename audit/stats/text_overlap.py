"""How much of one text another repeats: BLEU and ROUGE-L over words told apart by white space."""

from collections.abc import Sequence

import numpy as np


def bleu(reference: str, candidate: str) -> float:
    """BLEU of a candidate against one reference, up to 4-grams, smoothed by NLTK's method 3 (Papineni et al. 2002; Chen
    & Cherry 2014). Not symmetric: a short candidate is punished, a short reference is not. 0 where either is empty."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    words, answer = reference.split(), candidate.split()
    if not words or not answer:
        return 0.0
    # Method 3 leaves the 4-gram precision of a text of fewer than four words at nothing; so does the published number.
    score: float = sentence_bleu([words], answer, smoothing_function=SmoothingFunction().method3)  # pyright: ignore
    return float(score)


def rouge_l(reference: str, candidate: str) -> float:
    """F of the longest common subsequence of words (Lin 2004), precision and recall weighing the same, so that it is
    symmetric. 0 where either is empty."""
    words, answer = reference.split(), candidate.split()
    common = longest_common_subsequence(words, answer)
    return 2 * common / (len(words) + len(answer)) if common else 0.0


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """How many words both have in the same order."""
    number = {word: n for n, word in enumerate(dict.fromkeys([*first, *second]))}
    coded = np.array([number[word] for word in second], dtype=np.int64)
    best = np.zeros(len(coded) + 1, dtype=np.int64)
    for word in first:
        # A row of the table: one more than up and left where the words agree, else the larger of up and left.
        matched = np.where(coded == number[word], best[:-1] + 1, best[1:])
        best = np.maximum.accumulate(np.concatenate([[0], matched]))
    return int(best[-1])
