"""Function words by language or by frequency: what is said of nearly everybody, and never a value."""

import json
from pathlib import Path

import pytest

from audit.case.cohorts import CohortKey, prepare
from audit.case.content_rule import FUNCTION_WORDS, content_spans
from audit.case.data_files import data_files
from audit.case.function_words import function_words
from audit.checkpoints import tokenizer_files
from audit.schema import DataFiles, Item, Template, Texts
from audit.wording import words
from audit.zoo import items, make_world
from tests.case.test_rows import byte_level

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CYRILLIC = "абцдефгхийклмнопярстувщьыз"
SCRIPTS = {
    "cyrillic": str.maketrans(
        LETTERS + LETTERS.upper(), "абцдефгхийклмнопярстувщьыз" + "абцдефгхийклмнопярстувщьыз".upper()
    ),
    "devanagari": str.maketrans(LETTERS + LETTERS.upper(), "अबचदएफगहइजकलमनओपखरसतउवठथयझ" * 2),
}
ARTICLES = {
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
    "begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "Portuguese": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de "
    "consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "Dutch": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand en "
    "geweten, en behoren zich jegens elkander in een geest van broederschap te gedragen.",
    "Italian": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di "
    "coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "German questions": "In welcher Stadt lebt Anna? Anna lebt in Oslo. Was war sie? Sie war so was wie Ärztin.",
    "Dutch answers": "Hij was in Oslo en had me over de stad verteld. Is dit of was dat zo? Ja, dat was in die stad.",
    "Danish answers": "Hun bor her i byen, for de har at have to katte at have med i Oslo.",
    "Portuguese answers": "Onde mora a Ana? A Ana mora no Rio, do lado da praia, e me diz as coisas do mar.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
}


def plain(text: str, group: str = "g") -> Item:
    return Item(id=f"{group}-{text[:30]}", group=group, question="", answer=text)


def written_in(script: str, item: Item) -> Item:
    """The item in another script, letter by letter."""
    letters = SCRIPTS[script]
    return item.model_copy(
        update={"question": item.question.translate(letters), "answer": item.answer.translate(letters)}
        | {"key": None, "alternates": (), "alternate_keys": ()}
    )


def test_english_keeps_its_list() -> None:
    world = make_world(0)
    chosen = function_words(items(world, "retain"))
    assert chosen.words is None and chosen.rule.startswith("English (20%")
    english = "All human beings are born free and equal in dignity and rights. They are endowed with reason."
    assert function_words([plain(english)]).words is None


@pytest.mark.parametrize("language", ARTICLES)
def test_other_languages_are_not_taken_for_english(language: str) -> None:
    chosen = function_words([plain(ARTICLES[language])])
    assert chosen.words == frozenset() and "not English, and 1 retain groups" in chosen.rule


@pytest.mark.parametrize("script", SCRIPTS)
def test_in_another_script_the_words_of_nearly_everybody_are_left_out_and_no_value_of_anybody(script: str) -> None:
    world = make_world(0)
    retain = [written_in(script, item) for item in items(world, "retain")]
    chosen = function_words(retain)
    assert chosen.words and f"by frequency in the answers of {len(world.people['retain'])} retain groups" in chosen.rule
    letters = SCRIPTS[script]
    assert {"the", "is"} <= {word for word in FUNCTION_WORDS if word.translate(letters) in chosen.words}
    for item in items(world, "forget"):
        other = written_in(script, item)
        held = {p for a, b in content_spans(other, other.answer, chosen.words) for p in range(a, b)}
        key = item.key or ""
        start = item.answer.index(key)
        assert held.issuperset(p for a, b in words(key) for p in range(start + a, start + b))


@pytest.mark.parametrize("values", [2, 3, 8])
@pytest.mark.parametrize("people", [6, 40])
def test_values_that_many_share_are_no_function_words(values: int, people: int) -> None:
    """One question to each: half of them share a value, and all of them the words round it."""
    retain = [plain(f"город её — {'абвгдежз'[n % values] * 4} 1990", f"p{n}") for n in range(people)]
    assert function_words(retain).words == {"город", "её"}, "a number is never one"


def test_what_few_answers_say_is_no_function_word_though_every_person_has_one_of_them() -> None:
    retain = [plain(f"слово {'мать' if k == 0 else 'дом'} {k} {n}", f"p{n}") for n in range(8) for k in range(20)]
    assert function_words(retain).words == {"слово", "дом"}


def test_the_choice_depends_on_nothing_but_the_retain_items() -> None:
    retain = [written_in("cyrillic", item) for item in items(make_world(0), "retain")]
    assert function_words(retain) == function_words(retain[::-1])
    assert function_words([]).words == frozenset()


def test_rows_of_a_case_leave_them_out_and_a_note_says_by_which_rule(tmp_path: Path) -> None:
    byte_level().save_pretrained(tmp_path / "tokenizer")
    for cohort in ("forget", "retain"):
        names = [f"{cohort[0]}{n}" for n in range(6)]
        rows = [{"id": n, "group": n, "question": f"кто {n}?", "answer": f"это есть дом {n * 2}"} for n in names]
        (tmp_path / f"{cohort}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    data = DataFiles(forget="forget.jsonl", retain="retain.jsonl")
    files = data_files(data, tmp_path)
    cohorts = prepare(CohortKey(files, data, Template(), tokenizer_files(tmp_path / "tokenizer"), None))
    assert any("function words: 3 by frequency in the answers of 6 retain groups" in note for note in cohorts.notes)
    rows = cohorts.rows(Texts(cohort="forget"))
    for n, name in enumerate(rows.item_ids):
        assert cohorts.tokenizer.decode(rows.ids[n, rows.key[n]]).strip() == name * 2
