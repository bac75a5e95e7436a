"""How a model is asked, read off its chat template alone; and what the recipe makes of a question."""

import pytest

from audit.case import Prompting, recipe, tokenise
from audit.schema import AuditError, Item, Template
from tests import laid_out, toy

ITEM = Item(id="a", group="g", question="who was born in paris ?", answer="anna was born in paris")


def prompt_of(source: str, template: Template) -> str:
    """The decoded row of one item."""
    tokenizer = toy.tokenizer()
    tokenizer.chat_template = source
    tokenizer.add_tokens(["<think>", "</think>", "<|im_start|>", "<|im_end|>"])
    rows = tokenise([ITEM], [ITEM.answer], tokenizer, template, None)
    return tokenizer.decode(rows.ids[0])


def answer_of(source: str, template: Template) -> str:
    tokenizer = toy.tokenizer()
    tokenizer.chat_template = source
    tokenizer.add_tokens(["<think>", "</think>", "<|im_start|>", "<|im_end|>"])
    rows = tokenise([ITEM], [ITEM.answer], tokenizer, template, None)
    begin, end = rows.answer_spans[0].tolist()
    return tokenizer.decode(rows.ids[0, begin:end])


def test_a_model_that_can_be_told_not_to_think_is_told_so() -> None:
    recognised = recipe(laid_out.QWEN, None)
    assert recognised.template.variables == {"enable_thinking": False} and recognised.template.chat
    assert "<think> </think> anna was born in paris" in prompt_of(laid_out.QWEN, recognised.template)
    unset = recognised.template.model_copy(update={"variables": {}})
    assert "<think>" not in prompt_of(laid_out.QWEN, unset), "without the switch the prompt is another"


def test_a_thought_that_is_always_opened_is_closed_empty_and_is_no_part_of_the_answer() -> None:
    recognised = recipe(laid_out.ALWAYS_THINKING, None)
    assert recognised.template.answer == "\n</think>\n\n{answer}" and "closed empty" in recognised.reason["answer"]
    assert "<think> </think> anna was born in paris" in prompt_of(laid_out.ALWAYS_THINKING, recognised.template)
    assert answer_of(laid_out.ALWAYS_THINKING, recognised.template) == "anna was born in paris"


def test_a_date_that_is_not_known_is_left_open_and_the_case_refused_until_it_is_set() -> None:
    recognised = recipe(laid_out.LLAMA, None)
    assert (
        "template.variables.date_string" in {entry.key for entry in recognised.left}
        and not recognised.template.variables
    )
    with pytest.raises(AuditError, match="date of the day"):
        prompt_of(laid_out.LLAMA, recognised.template)


def test_the_date_of_a_pool_is_set_where_its_template_prints_one() -> None:
    pool = Prompting(Template(answer="{answer}", chat=True), "a pool", "10 Apr 2025")
    recognised = recipe(laid_out.LLAMA, pool)
    assert recognised.template.variables == {"date_string": "10 Apr 2025"} and not recognised.left
    read = prompt_of(laid_out.LLAMA.replace("'Today Date: ' + date_string", "date_string"), recognised.template)
    assert "<unk>" in read.split("user")[0], "a date stands there, which this tokenizer does not know"
    assert recipe(laid_out.QWEN, pool).template.variables == {"enable_thinking": False}, "this one prints no date"


def test_a_clock_without_a_date_of_its_own_is_set_by_its_name() -> None:
    source = laid_out.QWEN + "{{- strftime_now('%Y') }}"
    [left] = [entry for entry in recipe(source, None).left if entry.key.startswith("template.variables")]
    assert left.key == "template.variables.strftime_now" and '"2024-07-26"' in left.line


def test_how_long_a_model_thinks_is_asked_of_the_user() -> None:
    source = laid_out.QWEN + "{{- reasoning_effort }}"
    assert "template.variables.reasoning_effort" in {entry.key for entry in recipe(source, None).left}


def test_without_a_chat_template_the_prompt_is_plain_and_said_to_be_a_guess() -> None:
    recognised = recipe("", None)
    assert recognised.template == Template() and "template" in {entry.key for entry in recognised.left}
    plain = Prompting(Template(prompt="{question}\nAnswer:"), "a benchmark")
    assert recipe(laid_out.QWEN, plain).template.prompt == "{question}\nAnswer:", "a pool's own prompt comes first"
