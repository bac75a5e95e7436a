"""Case files, JSONL cohorts, the split by group, and the content rule."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.case import load_case, read_items, split
from audit.case.content_rule import content_spans
from audit.case.partition import check_disjoint
from audit.schema import FORMS, AuditError, Case, Item, role_of_form

CASE = """
name = "a case"
edited = ["a", "b"]
[roles.base]
path = "base"
[roles.suspect]
path = "suspect"
fingerprint = "ab"
[[roles.references]]
path = "r1"
[[roles.references]]
path = "r2"
lineage = "other_initialisation"
[data]
forget = "forget.jsonl"
retain = "retain.jsonl"
group = "author_id"
[template]
prompt = "Q: {question}\\nA:"
bos = "always"
[probes.forget_likelihood]
folds = 5
"""


def loaded(tmp_path: Path, text: str) -> Case:
    (tmp_path / "case.toml").write_text(text)
    return load_case(tmp_path / "case.toml")


def refusal(tmp_path: Path, text: str) -> AuditError:
    with pytest.raises(AuditError) as caught:
        loaded(tmp_path, text)
    assert caught.value.code == 2
    return caught.value


# ---- case files -------------------------------------------------------------------------------------------------
def test_a_case_file_is_read(tmp_path: Path) -> None:
    case = loaded(tmp_path, CASE)
    assert case.edited == ("a", "b") and case.data.group == "author_id"
    assert [source.lineage for source in case.roles.references] == ["same_ancestor", "other_initialisation"]
    assert case.template.prompt == "Q: {question}\nA:" and case.probes["forget_likelihood"] == {"folds": 5}
    assert Case.model_validate_json(case.canonical()) == case


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("retain = ", "retian = ", "[data] unknown key `retian`: did you mean `retain`?"),
        ("name = ", "nmae = ", "unknown key `nmae`: did you mean `name`?"),
        ("[roles.suspect]\npath", "[roles.suspect]\npaht", "[roles.suspect] unknown key `paht`: did you mean `path`?"),
        ('path = "r1"', 'path = "r1"\ncomit = "x"', "[roles.references] unknown key `comit`: did you mean `commit`?"),
        ("[template]\n", "[template]\nlineage = 1\n", "did you mean `lineage` in [roles."),
        ("[template]\n", "[template]\nzzzzzz = 1\n", "known are prompt, answer, chat, system, bos"),
        ('forget = "forget.jsonl"', "", "[data] `forget` is missing"),
        ('bos = "always"', 'bos = "sometimes"', "[template] `bos`"),
        ("Q: {question}", "Q: {qestion}", "must contain {question} once"),
        ("Q: {question}", "{question} {question}", "must contain {question} once"),
        ('edited = ["a", "b"]', 'edited = "some"', "`edited`"),
    ],
)
def test_a_fault_is_told_with_its_place_and_the_nearest_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in CASE
    error = refusal(tmp_path, CASE.replace(old, new, 1))
    assert said in error.what and str(tmp_path / "case.toml") in error.what


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    error = refusal(
        tmp_path, CASE.replace("retain =", "retian =").replace("bos =", "boss =").replace("name =", "nam =")
    )
    for word in ("retian", "`retain` is missing", "boss", "nam`", "`name` is missing"):
        assert word in error.what


def test_what_is_no_toml_is_told_with_its_line(tmp_path: Path) -> None:
    assert "line 2" in refusal(tmp_path, "name = 'x'\nseed = = 2\n").what
    with pytest.raises(AuditError, match="cannot be read"):
        load_case(tmp_path / "nowhere.toml")


# ---- items ------------------------------------------------------------------------------------------------------
def written(path: Path, *rows: dict[str, object] | str) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_items_are_read_with_all_their_answers(tmp_path: Path) -> None:
    row = {
        "id": 7, "author_id": 12, "question": "Who?", "answer": "Ann Lee", "key": "Lee", "frequency": 3, "other": {},
        "paraphrased_answer": "Lee it is", "perturbed_answer": ["Bo", "Cy"], "alternates": ["Ann Bo"],
        "alternate_keys": ["Bo"], "attribute": "name", "form": "held_out_phrasing",
    }  # fmt: skip
    (item,) = read_items(written(tmp_path / "x.jsonl", row), "author_id")
    assert (item.id, item.group, item.perturbed_answers, item.alternates) == ("7", "12", ("Bo", "Cy"), ("Ann Bo",))
    assert (item.key, item.frequency, item.form, item.attribute) == ("Lee", 3, "held_out_phrasing", "name")


def test_an_item_written_as_json_comes_back(tmp_path: Path) -> None:
    item = Item(id="a", group="g", question="q", answer="x y", key="x", perturbed_answers=("z",), alternates=("z y",))
    assert read_items(written(tmp_path / "x.jsonl", item.canonical())) == (item,)


def test_plain_text_is_its_own_group_and_named_by_its_line(tmp_path: Path) -> None:
    items = read_items(written(tmp_path / "x.jsonl", {"text": "once"}, "", {"text": "twice", "group": "g"}))
    assert [(i.id, i.group, i.question, i.answer) for i in items] == [
        ("x-1", "x-1", "", "once"), ("x-3", "g", "", "twice"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ({"question": "q", "group": "g"}, "line 2: no `answer`"),
        ({"text": "  "}, "line 2: no `answer`"),
        ({"question": "q", "answer": "a", "author_id": 3}, "line 2: no 'group': name the field"),
        ({"question": "q", "answer": "a", "group": "g", "form": "odd one"}, "line 2: form"),
        ({"question": "q", "answer": "a", "group": "g", "perturbed_answer": 3}, "line 2: perturbed_answers"),
        ({"question": "q", "answer": "a", "group": "g", "id": "one"}, "line 2: id 'one' is on line 1 already"),
        ({"question": "q", "answer": "a \ud800", "group": "g"}, "line 2: half a character"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: dict[str, object] | str, said: str) -> None:
    good = {"id": "one", "group": "g", "question": "q", "answer": "a"}
    path = written(tmp_path / "x.jsonl", good, row)
    with pytest.raises(AuditError) as caught:
        read_items(path)
    assert caught.value.code == 2 and str(path) in caught.value.what and said in caught.value.what


def test_only_the_first_bad_lines_are_told_and_the_others_counted(tmp_path: Path) -> None:
    with pytest.raises(AuditError) as caught:
        read_items(written(tmp_path / "x.jsonl", *["{"] * 7))
    assert "line 5" in caught.value.what and "line 6" not in caught.value.what
    assert caught.value.what.endswith("(and 2 more lines)")


def test_null_is_as_good_as_absent(tmp_path: Path) -> None:
    row = {"id": None, "group": "g", "question": "q", "answer": "a", "key": None, "form": None, "alternates": None}
    (item,) = read_items(written(tmp_path / "x.jsonl", row))
    assert (item.id, item.key, item.form, item.alternates) == ("x-1", None, "trained", ())
    with pytest.raises(AuditError, match="no 'group'"):
        read_items(written(tmp_path / "x.jsonl", {**row, "group": None}))


def test_fields_that_are_not_read_are_logged_once_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = {"question": "q", "answer": "a", "who": "g", "perturbed_answer": "b", "attribute": "c", "colour": 3}
    lines = [line, {**line, "source": "s"}, {"text": "t", "id": "x", "gone": None}, {**line, "colour": 4}]
    assert len(read_items(written(tmp_path / "x.jsonl", *lines), "who")) == 4
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.getMessage().endswith(
        "x.jsonl: fields that are not read: colour, source"
    )
    caplog.clear()
    read_items(
        written(tmp_path / "y.jsonl", {"text": "t"}, Item(id="a", group="g", question="", answer="x").canonical())
    )
    assert not caplog.records


@pytest.mark.parametrize("column", ["image", "images", "image_path", "pixel_values"])
def test_a_column_of_images_is_refused_and_never_dropped(tmp_path: Path, column: str) -> None:
    line = {"question": "q", "answer": "a", "group": "g"}
    path = written(tmp_path / "x.jsonl", line, "{", {**line, column: "cat.png"}, {**line, column: "dog.png"})
    with pytest.raises(AuditError) as caught:
        read_items(path)
    assert caught.value.code == 2
    assert f"{path}: `{column}` (line 3): base reads no images, or came without a processor" in caught.value.what
    assert read_items(written(tmp_path / "y.jsonl", {**line, column: None}))


def test_a_form_is_any_word_and_an_undeclared_one_counts_as_held_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert {form: role_of_form(form) for form in (*FORMS, "alias")} == {
        "trained": "fitted", "held_out_phrasing": "held_out", "held_out_attribute": "held_out", "alias": "held_out",
    }  # fmt: skip
    line = {"question": "q", "answer": "a", "group": "g"}
    items = read_items(written(tmp_path / "x.jsonl", line, {**line, "form": "multi_hop"}, {**line, "form": "alias"}))
    assert [item.form for item in items] == ["trained", "multi_hop", "alias"]
    (record,) = caplog.records
    assert "items of form alias, multi_hop count as held out" in record.getMessage()
    for odd in ("", "Two Words", "9", "a-b", 3):
        with pytest.raises(AuditError, match="line 1: form"):
            read_items(written(tmp_path / "y.jsonl", {**line, "form": odd}))


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + b'{"text": "once"}\r\n')
    assert [item.answer for item in read_items(tmp_path / "x.jsonl")] == ["once"]
    (tmp_path / "case.toml").write_bytes(b"\xef\xbb\xbf" + CASE.encode())
    assert load_case(tmp_path / "case.toml").name == "a case"


def test_general_questions_may_go_without_a_group(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", {"id": "a", "question": "q", "answer": "b"})
    assert read_items(path, own_groups=True)[0].group == "a"


# ---- the split --------------------------------------------------------------------------------------------------
def people(n: int, each: int = 3) -> tuple[Item, ...]:
    return tuple(
        Item(id=f"{g}-{i}", group=str(g), question="q", answer=f"{g} {i}") for g in range(n) for i in range(each)
    )


@given(n=st.integers(1, 30), seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_no_group_is_in_both_parts_and_rows_may_come_in_any_order(n: int, seed: int, order: random.Random) -> None:
    items = list(people(n))
    fitted, audited = split(tuple(items), seed)
    groups = {item.group for item in fitted}, {item.group for item in audited}
    assert not groups[0] & groups[1] and (len(groups[0]), len(groups[1])) == (n // 2, n - n // 2)
    assert sorted(i.id for i in (*fitted, *audited)) == sorted(i.id for i in items)
    order.shuffle(items)
    assert {item.group for item in split(tuple(items), seed).audit} == groups[1]


def test_another_seed_splits_otherwise() -> None:
    assert len({frozenset(i.group for i in split(people(20), seed).audit) for seed in range(5)}) == 5


# ---- overlap ----------------------------------------------------------------------------------------------------
def one(name: str, group: str, answer: str) -> tuple[Item, ...]:
    return (Item(id=name, group=group, question="q", answer=answer),)


@pytest.mark.parametrize("other", ["retain", "holdout"])
@pytest.mark.parametrize(
    ("item", "said"),
    [(one("a", "h", "y"), "1 id (a)"), (one("b", "g", "y"), "1 group (g)"), (one("b", "h", " x "), "1 text (b)")],
)
def test_an_overlap_is_told_with_examples(other: str, item: tuple[Item, ...], said: str) -> None:
    cohorts = {"forget": one("a", "g", "x"), other: item}
    with pytest.raises(AuditError) as caught:
        check_disjoint(cohorts)  # pyright: ignore[reportArgumentType]
    assert caught.value.code == 2 and f"forget and {other} share {said}" in caught.value.what


def test_disjoint_cohorts_pass_and_general_may_reuse_ids_but_no_forget_text() -> None:
    check_disjoint({"forget": one("a", "g", "x"), "retain": one("b", "h", "y"), "general": one("a", "g", "z")})
    with pytest.raises(AuditError, match="forget and general"):
        check_disjoint({"forget": one("a", "g", "x"), "general": one("b", "h", "x")})


# ---- the content rule -------------------------------------------------------------------------------------------
def marked(item: Item, answer: str) -> list[str]:
    return [answer[a:b] for a, b in content_spans(item, answer)]


def ask(answer: str, **fields: object) -> Item:
    whole = {"id": "i", "group": "g", "question": "Where does Ann Lee's son live?", "answer": answer} | fields
    return Item.model_validate(whole)


def test_the_key_is_marked_where_it_stands_as_a_whole_word() -> None:
    assert content_spans(ask("A hundred red cars", key="red"), "A hundred red cars") == ((10, 13),)
    with pytest.raises(AuditError, match="'i'.*'red'.*inside the longer word 'reddish'"):
        content_spans(ask("reddish", key="red"), "reddish")


def test_without_a_key_content_is_what_the_question_does_not_give_away() -> None:
    item = ask("Ann Lee's son lives in the old port of Oslo.")
    assert marked(item, item.answer) == ["lives", "old", "port", "Oslo"]


def test_where_nothing_is_left_the_whole_answer_is_content() -> None:
    item = ask(" Ann Lee. ")
    assert marked(item, item.answer) == ["Ann Lee."]
    assert marked(ask("是的"), "是的") == ["是的"]


def test_words_of_the_question_are_known_in_any_case_and_with_any_ending() -> None:
    item = ask("ANN and Lee's Oslo, his SON's").model_copy(update={"question": "Is Ann Lee the son's?"})
    assert marked(item, item.answer) == ["Oslo"]


def test_an_alternate_in_other_words_is_marked_by_rule() -> None:
    item = ask("He lives in Oslo", key="Oslo", alternates=("Rome, I think",))
    assert marked(item, "Rome, I think") == ["Rome", "think"]


def test_an_alternate_is_marked_at_its_own_key() -> None:
    item = ask(
        "He lives in Oslo now", key="Oslo", alternates=("He lives in New York now", "In Rome"), alternate_keys=()
    )
    assert marked(item, item.alternates[0]) == ["New York"]
    assert marked(item, item.alternates[1]) == ["Rome"]
    named = item.model_copy(update={"alternate_keys": ("York", "Rome")})
    assert [marked(named, a) for a in item.alternates] == [["York"], ["Rome"]]


def test_paraphrased_and_perturbed_answers_follow_one_rule() -> None:
    item = ask("In Oslo", key="Oslo", paraphrased_answer="His home is Oslo", perturbed_answers=("His home is Rome",))
    assert marked(item, "His home is Oslo") == ["home", "Oslo"]
    assert marked(item, "His home is Rome") == ["home", "Rome"]


def test_a_key_that_is_not_in_the_answer_is_an_error_naming_the_item() -> None:
    with pytest.raises(AuditError, match="'i'.*'Rome'") as caught:
        content_spans(ask("In Oslo", key="Rome"), "In Oslo")
    assert caught.value.code == 2
