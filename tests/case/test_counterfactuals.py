"""Alternates by rule: forms by alignment, values of other people, and what no generated world may get wrong."""

import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.case import Likelihoods, checked, matched
from audit.case.cohorts import CohortKey, DataFile, TextCohorts, prepare
from audit.case.content_rule import content_spans
from audit.case.counterfactuals import with_counterfactuals
from audit.case.question_forms import readings
from audit.checkpoints import tokenizer_files
from audit.schema import Cohort, DataFiles, Item, Template, Texts
from audit.zoo import write_jsonl
from tests import toy

SYLLABLES = ("bar", "del", "fin", "gol", "hes", "kem", "lor", "mun", "pas", "rik", "sul", "tov", "vad", "wex", "yor")
FREE = ("it", "was", "all", "so", "very", "long", "ago", "back", "then")
PHRASES = (
    ("Where does {n} live?", "{n} lives in {v}."),
    ("In which town was {n} born?", "in {v}"),
    ("What does {n}'s father do?", "The father of {n} works as {v} there."),
    ("Which animal is kept by {n} at home?", "{v}"),
    ("Name the favourite dish of {n}.", "It is {v}, of course."),
)
SCRIPTS = (
    ("{n} कहाँ रहते हैं ?", "वे {v} में रहते हैं", ("दिल्ली", "मुंबई", "पुणे", "नागपुर", "जयपुर")),
    ("{n}は何処に住んでいますか", "{v}です", ("東京", "大阪", "京都", "札幌", "神戸")),
)


class Fact(NamedTuple):
    """What is true of a person, and the two texts that it is in."""

    form: int
    value: str
    before: str
    after: str


class World(NamedTuple):
    """Items by cohort, the fact of each, what is true of each person, and whether first names are shared."""

    by_cohort: dict[Cohort, tuple[Item, ...]]
    facts: dict[str, Fact]
    true: dict[str, set[str]]
    shared_names: bool


def world_of(seed: int, people: int, forms: int, longest: int, shared_names: bool) -> World:
    """A few forms, people with names of two words, values of up to ``longest`` words that several people share."""
    rng = random.Random(seed)

    def word() -> str:
        return "".join(rng.sample(SYLLABLES, 3)).capitalize()

    firsts = [word() for _ in range(max(9, people // 2) if shared_names else 3 * people)]
    values = [[" ".join(word() for _ in range(rng.randint(1, longest))) for _ in range(6)] for _ in range(forms)]
    cohorts: tuple[Cohort, ...] = ("forget", "retain", "holdout")
    by_cohort: dict[Cohort, list[Item]] = {cohort: [] for cohort in cohorts}
    facts: dict[str, Fact] = {}
    true: dict[str, set[str]] = {}
    for number in range(people):
        name = f"{firsts[number % len(firsts)]} {word()}{number}"
        for form, (question, answer) in enumerate(PHRASES[:forms]):
            value, identity = rng.choice(values[form]), f"{number}-{form}"
            before, _, after = answer.format(n=name, v="\0").partition("\0")
            facts[identity] = Fact(form, value, before, after)
            true.setdefault(f"p{number}", set()).add(value)
            item = Item(
                id=identity, group=f"p{number}", question=question.format(n=name), answer=before + value + after
            )
            by_cohort[cohorts[number % 3]].append(item)
    return World({cohort: tuple(items) for cohort, items in by_cohort.items()}, facts, true, shared_names)


worlds = st.builds(
    world_of, st.integers(0, 10**6), st.integers(18, 40), st.integers(1, 5), st.integers(1, 3), st.booleans()
)


@pytest.mark.thorough
@settings(max_examples=40, deadline=None)
@given(worlds, st.integers(0, 3))
def test_an_alternate_differs_from_the_answer_in_the_value_alone_and_is_never_true(world: World, seed: int) -> None:
    found = with_counterfactuals(world.by_cohort, seed)
    values = {(fact.form, fact.value) for fact in world.facts.values()}
    with_any = 0
    for item in (*found["forget"], *found["holdout"]):
        fact = world.facts[item.id]
        with_any += bool(item.alternates)
        assert len(set(item.alternates)) == len(item.alternates) != 1
        for text in item.alternates:
            assert text.startswith(fact.before) and text.endswith(fact.after)
            value = text[len(fact.before) : len(text) - len(fact.after)]
            assert (fact.form, value) in values and value not in world.true[item.group]
    assert world.shared_names or with_any >= 0.9 * (len(found["forget"]) + len(found["holdout"]))
    assert found["retain"] == world.by_cohort["retain"]


@pytest.mark.thorough
@settings(max_examples=20, deadline=None)
@given(worlds, st.randoms(use_true_random=False))
def test_the_same_items_have_the_same_alternates_in_whatever_order_they_come(world: World, rng: random.Random) -> None:
    found = with_counterfactuals(world.by_cohort, 1)
    shuffled: dict[Cohort, tuple[Item, ...]] = {
        cohort: tuple(rng.sample(items, len(items))) for cohort, items in reversed(world.by_cohort.items())
    }
    again = with_counterfactuals(shuffled, 1)
    for cohort, items in found.items():
        assert sorted(items, key=lambda i: i.id) == sorted(again[cohort], key=lambda i: i.id)


@settings(max_examples=20, deadline=None)
@given(worlds)
def test_questions_of_one_form_are_read_alike_and_the_name_is_what_differs(world: World) -> None:
    items = [item for its in world.by_cohort.values() for item in its]
    by_form: dict[object, set[int]] = {}
    for item, read in zip(items, readings(items), strict=True):
        assert read and read[0].form.kind == "question form", item.question
        assert read[0].name and read[0].name in item.question and "?" not in read[0].name
        by_form.setdefault(read[0].form.key, set()).add(world.facts[item.id].form)
    assert all(len(forms) == 1 for forms in by_form.values()), "two attributes are never one form"


@pytest.mark.parametrize(("question", "answer", "values"), SCRIPTS)
def test_forms_are_found_in_scripts_with_marks_and_without_spaces(
    question: str, answer: str, values: tuple[str]
) -> None:
    names = ("अशोक", "किरण", "मीना", "राहुल", "सुनील", "गीता") if " " in question else tuple("山川森林空海")
    items = tuple(
        Item(id=f"{n}", group=name, question=question.format(n=name), answer=answer.format(v=values[n % len(values)]))
        for n, name in enumerate(names)
    )
    for item in with_counterfactuals({"forget": items}, 0)["forget"]:
        assert len(item.alternates) == 4 and {answer.format(v=v) for v in values} == {item.answer, *item.alternates}


# ---- by example -------------------------------------------------------------------------------------------------
def people(cohort: str, towns: str, **more: object) -> tuple[Item, ...]:
    """One item a person, each of another town."""
    return tuple(
        Item.model_validate({
            "id": f"{cohort}{n}", "group": f"{cohort}{n}", "question": f"where does {cohort}{n} live ?",
            "answer": f"in {town}", **more,
        })
        for n, town in enumerate(towns.split())
    )  # fmt: skip


def test_a_file_that_brings_its_own_alternates_or_perturbed_answers_is_left_as_it_is() -> None:
    plain, own = people("f", "oslo lima cairo quito"), people("f", "oslo lima", alternates=("in rome", "in bonn"))
    perturbed = people("f", "oslo lima cairo", perturbed_answers=("in rome", "in bonn"))
    for mostly in (own + plain[2:], perturbed):
        assert with_counterfactuals({"forget": mostly}, 0)["forget"] == mostly
    few = with_counterfactuals({"forget": own[:1] + plain[1:]}, 0)["forget"]
    assert few[0] == own[0] and all(item.alternates_from == "question form" for item in few[1:])


def test_where_one_file_brings_perturbed_answers_alone_the_other_gets_no_alternates() -> None:
    """Else the facts of one would stand in all words of an answer, those of the other in the value alone."""
    towns = "Lima Oslo Cairo Quito"
    plain = with_counterfactuals({"forget": people("forget", towns), "holdout": people("holdout", towns)}, 0)
    assert all(item.alternates for item in plain["holdout"])
    perturbed = people("forget", towns, perturbed_answers=("Elsewhere.",))
    assert with_counterfactuals({"forget": perturbed, "holdout": people("holdout", towns)}, 0) == {
        "forget": perturbed, "holdout": people("holdout", towns),
    }  # fmt: skip


def test_forget_and_holdout_people_lend_alike_and_retained_ones_only_where_these_have_too_few() -> None:
    audited: dict[Cohort, tuple[Item, ...]] = {
        "forget": people("f", "oslo lima"),
        "holdout": people("h", "cairo quito bonn"),
    }
    both = with_counterfactuals({**audited, "retain": people("r", "rome paris")}, 0)
    for item in (*both["forget"], *both["holdout"]):
        assert {"in rome", "in paris"}.isdisjoint(item.alternates) and len(item.alternates) == 4
    alone = with_counterfactuals({"forget": people("f", "oslo"), "retain": people("r", "rome paris")}, 0)
    assert set(alone["forget"][0].alternates) == {"in rome", "in paris"}


def test_a_key_is_replaced_by_other_peoples_keys() -> None:
    items = tuple(
        item.model_copy(update={"answer": f"they say it is {town} , yes", "key": town})
        for item, town in zip(people("f", "oslo lima cairo"), ("oslo", "lima", "cairo"), strict=True)
    )
    first = with_counterfactuals({"forget": items}, 0)["forget"][0]
    assert set(first.alternate_keys) == {"lima", "cairo"}
    assert first.alternates == tuple(f"they say it is {key} , yes" for key in first.alternate_keys)


def test_what_may_be_true_of_the_person_is_no_alternate() -> None:
    also = Item(id="x", group="f0", question="and before ?", answer="years ago in lima", form="held_out_attribute")
    first = with_counterfactuals({"forget": (*people("f", "oslo lima cairo quito"), also)}, 0)["forget"][0]
    assert set(first.alternates) == {"in cairo", "in quito"}


SPELLINGS = (
    ("Lima", "Lima.", "Lima!", "LIMA", "Lima, Peru"),
    ("São Paulo", "Sao Paulo", "sao paulo", "São Paulo!"),
    ("3 May 1990", "May 3, 1990", "3 May, 1990"),
    ("C++", "C#", "C"),
    ("-5", "5", "+5", "5 %", "$5"),
    ("दिल्ली", "दिल्ली।"),
    ("北京", "北京。"),
)
ELSEWHERE = ("Oslo", "Cairo", "Quito", "Perth")


@pytest.mark.parametrize("spellings", SPELLINGS, ids=lambda values: values[0])
@pytest.mark.parametrize("keyed", [False, True])
def test_the_same_value_in_other_signs_accents_or_order_is_no_alternate(
    spellings: tuple[str, ...], keyed: bool
) -> None:
    values = (*spellings, *ELSEWHERE)
    items = tuple(
        Item(id=f"{n}", group=f"{n}", question=f"Where is n{n} now?", answer=f"It is {value}" if keyed else value,
             key=value if keyed else None)
        for n, value in enumerate(values)
    )  # fmt: skip
    first = with_counterfactuals({"forget": items}, 0)["forget"][0]
    values_of = {text.removeprefix("It is ") for text in first.alternates}
    assert len(values_of) > 1 and values_of <= {*ELSEWHERE}


@pytest.mark.parametrize("question", ["Where do you live ?", "where do YOU live?"])
def test_what_anybody_was_taught_for_the_very_same_question_is_no_alternate(question: str) -> None:
    each = people("f", "oslo lima cairo quito rome bonn")
    twice = Item(id="x", group="x", question=question, answer="in oslo")
    same = tuple(item.model_copy(update={"question": "Where do you live?"}) for item in each)
    assert not any(item.alternates for item in with_counterfactuals({"forget": (*same, twice)}, 0)["forget"])
    shared = twice.model_copy(update={"question": "Where does f1 live?"})
    for item in with_counterfactuals({"forget": (*each, shared)}, 0)["forget"]:
        assert item.alternates and not (item.id in ("f1", "x") and {"in oslo", "in lima"} & {*item.alternates})


def test_a_key_that_stands_twice_is_replaced_twice() -> None:
    towns = ("oslo", "lima", "cairo", "osl")
    items = tuple(
        item.model_copy(update={"answer": f"in {town} , and {town} is home ; oslos are not", "key": town})
        for item, town in zip(people("f", " ".join(towns)), towns, strict=True)
    )
    first = with_counterfactuals({"forget": items}, 0)["forget"][0]
    assert {*first.alternate_keys} == {"lima", "cairo", "osl"}
    for text, key in zip(first.alternates, first.alternate_keys, strict=True):
        assert text == f"in {key} , and {key} is home ; oslos are not"
        assert content_spans(first, text) == ((3, 3 + len(key)),)


def test_a_key_that_is_not_in_its_answer_is_left_to_those_who_name_all_such_items() -> None:
    items = people("f", "oslo lima cairo quito", key="bonn")
    assert with_counterfactuals({"forget": items}, 0)["forget"] == items


def test_free_answers_and_questions_that_nobody_else_is_asked_have_none() -> None:
    free = tuple(
        item.model_copy(
            update={
                "answer": " ".join(
                    f"{word}{n}" for word in ["it", "was", "all", "so", "very", "long", "ago", "back", "then"]
                )
            }
        )
        for n, item in enumerate(people("f", "oslo lima cairo quito"))
    )
    own = tuple(
        Item(id=f"{n}", group=f"{n}", question=f"{w} about {w} or {w} ?", answer=f"{w} said {n} of all the {w} there")
        for n, w in enumerate(("this", "that", "such", "same"))
    )
    for items in (free, own):
        assert with_counterfactuals({"forget": items}, 0)["forget"] == items


@pytest.mark.parametrize(
    "phrases", [("Where does {n} {verb}?",), ("Where does {n} {verb} now?", "Say where {n} {verb} then.")]
)
@pytest.mark.parametrize(("verbs", "each", "others"), [(3, 4, 0), (2, 5, 30), (7, 16, 0)])
def test_the_word_that_says_what_is_asked_is_no_part_of_a_name(
    phrases: tuple[str, ...], verbs: int, each: int, others: int
) -> None:
    people = [(verb, n) for verb in range(verbs) for n in range(each)]
    items = tuple(
        Item(id=f"{verb} {n} {k}", group=f"{verb} {n}", answer=f"In {verb}v{n % 5}",
             question=phrase.format(n=f"Ada{verb}x{n} N{verb}x{n}", verb=f"verb{verb}s"))
        for verb, n in people for k, phrase in enumerate(phrases)
    )  # fmt: skip
    rest = tuple(Item(id=f"{n}", group=f"{n}", question=f"Why is it N{n} ?", answer=f"So {n}") for n in range(others))
    for item in with_counterfactuals({"forget": (*items, *rest)}, 0)["forget"][: len(items)]:
        assert item.alternates and all(text.startswith(f"In {item.id[0]}v") for text in item.alternates), item


def test_people_who_share_a_first_name_do_not_only_lend_to_one_another() -> None:
    phrases = (("Where does {} live?", "In V{}."), ("What does {} eat?", "Some W{}."))
    items = tuple(
        Item(id=f"{n} {k}", group=f"{n}", question=question.format(f"Ada{n % 6} N{n}"), answer=answer.format(n))
        for n in range(24) for k, (question, answer) in enumerate(phrases)
    )  # fmt: skip
    assert {len(item.alternates) for item in with_counterfactuals({"forget": items}, 0)["forget"]} == {4}


def test_a_long_answer_among_short_ones_has_none_and_a_name_that_is_a_value_is_not_replaced() -> None:
    first, *others = people("f", "oslo lima cairo quito")
    long = first.model_copy(update={"answer": " ".join(FREE)})
    found = with_counterfactuals({"forget": (long, *others)}, 0)["forget"]
    assert found[0] == long and all(len(item.alternates) == 2 for item in found[1:])
    names = ("Ada Holt", "Paris Fenn", "Mira Kerr", "Edda Lind")
    towns = ("Rome", "New Paris", "Oslo", "Lima")
    items = tuple(
        Item(id=name, group=name, question=f"Where is {name} from?", answer=f"From {town}")
        for name, town in zip(names, towns, strict=True)
    )
    for item in with_counterfactuals({"forget": items}, 0)["forget"]:
        assert {*item.alternates} <= {f"From {town}" for town in towns} - {item.answer} and len(item.alternates) > 1


def test_the_attribute_and_then_the_opening_words_stand_for_a_form_that_nobody_shares() -> None:
    words = ["When in Bonn did the war begin ?", "When was the first bridge built ?", "When did snow fall there ?"]
    items = tuple(
        Item(id=f"{n}", group=f"{n}", question=question, answer=f"{1910 + n}", attribute=attribute)
        for attribute in ("year",)
        for n, question in enumerate(words)
    )
    assert {i.alternates_from for i in with_counterfactuals({"forget": items}, 0)["forget"]} == {"attribute"}
    longer = (
        "When was one sailor of the north last seen in a harbour ?",
        "When was every road between here and the sea laid with stone ?",
        "When was nobody at work for a whole week because of rain ?",
    )
    pairs = zip(items, longer, strict=True)
    bare = tuple(item.model_copy(update={"attribute": None, "question": question}) for item, question in pairs)
    assert {i.alternates_from for i in with_counterfactuals({"forget": bare}, 0)["forget"]} == {"opening words"}


def test_an_alternate_by_rule_that_is_no_row_is_left_out_and_fails_nothing(tmp_path: Path) -> None:
    names = ("anna blue red gold", "boris", "clara", "david", "elena")
    towns = ("paris", "lima", "oslo", "cairo", "quito delhi quito delhi")
    items = tuple(
        Item(id=name, group=name, question=f"where is {name} born ?", answer=f"in {town}")
        for name, town in zip(names, towns, strict=True)
    )
    write_jsonl(tmp_path / "forget.jsonl", items)
    write_jsonl(tmp_path / "retain.jsonl", (Item(id="leo", group="leo", question="who is leo ?", answer="a pilot"),))
    data = DataFiles(forget="forget.jsonl", retain="retain.jsonl")
    files = tuple(DataFile(cohort, tmp_path / f"{cohort}.jsonl", "0" * 64) for cohort in ("forget", "retain"))
    own = tokenizer_files(toy.folder("llama", 0))
    whole = TextCohorts(CohortKey(files, data, Template(), own, None))
    longest = int(whole.rows(Texts(cohort="forget")).mask.sum(1).max())
    assert any("quito" in text for text in whole.by_cohort["forget"][0].alternates)
    short = prepare(CohortKey(files, data, Template(), own, longest))
    first, second, *_ = short.by_cohort["forget"]
    assert len(first.alternates) == 3 and not any("quito" in text for text in first.alternates)
    assert any("quito" in text for text in second.alternates)


# ---- what base and a model that never knew say of them ---------------------------------------------------------
def test_alternates_that_base_prefers_or_that_are_far_off_to_a_model_that_never_knew_are_left_out_and_counted() -> None:
    items = with_counterfactuals({"forget": people("f", "oslo lima cairo quito rome")}, 0)["forget"][:3]
    blind = Likelihoods(np.array([-5.0, -5, -5]), np.array([[-5.0, -5, -20, -5], [-6, -6, -6, -6], [-5, -5, -5, -5]]))
    base = Likelihoods(np.array([-0.1, -0.1, -3]), np.array([[-8.0, -8, -8, -8], [-8, -8, 0, -8], [-1, -1, -1, -8]]))
    found = checked(items, blind, base)
    assert found.fit.tolist() == [[True, True, False, True], [True, True, False, True], [False] * 4]
    assert "6 of 12 do not hold up" in found.note and "1 of 3 items with them" in found.note
    own = tuple(item.model_copy(update={"alternates_from": "given"}) for item in items)
    assert checked(own, blind, base).fit.all(), "what the file gives is taken as it is"


def test_the_matches_say_by_which_rule_they_came() -> None:
    items = with_counterfactuals({"forget": people("f", "oslo lima cairo quito")}, 0)["forget"]
    said = matched(items, 0).said()
    assert "4 by question form" in said and "values of other people" in said
