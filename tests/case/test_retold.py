"""A retain set that tells what is to be forgotten, in other words, is said; one about other people is not."""

from collections.abc import Mapping

import pytest

from audit.case import retold
from audit.schema import Cohort, Item
from audit.zoo import items, make_world


def world(seed: int) -> dict[Cohort, tuple[Item, ...]]:
    made = make_world(seed)
    return {"forget": items(made, "forget"), "retain": items(made, "retain"), "holdout": items(made, "holdout")}


def in_other_words(item: Item) -> Item:
    text = item.paraphrased_answer or item.answer
    changes = {"id": f"x{item.id}", "group": f"x{item.group}", "question": "And what of that?", "answer": text}
    return item.model_copy(update=changes)


@pytest.mark.parametrize("seed", range(3))
def test_a_paraphrased_retain_set_is_said_and_a_genuine_one_is_not(seed: int) -> None:
    cohorts: Mapping[Cohort, tuple[Item, ...]] = world(seed)
    assert retold(cohorts) == ()
    told = sorted({item.group for item in cohorts["forget"]})[:5]
    again = tuple(in_other_words(item) for item in cohorts["forget"] if item.group in told)
    found = retold({**cohorts, "retain": (*cohorts["retain"], *again)})
    assert sorted(pair.first.group for pair in found) == told
    assert all(pair.second.group == f"x{pair.first.group}" for pair in found)
