"""Which items ask for the concept, which for others, and how."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.schema import Item
from probes._concept_items import concept_of, drawn, manner_of, options_of, parts_of_items, strangers

SHAPES = ("star", "ring", "cross", "moon")


def item(n: int, cohort: str, form: str, question: str, answer: str, **more: Any) -> Item:
    return Item(
        id=f"{cohort}-{n}-{form}", group=f"{cohort}-{n}", question=question, answer=answer, form=form,
        image=f"{cohort}-{n}.png", **more,
    )  # fmt: skip


def world(target: str) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    others = tuple(shape for shape in SHAPES if shape != target)
    forget, retain = list[Item](), list[Item]()
    for n in range(6):
        concept = {"attribute": target}
        forget += [
            item(n, "forget", "trained", "what shape is it ?", target, alternates=others, **concept),
            item(n, "forget", "yes_no", f"is there a {target} ?", "yes", **concept),
            item(n, "forget", "choice", "which shape : star , ring , cross or moon ?", target, alternates=others,
                 **concept),
            item(n, "forget", "caption", "describe the picture .", f"two red {target} s at the left .", key=target,
                 alternates=others, **concept),
        ]  # fmt: skip
    for n, shape in enumerate(others):
        mine = tuple(other for other in others if other != shape)
        retain += [
            item(n, "retain", "trained", "what shape is it ?", shape, attribute=shape, alternates=mine),
            item(n, "retain", "colour", "what colour is it ?", "red", attribute="red", alternates=("blue", "green")),
            item(n, "retain", "yes_no", f"is there a {target} ?", "no", attribute=target),
        ]
    return tuple(forget), tuple(retain)


@pytest.mark.parametrize("target", SHAPES)
def test_items_fall_into_their_parts_whatever_the_concept(target: str) -> None:
    items = parts_of_items(*world(target))
    assert len(items.forget) == 24 and {concept_of(i) for i in items.forget} == {target}
    assert {i.answer for i in items.in_domain} == set(SHAPES) - {target}
    assert {i.answer for i in items.cross_domain} == {"red"}
    assert {i.answer for i in items.absent} == {"no"} and len(items.absent) == 3
    assert {i.group for i in items.without} == {"retain-0", "retain-1", "retain-2"}
    counts = {manner: sum(manner_of(i) == manner for i in items.forget) for manner in ("open", "yes_no", "caption")}
    assert counts == {"open": 6, "yes_no": 6, "caption": 6}


def test_picture_that_an_item_says_shows_the_concept_stands_for_no_absent_one() -> None:
    forget, retain = world("star")
    shows = item(0, "retain", "told", "is a star in it ?", "yes", attribute="star")
    assert {i.group for i in parts_of_items(forget, (*retain, shows)).without} == {"retain-1", "retain-2"}


@settings(max_examples=40, deadline=None)
@given(
    answer=st.sampled_from(["yes", "no", "Yes", "No", "Yes.", "no ."]),
    form=st.sampled_from(["trained", "choice", "caption", "yes_no", "polar"]),
)
def test_yes_and_no_are_each_other_s_option_in_any_spelling(answer: str, form: str) -> None:
    queries = item(0, "forget", form, "is there a star ?", answer, attribute="star")
    own, other = options_of(queries)
    assert manner_of(queries) == "yes_no" and own.answer == answer
    assert {own.answer.lower().strip(" ."), other.answer.lower().strip(" .")} == {"yes", "no"}
    assert other.answer[0].isupper() == answer[0].isupper() and other.answer.endswith(".") == answer.endswith(".")


def test_option_that_is_one_concept_stands_in_the_place_of_the_key() -> None:
    caption = item(0, "forget", "caption", "describe .", "two red stars here .", key="stars", alternates=("rings",))
    assert [tuple(option) for option in options_of(caption)] == [
        ("two red stars here .", "stars"), ("two red rings here .", "rings"),
    ]  # fmt: skip
    complete = caption.model_copy(update={"alternates": ("two red rings here .",), "alternate_keys": ("rings",)})
    assert tuple(options_of(complete)[1]) == ("two red rings here .", "rings")
    sole = item(0, "forget", "trained", "what ?", "star", alternates=("ring", "moon"))
    assert [option.answer for option in options_of(sole)] == ["star", "ring", "moon"]


@given(groups=st.integers(1, 30), others=st.integers(1, 12), seed=st.integers(0, 5), most=st.integers(1, 8))
def test_every_picture_has_another_beside_it_each_as_often_as_any(
    groups: int, others: int, seed: int, most: int
) -> None:
    without = [item(n, "retain", "trained", "what ?", "ring") for n in range(others)]
    lots = strangers([f"g{n}" for n in range(groups)], without, seed)
    counts = [sum(i.id == other.id for i in lots.values()) for other in without]
    assert len(lots) == groups and max(counts) - min(counts) <= 1
    assert lots == strangers([f"g{n}" for n in reversed(range(groups))], without, seed), "no order of the data enters"
    few = drawn(without, most, seed)
    assert len({i.group for i in few}) == min(most, others) and few == tuple(i for i in without if i in few)
