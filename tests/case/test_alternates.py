"""Matched alternates: which texts are taken, what an entity swap changes, and that the hash names all of it."""

import numpy as np

from audit.case import matched, nearest
from audit.case.alternates import entity_swaps
from audit.schema import Item


def item(name: str, answer: str, group: str = "g", **more: object) -> Item:
    return Item.model_validate({"id": name, "group": group, "question": "", "answer": answer, **more})


PLAIN = (
    item("a", "In 1912 Mara Holt moved to Ostwin. The town liked Mara Holt."),
    item("b", "Later the pilot Jonas Fenn bought a house in Kastelo for 4000 crowns."),
)


def test_alternates_come_before_perturbed_answers_and_these_before_entities() -> None:
    both = item(
        "a", "in Oslo", alternates=("in Lima", "in Rome"), paraphrased_answer="Oslo", perturbed_answers=("X", "Y")
    )
    perturbed = item("b", "in Oslo", paraphrased_answer="Oslo it is", perturbed_answers=("Lima it is", "Rome it is"))
    found = matched([both, perturbed, *PLAIN], seed=0)
    assert [m.source for m in found.matches] == ["alternates", "perturbed", "entities", "entities"]
    assert found.matches[0].learned == "in Oslo" and found.matches[1].learned == "Oslo it is"
    assert "1 by alternates, 1 by perturbed, 2 by entities; 0 items without" in found.said()


def test_a_swap_replaces_one_entity_by_another_of_its_kind_from_the_same_document() -> None:
    document = {"Mara Holt": "name", "Ostwin": "name", "1912": "number", "Jonas Fenn": "name", "4000": "number"}
    swaps = entity_swaps(PLAIN[0], document, seed=0)
    assert len(swaps) == 4 == len(set(swaps))
    possible = {"Jonas Fenn", "4000"}
    for text in swaps:
        assert text != PLAIN[0].answer and any(other in text for other in possible)
        assert not ("4000" in text and "1912" not in PLAIN[0].answer)
    assert all(text.startswith("In ") for text in swaps), "the capital of a sentence is no name"


def test_items_of_other_documents_lend_nothing_and_items_without_alternates_are_named() -> None:
    found = matched([PLAIN[0], item("z", "nothing to swap here", group="h")], seed=0)
    assert found.unmatched == ("a", "z") and not found.matches


def test_one_alternate_is_not_enough_where_two_are_asked_for() -> None:
    one = item("a", "in Oslo", alternates=("in Lima",))
    assert matched([one], 0).unmatched == ("a",) and len(matched([one], 0, at_least=1).matches) == 1


def test_the_hash_follows_every_text_and_the_same_seed_gives_the_same_swaps() -> None:
    assert matched(PLAIN, 0) == matched(PLAIN, 0)
    changed = item("c", "in Oslo", alternates=("in Lima", "in Rome"))
    other = changed.model_copy(update={"alternates": ("in Lima", "in Bonn")})
    assert matched([changed], 0).sha256 != matched([other], 0).sha256


def test_the_nearest_alternate_in_log_probability_comes_first_and_a_missing_one_last() -> None:
    order = nearest(np.array([-2.0, -1.0]), np.array([[-5.0, -2.5, np.nan], [-1.0, np.nan, -1.2]]))
    assert order.tolist() == [[1, 0, 2], [0, 2, 1]]
