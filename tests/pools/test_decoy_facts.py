"""Decoys look like the case's own people, and are none of them."""

import pytest

from audit.pools.decoy_facts import Decoys, DecoySource, decoys, worlds_of
from audit.schema import Item

NAMES = ("Anna Keltov", "Boris Maranta", "Clara Wendel", "David Orlow", "Elena Pasko", "Felix Grundt")
TOWNS = ("Paris", "Lima", "Oslo", "Cairo", "Quito", "Delhi")


def item(n: int, form: int) -> Item:
    """One of two forms of the question where a person was born."""
    name, town = NAMES[n], TOWNS[n]
    question = (f"Where was {name} born?", f"What is the birthplace of {name}?")[form]
    return Item(
        id=f"{n}-{form}", group=str(n), question=question, answer=f"{name.split()[0]} was born in {town}.", key=town,
        attribute="birthplace", form=("trained", "held_out_phrasing")[form],
    )  # fmt: skip


def free(n: int) -> Item:
    """A free answer with perturbed ones, as in TOFU."""
    name = NAMES[n]
    others = tuple(f"{name} writes {genre}." for genre in ("odes", "plays", "satires", "sagas", "hymns"))
    return Item(id=f"{n}", group=str(n), question=f"What does {name} write?", answer=f"{name} writes novels.",
                perturbed_answers=others)  # fmt: skip


def source(items: list[Item], spelled: bool = True) -> DecoySource:
    words = frozenset(word.casefold() for name in NAMES for word in name.split())
    names = {str(n): name for n, name in enumerate(NAMES)}
    forget = tuple(i for i in items if int(i.group) < 4)
    return DecoySource(forget, tuple(i for i in items if int(i.group) >= 4), names, words, lambda word: spelled)


def asked(drawn: Decoys) -> list[Item]:
    return [*drawn.forget, *drawn.holdout]


FACTS = source([item(n, form) for n in range(6) for form in range(2)])
FREE = source([free(n) for n in range(6)])


def test_decoys_have_names_that_nobody_has_and_as_many_people_as_the_case() -> None:
    drawn = decoys(FACTS, 0)
    assert len({i.group for i in drawn.forget}) == 4
    assert len({i.group for i in drawn.holdout}) == 2
    parts = {part for name in NAMES for part in name.split()}
    assert not any(part in i.question or part in i.answer for i in asked(drawn) for part in parts)
    assert all(i.question[0].isupper() and i.answer[0].isupper() for i in asked(drawn))


def test_who_is_named_anew_alone_has_another_name_and_keeps_the_values() -> None:
    before, after = decoys(FACTS, 0).forget, decoys(FACTS, 0, {"decoy0-1": 2}).forget
    for old, new in zip(before, after, strict=True):
        assert (new.id, new.key) == (old.id, old.key)
        assert (new.question == old.question) == (new.group != "decoy0-1")
    assert decoys(FACTS, 0, {"decoy0-1": 1}).forget != after


@pytest.mark.parametrize("world", range(6))
def test_values_are_those_of_another_person_and_agree_in_all_forms_of_a_fact(world: int) -> None:
    drawn = asked(decoys(FACTS, world))
    values: dict[str, set[str | None]] = {}
    for i in drawn:
        assert i.key is not None
        assert i.key in i.answer
        assert i.key != TOWNS[int(i.id.split("-")[-2])]
        values.setdefault(i.group, set()).add(i.key)
    assert all(len(keys) == 1 for keys in values.values())


def test_a_free_answer_is_a_perturbed_one_and_another_in_the_next_world() -> None:
    first, second = ({i.id.split("-", 2)[2]: i for i in asked(decoys(FREE, n))} for n in (0, 1))
    for place, i in first.items():
        truth = i.answer.split()[-1]
        assert truth != "novels."
        assert truth != second[place].answer.split()[-1]
        told = {text.split()[-1] for text in i.perturbed_answers}
        assert truth not in told
        assert second[place].answer.split()[-1] not in told
        assert len(told) == 3


def test_worlds_draws_and_names_differ_and_equal_arguments_give_equal_decoys() -> None:
    assert decoys(FACTS, 0) == decoys(FACTS, 0)
    questions = {n: {i.question for i in asked(decoys(FACTS, n))} for n in range(3)}
    assert not questions[0] & questions[1]


def test_where_a_tokenizer_spells_no_new_word_names_are_composed_of_the_parts_that_there_are() -> None:
    drawn = decoys(source([item(n, 0) for n in range(6)], spelled=False), 0)
    parts = {part for name in NAMES for part in name.split()}
    for i in asked(drawn):
        name = i.question.removeprefix("Where was ").removesuffix(" born?")
        assert set(name.split()) <= parts
        assert name not in NAMES


def test_a_users_own_decoys_are_dealt_to_as_many_worlds_as_they_are_enough_for() -> None:
    stated = tuple(free(0).model_copy(update={"id": f"own-{n}", "group": f"own-{n}"}) for n in range(13))
    own = FREE._replace(stated=stated)
    assert worlds_of(FREE) is None
    assert worlds_of(own) == 3
    taught = [{i.group for i in decoys(own, n).forget} for n in range(3)]
    assert [len(groups) for groups in taught] == [4, 4, 4]
    assert not taught[0] & taught[1] | taught[1] & taught[2]
