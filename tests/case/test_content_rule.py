"""The content rule in every script: a key is whole words, without one the alternates show what carries the fact."""

import unicodedata
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from audit.case import tokenise
from audit.case.content_rule import content_spans
from audit.case.key_search import Fit, occurrences
from audit.schema import AuditError, Item, Template
from audit.wording import clusters, words
from audit.zoo import items, make_world
from tests.case.test_rows import byte_fallback, byte_level
from tests.wording.test_segmentation import SPACED, UNSPACED

NFC, NFD = "NFC", "NFD"


class Example(NamedTuple):
    """A sentence, the name of the place in it, another place, and a part of the name that is no word of its own."""

    answer: str
    key: str
    other: str
    part: str = ""


EXAMPLES = {
    "english": Example("He lives in Oslo now", "Oslo", "Rome", "Os"),
    "hindi": Example("वह गुलमर्ग में रहता है", "गुलमर्ग", "दिल्ली", "गुल"),
    "tamil": Example("அவர் மதுரை நகரில் வாழ்கிறார்", "மதுரை", "சென்னை", "மது"),
    "telugu": Example("అతను విజయవాడ నగరంలో ఉంటాడు", "విజయవాడ", "హైదరాబాద్", "విజయ"),
    "thai": Example("เขาอยู่ที่กรุงเทพมหานครตอนนี้", "กรุงเทพมหานคร", "เชียงใหม่"),
    "khmer": Example("គាត់រស់នៅភ្នំពេញ", "ភ្នំពេញ", "សៀមរាប"),
    "pointed arabic": Example("يَسْكُنُ فِي القَاهِرَةِ الآنَ", "القَاهِرَةِ", "دِمَشْقَ", "القَا"),
    "pointed hebrew": Example("הוּא גָּר בְּעִיר יְרוּשָׁלַיִם", "יְרוּשָׁלַיִם", "חֵיפָה", "יְרוּ"),
    "persian": Example("او در گل\u200cآباد است", "گل\u200cآباد", "تهران", "گل"),
    "decomposed latin": Example("Vive in Co\u0301rdoba ora", "Co\u0301rdoba", "Ma\u0301laga", "Co\u0301r"),
    "chinese": Example("他住在北京的医院", "北京", "上海"),
    "japanese": Example("彼は東京に住んでいる", "東京", "大阪"),
    "korean": Example("그는 서울 근처에 산다", "서울", "부산", "서"),
    "emoji": Example("👩‍👩‍👧 he lives in 𠮷野 😀 now", "𠮷野", "横浜"),
}


def ask(answer: str, **fields: object) -> Item:
    return Item.model_validate({"id": "i", "group": "g", "question": "?", "answer": answer} | fields)


def marked(item: Item, answer: str | None = None) -> list[str]:
    text = item.answer if answer is None else answer
    return [text[a:b] for a, b in content_spans(item, text, frozenset())]


@pytest.mark.parametrize("script", EXAMPLES)
@pytest.mark.parametrize("form", [NFC, NFD])
@pytest.mark.parametrize("key_form", [NFC, NFD])
def test_the_key_is_marked_whole_however_its_characters_are_composed(script: str, form: str, key_form: str) -> None:
    answer, key, other, _ = (unicodedata.normalize(form, text) for text in EXAMPLES[script])
    item = ask(answer, key=unicodedata.normalize(key_form, key), alternates=(answer.replace(key, other),))
    assert marked(item) == [key]
    assert marked(item, item.alternates[0]) == [other]


@pytest.mark.parametrize("script", EXAMPLES)
def test_without_a_key_the_words_that_differ_from_the_alternates_carry_the_fact(script: str) -> None:
    answer, key, other, _ = EXAMPLES[script]
    item = ask(answer, alternates=(answer.replace(key, other),))
    assert [("".join(marked(item))), "".join(marked(item, item.alternates[0]))] == [key, other]


@pytest.mark.parametrize("script", EXAMPLES)
@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_every_token_of_a_key_is_marked_where_a_character_is_several_tokens(script: str, make: object) -> None:
    """Neither tokenizer merges bytes of these scripts, so that a byte is a token."""
    tokenizer = make()  # pyright: ignore[reportCallIssue]
    answer, key, _, _ = EXAMPLES[script]
    rows = tokenise([ask(answer, key=key)], [answer], tokenizer, Template(), None)
    spelled = tokenizer.decode(rows.ids[0, rows.key[0]], skip_special_tokens=False)
    assert spelled.strip() == key
    if not key.isascii() and script != "decomposed latin":
        assert int(rows.key.sum()) >= len(key.encode())


@pytest.mark.parametrize("script", [name for name, example in EXAMPLES.items() if example.part])
def test_a_part_of_a_longer_word_is_no_key_unless_an_alternate_has_something_else_at_its_place(script: str) -> None:
    answer, key, _, part = EXAMPLES[script]
    with pytest.raises(AuditError) as caught:
        content_spans(ask(answer, key=part), answer)
    assert caught.value.code == 2 and f"'i': its key {part!r}" in caught.value.what
    assert f"inside the longer word {key!r}" in caught.value.what and repr(key) in caught.value.do
    inflected = ask(answer, key=part, alternates=(answer.replace(part, "X"), "another sentence"))
    assert marked(inflected) == [part] and marked(inflected, inflected.alternates[0]) == ["X"]


def test_a_mark_makes_another_letter_so_that_the_letter_without_it_is_not_there() -> None:
    for answer, key in (
        ("in Cafe\u0301 Mu", "Cafe"),
        ("वह दिल्ली में", "दिल"),
        ("in Café Mu", "Cafe"),
        ("in か\u3099", "か"),
    ):
        with pytest.raises(AuditError, match="is not in the answer"):
            content_spans(ask(answer, key=key), answer)


def test_in_scripts_without_spaces_words_of_the_dictionary_come_before_any_other_characters() -> None:
    assert [found.span for found in occurrences("東京都と京都", "京都")] == [(4, 6), (1, 3)]
    assert [found.fit for found in occurrences("東京都と京都", "京都")] == [Fit.WHOLE_WORDS, Fit.WHOLE_CHARACTERS]
    assert marked(ask("他是海淀区人", key="海淀区")) == ["海淀区"]
    with pytest.raises(AuditError, match="inside the longer word 'กำลัง'"):
        content_spans(ask("กำลังดี", key="ก"), "กำลังดี")


def test_an_alternate_s_value_is_marked_where_it_stands_and_not_where_it_stands_first() -> None:
    item = ask("Red house on Blue street", key="Blue", alternates=("Red house on Red street",))
    assert content_spans(item, item.alternates[0]) == ((13, 16),)
    longer = ask("A hundred red cars", key="red", alternates=("A hundred blue cars",))
    assert marked(longer) == ["red"] and marked(longer, longer.alternates[0]) == ["blue"]


def test_of_several_places_the_key_s_is_the_one_where_an_alternate_has_something_else() -> None:
    item = ask("Red house on Red street", key="Red", alternates=("Red house on Blue street",))
    assert content_spans(item, item.answer) == ((13, 16),)
    assert marked(item, item.alternates[0]) == ["Blue"]


def test_keys_that_do_not_fit_are_said_of_all_items_at_once() -> None:
    good = ask("It is red", key="red")
    bad = [ask(f"reddish{n}", key="red").model_copy(update={"id": f"i{n}"}) for n in range(5)]
    with pytest.raises(AuditError, match=r"'i0'.*'i1'.*'reddish2' \(and 2 more items\)") as caught:
        tokenise([good, *bad], [item.answer for item in (good, *bad)], byte_level(), Template(), None)
    assert caught.value.code == 2


def test_what_all_alternates_share_is_no_fact_but_a_shared_part_of_one_is() -> None:
    places = ask("He lives in New York now", alternates=("He lives in New Delhi now", "He lives in Rome now"))
    texts = (places.answer, *places.alternates)
    assert [marked(places, text) for text in texts] == [["New", "York"], ["New", "Delhi"], ["Rome"]]
    agreeing = ask("Elle est née à Paris", alternates=("Il est né à Rome",))
    assert marked(agreeing) == ["Elle", "née", "Paris"]
    chosen = ask("It is red", alternates=("It is blue",)).model_copy(update={"question": "Is it red or blue?"})
    assert [marked(chosen, text) for text in (chosen.answer, *chosen.alternates)] == [["red"], ["blue"]]
    keyed = ask("In Oslo now", key="Oslo", alternates=("now Rome is it",))
    assert marked(keyed, keyed.alternates[0]) == ["now", "Rome", "is", "it"], (
        "an alternate in other words than the key's"
    )
    same = ask("Ann met Bob", alternates=("Bob met Ann",))
    assert marked(same) == ["Ann", "met", "Bob"], "the same words: the rule for answers without alternates"


def test_perturbed_answers_keep_the_rule_of_the_paraphrased_one() -> None:
    item = ask(
        "In Oslo", alternates=("In Rome",), paraphrased_answer="Home is Oslo", perturbed_answers=("Home is Rome",)
    )
    assert marked(item, "Home is Oslo") == ["Home", "is", "Oslo"] and marked(item, "Home is Rome") == [
        "Home",
        "is",
        "Rome",
    ]


def test_in_a_zoo_world_the_alternates_show_what_the_keys_name() -> None:
    world = make_world(0)
    for item in items(world, "forget"):
        without = item.model_copy(update={"key": None, "alternate_keys": ()})
        for answer in (item.answer, *item.alternates):
            assert content_spans(without, answer) == content_spans(item, answer)


# ---- generated sentences ----------------------------------------------------------------------------------------
def is_word(text: str) -> bool:
    """Whether it begins with a letter, however composed, and ends with no joiner."""
    return all(unicodedata.normalize(form, text)[0].isalpha() for form in (NFC, NFD)) and text[-1] != "\u200c"


def words_of(alphabet: str) -> st.SearchStrategy[list[str]]:
    """A few words of one script, none twice."""
    word = st.text(alphabet=alphabet, min_size=1, max_size=6).filter(is_word)
    return st.lists(word, min_size=2, max_size=5, unique_by=lambda w: unicodedata.normalize(NFC, w))


SPACED_WORDS = st.sampled_from([*SPACED.values()]).flatmap(words_of)
UNSPACED_WORDS = st.sampled_from([*UNSPACED.values()]).flatmap(words_of)


@given(SPACED_WORDS, st.integers(0, 4), st.sampled_from([NFC, NFD]), st.sampled_from([NFC, NFD]))
def test_any_word_of_a_sentence_is_marked_as_a_key(parts: list[str], place: int, form: str, key_form: str) -> None:
    parts = [unicodedata.normalize(form, part) for part in parts]
    place %= len(parts)
    answer, key = " ".join(parts), parts[place]
    start = sum(len(part) + 1 for part in parts[:place])
    spans = content_spans(ask(answer, key=unicodedata.normalize(key_form, key)), answer)
    assert spans == ((start, start + len(key)),)


@given(SPACED_WORDS, st.data())
def test_no_part_of_a_word_is_marked_as_a_key(parts: list[str], data: st.DataObject) -> None:
    answer = " ".join(parts)
    (start, end) = data.draw(st.sampled_from(words(answer)))
    assume(end - start > 1)
    first = data.draw(st.integers(start, end - 1))
    last = data.draw(st.integers(first + 1, end))
    key = answer[first:last]
    assume(unicodedata.normalize(NFC, key) not in {unicodedata.normalize(NFC, part) for part in parts})
    with pytest.raises(AuditError, match="inside the longer word|is not in the answer"):
        content_spans(ask(answer, key=key), answer)


@given(UNSPACED_WORDS, st.integers(0, 4))
def test_any_whole_characters_of_a_sentence_without_spaces_are_marked_as_a_key(parts: list[str], place: int) -> None:
    answer, key = "".join(parts), parts[place % len(parts)]
    ends = clusters(answer)
    whole = [a for a in range(len(answer)) if answer.startswith(key, a) and {a, a + len(key)} <= ends]
    assume(whole and unicodedata.is_normalized(NFD, answer))
    ((start, end),) = content_spans(ask(answer, key=key), answer)
    assert answer[start:end] == key and start in whole


@pytest.mark.parametrize(
    "texts", [("C++", "C#", "C"), ("-5", "5", "+5"), ("10%", "10"), ("at 5 p.m.", "at $5 p.m."), ("A → B", "A ← B")]
)
def test_an_answer_and_alternates_with_the_same_words_carry_the_fact_in_all_that_they_say(
    texts: tuple[str, ...],
) -> None:
    item = ask(texts[0], alternates=texts[1:])
    assert [content_spans(item, text) for text in texts] == [((0, len(text)),) for text in texts]
    other = ask(texts[0], alternates=("of 77", "of 88"))
    assert content_spans(other, "of 77") == ((3, 5),), "words that differ carry it alone"


@pytest.mark.parametrize(
    ("answer", "carrying"),
    [
        ("on 3 May 1990", ["3", "May", "1990"]), ("May 3, 1990", ["May", "3", "1990"]), ("in May", ["May"]),
        ("with Will Ford", ["Will", "Ford"]), ("It may rain", ["rain"]), ("May it rain", ["rain"]),
        ("Yes. Will rain", ["rain"]), ("in Mayfair", ["Mayfair"]),
    ],
)  # fmt: skip
def test_a_month_and_a_name_are_no_function_words(answer: str, carrying: list[str]) -> None:
    assert [answer[a:b] for a, b in content_spans(ask(answer), answer)] == carrying
