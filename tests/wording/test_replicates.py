"""What is audited has its nouns: people as they always were, images and groups wherever a sentence of ours says so."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.judging import count_words, decision_rule, replicates_of
from audit.schema import Missing, PeopleKept
from audit.wording import GROUP, IMAGE, PERSON, PICTURE, PICTURES, counted, replicate_of, units
from tests.golden import report

OF_PEOPLE = re.compile(r"\b(people|person|persons|everybody)\b", re.IGNORECASE)
WORDS = st.sampled_from(
    ["people", "People", "person", "a person", "people who", "people whom", "everybody", "everybody's", "people's",
     "person's", "facts", "the", "of", "knows", "3", "n", "."]
)  # fmt: skip
SENTENCES = st.lists(WORDS, max_size=12).map(" ".join)
OTHERS = st.text("bcdfghjklmnqrstvwxz ,.'", max_size=30)


@given(st.text())
def test_of_people_every_sentence_reads_as_it_is_written(sentence: str) -> None:
    assert PERSON.rephrased(sentence) == sentence


@pytest.mark.parametrize("over", [IMAGE, GROUP])
@given(sentence=SENTENCES)
def test_no_word_for_people_is_left_where_images_are_audited(over: object, sentence: str) -> None:
    assert over in (IMAGE, GROUP)
    assert not OF_PEOPLE.search((IMAGE if over is IMAGE else GROUP).rephrased(sentence))


@given(before=OTHERS, after=OTHERS)
def test_what_is_quoted_joined_or_a_path_keeps_its_name(before: str, after: str) -> None:
    for name in ("'people'", '"person"', "runs/people/x", "data/people.npz", "people_of", "a-person", "‹people›"):
        sentence = f"{before} {name} {after}"
        assert IMAGE.rephrased(sentence) == sentence


@pytest.mark.parametrize(
    ("written", "of_images", "of_groups"),
    [
        ("sign flips over people", "sign flips over images", "sign flips over groups"),
        ("a share in everybody, or people who are known", "a share in every image, or images that are known",
         "a share in every group, or groups that are known"),
        ("an interval of a person's facts", "an interval of an image's classes", "an interval of a group's classes"),
        ("effect on the probability of the content tokens (geometric mean over tokens)",
         "effect on the probability of the class", "effect on the probability of the class"),
        ("people's differences", "images' differences", "groups' differences"),
    ],
)  # fmt: skip
def test_our_sentences_are_said_of_images_and_of_groups(written: str, of_images: str, of_groups: str) -> None:
    assert (IMAGE.rephrased(written), GROUP.rephrased(written)) == (of_images, of_groups)


@given(sentence=SENTENCES)
def test_of_questions_about_pictures_the_units_are_renamed_and_the_facts_are_not(sentence: str) -> None:
    for over in (PICTURE, PICTURES):
        assert not OF_PEOPLE.search(over.rephrased(sentence))
    written = "people's facts: the probability of the content tokens"
    assert PICTURE.rephrased(written) == "pictures' facts: the probability of the content tokens"
    assert PICTURES.rephrased("sign flips over people") == "sign flips over groups"
    assert PICTURE.impersonal and not PICTURE.of_images and not PERSON.impersonal and IMAGE.impersonal


@given(n=st.integers(0, 40))
def test_units_are_counted_in_their_own_noun(n: int) -> None:
    half = PeopleKept(kept=0.5, ci95=Missing(missing="x"), level=1.0, log10_ratio=0.0, named=(), fdr=0.05, of=2 * n)
    assert count_words(half) == f"{n} of {2 * n} people" and count_words(half, IMAGE) == f"{n} of {2 * n} images"
    assert IMAGE.amount(1) == "1 image" and GROUP.amount(n + 2) == f"{n + 2} groups"


def test_a_measurement_of_people_is_untouched_and_one_of_images_says_so_everywhere() -> None:
    for e in report("suppressed").evidence:
        m = e.measurement
        assert counted(m, PERSON) is m and replicate_of(m) is PERSON and units(m).endswith(("people", "person"))
        other = counted(m, IMAGE)
        assert other.unit_of_replication == "image" and units(other).endswith(("images", "image"))
        assert not OF_PEOPLE.search(
            other.model_dump_json(exclude={"people", "power", "readings"}).replace('"people"', "")
        )
        assert other.value == m.value and other.p == m.p and other.items == m.items
        assert replicates_of([e.model_copy(update={"measurement": other})]) is IMAGE


def test_the_decision_rule_is_that_of_the_units_of_its_audit() -> None:
    assert not OF_PEOPLE.search(" ".join(decision_rule(IMAGE))) and "the image (group)" in decision_rule(IMAGE)[0]
    assert len(decision_rule(GROUP)) == len(decision_rule()) and "the person (group)" in decision_rule()[0]
