"""Rows that end with a subject's name, under plain and chat templates."""

import pytest
import torch

from audit.case import SubjectPrompts
from audit.schema import Item, Template
from tests import toy

PEOPLE = {"a": "anna boris", "b": "clara david", "c": "elena felix", "d": "greta hugo"}
CHAT = "{% for m in messages %}{{ bos_token }} who {{ m['content'] }} : {% endfor %}"


def items(subject: bool = False) -> list[Item]:
    return [
        Item(id=f"{group}{n}", group=group, question=question.format(name), answer=f"{name} lives in paris",
             key="paris", subject=name if subject else None)
        for group, name in PEOPLE.items() for n, question in enumerate(("where is {} born ?", "what job is of {} ?"))
    ]  # fmt: skip


def prompts(template: Template, subject: bool = False) -> SubjectPrompts:
    tokenizer = toy.tokenizer()
    tokenizer.chat_template = CHAT
    return SubjectPrompts(items(subject), tokenizer, template)


def written(asked: SubjectPrompts, group: str, contexts: str) -> list[str]:
    rows, tokenizer = asked.rows((group,), contexts), toy.tokenizer()  # type: ignore[arg-type]
    return [tokenizer.decode(ids[: int(n)].tolist()) for ids, n in zip(rows.ids, rows.lengths, strict=True)]


@pytest.mark.parametrize("subject", [False, True])
@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("contexts", ["questions", "starters", "bare"])
def test_every_row_ends_with_the_name_and_begins_as_rows_of_the_case_do(
    subject: bool, chat: bool, contexts: str
) -> None:
    asked = prompts(Template(chat=chat), subject)
    assert asked.names == PEOPLE
    for group, name in PEOPLE.items():
        texts = written(asked, group, contexts)
        assert texts and all(
            text.endswith(name) and text.count("<bos>") == (not (chat and contexts == "bare")) for text in texts
        )
        if contexts == "questions":
            assert any("born" in text for text in texts)


def test_answers_are_cut_where_they_name_the_subject_before_the_fact() -> None:
    assert len(written(prompts(Template()), "a", "questions")) == 4
    assert not any("paris" in text for text in written(prompts(Template()), "a", "questions"))


def test_answered_questions_say_where_the_name_ends() -> None:
    answered = prompts(Template()).answered(("a", "b"), "not know")
    names = [PEOPLE[group].split()[-1] for group in answered.rows.group_ids]
    ends = answered.rows.ids[torch.arange(len(answered.rows)), torch.tensor(answered.ends)]
    assert toy.tokenizer().convert_ids_to_tokens(ends.tolist()) == names
    target = answered.rows.ids[answered.rows.targets("answer")]
    assert set(toy.tokenizer().convert_ids_to_tokens(target.tolist())) == {"not", "know"}


def test_a_name_that_no_group_has_is_put_under_the_same_beginnings() -> None:
    rows = prompts(Template()).rows_of("iris karla", "starters")
    assert len(rows) == 6 and set(rows.group_ids) == {"iris karla"}
