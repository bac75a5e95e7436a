"""A string in its place, as words and as tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.case import SLOTS, InsertablePrompts, with_tokens
from audit.schema import AuditError, Item, Template
from audit.zoo.tokenizer import make_tokenizer
from audit.zoo.world import items, make_world, vocabulary

TOKENIZER = make_tokenizer(vocabulary())
FORGET = items(make_world(3), "forget")[:6]
TEMPLATES = (Template(), Template(prompt="Where : {question} . ", bos="always"))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.sampled_from(sorted(set(TOKENIZER.get_vocab()) - set(TOKENIZER.all_special_tokens))), min_size=1, max_size=4
    ),
    st.sampled_from([*SLOTS, 0, 1, 3, 99]),
    st.sampled_from(TEMPLATES),
)
def test_words_put_in_and_their_tokens_put_in_are_the_same_rows(
    words: list[str], slot: str | int, template: Template
) -> None:
    text = " ".join(w for w in words if w.isalnum()) or "gull"
    prompts = InsertablePrompts(FORGET, [item.answer for item in FORGET], TOKENIZER, template)
    spoken = prompts.rows(text, slot)  # type: ignore[arg-type]
    ids = torch.tensor(TOKENIZER(text, add_special_tokens=False)["input_ids"])
    put = with_tokens(prompts.plain(), ids, prompts.places(slot))  # type: ignore[arg-type]
    assert torch.equal(spoken.ids, put.ids) and torch.equal(spoken.mask, put.mask) and torch.equal(spoken.key, put.key)
    assert torch.equal(spoken.answer_spans, put.answer_spans)


def test_a_plain_text_takes_a_prefix_alone() -> None:
    plain = [Item(id="a", group="a", question="", answer="Which gull was born in Bovista.")]
    prompts = InsertablePrompts(plain, [item.answer for item in plain], TOKENIZER, Template())
    [row] = prompts.rows("gull zither", "prefix").ids
    assert TOKENIZER.decode(row, skip_special_tokens=True).startswith("gull zither Which gull was born")
    with pytest.raises(AuditError, match="asks no question"):
        prompts.rows("gull", "suffix")


@pytest.mark.parametrize("text", ["", "  ", "say {question}"])
def test_what_is_no_string_to_put_in_is_refused(text: str) -> None:
    with pytest.raises(AuditError, match="cannot be put into a prompt"):
        InsertablePrompts(FORGET, [item.answer for item in FORGET], TOKENIZER, Template()).rows(text, "prefix")
