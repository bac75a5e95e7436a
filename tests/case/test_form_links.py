"""A file of other forms: each row restates a trained item, and nobody else's rows or keys change by it."""

import json
from pathlib import Path

import pytest

from audit.case import OpenCase, paired_forms
from audit.schema import AuditError, Case, DataFiles, Item, Texts
from tests.case.test_opened import Rows, opened, read_rows, root, write_rows

__all__ = ["root"]
FORMS: Rows = [
    {"of": "f-anna-trained", "form": "alias", "question": "where is bird born ?", "answer": "bird lives in paris .",
     "key": "paris"},
    {"of": "f-anna-trained", "form": "multiple_choice", "question": "where is anna born ?",
     "choices": ["lima", "paris", "oslo"], "answer": "paris"},
    {"of": "f-boris-trained", "form": "cloze", "answer": "boris lives in lima .", "key": "lima", "group": "boris"},
    {"of": "r-elena-trained", "form": "cloze", "answer": "elena lives in paris .", "key": "paris"},
]  # fmt: skip


def with_forms(root: Path, rows: Rows, **changes: object) -> OpenCase:
    write_rows(root / "forms.jsonl", rows)
    return opened(root, data={"forget": "forget.jsonl", "retain": "retain.jsonl", "forms": "forms.jsonl", **changes})


def test_rows_of_other_forms_belong_to_the_person_and_the_fact_that_they_restate(root: Path) -> None:
    case = with_forms(root, FORMS)
    assert [item.group for item in case.cohorts["forms"]] == ["anna", "anna", "boris", "elena"]
    assert case.forms_in("forms") == ("alias", "cloze", "multiple_choice")
    choice = case.items(Texts(cohort="forms", form="multiple_choice"))[0]
    assert (choice.answer, choice.perturbed_answers) == ("paris", ("lima", "oslo"))


def test_nothing_else_sees_the_rows_of_other_forms(root: Path) -> None:
    plain, case = opened(root), with_forms(root, FORMS)
    assert case.forms() == plain.forms() and "alias" not in case.forms("held_out")
    for cohort in ("forget", "retain"):
        assert case.cohorts[cohort] == plain.cohorts[cohort]
        assert case.rows(Texts(cohort=cohort)).hash == plain.rows(Texts(cohort=cohort)).hash
    assert {key: sha for key, sha in case.data_sha256.items() if key != "forms"} == plain.data_sha256
    assert set(case.data_sha256) == {"forget", "retain", "forms"}


def test_a_case_and_an_item_without_forms_are_written_as_before() -> None:
    data = DataFiles(forget="f.jsonl", retain="r.jsonl")
    assert set(json.loads(data.canonical())) == {
        "forget", "retain", "holdout", "general", "group", "group_rows", "fields", "split_seed",
    }  # fmt: skip
    assert set(json.loads(data.canonical())["fields"]) & {"neighbour", "forms", "of"} == set()
    written = Item(id="a", group="a", question="q", answer="a").model_dump(mode="json")
    assert not {"of", "paraphrased_question"} & written.keys()
    named = data.model_copy(update={"forms": "x.jsonl"})
    assert DataFiles.model_validate_json(named.model_dump_json()) == named


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"of": "f-nobody"}, "line 2: `of` 'f-nobody' is the id of no item"),
        (
            {"of": "f-boris-held_out_phrasing"},
            "line 2: `of` 'f-boris-held_out_phrasing' is an item of form 'held_out_phrasing'",
        ),
        ({"form": None}, "line 2: no `form`"),
        ({"form": "trained"}, "line 2: no `form`"),
        ({"group": "clara"}, "line 2: its group is 'clara', and that of 'f-anna-trained' is 'anna'"),
        ({"of": None}, "line 2: no `of`, and no trained item has its group and attribute"),
        (
            {"of": None, "group": "anna", "attribute": "pet"},
            "line 2: no `of`, and no trained item has its group and attribute",
        ),
        ({"id": "f-anna-trained"}, "line 2: id 'f-anna-trained' is that of an item of another file"),
    ],
)
def test_a_row_that_restates_nothing_is_named_by_file_and_line(
    root: Path, change: dict[str, object], said: str
) -> None:
    rows = [dict(row) for row in FORMS]
    rows[1] = {key: value for key, value in (rows[1] | change).items() if value is not None}
    with pytest.raises(AuditError) as caught:
        with_forms(root, rows)
    assert caught.value.code == 2 and said in caught.value.what
    assert str(root / "forms.jsonl") in caught.value.what


def test_a_form_column_of_the_forget_file_may_say_what_it_restates_too(root: Path) -> None:
    rows = read_rows(root / "forget.jsonl")
    rows[1]["of"] = "f-anna-nowhere"
    write_rows(root / "forget.jsonl", rows)
    with pytest.raises(AuditError, match=r"forget\.jsonl: line 2: `of` 'f-anna-nowhere'"):
        opened(root)
    rows[1]["of"] = "f-anna-trained"
    write_rows(root / "forget.jsonl", rows)
    case = opened(root)
    paired = paired_forms(case.items(Texts(cohort="forget")), case.cohorts, "forget", 10)
    assert paired.facts[0].forms["held_out_phrasing"][0].id == "f-anna-held_out_phrasing"
    assert all("held_out_phrasing" not in fact.forms for fact in paired.facts[1:]), "no attribute, and no `of`"
    assert paired.made_by["held_out_phrasing"] == "data"


def test_group_and_attribute_pair_where_no_row_says_of(root: Path) -> None:
    rows = read_rows(root / "forget.jsonl")
    for row in rows:
        row["attribute"] = "town"
    write_rows(root / "forget.jsonl", rows)
    forms: Rows = [{"group": "boris", "attribute": "town", "form": "alias", "question": "where is bird born ?",
                    "answer": "bird lives in lima .", "key": "lima"}]  # fmt: skip
    case = with_forms(root, forms)
    assert case.cohorts["forms"][0].of == "f-boris-trained"
    paired = paired_forms(case.items(Texts(cohort="forget")), case.cohorts, "forget", 10)
    assert [fact.item.id for fact in paired.facts if "alias" in fact.forms] == ["f-boris-trained"]
    assert all(len(fact.forms["held_out_phrasing"]) == 1 for fact in paired.facts)


def test_facts_are_dealt_over_people_and_a_form_of_the_data_is_the_datas_alone(root: Path) -> None:
    case = with_forms(root, FORMS)
    trained = case.items(Texts(cohort="forget"))
    paired = paired_forms(trained, case.cohorts, "forget", 3)
    assert [fact.item.group for fact in paired.facts] == ["anna", "boris", "clara"]
    assert paired.made_by["multiple_choice"] == "data" and paired.made_by["spelled"] == "rule"
    assert "multiple_choice" not in paired.facts[1].forms, "the data asks anna so, and a rule asks nobody else"
    assert paired.dealt(2) == {"f-anna-trained", "f-boris-trained"}
    assert not any("r-" in fact.item.id for fact in paired.facts)


def test_neighbours_may_be_retained_people_and_never_forgotten_ones(root: Path) -> None:
    retained = read_rows(root / "retain.jsonl")
    write_rows(root / "neighbour.jsonl", [row | {"id": f"n{n}"} for n, row in enumerate(retained)])
    case = opened(root, data={"forget": "forget.jsonl", "retain": "retain.jsonl", "neighbour": "neighbour.jsonl"})
    assert case.has(Texts(cohort="neighbour")) and len(case.cohorts["neighbour"]) == len(retained)
    with pytest.raises(AuditError, match="forget and neighbour share"):
        opened(root, data={"forget": "forget.jsonl", "retain": "retain.jsonl", "neighbour": "forget.jsonl"})


def test_a_typed_case_of_forms_reads_back(root: Path) -> None:
    case = with_forms(root, FORMS).case
    assert Case.model_validate_json(case.model_dump_json()) == case
