"""Whom a question is about is found in its wording, and the token at which the name is there to be read."""

import torch

from audit.case import named_rows, open_case, subjects
from audit.schema import Item, Texts
from tests import planted_world


def item(n: int, group: str, question: str) -> Item:
    return Item(id=f"i{n}", group=group, question=question, answer="oslo")


def test_the_name_is_what_differs_between_like_questions_of_different_groups() -> None:
    people = {"g0": "Ada Berg", "g1": "Bo Lind Ek", "g2": "Cy", "g3": "Dora Ahl"}
    wordings = ("where was {} born ?", "which town does {} live in ?", "is {} a nurse ?")
    items = [
        item(n, g, w.format(p)) for n, (g, p, w) in enumerate((g, p, w) for g, p in people.items() for w in wordings)
    ]
    groups = subjects({"forget": items[:6], "holdout": items[6:]})
    assert {s.group: s.name for s in groups} == people
    assert [s.cohort for s in groups] == ["forget", "forget", "holdout", "holdout"]
    assert all(len(s.items) == 3 for s in groups)


def test_questions_that_name_nobody_have_no_subject() -> None:
    items = [item(n, f"g{n}", f"a story of its own, number {n} of many") for n in range(2)]
    assert subjects({"forget": items, "general": [item(9, "g9", "")]}) == ()


def test_rows_are_cut_behind_the_last_token_of_the_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    case = open_case(planted_world.case("clean"), planted_world.root(), tmp_path)
    groups = subjects(case.cohorts)
    assert {s.group for s in groups} == {i.group for c in ("forget", "retain", "holdout") for i in case.cohorts[c]}
    items = [i for s in groups for i in s.items]
    names = [s.name for s in groups for _ in s.items]
    rows = named_rows(case.rows_of(items, [i.answer for i in items]), names, case.tokenizer)
    cut = rows.cut()
    assert len(cut) == len(items) and torch.equal(cut.lengths, rows.end)
    for n, name in enumerate(names):
        read = case.tokenizer.decode(cut.ids[n][cut.mask[n]])
        assert read.endswith(name) and name not in read.removesuffix(name)
        assert not rows.besides()[n, rows.end[n] - 1] and not rows.before()[n, rows.end[n] - 1 :].any()


def test_a_name_that_the_prompt_does_not_spell_is_left_out(tmp_path) -> None:  # type: ignore[no-untyped-def]
    case = open_case(planted_world.case("clean"), planted_world.root(), tmp_path)
    whole_rows = case.rows(Texts(cohort="forget"))
    names = ["nobody of that name"] * len(whole_rows)
    names[1] = case.items(Texts(cohort="forget"))[1].group
    rows = named_rows(whole_rows, names, case.tokenizer)
    assert rows.rows.item_ids == (whole_rows.item_ids[1],)
