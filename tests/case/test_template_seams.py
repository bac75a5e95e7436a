"""Seams, spaces, BOS rules, chat, tokenizers of every kind: what is asked is what the model reads, or it is refused."""

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from audit.case.prompts import folded
from audit.case.read_back import Spans, lost_words
from audit.case.template_notes import ItemNotice, sentences
from audit.case.tokenisation import Noticed, Text, tokenised
from audit.schema import AuditError, Item, Template
from tests.case.test_rows import CHAT, ITEM, KINDS, OTHER, SPECIAL, TEXTS, wrapped

BOS = 1


def lower_case() -> PreTrainedTokenizerFast:
    """As BERT uncased: lower case, no accents."""
    raw = KINDS["word_level"]().backend_tokenizer
    raw.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()])
    words = "where does zoe muller live lives in aix en provence of old what is it a red cat question answer 中国"
    entries = ["<unk>", "<s>", "</s>", *words.split(), *"?-,.:<>\n", "user", "model", "system"]
    raw.model = models.WordLevel({word: n for n, word in enumerate(entries)}, unk_token="<unk>")
    return wrapped(raw)


def prepending() -> PreTrainedTokenizerFast:
    """As Llama 2 before its repair: a space before every text that is tokenised."""
    raw = KINDS["byte_fallback"]().backend_tokenizer
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.pre_tokenizer = None
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return wrapped(raw)


def without_bos() -> PreTrainedTokenizerFast:
    """As GPT-2 and Qwen: puts nothing first by itself."""
    raw = KINDS["byte_level"]().backend_tokenizer
    raw.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def merging() -> PreTrainedTokenizerFast:
    """Byte level with enough merges that a word has its space in its token, and many a word is one."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        special_tokens=SPECIAL, vocab_size=420, show_progress=False, initial_alphabet=alphabet
    )
    raw.train_from_iterator([*TEXTS, f" {ITEM.answer} {OTHER.answer}"] * 3, trainer)
    return wrapped(raw)


def plain_byte_level() -> PreTrainedTokenizerFast:
    """Byte level without a decoder of its own: ids decode to pieces and not to text."""
    raw = KINDS["byte_level"]().backend_tokenizer
    raw.decoder = decoders.Fuse()
    return wrapped(raw)


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    **KINDS, "lower_case": lower_case, "prepending": prepending, "without_bos": without_bos,
    "merging": merging, "plain_byte_level": plain_byte_level,
}  # fmt: skip
MADE = {name: make() for name, make in TOKENIZERS.items()}
for _made in MADE.values():
    _made.chat_template = CHAT


def shown(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return folded(str(tokenizer.decode(ids, skip_special_tokens=False)))


class Variant(NamedTuple):
    """One way to word an item, and the tokenizer that reads it."""

    name: str
    seam: Literal["joint", "apart"]
    bos: Literal["tokenizer", "always", "never"]
    chat: bool
    head: str
    tail: str
    lead: str
    after: str
    spaces: tuple[str, str]
    item: Item


VARIANTS = st.builds(
    Variant, name=st.sampled_from(sorted(MADE)), seam=st.sampled_from(["joint", "apart"]),
    bos=st.sampled_from(["tokenizer", "always", "never"]), chat=st.booleans(),
    head=st.sampled_from(["", "<s>", "<s> ", "<s><s>", "Question: "]),
    tail=st.sampled_from(["", " ", "\n", "  ", "\nAnswer:", "\nAnswer: ", "<s>"]),
    lead=st.sampled_from(["", " ", "\n", "  ", " It is "]), after=st.sampled_from(["", ".", " old", "</s>"]),
    spaces=st.tuples(st.sampled_from(["", " ", "\n"]), st.sampled_from(["", " "])), item=st.sampled_from([ITEM, OTHER]),
)  # fmt: skip


@pytest.mark.thorough
@settings(max_examples=400, deadline=None)
@given(VARIANTS)
def test_question_and_answer_are_read_whole_behind_one_bos_or_refused(variant: Variant) -> None:
    name, seam, bos, chat, head, tail, lead, after, spaces, item = variant
    answer = item.answer.join(spaces)
    tokenizer = MADE[name]
    template = Template(
        prompt=f"{head}{{question}}{tail}", answer=f"{lead}{{answer}}{after}", chat=chat, seam=seam, bos=bos
    )
    asked = item.model_copy(update={"answer": answer})
    literal = f"{head}{tail}".count("<s>")
    try:
        made = tokenised([asked], [answer], tokenizer, template, None)
    except AuditError as error:
        assert "BOS" in error.what and (literal > 1 or "<s>" in tail or (chat and literal)), error
        return
    assert literal == 0 or (literal == 1 and "<s>" in head and not chat)
    rows = made.rows
    ids = rows.ids[0].tolist()
    start, stop = rows.answer_spans[0].tolist()
    puts = {"always": True, "never": False, "tokenizer": chat or literal == 1 or name != "without_bos"}[bos]
    assert ids.count(BOS) == puts == (ids[0] == BOS)
    if name == "plain_byte_level" or (after == "." and name in ("word_level", "lower_case")):
        return  # what it decodes to is no text; ".." is no word of these
    accents = str.maketrans("ëü", "eu") if name == "lower_case" else {}
    question, wanted = (folded(text).translate(accents) for text in (item.question, answer))
    assert question in shown(tokenizer, ids[:start]) or (made.noticed[0].merged and question in shown(tokenizer, ids))
    read = shown(tokenizer, ids[start:stop])
    glued = made.noticed[0].merged or read == wanted + after.strip()
    assert read == wanted or (glued and wanted in read), (read, wanted)
    key = shown(tokenizer, rows.ids[0, rows.key[0]].tolist())
    assert folded(str(item.key)).translate(accents) in key
    assert made.noticed[0].lost == ()
    if seam == "apart":
        assert not made.noticed[0].merged
        part = lead + answer + after
        cut = len(ids) - len(tokenizer(part, add_special_tokens=False)["input_ids"])
        assert ids[cut:] == tokenizer(part, add_special_tokens=False)["input_ids"]


def test_apart_and_joint_differ_where_a_token_holds_both_sides() -> None:
    tokenizer = MADE["merging"]
    items = [OTHER, ITEM, OTHER.model_copy(update={"id": "text", "question": ""})]
    answers = [item.answer for item in items]
    given_space = Template(prompt="{question} ", answer="{answer}")
    joint = tokenised(items, answers, tokenizer, given_space, None)
    apart = tokenised(items, answers, tokenizer, given_space.model_copy(update={"seam": "apart"}), None)
    assert [one.merged for one in joint.noticed] == [True, True, False]
    assert [one.merged for one in apart.noticed] == [False, False, False]
    assert joint.rows.ids[0].tolist() != apart.rows.ids[0].tolist()
    plain = [made.rows.ids[2][made.rows.mask[2]].tolist() for made in (joint, apart)]
    assert plain[0] == plain[1], "plain text has no seam"
    notes = sentences([ItemNotice(item.id, one) for item, one in zip(items, joint.noticed, strict=True)])
    assert notes == (
        'in 2 of 3 items one token holds the end of the prompt and the start of the answer (`seam = "apart"` in '
        "[template] tokenises each for itself)",
    )


def test_spaces_that_meet_and_a_bos_that_is_there_already_are_told() -> None:
    tokenizer = merging()
    tokenizer.chat_template = CHAT.replace("<model>", "<model>\n")
    own = OTHER.model_copy(update={"answer": " It is a red cat."})
    cases = [
        (own, Template(), "white space meets white space"), (OTHER, Template(prompt="{question}\n"), "white space"),
        (OTHER, Template(chat=True), "white space"), (OTHER, Template(prompt="<s>{question}"), "begins with a BOS"),
        (OTHER, Template(), None), (own, Template(answer="{answer}"), None),
        (OTHER, Template(chat=True, answer="{answer}"), None),
        (OTHER, Template(prompt="<s>{question}", bos="never"), "begins with a BOS"),
    ]  # fmt: skip
    for item, template, words in cases:
        [one] = tokenised([item], [item.answer], tokenizer, template, None).noticed
        notes = sentences([ItemNotice(item.id, one)])
        assert (words is None and notes == ()) or (words and len(notes) == 1 and words in notes[0]), (template, notes)


def test_a_beginning_that_is_the_end_token_too_may_stand_inside() -> None:
    tokenizer = without_bos()
    tokenizer.eos_token = "<s>"
    template = Template(prompt="<s>{question}", answer=" {answer}<s>")
    made = tokenised([OTHER], [OTHER.answer], tokenizer, template, None)
    assert made.rows.ids[0].tolist().count(BOS) == 2 and int(made.rows.ids[0, 0]) == BOS


def test_what_a_chat_template_itself_puts_inside_stays() -> None:
    tokenizer = KINDS["byte_level"]()
    tokenizer.chat_template = CHAT.replace("<model>", "{{ bos_token }}<model>")
    ids = tokenised([OTHER], [OTHER.answer], tokenizer, Template(chat=True), None).rows.ids[0].tolist()
    assert ids.count(BOS) == 2
    with pytest.raises(AuditError, match="BOS token inside"):
        tokenised([OTHER], [OTHER.answer], tokenizer, Template(chat=True, system="<s>It"), None)


# ---- words that are lost -------------------------------------------------------------------------------------------
def test_words_that_the_tokenizer_does_not_know_are_told_and_none_left_is_an_error() -> None:
    tokenizer = MADE["word_level"]
    odd = OTHER.model_copy(update={"question": "What is mauve?", "answer": "It is a red ocelot."})
    [one] = tokenised([odd], [odd.answer], tokenizer, Template(), None).noticed
    assert one.lost == ("mauve?", "ocelot.")
    notices = [ItemNotice("it", one), ItemNotice("ok", one._replace(lost=()))]
    told = "in 1 of 2 items the model does not read every word"
    assert sentences(notices) == (told,), "no word of the data where it is not asked for"
    assert sentences(notices, quoting=True) == (f"{told}: 'mauve?' (it), 'ocelot.' (it)",)
    unread = OTHER.model_copy(update={"question": "mauve ocelot"})
    with pytest.raises(AuditError, match="'it': none of the words of its question") as caught:
        tokenised([unread], [unread.answer], tokenizer, Template(), None)
    assert caught.value.code == 2


def test_offsets_that_lie_are_found_by_decoding() -> None:
    """The answer's tokens by offsets, against what they decode to: shifted by one, either way, and widened."""
    tokenizer = MADE["word_level"]
    text = "What is it? It is a red cat."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    worded = Text(text, (12, len(text)), ((20, 23),), seam=11)
    cut = ids.index(tokenizer("?", add_special_tokens=False)["input_ids"][0]) + 1
    for ragged, (a, b) in itertools.product((False, True), ((cut, None), (cut - 1, None), (cut + 1, None), (cut, -1))):
        spans = Spans(ids, ids[:cut], ids[a:b], ragged)
        wrong = (a, b) != (cut, None) and not (ragged and a == cut - 1)
        if wrong:
            with pytest.raises(AuditError, match="'it': the tokens of its answer 'It is a red cat.' decode to"):
                list(lost_words([OTHER], [worded], [spans], tokenizer))
        else:
            assert list(lost_words([OTHER], [worded], [spans], tokenizer)) == [()]
    with pytest.raises(AuditError, match="the tokens of its question"):
        list(lost_words([OTHER], [worded], [Spans(ids, ids[: cut - 2], ids[cut:], False)], tokenizer))


def test_notices_of_nothing_are_no_sentences() -> None:
    assert sentences([]) == () == sentences([ItemNotice("a", Noticed(False, False, False, ()))])
