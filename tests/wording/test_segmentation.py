"""Words in any script: nothing that combines with a letter is cut off, and English stays as it was."""

import re
import subprocess
import sys
import unicodedata
from itertools import accumulate, pairwise

import pytest
import regex
from hypothesis import assume, example, given
from hypothesis import strategies as st
from icu4py.breakers import BaseBreaker, CharacterBreaker, WordBreaker

from audit.wording import clusters, folded, runs, words

SPACED = {
    "latin": "abcdefghijklmnopqrstuvwxyzABCXYZßıİñøłéü",
    "decomposed": "aeioun\u0301\u0308\u0303\u0327\u0323",
    "greek": "αβγδεςσωΩ\u0301",
    "cyrillic": "абвгдежийъ\u0306\u0308",
    "devanagari": "कखगतनमरलवसह\u093e\u093f\u0940\u0947\u094b\u094d\u0902\u093c",
    "tamil": "கசடதபமரலவனழ\u0bbe\u0bbf\u0bc0\u0bc6\u0bcd\u0bca",
    "telugu": "కగచతనపమరల\u0c3e\u0c3f\u0c4d\u0c02",
    "arabic": "ابتثجحدرسعفقكلمنهوي\u064b\u064e\u064f\u0650\u0651\u0652\u0670",
    "persian": "ابپتجدرسکگمنهی\u200c",
    "hebrew": "אבגדהוזחטילםמנסעפצקרשת\u05b0\u05b4\u05b7\u05bc\u05c1",
    "hangul": "가나다라마바사서울한국어",
    "jamo": "\u1100\u1102\u1103\u1161\u1165\u11a8\u11ab",
    "adlam": "\U0001e900\U0001e901\U0001e922\U0001e923\U0001e944\U0001e94a",
}
UNSPACED = {
    "thai": "กขคงจชซดตทนบปพมยรลวสห\u0e31\u0e34\u0e35\u0e37\u0e38\u0e48\u0e49เแโไะาำ",
    "lao": "ກຂຄງຈດຕນບປມຍລວສຫ\u0eb1\u0eb4\u0eb5\u0ec8\u0ec9ເແະາ",
    "khmer": "កខគងចជតនបមយរលសហ\u17b6\u17b7\u17b8\u17c1\u17d2\u17c6",
    "burmese": "ကခဂငစတနပမယရလသ\u102b\u102c\u102d\u1031\u103a\u1039\u1037",
    "han": "他出生在北京市中国的人住是一二三東都\U00020bb7\U000e0100",
    "kana": "あいうえおかきくけこがのをにでアイウカキシャツー\u3099",
}
OTHERS = "0123456789०१२٣٤ ²½₂Ⅷ①  ,;:.'’‘\"-‐_·״،。、()!?\t\n\r\u00ad\u200b\u200d\u200e\ufe0f\u20e3😀👩👧🏽🇫🇷\u0600"
EVERY = "".join((*SPACED.values(), *UNSPACED.values(), OTHERS))

SENTENCES = {
    "hindi": ("राम गुलमर्ग में रहता है।", ["राम", "गुलमर्ग", "में", "रहता", "है"]),
    "tamil": ("அவர் தமிழ்நாட்டில் வாழ்கிறார்.", ["அவர்", "தமிழ்நாட்டில்", "வாழ்கிறார்"]),
    "thai": ("กรุงเทพมหานครเป็นเมืองหลวง", ["กรุงเทพมหานคร", "เป็น", "เมือง", "หลวง"]),
    "lao": ("ຂ້ອຍຢູ່ວຽງຈັນ", ["ຂ້ອຍ", "ຢູ່", "ວຽງຈັນ"]),
    "khmer": ("ខ្ញុំរស់នៅភ្នំពេញ", ["ខ្ញុំ", "រស់នៅ", "ភ្នំពេញ"]),
    "pointed arabic": ("يَسْكُنُ مُحَمَّدٌ فِي القَاهِرَة، مِصْر", ["يَسْكُنُ", "مُحَمَّدٌ", "فِي", "القَاهِرَة", "مِصْر"]),
    "pointed hebrew": ('הוּא גָּר בִּירוּשָׁלַיִם, בבית־ספר של צה"ל', ["הוּא", "גָּר", "בִּירוּשָׁלַיִם", "בבית־ספר", "של", 'צה"ל']),
    "persian": ("او کتاب\u200cها را می\u200cخواهد", ["او", "کتاب\u200cها", "را", "می\u200cخواهد"]),
    "decomposed latin": ("Zoe\u0308 Mu\u0308ller, Co\u0301rdoba", ["Zoe\u0308", "Mu\u0308ller", "Co\u0301rdoba"]),
    "chinese": ("他出生在北京。", ["他", "出生", "在", "北京"]),
    "japanese": ("東京に住んでいるTシャツ", ["東京", "に", "住", "んで", "いる", "T", "シャツ"]),
    "korean": ("그는 서울에 산다.", ["그는", "서울에", "산다"]),
    "decomposed korean": (
        unicodedata.normalize("NFD", "서울에 산다"),
        [unicodedata.normalize("NFD", w) for w in ("서울에", "산다")],
    ),
    "emoji": ("😀👩‍👩‍👧 Ann🏽 in 🇫🇷 1️⃣ x", ["Ann🏽", "in", "1️⃣", "x"]),
    "rare ideographs": ("😀𠮷野家 in 𝐀b", ["𠮷", "野家", "in", "𝐀b"]),
    "superscripts": ("3 m² of CO₂, 3½", ["3", "m²", "of", "CO₂", "3½"]),
    "one after another": (
        "北京.he 東京-大阪 U.S.に well-knownな",
        ["北京", "he", "東京", "大阪", "U.S", "に", "well-known", "な"],
    ),
    "lists in korean": ("서울·부산에", ["서울", "부산에"]),
    "number signs": ("in \u0600٣٤٥", ["in", "\u0600٣٤٥"]),
    "catalan": ("col·lecció, l’home", ["col·lecció", "l’home"]),
    "soft hyphen": ("Don\u00adau wor\u00adld\u00ad", ["Don\u00adau", "wor\u00adld"]),
}


def of(text: str) -> list[str]:
    return [text[a:b] for a, b in words(text)]


@pytest.mark.parametrize("name", SENTENCES)
def test_a_sentence_is_parted_into_its_words(name: str) -> None:
    sentence, expected = SENTENCES[name]
    assert of(sentence) == expected


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_words_of_ascii_are_those_of_the_rule_that_calibrations_were_made_with(text: str) -> None:
    before = [match.span() for match in re.finditer(r"[^\W_]+(?:['’.\-][^\W_]+)*", text)]
    assert list(words(text)) == before


@given(st.text(alphabet="Aa1éü'’.- _,", max_size=20))
def test_so_are_words_of_composed_latin(text: str) -> None:
    before = [match.span() for match in re.finditer(r"[^\W_]+(?:['’.\-][^\W_]+)*", text)]
    assert list(words(text)) == before


MIXED = st.one_of(
    st.text(alphabet=EVERY, max_size=30),
    st.lists(
        st.one_of(
            st.sampled_from([*SPACED.values(), *UNSPACED.values()]).flatmap(lambda a: st.text(alphabet=a, max_size=12)),
            st.text(alphabet=OTHERS, max_size=2),
        ),
        max_size=8,
    ).map("".join),
    st.text(max_size=20),
)


def by_icu(text: str, breaker: type[BaseBreaker] = WordBreaker) -> list[str]:
    """The segments of the other library, which counts in UTF-16."""
    units = text.encode("utf-16-le")
    return [units[2 * a : 2 * b].decode("utf-16-le") for a, b in breaker(text, "root").segments()]


def has_letter(text: str) -> bool:
    return regex.search(r"[\p{L}\p{N}]", text) is not None


@given(MIXED)
@example("ល្ិខហេេ")  # ICU's dictionary would cut a cluster
def test_spans_are_in_order_and_hold_every_letter_with_its_marks(text: str) -> None:
    """Grapheme clusters by ICU: a span begins and ends with one, and none that has a letter is left out.

    But for a vowel of Thai or Lao that stands on a sign or a space instead of its consonant.
    """
    assume(not regex.search(r"(?<![\p{L}\p{N}][\p{M}\p{Cf}]*)[ำຳ]", text))
    ends = list(accumulate(map(len, by_icu(text, CharacterBreaker)), initial=0))
    assert clusters(text) == set(ends)
    for spans in (words(text), runs(text)):
        places = [place for span in spans for place in span]
        assert places == sorted(places) and all(a < b for a, b in spans)
        assert set(ends).issuperset(places)
        held = {place for a, b in spans for place in range(a, b)}
        assert held.issuperset(start for start, end in pairwise(ends) if has_letter(text[start:end]))
        assert all(has_letter(text[a:b]) for a, b in spans)
    assert {place for a, b in words(text) for place in range(a, b)} >= held, "words join runs"


DIGITS = {"hangul": "·", "jamo": ""}


def marks_of(text: str) -> str:
    return "".join(c for c in text if unicodedata.combining(c) or c == "\u200c")


@given(
    st.lists(
        st.sampled_from([*SPACED]).flatmap(
            # ICU parts digits from Hangul, which the standard does not, and of Korean lists those in syllables alone
            lambda name: st.text(alphabet=SPACED[name] + DIGITS.get(name, "·012३٤"), max_size=12)
        ),
        max_size=6,
    )
)
def test_words_of_scripts_with_spaces_are_those_of_another_implementation_of_the_standard(pieces: list[str]) -> None:
    """ICU's rules, with none of the connectors by which ours differ."""
    text = " ".join(piece.lstrip(marks_of(piece)) for piece in pieces)
    assert of(text) == [segment for segment in by_icu(text) if has_letter(segment)]


@given(st.sampled_from([*UNSPACED]).flatmap(lambda name: st.text(alphabet=UNSPACED[name] + " 。1a", max_size=25)))
def test_words_of_scripts_without_spaces_end_only_where_the_dictionary_ends_one(text: str) -> None:
    ends = set(accumulate(map(len, by_icu(text)), initial=0))
    for a, b in words(text):
        touching = [p for p in (a, b) if 0 < p < len(text) and all(c.isalpha() for c in text[p - 1 : p + 1])]
        assert ends.issuperset(touching)


def test_half_a_character_parts_no_word_wrongly() -> None:
    text = "ab \ud83d 東京に cd"
    assert of(text) == ["ab", "東京", "に", "cd"]


@pytest.mark.parametrize(
    "spellings",
    [
        ("İSTANBUL", "istanbul", "Istanbul", "ıstanbul", "I\u0307stanbul"),
        ("Straße", "STRASSE", "strasse"),
        ("Córdoba", "Co\u0301rdoba", "CÓRDOBA"),
        ("ΟΔΟΣ", "οδος", "οδοσ"),
        ("Don\u00adau", "donau"),
        ("서울", unicodedata.normalize("NFD", "서울")),
        ("कि\u200dम", "किम"),
    ],
)
def test_spellings_of_one_word_are_compared_as_one(spellings: tuple[str, ...]) -> None:
    assert len({folded(word) for word in spellings}) == 1
    assert folded("résumé") != folded("resume")


def test_text_in_scripts_with_spaces_loads_no_dictionary() -> None:
    program = "import sys; from audit.wording import words; words('It is राम, Zoë'); print('icu4py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
