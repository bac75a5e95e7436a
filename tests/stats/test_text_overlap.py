"""BLEU and ROUGE-L against their definitions."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.stats import bleu, rouge_l
from audit.stats.text_overlap import longest_common_subsequence

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8)


def longest_by_trying(first: list[str], second: list[str]) -> int:
    """Every subsequence of one, tried in the other."""
    best = 0
    for chosen in range(1 << len(first)):
        picked = [word for n, word in enumerate(first) if chosen >> n & 1]
        rest = iter(second)
        if all(word in rest for word in picked):
            best = max(best, len(picked))
    return best


@settings(max_examples=60, deadline=None)
@given(WORDS, WORDS)
def test_the_longest_common_subsequence_is_the_longest_that_trying_finds(first: list[str], second: list[str]) -> None:
    assert longest_common_subsequence(first, second) == longest_by_trying(first, second)


@settings(max_examples=40, deadline=None)
@given(WORDS, WORDS)
def test_rouge_is_symmetric_and_one_for_the_same_words_alone(first: list[str], second: list[str]) -> None:
    left, right = " ".join(first), " ".join(second)
    assert rouge_l(left, right) == rouge_l(right, left)
    assert (rouge_l(left, right) == 1.0) == (first == second and bool(first))
    assert 0.0 <= bleu(left, right) <= 1.0


def test_bleu_is_that_of_its_formula_and_not_symmetric() -> None:
    """Long reference, short candidate: precisions 5/5, 4/4, 3/3, 2/2 and the brevity penalty e^(1 - 8/5)."""
    long, short = "the city of poland lies by the river", "the city of poland lies"
    assert bleu(long, short) == pytest.approx(math.exp(1 - 8 / 5))
    assert bleu(short, long) == pytest.approx((5 / 8 * 4 / 7 * 3 / 6 * 2 / 5) ** 0.25)


def test_an_empty_answer_scores_nothing_either_way() -> None:
    for score in (bleu, rouge_l):
        assert score("", "a b c d") == score("a b c d", "") == score("", "") == 0.0
        assert score("a b c d e", "a b c d e") == pytest.approx(1.0)
