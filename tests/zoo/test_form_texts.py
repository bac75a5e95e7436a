"""The other forms of a fact in the invented world: whom they name, what is told in them, and that old worlds stay."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.case import load_case
from audit.zoo import (
    Shape,
    World,
    builder,
    edit_data,
    form_items,
    items,
    make_tokenizer,
    make_world,
    recipes,
    vocabulary,
)
from audit.zoo.form_texts import FACTS_TAUGHT, TAUGHT, taught_items
from audit.zoo.training import corpus_rows

BARE = {"cloze", "multiple_choice", "first_name", "surname", "hint"}
GROUPS = ("forget", "retain", "holdout", "background")


@pytest.fixture(scope="module")
def told() -> World:
    return make_world(0, Shape(forms=1))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0, 1]))
def test_every_form_item_restates_a_fact_that_unlearners_see_in_words_that_the_world_knows(
    seed: int, forms: int
) -> None:
    world = make_world(seed, Shape(forget=6, retain=6, holdout=4, background=6, general=20, forms=forms))
    tokenizer = make_tokenizer(vocabulary(forms))
    for group in GROUPS:
        trained = {item.id: item for item in items(world, group) if item.form == "trained"}
        made = form_items(world, world.people[group])
        assert {item.form for item in made} == (BARE | {"alias", "reversed", "two_hop"} if forms else BARE)
        assert len({item.id for item in made}) == len(made)
        for item in made:
            fact = trained[str(item.of)]
            assert (item.group, item.attribute) == (fact.group, fact.attribute)
            assert item.form == "reversed" or item.key == fact.key
            assert item.key is not None and item.key in item.answer and str(fact.key) in item.question + item.answer
            assert tokenizer.unk_token_id not in tokenizer(f"{item.question} {item.answer}").input_ids


def test_a_form_that_names_the_person_otherwise_never_says_the_whole_name(told: World) -> None:
    names = {person.id: person.name for person in told.people["forget"]}
    for item in form_items(told, told.people["forget"]):
        if item.form in ("alias", "two_hop", "first_name", "surname"):
            assert names[item.group] not in f"{item.question} {item.answer}"


def test_aliases_are_of_one_person_and_friends_make_one_circle(told: World) -> None:
    everybody = [person for group in GROUPS for person in told.people[group]]
    assert len({person.alias for person in everybody}) == len(everybody)
    for group in GROUPS:
        friends, at, seen = {p.id: p.friend for p in told.people[group]}, told.people[group][0].id, set[str]()
        while at not in seen:
            seen.add(at)
            at = friends[at]
        assert len(seen) == len(told.people[group])


@pytest.mark.thorough
def test_base_is_told_some_facts_in_the_taught_forms_and_a_reference_nothing_of_the_forgotten(told: World) -> None:
    tokenizer = make_tokenizer(vocabulary(1))
    lessons = Counter(
        (item.group, item.form) for item in form_items(told, told.people["forget"]) if item.form in TAUGHT
    )
    assert set(lessons.values()) == {FACTS_TAUGHT}
    taught = taught_items(told, told.people["forget"])
    learned, never = (
        set(corpus_rows(told, recipes.Learning(corpus, 1, 1e-3, 0), tokenizer).item_ids)
        for corpus in ("retain+forget", "retain")
    )
    assert {item.id for item in taught} <= learned and not any(name.startswith("forget") for name in never)
    assert {item.id for item in taught_items(told, told.people["retain"])} <= never
    seen = set(edit_data(told, tokenizer).forget.item_ids)
    assert not seen & {item.id for item in taught}


def test_options_are_taught_in_other_orders_and_hold_the_answer(told: World) -> None:
    choices = [item for item in taught_items(told, told.people["forget"]) if item.form == "multiple_choice"]
    for item in choices:
        options = item.question.split("\n")[1:]
        assert sorted(options) == sorted((str(item.key), *item.alternate_keys)) and len(options) == 4
    assert len({item.question for item in choices}) > len({item.of for item in choices})


def test_a_world_without_other_forms_is_the_world_it_was(told: World) -> None:
    plain = make_world(0)
    assert taught_items(plain, plain.people["forget"]) == ()
    assert all(not p.alias and not p.friend for group in GROUPS for p in plain.people[group])
    for group in GROUPS:
        assert items(plain, group) == items(told, group)
    assert set(vocabulary()) < set(vocabulary(1))
    assert hashlib.sha256(repr(vocabulary()).encode()).hexdigest()[:12] == "010168e8ef36"
    assert recipes.key_of(recipes.demo(), 0, "base") == "6ced5d5a6d555972"
    shaped = recipes.demo()._replace(shape=Shape(forms=1))
    assert recipes.key_of(shaped, 0, "base") != recipes.key_of(recipes.demo(), 0, "base")


def test_the_cases_of_a_world_name_its_forms_and_are_none_of_an_older_cache(tmp_path: Path) -> None:
    zoo = recipes.tiny()
    models = {plan.name: tmp_path / plan.name for plan in zoo.plans}
    builder._write_world(tmp_path / "home", zoo, make_world(0, zoo.shape), models)  # pyright: ignore[reportPrivateUsage]
    case = load_case(tmp_path / "home" / "cases" / "refusal.toml")
    assert case.data.forms == "../data/forms.jsonl"
    lines = (tmp_path / "home" / "data" / "forms.jsonl").read_text().splitlines()
    assert {json.loads(line)["group"].partition("-")[0] for line in lines} == {"forget", "retain"}
    assert builder.DATA_VERSION > 1, "data of the first had no forms"
