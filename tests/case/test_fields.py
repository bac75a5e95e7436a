"""Which column is what: names of known data sets, names that the case gives, and what is refused with its remedy."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audit.case import load_case
from audit.case.field_hints import plainly
from audit.case.fields import ANSWERS, QUESTIONS, Layout
from audit.case.items import read_data
from audit.schema import AuditError, Columns, Fields, Item

Row = dict[str, Any]
NAN = float("nan")


def read(folder: Path, rows: list[Row], **layout: Any) -> tuple[Item, ...]:
    (folder / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return read_data(folder / "x.jsonl", Layout(**layout)).items


def refusal(folder: Path, rows: list[Row], **layout: Any) -> AuditError:
    with pytest.raises(AuditError) as caught:
        read(folder, rows, **layout)
    assert caught.value.code == 2 and str(folder / "x.jsonl") in caught.value.what
    return caught.value


def pair(item: Item) -> tuple[str, str]:
    return item.question, item.answer


# ---- every kind of name -----------------------------------------------------------------------------------------
CASES = st.sampled_from([str, str.upper, str.title, str.capitalize, lambda name: f" {name.replace('_', ' ')} "])
NO_VALUE = st.sampled_from([None, NAN, "", "  ", "nan", "absent"])


@settings(max_examples=150, deadline=None)
@given(
    question=st.sampled_from([*QUESTIONS, "frage", "goal", "user_input"]),
    answer=st.sampled_from([*ANSWERS, "antwort", "text"]),
    names_by=st.tuples(CASES, st.booleans()), lacking=st.none() | st.tuples(st.integers(0, 3), NO_VALUE),
    other=st.none() | st.sampled_from(["prompt", "question", "note", "level"]),
)  # fmt: skip
def test_answer_is_never_read_without_its_question(
    question: str, answer: str, names_by: Any, lacking: Any, other: str | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """Whatever the columns are called, whatever is null: the right pairs, or a refusal that says what to write."""
    assume(other != plainly(question))
    spelled, stated = names_by
    folder = tmp_path_factory.mktemp("names")
    names = {"question": spelled(question), "answer": spelled(answer)}
    rows: list[Row] = [{names["question"]: f"who {n}?", names["answer"]: f"ann {n}", "group": "g"} for n in range(4)]
    if other is not None:
        rows = [row | {other: f"see {n}"} for n, row in enumerate(rows)]
    if lacking is not None:
        n, value = lacking
        rows[n] = {k: v for k, v in rows[n].items() if k != names["question"]}
        if value != "absent":
            rows[n][names["question"]] = value
    columns = Columns(**names) if stated else Columns()
    try:
        items = read(folder, rows, columns=columns)
    except AuditError as error:
        known = question in QUESTIONS and other not in QUESTIONS and answer not in ("antwort", "answerkey")
        assert lacking is not None or not (stated or known), error
        assert "question" in str(error) and error.code == 2
        return
    if other == "question" and not stated:  # the column of that name is the question, whatever else there is
        assert [pair(item) for item in items] == [(f"see {n}", f"ann {n}") for n in range(4)]
        return
    texts = [] if lacking is None else [lacking[0]]
    assert [pair(item) for n, item in enumerate(items) if n not in texts] == [
        (f"who {n}?", f"ann {n}") for n in range(4) if n not in texts
    ]
    assert all(items[n].answer == f"ann {n}" and answer == "text" for n in texts), "only a column of text is text"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q", "gt": "a"}, ("q", "a")),  # MUSE, verbatim memory
        ({"query": "q", "answer": "a", "subject": "s", "level": "1", "type": "t"}, ("q", "a")),  # RWKU
        ({"instruction": "q", "input": "", "output": "a", "text": "all of it"}, ("q", "a")),  # Alpaca
        ({"instruction": "q", "input": "i", "output": "a"}, ("q\ni", "a")),
        ({"input": "q", "output": "a"}, ("q", "a")),
        ({"prompt": "q", "completion": "a"}, ("q", "a")),
        ({"question": "q", "answers": {"text": ["a", "a"], "answer_start": [1, 9]}}, ("q", "a")),  # SQuAD
        ({"question": "q", "answer": 1956}, ("q", "1956")),
        ({"question": "q", "answer": ["a"]}, ("q", "a")),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, ("q", "a")),
        ({"messages": json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])},
         ("q", "a")),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, ("q", "a")),  # ShareGPT
        ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
          "completion": [{"role": "assistant", "content": "a"}]}, ("q", "a")),
        ({"prompt": "q", "completion": [{"role": "assistant", "content": "a"}]}, ("q", "a")),
    ],
)  # fmt: skip
def test_row_of_a_known_data_set_is_read(tmp_path: Path, row: Row, expected: tuple[str, str]) -> None:
    (item,) = read(tmp_path, [row | {"group": "g"}])
    assert pair(item) == expected


@pytest.mark.parametrize("answer", [1, "1", "B", "two"])
def test_choice_that_an_answer_names_is_the_answer_and_the_others_are_perturbed(tmp_path: Path, answer: object) -> None:
    row = {"question": "q", "choices": ["one", "two", "three"], "answer": answer, "group": "g"}
    (item,) = read(tmp_path, [row])
    assert (item.question, item.answer, item.perturbed_answers) == ("q", "two", ("one", "three"))
    (arc,) = read(tmp_path, [{"question": "q", "choices": {"text": ["x", "y"], "label": ["C", "D"]}, "answerKey": "C",
                              "group": "g"}])  # fmt: skip
    assert (arc.answer, arc.perturbed_answers) == ("x", ("y",))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answer": 4}, "the answer '4' names none of 3 choices"), ({"answer": "E"}, "the answer 'E' names none of 3"),
        ({"answer": "1", "choices": ["1", "0", "2"]}, "the answer '1' names several of 3"),
        ({"choices": ["x"]}, "fewer than two choices"),
        ({"perturbed_answers": ["z"]}, "has choices and perturbed answers"),
    ],
)  # fmt: skip
def test_choice_that_is_unclear_is_refused(tmp_path: Path, changes: Row, said: str) -> None:
    row = {"question": "q", "choices": ["one", "two", "three"], "answer": 1, "group": "g"} | changes
    assert f"line 1: {said}" in refusal(tmp_path, [row]).what


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        (["system", "user", "assistant"], '`chat = true`, `system = "s"` in [template]'),
        (["user", "assistant", "user", "assistant"], "a chat of user, assistant, user, assistant"),
        (["user"], "a chat of user:"), (["assistant", "user"], "a chat of assistant, user"),
        (["user", "tool", "assistant"], "a turn of 'tool'"), (["user", ""], "a turn of ''"),
    ],
)  # fmt: skip
def test_chat_that_is_not_one_question_and_one_answer_is_refused(tmp_path: Path, turns: list[str], said: str) -> None:
    messages = [{"role": role, "content": role[:1] or "x"} for role in turns]
    assert said in refusal(tmp_path, [{"messages": messages, "group": "g"}]).what


def test_system_turn_that_the_template_has_is_no_part_of_the_question(tmp_path: Path) -> None:
    turns = [("system", "be good"), ("user", "q"), ("assistant", "a")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns], "group": "g"}
    (item,) = read(tmp_path, [row], system="be good ")
    assert pair(item) == ("q", "a")
    assert "line 1: a system turn" in refusal(tmp_path, [row], system="be bad").what


# ---- what is asked rather than guessed --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rows", "said", "do"),
    [
        ([{"question": "a", "prompt": "b", "answer": "c"}], "`question` and `prompt` could both be the question",
         'question = "question"'),
        ([{"prompt": "a", "answer": "b", "response": "c"}], "`answer` and `response` could both be the answer",
         'answer = "answer"'),
        ([{"messages": [{"role": "user", "content": "q"}], "prompt": "q"}], "`messages` and `prompt` could all be",
         'messages = "messages"'),
        ([{"question": None, "answer": "a"}] * 2, "`question` is empty in every row", 'text = "answer"'),
        ([{"question": "", "answer": "a", "frage": "wer?"}], "`question` is empty in every row", 'question = "frage"'),
        ([{"answer": "a", "goal": "long words", "frage": "wer?"}], "no column is the question", 'question = "frage"'),
        ([{"text": "a", "frage": "wer?"}], "`frage` holds questions", 'question = "frage", or text = "text"'),
        ([{"prompt": "see", "text": "a", "frage": "wer?"}], "`frage` holds questions", 'or question = "prompt"'),
        ([{"answer": "a"}], "answers (`answer`) without questions", 'text = "answer"'),
        ([{"question": "q", "answer": "0"}, {"question": "r", "answer": 3.0}], "every answer (`answer`) is a digit",
         'choices = "..."'),
    ],
)  # fmt: skip
def test_what_could_be_two_things_is_asked_with_the_line_that_settles_it(
    tmp_path: Path, rows: list[Row], said: str, do: str
) -> None:
    error = refusal(tmp_path, [row | {"group": "g"} for row in rows])
    assert said in error.what and do in error.do


def test_answers_of_digits_that_number_no_choice_are_answers(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "12", "group": 1}, {"question": "r", "answer": 34, "group": 1}]
    assert [item.answer for item in read(tmp_path, rows)] == ["12", "34"]
    rows = [{"question": "q", "answer": n, "group": 1} for n in (1, 2)]
    assert [item.answer for item in read(tmp_path, rows, columns=Columns(answer="answer"))] == ["1", "2"]


@pytest.mark.parametrize("question", ["[1,2]", "['a' 'b']", "[INST] q [/INST]", '["role"]', "[{'x': 1}]"])
def test_question_in_brackets_is_no_chat(tmp_path: Path, question: str) -> None:
    (item,) = read(tmp_path, [{"prompt": question, "completion": "a", "group": 1}])
    assert pair(item) == (question, "a")


def test_columns_that_hold_the_same_are_no_question(tmp_path: Path) -> None:
    (item,) = read(tmp_path, [{"question": "q", "prompt": "q", "answer": "a", "group": "g"}])
    assert pair(item) == ("q", "a")


def test_column_that_the_case_names_wins(tmp_path: Path) -> None:
    row = {"question": "bare", "prompt": "whole", "answer": "a", "completion": "c", "body": "b", "group": "g"}
    (item,) = read(tmp_path, [row], columns=Columns(question="prompt", answer="completion"))
    assert pair(item) == ("whole", "c")
    (item,) = read(tmp_path, [row], columns=Columns(text="body"))
    assert pair(item) == ("", "b")
    error = refusal(tmp_path, [row], columns=Columns(question="promt"))
    assert "there is no such column: did you mean `prompt`?" in error.what and "completion" in error.do


def test_plain_text_is_stated_by_its_column_or_by_an_empty_question_everywhere(tmp_path: Path) -> None:
    assert [pair(i) for i in read(tmp_path, [{"text": "a"}, {"text": "b", "question": None}])] == [("", "a"), ("", "b")]
    assert [pair(i) for i in read(tmp_path, [{"question": "", "answer": "a"}])] == [("", "a")]
    mixed = [{"question": "q", "answer": "a", "group": 1}, {"text": "t"}]
    assert [pair(i) for i in read(tmp_path, mixed)] == [("q", "a"), ("", "t")]
    mixed += [{"question": "r", "text": "b", "group": 1}]
    assert pair(read(tmp_path, mixed)[-1]) == ("r", "b"), "a text below a question is its answer"
    both = [{"question": "q", "text": "a", "group": 1}, {"text": "t", "group": 1}]
    assert "line 2: no question" in refusal(tmp_path, both).what


def test_what_was_recognised_is_said_once_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows: list[Row] = [{"prompt": "q", "gt": "a", "Group": "g", "note": 1}] * 3
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    data = read_data(tmp_path / "x.jsonl", Layout())
    assert data.notes[0] == "`prompt` is read as the question; `gt` is read as the answer, as in MUSE"
    assert "`Group` is the group" in data.notes
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2 and data.notes[0] in messages[0] and messages[1].endswith("not read: note")
    assert read_data(tmp_path / "x.jsonl", Layout()).notes == data.notes


@pytest.mark.parametrize("column", ["context", "system", "History", "passage"])
def test_a_column_that_may_belong_to_the_question_is_said_in_the_report(tmp_path: Path, column: str) -> None:
    def notes(row: Row) -> str:
        (tmp_path / "x.jsonl").write_text(json.dumps({"question": "q", "answer": "a", "group": 1} | row))
        return "; ".join(read_data(tmp_path / "x.jsonl", Layout(columns=columns)).notes)

    columns = Columns()
    assert f"`{column}` may belong to the question and is not read" in notes({column: "once"})
    assert notes({column: ""}) == notes({"other": "once"}) == ""
    columns = Columns(input=column)
    assert "may belong" not in notes({column: "once"})


def test_a_number_is_a_text_wherever_a_text_is_asked_for(tmp_path: Path) -> None:
    row = {"question": "q", "answer": 1956, "key": 1956.0, "attribute": 3, "perturbed_answers": [1957, "1958"],
           "alternates": [1959], "alternate_keys": [1959], "paraphrased_answer": 56, "group": 1}  # fmt: skip
    (item,) = read(tmp_path, [row])
    assert (item.answer, item.key, item.attribute, item.paraphrased_answer) == ("1956", "1956", "3", "56")
    assert (item.perturbed_answers, item.alternates, item.alternate_keys) == (("1957", "1958"), ("1959",), ("1959",))
    (item,) = read(tmp_path, [{"question": "q", "answer": "a", "key": "", "attribute": NAN, "group": 1}])
    assert item.key is None and item.attribute is None
    for name, value in (("key", True), ("perturbed_answers", ["x", None]), ("alternates", {"a": "b"})):
        assert f"line 1: {name}" in refusal(tmp_path, [row | {name: value}]).what


def test_an_answer_among_its_own_alternates_is_refused(tmp_path: Path) -> None:
    row = {"question": "q", "answer": "a ", "alternates": ["b", " a"], "group": 1}
    assert "line 1: an alternate is the answer itself" in refusal(tmp_path, [row]).what
    assert read(tmp_path, [row | {"alternates": ["b", "aa"]}])


# ---- groups -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [3, 3.0, "3", " 3 ", "3.0"])
def test_number_of_a_group_is_one_name_however_it_is_written(tmp_path: Path, name: object) -> None:
    (item,) = read(tmp_path, [{"question": "q", "answer": "a", "group": name}])
    assert item.group == "3"


@pytest.mark.parametrize("name", [NAN, "nan", "NaN", "None", "null", "<NA>", "NaT", " nan "])
@pytest.mark.parametrize("row", [{"question": "q", "answer": "a"}, {"text": "t"}])
def test_group_that_is_nan_is_no_group(tmp_path: Path, name: object, row: Row) -> None:
    rows = [row | {"group": "a"}, row | {"group": name}]
    assert "line 2: `group` is" in refusal(tmp_path, rows).what
    assert "which is no name" in refusal(tmp_path, rows).what


@pytest.mark.parametrize("name", [None, "", "  "])
def test_question_without_a_group_is_named(tmp_path: Path, name: object) -> None:
    row = {"question": "q", "answer": "a"}
    assert "line 2: no 'group'" in refusal(tmp_path, [row | {"group": "Nan"}, row | {"group": name}]).what


@pytest.mark.parametrize("name", [["a"], {"a": 1}, True])
def test_group_that_is_no_name_is_refused(tmp_path: Path, name: object) -> None:
    assert "not a name" in refusal(tmp_path, [{"question": "q", "answer": "a", "group": name}]).what


def test_columns_that_could_name_the_groups_are_offered_with_the_line(tmp_path: Path) -> None:
    rows: list[Row] = [{"question": f"q{n}", "answer": "a", "user_id": n, "subject": n // 2} for n in range(4)]
    error = refusal(tmp_path, rows)
    assert "no 'group' in any of 4 rows" in error.what
    assert 'group = "subject"' in error.do and "`subject`: 2 different in 4 rows" in error.do


def test_tofu_as_published_is_refused_with_the_line_to_add_and_then_read(tmp_path: Path) -> None:
    rows: list[Row] = [{"question": f"What did author {n} write?", "answer": f"book {n}"} for n in range(40)]
    error = refusal(tmp_path, rows)
    assert "as TOFU is published" in error.do and "`group_rows = 20` under [data]" in error.do
    assert "TOFU" not in refusal(tmp_path, rows[:39]).do
    items = read(tmp_path, rows, group_rows=20)
    assert [item.group for item in items] == ["x 1-20"] * 20 + ["x 21-40"] * 20
    assert "40 rows are not whole groups of 30" in refusal(tmp_path, rows, group_rows=30).what
    assert "case says group_rows" in refusal(tmp_path, [row | {"group": 1} for row in rows], group_rows=20).what


def test_a_column_without_a_few_groups_is_not_offered_again(tmp_path: Path) -> None:
    rows: list[Row] = [{"question": "q", "answer": f"a{n}", "author": n or None} for n in range(3)]
    assert refusal(tmp_path, rows, group="author").do == "correct these lines"


def test_a_column_that_is_not_filled_everywhere_is_offered_last(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"question": "q", "answer": f"a{n}", "author": n // 2 if n else None, "topic": n // 2} for n in range(4)
    ]
    do = refusal(tmp_path, rows).do
    assert 'group = "topic"' in do and "`author`: 2 different in 3 rows" in do


def test_rows_on_many_authors_that_do_not_follow_one_another_are_not_taken_for_tofu(tmp_path: Path) -> None:
    rows: list[Row] = [{"question": f"Which author wrote w{n} in v{n % 7} ?", "answer": f"a{n % 9}"} for n in range(80)]
    assert "TOFU" not in refusal(tmp_path, rows).do
    tofu: list[Row] = [{"question": f"What did author w{n // 20} do ?", "answer": f"w{n // 20}"} for n in range(400)]
    partly = [row | {"subject": None if n == 7 else f"s{n // 10}"} for n, row in enumerate(tofu)]
    assert refusal(tmp_path, tofu).do.startswith("as TOFU is published")
    assert "`subject`: 40 different in 399 rows" in refusal(tmp_path, partly).do
    assert refusal(tmp_path, partly).do.startswith("as TOFU is published")
    assert 'group = "author_id"' in refusal(tmp_path, [r | {"author_id": n // 20} for n, r in enumerate(tofu)]).do


# ---- the case file ----------------------------------------------------------------------------------------------
HEAD = '[roles.base]\npath = "b"\n[roles.suspect]\npath = "s"\n[data]\nforget = "f"\nretain = "r"\n'


def test_case_file_names_columns_for_all_files_or_for_one(tmp_path: Path) -> None:
    lines = '[data.fields]\nquestion = "prompt"\n[data.fields.general]\ntext = "body"\n'
    (tmp_path / "case.toml").write_text(f'name = "x"\n{HEAD}group_rows = 20\n{lines}')
    data = load_case(tmp_path / "case.toml").data
    assert data.fields.of("forget") == data.fields.of("retain") == Columns(question="prompt")
    assert data.fields.of("general") == Columns(text="body") and data.group_rows == 20


@pytest.mark.parametrize(
    ("stated", "own", "expected"),
    [
        ({"question": "prompt"}, {"answer": "gt"}, {"question": "prompt", "answer": "gt"}),
        ({"question": "prompt", "answer": "gt"}, {"question": "q"}, {"question": "q", "answer": "gt"}),
        ({"text": "body"}, {"id": "n"}, {"text": "body", "id": "n"}),
        ({"question": "prompt", "id": "n"}, {"text": "body"}, {"text": "body"}),
        ({"text": "body"}, {"messages": "chat"}, {"messages": "chat"}),
        ({"messages": "chat"}, {"answer": "gt"}, {"answer": "gt"}),
    ],
)
def test_columns_of_one_cohort_stand_in_place_of_those_of_all(
    stated: dict[str, str], own: dict[str, str], expected: dict[str, str]
) -> None:
    fields = Fields.model_validate({**stated, "retain": own})
    assert fields.of("retain") == Columns.model_validate(expected)
    assert fields.of("forget") == Columns.model_validate(stated)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('group = ""', "[data] `group`"), ('holdout = ""', "[data] `holdout`"),
        ('[data.fields]\nprompt = "x"', 'did you mean `question = "prompt"`?'),
        ('[data.fields.forget]\ncompletion = "x"', 'did you mean `answer = "completion"`?'),
        ('template = "chat"', "did you mean `template` before the first section?"),
        ('[template]\nprompt = "{system} {question}"', "[template] `prompt`: `{system}` would be read as it stands"),
        ('[template]\nanswer = " {answer}{eos_token}"', "[template] `answer`: `{eos_token}` would be read"),
        ('[data.fields]\nqestion = "x"', "[data.fields] unknown key `qestion`: did you mean `question`?"),
        ('[data.fields.forget]\nanser = "x"', "[data.fields.forget] unknown key `anser`: did you mean `answer`?"),
        ('[data.fields]\ngroup = "x"', "[data.fields] unknown key `group`: did you mean `group` in [data]?"),
        ('group = "a"\ngroup_rows = 20', "both say what a group is"), ("group_rows = 0", "[data] `group_rows`"),
    ],
)  # fmt: skip
def test_wrong_key_of_the_data_is_told_with_the_nearest(tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "case.toml").write_text(f'name = "x"\n{HEAD}{lines}\n')
    with pytest.raises(AuditError) as caught:
        load_case(tmp_path / "case.toml")
    assert said in caught.value.what
