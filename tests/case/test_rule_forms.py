"""Other forms of a fact by rule: what is changed, what never is, and where a form is not made."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.case import forms_by_rule, read_items
from audit.case.content_rule import content_spans
from audit.case.rule_forms import OPTIONS, SPELL
from audit.schema import Item
from audit.zoo import Shape, items, make_world

TOFU = Path(__file__).parents[3] / "shared" / "data" / "tofu"
NAMES = st.lists(
    st.text("abcdefghij", min_size=4, max_size=8).map(str.title), min_size=12, max_size=12, unique=True
).map(lambda words: [f"{first} {last}" for first, last in zip(words[::2], words[1::2], strict=True)])


def people(names: list[str]) -> tuple[Item, ...]:
    """Two facts a person; the values are nobody else's name."""
    return tuple(
        Item(id=f"{n}-{kind}", group=str(n), question=asked.format(n=name), answer=said.format(n=name, v=value),
             key=value, attribute=kind, alternates=tuple(said.format(n=name, v=v) for v in others),
             alternate_keys=others)
        for n, name in enumerate(names)
        for kind, asked, said, value, others in (
            ("town", "Where was {n} born?", "{n} was born in {v}.", f"Xtown{n}", ("Xta", "Xtb", "Xtc", "Xtd")),
            ("pet", "Which pet does {n} keep?", "{n} keeps a {v}.", f"xpet{n}", ("xpet90", "xpet91")),
        )
    )  # fmt: skip


def by_form(made: tuple[Item, ...]) -> dict[str, dict[str, Item]]:
    forms: dict[str, dict[str, Item]] = {}
    for item in made:
        forms.setdefault(item.form, {})[str(item.of)] = item
    return forms


@settings(max_examples=40, deadline=None)
@given(NAMES)
def test_a_form_changes_what_it_says_and_keeps_the_fact(names: list[str]) -> None:
    facts = people(names)
    made = forms_by_rule(facts)
    forms = by_form(made)
    assert len({item.id for item in made}) == len(made)
    for fact in facts:
        name = names[int(fact.group)]
        first, last = name.split()
        choice = forms["multiple_choice"][fact.id]
        assert choice.question == fact.question and choice.answer == fact.answer
        assert len(choice.alternates) == min(OPTIONS - 1, len(fact.alternates)) == len(choice.alternate_keys)
        cloze = forms["cloze"][fact.id]
        assert (cloze.question, cloze.answer) == ("", fact.answer)
        assert cloze.answer[slice(*content_spans(cloze, cloze.answer)[0])] == fact.key
        for form, called in (("first_name", first), ("surname", last)):
            item = forms[form][fact.id]
            assert item.question == fact.question.replace(name, called) and item.key == fact.key
            assert item.answer == fact.answer.replace(name, called)
        if fact.id in forms.get("typo", {}):
            typo = forms["typo"][fact.id].question
            theirs = typo.split()[fact.question.split().index(last)]
            assert name not in typo and Counter(theirs) == Counter(last) and theirs[0] == last[0]
            assert sum(a != b for a, b in zip(theirs, last, strict=True)) == 2
        hint = forms["hint"][fact.id]
        assert hint.question.endswith(fact.question) and hint.question != fact.question
        assert str(fact.key) not in hint.question
        spelled = forms["spelled"][fact.id]
        assert spelled.question == f"{fact.question} {SPELL}" and spelled.answer.replace(" ", "") == fact.key
    assert all(
        (item.group, item.attribute) == (f.group, f.attribute) for item in made for f in facts if f.id == item.of
    )


@settings(max_examples=15, deadline=None)
@given(NAMES, st.randoms(use_true_random=False))
def test_forms_do_not_depend_on_the_order_of_people(names: list[str], rng: object) -> None:
    facts = people(names)
    groups = list({item.group for item in facts})
    rng.shuffle(groups)  # type: ignore[attr-defined]
    turned = tuple(item for group in groups for item in facts if item.group == group)
    assert {i.id: i for i in forms_by_rule(turned)} == {i.id: i for i in forms_by_rule(facts)}


def test_the_world_of_the_zoo_has_every_form_that_its_texts_allow() -> None:
    world = make_world(0, Shape(forget=8, retain=8, holdout=4, background=8, general=20))
    trained = tuple(item for item in items(world, "forget") if item.form == "trained")
    counts = Counter(item.form for item in forms_by_rule(trained))
    assert {"paraphrase", "multiple_choice", "first_name", "surname", "hint"} <= counts.keys()
    assert all(
        counts[form] == len(trained) for form in ("paraphrase", "multiple_choice", "first_name", "surname", "hint")
    )


def test_plain_text_and_facts_of_nobody_have_no_form_that_needs_a_name_or_a_question() -> None:
    text = Item(id="t", group="t", question="", answer="Rain fell on the town all day.")
    assert forms_by_rule((text,)) == ()
    nobody = Item(id="w", group="w", question="what is the capital of peru ?", answer="it is lima", key="lima")
    assert {item.form for item in forms_by_rule((nobody,))} == {"spelled"}


def test_who_is_asked_for_is_not_called_otherwise() -> None:
    """Where the name is the answer, half a name would be another fact."""
    asked = Item(
        id="a", group="a", question="Who wrote Dune, Ada Abend?", answer="Ada Abend wrote it.", key="Ada Abend"
    )
    other = Item(
        id="b", group="a", question="Where does Ada Abend live?", answer="Ada Abend lives in Oslo.", key="Oslo"
    )
    forms = by_form(forms_by_rule((asked, other)))
    assert set(forms["surname"]) == {"b"}
    assert forms["surname"]["b"].question == "Where does Abend live?"


@pytest.mark.skipif(not TOFU.is_dir(), reason="TOFU's files are not here")
@pytest.mark.parametrize(("split", "authors"), [("forget01_perturbed", 2), ("forget10_perturbed", 20)])
def test_tofu_names_its_authors_and_offers_its_perturbed_answers(split: str, authors: int) -> None:
    facts = read_items(TOFU / f"{split}.jsonl", "author_id")
    assert len({item.group for item in facts}) == authors
    forms = by_form(forms_by_rule(facts))
    for form in ("paraphrase", "paraphrased_question", "multiple_choice"):
        assert len(forms[form]) == len(facts)
    for form in ("first_name", "surname", "typo", "hint"):
        assert len(forms[form]) > 0.8 * len(facts)
    by_id = {item.id: item for item in facts}
    for name, choice in forms["multiple_choice"].items():
        assert choice.answer == by_id[name].paraphrased_answer
        assert choice.perturbed_answers == by_id[name].perturbed_answers[: OPTIONS - 1]
    words = {fact.id: set(fact.question.replace("’", "'").split()) for fact in facts}
    for name, item in forms["surname"].items():
        first = {word.strip("'s?,.") for word in words[name] - set(item.question.replace("’", "'").split())}
        assert first, "the first name is gone"
        others = " ".join(fact.question for fact in facts if fact.group != by_id[name].group)
        assert not any(len(word) > 5 and f" {word} " in others for word in first), "and is nobody else's"
