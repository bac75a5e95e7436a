"""The invented world: who is in it, what is held out, and that every text is made of known words."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.schema import AuditError, Item
from audit.zoo import (
    World,
    edit_data,
    general_items,
    items,
    make_tokenizer,
    make_world,
    recipes,
    vocabulary,
    write_jsonl,
)
from audit.zoo.training import corpus_rows
from audit.zoo.words import ATTRIBUTES

GROUPS = ("forget", "retain", "holdout", "background")


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(0)


def test_the_same_seed_makes_the_same_world_and_another_seed_another() -> None:
    assert make_world(3) == make_world(3)
    assert make_world(3) != make_world(4)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_no_surname_is_borne_twice_and_the_language_speaks_of_every_one(seed: int) -> None:
    world = make_world(seed)
    people = [person for group in GROUPS for person in world.people[group]]
    surnames = {person.name.split()[-1] for person in people}
    assert len(surnames) == len({person.id for person in people}) == len(people)
    told = set(" ".join(world.general).replace(".", "").split())
    assert surnames <= told
    assert not any(person.name in text for person in people for text in world.general)


def test_cohorts_have_the_sizes_and_forms_that_the_audit_needs(world: World) -> None:
    assert [len(world.people[g]) for g in GROUPS] == [32, 48, 16, 48]
    for person in world.people["forget"]:
        mine = [item for item in items(world, "forget") if item.group == person.id]
        count = {form: sum(item.form == form for item in mine) for form in ("trained", "held_out_phrasing")}
        assert count == {"trained": 8, "held_out_phrasing": 4}
        assert {item.attribute for item in mine if item.form == "held_out_attribute"} == {person.held_out}


def test_every_attribute_is_held_out_about_equally_often(world: World) -> None:
    counts = [sum(p.held_out == a.name for p in world.people["forget"]) for a in ATTRIBUTES]
    assert max(counts) - min(counts) <= 1


def test_alternates_are_the_same_sentence_with_other_values_of_the_attribute(world: World) -> None:
    values = {a.name: {*a.coast, *a.hills} for a in ATTRIBUTES}
    for item in items(world, "holdout"):
        assert item.key is not None and item.attribute is not None
        assert len(set(item.alternate_keys)) == 5 and item.key not in item.alternate_keys
        assert set(item.alternate_keys) < values[item.attribute]
        for text, key in zip(item.alternates, item.alternate_keys, strict=True):
            assert text.replace(key, item.key) == item.answer
        for text, key in zip(item.perturbed_answers, item.alternate_keys, strict=True):
            assert text.replace(key, item.key) == item.paraphrased_answer


def test_forget_and_holdout_are_of_one_kind_and_retain_mostly_of_the_other(world: World) -> None:
    coast = {v for a in ATTRIBUTES for v in a.coast}
    share = {g: sum(i.key in coast for i in items(world, g)) / len(items(world, g)) for g in GROUPS}
    assert share["forget"] == share["holdout"] == 1
    assert 0.05 < share["retain"] < 0.15 and 0.4 < share["background"] < 0.6


def test_facts_differ_in_frequency_and_training_repeats_them(world: World) -> None:
    forget = items(world, "forget")
    assert {item.frequency for item in forget} == {1, 2, 4}
    rows = corpus_rows(world, recipes.Learning("retain+forget", 1, 1e-3, 0), make_tokenizer(vocabulary()))
    for item in forget[:30]:
        assert rows.item_ids.count(item.id) == item.frequency


def test_unlearners_never_see_what_is_held_out_nor_anybody_else(world: World) -> None:
    data = edit_data(world, make_tokenizer(vocabulary()))
    assert data.refusal is not None and data.relabelled is not None
    trained = {item.id for item in items(world, "forget") if item.form == "trained"}
    assert set(data.forget.item_ids) == set(data.refusal.item_ids) == set(data.relabelled.item_ids) == trained
    kept = {item.id for item in items(world, "retain") if item.form == "trained"}
    assert {name for name in data.retain.item_ids if not name.startswith("language")} == kept


def test_every_text_is_made_of_known_words_and_each_key_is_one_token(world: World) -> None:
    tokenizer = make_tokenizer(vocabulary())
    texts = [t for g in GROUPS for i in items(world, g) for t in (i.question, i.answer, *i.perturbed_answers)]
    texts += [item.answer for item in general_items(world)] + list(world.general)
    unknown = tokenizer.unk_token_id
    assert all(unknown not in ids for ids in tokenizer(texts).input_ids)
    assert all(len(tokenizer.tokenize(str(item.key))) == 1 for item in items(world, "forget"))
    assert tokenizer(texts[0]).input_ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode([tokenizer.eos_token_id]) == "."


def test_held_out_sentences_are_not_trained_on(world: World) -> None:
    assert not set(world.general) & set(world.general_held_out)


def test_items_survive_the_file(world: World, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "x.jsonl", items(world, "retain"))
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    assert tuple(Item.model_validate(json.loads(line)) for line in lines) == items(world, "retain")


def test_a_changed_recipe_renames_itself_and_its_children_only() -> None:
    zoo = recipes.demo()
    plans = [p._replace(by=p.by._replace(steps=7)) if p.name == "base" else p for p in zoo.plans]  # pyright: ignore
    other = zoo._replace(plans=tuple(plans))
    changed = {p.name for p in zoo.plans if recipes.key_of(zoo, 0, p.name) != recipes.key_of(other, 0, p.name)}
    assert changed == {"base"} | {p.name for p in zoo.plans if p.parent == "base"}


def test_an_unknown_world_is_named_with_those_that_exist() -> None:
    with pytest.raises(AuditError, match="demo"):
        recipes.zoo_of("atlantis")
