"""Which tokens of a prompt are the question's: by every seam and template, whatever the question says."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.case import question_tokens, tokenise
from audit.schema import Item, Template
from tests import seam_world, toy
from tests.case.test_opened import opened
from tests.case.test_opened import root as root

BYTES, WORDS = seam_world.tokenizer(), toy.tokenizer()
TEMPLATES = {
    "bare": Template(),
    "bos": Template(bos="always"),
    "shots": Template(prompt="Question: Where is oslo? Answer: oslo Question: {question}", answer=" Answer: {answer}"),
    "apart": Template(prompt="Question: {question} Answer: ", answer="{answer}", seam="apart"),
    "chat": Template(chat=True, answer="{answer}", seam="apart"),
    "system": Template(chat=True, system="Where is it? user", answer="{answer}"),
    "worded chat": Template(chat=True, prompt="Question: {question}\n", answer="{answer}"),
}
"""A chat template strips nothing here; words of the templates are words of questions too."""
PIECES = ("Where", "is", "baba", "oslo", "Question:", "user", "?", "é", "東京", "\n", "don't")


def marked(question: str, template: Template, tokenizer: Any = BYTES) -> tuple[list[str], list[str]]:
    """A prompt's tokens as text, those of the question and the others."""
    item = Item(id="a", group="a", question=question, answer="oslo")
    rows = tokenise([item], ["oslo"], tokenizer, template, None)
    asked = {token.position for token in question_tokens([item], ["oslo"], tokenizer, template)[0]}
    start = int(rows.answer_spans[0, 0])
    ids = rows.ids[0, :start].tolist()
    question_ids = [i for at, i in enumerate(ids) if at in asked]
    others = [i for at, i in enumerate(ids) if at not in asked]
    assert asked <= set(range(start)), "no token of the answer is the question's"
    return [tokenizer.decode([i]) for i in question_ids], [tokenizer.decode([i]) for i in others]


@pytest.mark.parametrize("name", TEMPLATES)
def test_question_and_template_are_told_apart(name: str) -> None:
    question, others = marked("Where is baba?", TEMPLATES[name])
    assert "".join(question).strip() == "Where is baba?"
    assert ("<bos>" in others) == (name in ("bos", "chat", "system", "worded chat"))
    assert ("<|head|>" in others) == TEMPLATES[name].chat and "<bos>" not in question
    if name == "shots":
        assert "".join(others).count("Where is oslo?") == 1, "an example's question is the template's"


@pytest.mark.sampled
@pytest.mark.parametrize("name", TEMPLATES)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6))
def test_every_letter_of_any_question_is_in_a_token_of_its_own(name: str, pieces: list[str]) -> None:
    question = " ".join(pieces).strip()
    if not question:
        return
    item = Item(id="a", group="a", question=question, answer="oslo")
    tokens = question_tokens([item], ["oslo"], BYTES, TEMPLATES[name])[0]
    held = {place for token in tokens for place in range(token.begin, token.end)}
    assert {place for place, letter in enumerate(question) if not letter.isspace()} <= held <= set(range(len(question)))
    assert [token.position for token in tokens] == sorted({token.position for token in tokens})


def test_a_question_that_is_brought_twice_is_the_questions_both_times() -> None:
    question, others = marked("Where is baba?", Template(prompt="{question} Question: {question}"))
    assert "".join(question).replace(" ", "") == 2 * "Whereisbaba?"
    assert "".join(others).strip() == "Question:"


def test_a_chat_template_that_strips_leaves_every_letter_where_it_is() -> None:
    tokenizer = seam_world.tokenizer()
    tokenizer.chat_template = seam_world.CHAT.replace("m.content", "m.content | trim")
    question, others = marked("  Where is baba?  ", TEMPLATES["chat"], tokenizer)
    assert "".join(question).strip() == "Where is baba?" and "<|end|>" in others
    item = Item(id="a", group="a", question="  Where is baba?  ", answer="oslo")
    tokens = question_tokens([item], ["oslo"], tokenizer, TEMPLATES["chat"])[0]
    assert "".join(item.question[token.begin : token.end] for token in tokens).strip() == "Where is baba?"


def test_a_token_of_the_questions_end_and_the_answers_beginning_is_the_answers() -> None:
    template = Template(answer="{answer}")
    item = Item(id="a", group="a", question="Where is os", answer="lo")
    rows = tokenise([item], ["lo"], BYTES, template, None)
    start = int(rows.answer_spans[0, 0])
    assert BYTES.decode(rows.ids[0, start:]).strip() == "oslo", "one token holds both"
    assert [t.position for t in question_tokens([item], ["lo"], BYTES, template)[0]] == list(range(start))


def test_a_rewritten_question_and_plain_text_have_no_tokens_of_their_own() -> None:
    tokenizer = seam_world.tokenizer()
    tokenizer.chat_template = seam_world.CHAT.replace("m.content", "m.content | upper")
    item = Item(id="a", group="a", question="Where is baba?", answer="oslo")
    assert question_tokens([item], ["oslo"], tokenizer, TEMPLATES["chat"]) == ((),)
    text = Item(id="b", group="b", question="", answer="baba is oslo")
    assert question_tokens([text], ["baba is oslo"], BYTES, Template()) == ((),)


def test_the_same_item_asked_otherwise_has_other_rows(root: Path) -> None:
    case = opened(root)
    item = case.cohorts["forget"][0]
    again = item.model_copy(update={"question": f"anna {item.question}"})
    lengths = [int(case.rows_of([one], [item.answer]).lengths[0]) for one in (item, again, item)]
    assert lengths == [lengths[0], lengths[0] + 1, lengths[0]]
    words = question_tokens([again], [item.answer], case.tokenizer, case.case.template)[0]
    assert [again.question[token.begin : token.end] for token in words] == again.question.split()
