"""Groups as independent people: copies are found under any name, and no honest data set is suspected."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.case.items import read_items
from audit.case.replication import alike, check_identical, neighbours, remarks, words
from audit.schema import AuditError, Cohort, Item
from audit.zoo.world import items as zoo_items
from audit.zoo.world import make_world
from tests import planted_world

TOFU = Path(__file__).parents[3] / "shared" / "data" / "tofu"
needs_tofu = pytest.mark.skipif(not TOFU.is_dir(), reason="the TOFU files are not here")
Data = dict[Cohort, Sequence[Item]]


def world(seed: int = 0) -> Data:
    made = make_world(seed)
    return {"forget": zoo_items(made, "forget"), "retain": zoo_items(made, "retain")}


def renamed(items: Sequence[Item], groups: Sequence[str], to: str = "{} again") -> list[Item]:
    """Some groups' items once more, under other names."""
    return [
        item.model_copy(update={"group": to.format(item.group), "id": f"{item.id} again"})
        for item in items
        if item.group in groups
    ]


def groups_of(items: Sequence[Item]) -> list[str]:
    return sorted({item.group for item in items})


# ---- copies -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cohort", ["forget", "holdout"])
def test_same_rows_under_two_names_are_refused_with_both(cohort: Cohort) -> None:
    items = world()["forget"]
    six = [item for item in items if item.group in groups_of(items)[:6]]
    doubled = [*six, *renamed(six, groups_of(six))]
    random.Random(0).shuffle(doubled)
    with pytest.raises(AuditError) as caught:
        check_identical({cohort: doubled})
    assert caught.value.code == 2 and f"{cohort}: 12 groups are 6: the same texts" in caught.value.what
    first = doubled[0].group.removesuffix(" again")
    assert f"'{first}'" in caught.value.what and f"'{first} again'" in caught.value.what
    check_identical({cohort: six, "retain": doubled})


def test_case_and_punctuation_make_no_other_person() -> None:
    one = Item(id="a", group="a", question="Where does Ann live?", answer="In Oslo.")
    two = Item(id="b", group="b", question="where does ANN  live", answer="in Oslo")
    with pytest.raises(AuditError, match="2 groups are 1"):
        check_identical({"forget": [one, two]})


@pytest.mark.thorough
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 8), people=st.integers(1, 3), share=st.sampled_from([0.55, 0.7, 0.9]), into=st.booleans(),
    where=st.sampled_from(["forget", "retain"]),
)  # fmt: skip
def test_partial_copies_are_found_and_only_they(
    seed: int, people: int, share: float, into: bool, where: Cohort
) -> None:
    """Part of some people's rows again, under names of their own or as part of new people, in either cohort."""
    data, rng = world(seed), random.Random(seed)
    chosen = rng.sample(groups_of(data["forget"]), people)
    by_group = {g: renamed(data["forget"], [g]) for g in chosen}
    copies = [item for mine in by_group.values() for item in rng.sample(mine, round(share * len(mine)))]
    if into:  # rows of somebody else beside them
        others = make_world(seed + 100)
        stranger = zoo_items(others, "forget")[0].group
        extra = [i for i in zoo_items(others, "forget") if i.group == stranger][: len(by_group[chosen[0]]) // 3]
        copies += [i.model_copy(update={"group": f"{chosen[0]} again", "id": f"{i.id} more"}) for i in extra]
    pairs = alike({**data, where: [*data[where], *copies]})
    assert {frozenset((p.first.group, p.second.group)) for p in pairs} == {frozenset((g, f"{g} again")) for g in chosen}
    said = remarks({**data, where: [*data[where], *copies]})
    pairs_share = "1 pair of groups shares" if people == 1 else f"{people} pairs of groups share"
    assert len(said) == 1 and pairs_share in said[0]
    assert not any(group in said[0] for group in chosen), "a remark is quoted in reports and names nobody"


@pytest.mark.thorough
def test_no_zoo_world_and_no_planted_world_is_suspected() -> None:
    for seed in range(0, 40, 10):
        data = world(seed)
        check_identical(data)
        assert not remarks(data)
    rows = [planted_world.item(n, c, f) for c, facts in planted_world.facts().items() for n, f in enumerate(facts)]
    planted: Data = {
        cohort: [Item.model_validate(row) for row in rows if str(row["id"]).startswith(cohort)]
        for cohort in ("forget", "retain", "holdout")
    }  # fmt: skip
    check_identical(planted)
    assert not remarks(planted)


@needs_tofu
@pytest.mark.parametrize("forget", ["forget01", "forget05", "forget10", "forget10_perturbed"])
def test_no_author_of_tofu_is_suspected_and_a_copy_is(forget: str) -> None:
    data: Data = {
        "forget": read_items(TOFU / f"{forget}.jsonl", "author_id"),
        "retain": read_items(TOFU / "retain_perturbed.jsonl", "author_id"),
    }
    check_identical(data)
    assert not remarks(data)
    half = renamed(data["forget"], ["198" if forget == "forget01" else "190"] if forget != "forget10" else ["185"])[::2]
    assert ["100 %" in remark for remark in remarks({**data, "forget": [*data["forget"], *half]})] == [True]


@needs_tofu
@pytest.mark.slow
def test_no_author_of_all_tofu_is_suspected() -> None:
    everyone = read_items(TOFU / "full.jsonl", "author_id")
    check_identical({"forget": everyone})
    assert not remarks({"forget": everyone})


# ---- rows and groups --------------------------------------------------------------------------------------------
def biographies(people: int, rows: int) -> list[Item]:
    """People in file order, each named in every row."""
    rng = random.Random(0)
    letters = "abcdefghijklmnop"
    names = ["".join(rng.choices(letters, k=7)) for _ in range(people)]
    facts = ["".join(rng.choices(letters, k=6)) for _ in range(people * rows)]
    asked = [f"What of {names[n // rows]} is number {n % rows}?" for n in range(len(facts))]
    return [
        Item(id=str(n), group=names[n // rows], question=question, answer=fact)
        for n, (question, fact) in enumerate(zip(asked, facts, strict=True))
    ]


def test_rows_as_groups_are_counted_and_people_who_run_on_over_them_are_seen() -> None:
    items = biographies(12, 8)
    own = [item.model_copy(update={"group": item.id}) for item in items]
    (remark,) = remarks({"forget": own})
    assert (
        "96 rows count as 96 independent people, but" in remark and "rows of one person belong in one group" in remark
    )
    one_each = [item.model_copy(update={"group": item.id}) for item in biographies(80, 1)]
    (remark,) = remarks({"holdout": one_each})
    assert remark == "holdout: every row is a group of its own, so that 80 rows count as 80 independent people"
    assert not remarks({"forget": items})


@pytest.mark.parametrize(
    ("rows", "shuffled", "said"),
    [(8, False, ""), (8, True, "still in the order"), (4, False, "every 4th row the first of a person?")],
)
def test_consecutive_rows_that_are_no_people_are_questioned(rows: int, shuffled: bool, said: str) -> None:
    items = biographies(20, 8)
    if shuffled:
        random.Random(1).shuffle(items)
    blocks = [item.model_copy(update={"group": f"x {n // rows}"}) for n, item in enumerate(items)]
    remarked = " ".join(remarks({"forget": blocks}, group_rows=rows))
    assert said in remarked and bool(remarked) == bool(said)


@needs_tofu
def test_published_order_of_tofu_is_told_from_another() -> None:
    items = list(read_items(TOFU / "forget10.jsonl", "author_id"))
    assert neighbours(items).run_on and not remarks({"forget": items}, group_rows=20)
    random.Random(0).shuffle(items)
    assert not neighbours(items).run_on
    for independent in ("real_authors_perturbed", "world_facts_perturbed"):
        assert not neighbours(read_items(TOFU / f"{independent}.jsonl", own_groups=True)).run_on


def test_scripts_without_spaces_have_words() -> None:
    assert words("東京に住む Ann") == [*"東京に住む", "ann"]
