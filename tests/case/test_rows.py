"""Rows carry the model's own tokens, and know which are the answer's and the key's, whatever the tokenizer."""

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from audit.case import Rows, tokenise
from audit.case.tokenisation import Text, _row
from audit.schema import AuditError, Item, Template

TEXTS = (
    "Where does Zoë Müller live?", "Zoë Müller lives in Aix-en-Provence, 中国 of old.", "What is it? It is a red cat.",
    "Question: Answer: <user> <model>",
)  # fmt: skip
SPECIAL = ["<unk>", "<s>", "</s>"]
CHAT = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)


def wrapped(raw: Tokenizer) -> PreTrainedTokenizerFast:
    """With a beginning and an end token of the tokenizer's own."""
    raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def word_level() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.train_from_iterator(TEXTS, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return wrapped(raw)


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2: pieces carry their leading space, a letter beyond ASCII is several tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=SPECIAL,
        vocab_size=290,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator(TEXTS, trainer)
    return wrapped(raw)


def byte_fallback() -> PreTrainedTokenizerFast:
    """As Llama 2: spaces are pieces, a letter beyond the vocabulary is several byte tokens."""
    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback(), decoders.Fuse()])
    alphabet = [chr(c) for c in range(33, 127)] + ["▁"]
    trainer = trainers.BpeTrainer(
        special_tokens=SPECIAL + [f"<0x{b:02X}>" for b in range(256)], vocab_size=380, show_progress=False,
        initial_alphabet=alphabet, limit_alphabet=len(alphabet),
    )  # fmt: skip
    raw.train_from_iterator(TEXTS, trainer)
    return wrapped(raw)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "word_level": word_level, "byte_level": byte_level, "byte_fallback": byte_fallback,
}  # fmt: skip
ITEM = Item(
    id="zoe", group="z", question="Where does Zoë Müller live?", key="中国",
    answer="Zoë Müller lives in Aix-en-Provence, 中国 of old.",
)  # fmt: skip
OTHER = Item(id="it", group="i", question="What is it?", answer="It is a red cat.", key="red")
TEMPLATE = Template(prompt="Question: {question}\nAnswer:")


@pytest.fixture(params=sorted(KINDS))
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return KINDS[request.param]()


def rows_of(tokenizer: PreTrainedTokenizerFast, *items: Item, template: Template = TEMPLATE) -> Rows:
    return tokenise(items, [item.answer for item in items], tokenizer, template, None)


def pieces(tokenizer: PreTrainedTokenizerFast, ids: torch.Tensor) -> str:
    return "".join(tokenizer.decode(ids, skip_special_tokens=False).split())


def test_ids_are_those_of_the_whole_text_after_one_bos(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = rows_of(tokenizer, ITEM, OTHER)
    for n, item in enumerate((ITEM, OTHER)):
        text = f"Question: {item.question}\nAnswer: {item.answer}"
        assert rows.ids[n, : rows.lengths[n]].tolist() == [1, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert rows.item_ids == ("zoe", "it") and rows.group_ids == ("z", "i")
    assert rows.template_hash == TEMPLATE.content_hash()


def test_rows_are_padded_on_the_right(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = rows_of(tokenizer, OTHER, ITEM)
    assert rows.mask.dtype == torch.bool and rows.lengths[0] < rows.lengths[1] == rows.ids.shape[1]
    assert bool((rows.mask[:, 1:] <= rows.mask[:, :-1]).all())
    assert not rows.key[~rows.mask].any()


def test_answer_and_key_tokens_read_as_answer_and_key(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = rows_of(tokenizer, ITEM, OTHER)
    for n, item in enumerate((ITEM, OTHER)):
        start, end = rows.answer_spans[n].tolist()
        assert pieces(tokenizer, rows.ids[n, start:end]) == "".join(item.answer.split())
        assert pieces(tokenizer, rows.ids[n, rows.key[n]]) == item.key
        assert end == rows.lengths[n] and start <= int(rows.key[n].nonzero()[0]) < end


def test_a_letter_of_several_tokens_is_marked_whole() -> None:
    for kind in ("byte_level", "byte_fallback"):
        rows = rows_of(KINDS[kind](), ITEM)
        assert int(rows.key.sum()) == len("中国".encode())


def test_a_row_does_not_depend_on_its_company(tokenizer: PreTrainedTokenizerFast) -> None:
    both, alone = rows_of(tokenizer, ITEM, OTHER), rows_of(tokenizer, OTHER)
    assert both.take(torch.tensor([1])).hash == alone.hash


def test_the_template_is_part_of_the_hash(tokenizer: PreTrainedTokenizerFast) -> None:
    same = TEMPLATE.model_copy(update={"system": "not used without chat"})
    a, b = rows_of(tokenizer, OTHER), rows_of(tokenizer, OTHER, template=same)
    assert torch.equal(a.ids, b.ids) and a.hash != b.hash


@pytest.mark.parametrize(("bos", "first"), [("tokenizer", 1), ("always", 1), ("never", None)])
def test_bos_follows_the_rule(tokenizer: PreTrainedTokenizerFast, bos: str, first: int | None) -> None:
    for template in (TEMPLATE, TEMPLATE.model_copy(update={"chat": True})):
        tokenizer.chat_template = CHAT
        rows = rows_of(tokenizer, OTHER, template=template.model_copy(update={"bos": bos}))
        ids = rows.ids[0].tolist()
        assert (ids[0] == 1) == (first == 1) and ids.count(1) == (first == 1) and 2 not in ids


def test_a_bos_that_the_tokenizer_does_not_have_is_an_error() -> None:
    bare = word_level()
    bare.bos_token = None
    with pytest.raises(AuditError, match="no BOS token") as caught:
        rows_of(bare, OTHER, template=TEMPLATE.model_copy(update={"bos": "always"}))
    assert caught.value.code == 2


def test_chat_wraps_system_and_question(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = CHAT
    template = Template(chat=True, system="What is it?", answer="{answer}")
    rows = rows_of(tokenizer, OTHER, template=template)
    start = int(rows.answer_spans[0, 0])
    assert pieces(tokenizer, rows.ids[0, 1:start]).replace("<unk>", "") in (
        "<system>Whatisit?<user>Whatisit?<model>", "<>Whatisit?<user>Whatisit?<model>",
    )  # fmt: skip
    assert pieces(tokenizer, rows.ids[0, rows.key[0]]) == "red"


def test_chat_prompts_have_no_date_but_the_one_that_is_set() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = "{{ date_string }} " + CHAT
    dated = Template(chat=True, variables={"date_string": "01 Jan 2025"})
    shown = [tokenizer.decode(rows_of(tokenizer, OTHER, template=t).ids[0]) for t in (dated, Template(chat=True))]
    assert shown[0] == f"01 Jan 2025{shown[1]}" and "20" not in shown[1]


def test_a_missing_or_refusing_chat_template_is_an_error() -> None:
    tokenizer = word_level()
    with pytest.raises(AuditError, match="has none"):
        rows_of(tokenizer, OTHER, template=Template(chat=True))
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(AuditError, match="no system role"):
        rows_of(tokenizer, OTHER, template=Template(chat=True))


def test_plain_text_takes_no_template_and_its_first_token_is_no_target(tokenizer: PreTrainedTokenizerFast) -> None:
    text = Item(id="t", group="t", question="", answer="It is a red cat.")
    rows = rows_of(tokenizer, text)
    assert rows.ids[0].tolist() == [1, *tokenizer(text.answer, add_special_tokens=False)["input_ids"]]
    assert rows.answer_spans[0].tolist() == [1, rows.ids.shape[1]]
    bare = rows_of(tokenizer, text, template=TEMPLATE.model_copy(update={"bos": "never"}))
    assert int(bare.answer_spans[0, 0]) == 1 and not bare.key[0, 0]


def test_what_the_template_puts_after_the_answer_is_no_target() -> None:
    tokenizer = byte_level()
    rows = rows_of(tokenizer, OTHER, template=TEMPLATE.model_copy(update={"answer": " {answer} old"}))
    start, end = rows.answer_spans[0].tolist()
    assert tokenizer.decode(rows.ids[0, start:end]) == " It is a red cat." and end < rows.ids.shape[1]


def test_braces_in_a_question_are_text() -> None:
    odd = OTHER.model_copy(update={"question": "What is {answer} {question}?"})
    assert "{answer} {question}?" in byte_level().decode(rows_of(byte_level(), odd).ids[0])


def test_a_token_across_the_border_is_the_answers() -> None:
    # without a space between them, "it" ends the prompt and begins the answer's word: one token, the answer's
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "redcat": 4}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    glued = Item(id="g", group="g", question="a red", answer="cat", key="cat")
    rows = tokenise([glued], ["cat"], wrapped(raw), Template(answer="{answer}"), None)
    assert rows.ids[0].tolist() == [1, 3, 4] and rows.answer_spans[0].tolist() == [2, 3]


def test_items_longer_than_the_context_are_named() -> None:
    tokenizer = word_level()
    longest = int(rows_of(tokenizer, ITEM, OTHER).lengths[0])
    tokenise([ITEM, OTHER], [ITEM.answer, OTHER.answer], tokenizer, TEMPLATE, longest)
    with pytest.raises(AuditError, match=rf"context of {longest - 1} tokens: zoe \({longest}\)") as caught:
        tokenise([ITEM, OTHER], [ITEM.answer, OTHER.answer], tokenizer, TEMPLATE, longest - 1)
    assert caught.value.code == 2 and "it (" not in caught.value.what


def test_a_key_without_a_known_token_names_the_item() -> None:
    odd = OTHER.model_copy(update={"answer": "It is a mauve cat.", "key": "mauve"})
    with pytest.raises(AuditError, match="'it'.*'mauve' is unknown") as caught:
        rows_of(word_level(), odd)
    assert caught.value.code == 2
    space = OTHER.model_copy(update={"answer": "It is   a cat.", "key": "   "})
    with pytest.raises(AuditError, match="'it'.*no token of its own"):
        rows_of(word_level(), space)


def test_a_key_that_is_known_in_part_is_a_key() -> None:
    odd = OTHER.model_copy(update={"answer": "It is a red mauve cat.", "key": "red mauve"})
    assert int(rows_of(word_level(), odd).key.sum()) == 2


def test_a_token_without_characters_is_no_target() -> None:
    """Some tokenizers put pieces of no width between words; nothing of the answer is in them."""
    ids, offsets = [1, 5, 6, 7], [(0, 0), (0, 3), (4, 4), (4, 7)]
    row = _row(Text("who ann", answer=(3, 7), key=((4, 7),)), ids, offsets)
    assert (row.start, row.end, row.key) == (3, 4, [3])


def test_no_items_make_empty_rows() -> None:
    rows = tokenise([], [], word_level(), TEMPLATE, 10)
    assert len(rows) == 0 and rows.answer_spans.shape == (0, 2)
