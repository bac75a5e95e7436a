"""Pictures shown otherwise keep their shape, and show what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes._concept_pictures import CROPS, blank_like, cropped, drawable, lettered, mixed_letters

SHAPES = st.tuples(st.integers(8, 40), st.integers(8, 40), st.sampled_from([(), (1,), (3,)])).map(
    lambda s: (s[0], s[1], *s[2])
)

WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9)


@settings(max_examples=30, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 99), word=WORDS)
def test_shape_and_dtype_stay_whatever_is_done_to_a_picture(shape: tuple[int, ...], seed: int, word: str) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    before = picture.copy()
    changed = [cropped(picture, window) for window in CROPS] + [blank_like(picture)]
    changed += [lettered(picture, word)] if drawable(word) else []
    assert all(other.shape == picture.shape and other.dtype == np.uint8 for other in changed)
    assert np.array_equal(picture, before), "the picture itself is never written to"


def test_crop_shows_its_own_corner_and_nothing_else() -> None:
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    picture[:8, :8] = 255  # only the window at the upper left and none of the lower ones reaches this corner
    means = {window: cropped(picture, window).mean() for window in CROPS}
    assert means["upper left"] > 0 and means["lower right"] == 0
    assert cropped(picture, "upper left")[:8, :8].min() == 255
    complete = cropped(np.arange(64, dtype=np.uint8).reshape(8, 8), "centre", 1.0)
    assert np.array_equal(complete, np.arange(64).reshape(8, 8)), "all of a picture is the picture"


def test_word_is_drawn_below_and_two_words_differ() -> None:
    picture = np.full((32, 32, 3), 90, dtype=np.uint8)
    written = {word: lettered(picture, word) for word in ("star", "rats", "moon")}
    for other in written.values():
        assert (other[:16] == 90).all(), "the upper half stays"
        assert {0, 255} <= set(np.unique(other[16:]).tolist())
    assert not np.array_equal(written["star"], written["rats"])
    assert not np.array_equal(written["star"], written["moon"])


@given(word=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8), seed=st.integers(0, 9))
def test_mixed_letters_are_another_word_of_the_same_length(word: str, seed: int) -> None:
    mixed = mixed_letters(word, seed)
    assert mixed != word and len(mixed) == len(word) and drawable(mixed)
    assert mixed == mixed_letters(word, seed)
    if len(set(word)) > 1 and len(word) > 3:
        assert sorted(mixed) == sorted(word) or len(set(word)) < 3


@pytest.mark.parametrize("word", ["звезда", "星", "", " ", "étoile"])
def test_word_that_the_font_has_not_is_not_drawn(word: str) -> None:
    assert not drawable(word)
