"""Items and a prompt template in, tokenised rows out. Answer and key tokens are found by character offsets.

The prompt and the answer are tokenised as one text or each for itself, by the template's seam: a token that straddles
the border counts as the answer's, one that reaches into the key's characters as a key token. This holds for word-level
tokenizers, for pieces with a leading space and for byte fallback (several tokens of one character). Special tokens that
a tokenizer would append are left out; the beginning follows the template's BOS rule alone, and has one BOS at most.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from audit.case.content_rule import every_content_spans
from audit.case.picture_template import PictureTemplate
from audit.case.prompts import Text, Wording
from audit.case.read_back import Spans, lost_words
from audit.case.rows import Rows
from audit.schema import AuditError, Item, Template, as_audit_error

# What fills the end of a row is masked, so any id that every model knows will do. The tokenizer's own padding token may
# be none of the model's: it is often appended to a tokenizer and to no embedding.
_PAD = 0
_UNREAD, _CHECK = "base's tokenizer cannot read the items", "check the data and base's tokenizer files"


class Tokenised(NamedTuple):
    """One row: ids, the answer's tokens [start, end), and the positions of its key tokens.

    Before ``split`` lies every token that holds any of the prompt; from ``first`` on lie those of the answer, targets
    or not. ``merged``: one token holds the prompt's end and some of the answer's part. ``ragged``: a token at an end of
    the answer reaches beyond it. ``bos``: a BOS of the text was left out. ``offsets``: which of the text's characters
    each token covers.
    """

    ids: list[int]
    start: int
    end: int
    key: list[int]
    split: int = 0
    first: int = 0
    merged: bool = False
    ragged: bool = False
    bos: bool = False
    offsets: Sequence[tuple[int, int]] = ()


class QuestionToken(NamedTuple):
    """A token of a row's prompt that holds some of the question: its position, and which characters of the question."""

    position: int
    begin: int
    end: int


class Encoded(NamedTuple):
    """The ids of one text, and which of its characters each covers."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Noticed(NamedTuple):
    """What is to be told of one row. ``merged``: one token holds the end of the prompt and the start of the answer.

    ``spaces``: white space on both sides of that seam, or before an answer that brings its own. ``bos``: the text
    began with a BOS token, which the template's rule puts or does not want: it was left out. ``lost``: words that no
    token holds.
    """

    merged: bool
    spaces: bool
    bos: bool
    lost: tuple[str, ...]


class Tokenisation(NamedTuple):
    """The rows, and what was noticed of each."""

    rows: Rows
    noticed: tuple[Noticed, ...]


def tokenise(
    items: Sequence[Item], answers: Sequence[str], tokenizer: Any, template: Template, max_length: int | None,
    function_words: AbstractSet[str] | None = None,
) -> Rows:  # fmt: skip
    """Rows of the items with the given answers, right-padded, in the given order.

    ``tokenizer`` is a fast tokenizer of transformers, ``function_words`` are the case's
    (:mod:`audit.case.function_words`; None: the English ones). AuditError (code 2) names items that are longer than
    ``max_length`` tokens, items whose key has no token of its own or is unknown to the tokenizer, items whose question
    or answer is not in what the model would read, and a second BOS token.
    """
    check_words_alone(items)
    return tokenised(items, answers, tokenizer, template, max_length, function_words).rows


def check_words_alone(items: Sequence[Item]) -> None:
    """AuditError (code 2) for items that ask about pictures: rows of theirs are made by their case alone."""
    if any(item.image is not None for item in items):
        raise AuditError("these items ask about pictures, and what is made of them here are prompts of words alone",
                         "ask it of a case of texts")  # fmt: skip


def tokenised(
    items: Sequence[Item], answers: Sequence[str], tokenizer: Any, template: Template, max_length: int | None,
    function_words: AbstractSet[str] | None = None,
) -> Tokenisation:  # fmt: skip
    """As :func:`tokenise`, with what was noticed on the way."""
    prefix, wording = _prefix(tokenizer, template), Wording(tokenizer, template)
    keys = every_content_spans(items, answers, function_words)
    texts = [wording(*row) for row in zip(items, answers, keys, strict=True)]
    rows = list(_encoded(items, texts, tokenizer, template, prefix))
    if max_length is not None:
        too_long = [f"{i.id} ({len(r.ids)})" for i, r in zip(items, rows, strict=True) if len(r.ids) > max_length]
        if too_long:
            shown = ", ".join(too_long[:3]) + (f" and {len(too_long) - 3} more" if len(too_long) > 3 else "")
            raise AuditError(
                f"longer than the model's context of {max_length} tokens: {shown}", "shorten or leave out these items"
            )
    n = len(prefix)
    spans = [Spans(r.ids[n:], r.ids[n : r.split], r.ids[r.first : r.end], r.ragged) for r in rows]
    lost = lost_words(items, texts, spans, tokenizer)
    noticed = [Noticed(r.merged, t.spaces, r.bos, words) for r, t, words in zip(rows, texts, lost, strict=True)]
    return Tokenisation(_padded(items, rows, tokenizer, template), tuple(noticed))


def question_tokens(
    items: Sequence[Item], answers: Sequence[str], tokenizer: Any, template: Template,
    function_words: AbstractSet[str] | None = None,
) -> tuple[tuple[QuestionToken, ...], ...]:  # fmt: skip
    """Which tokens of the rows that :func:`tokenise` makes hold the question; all others before the answer are the
    template's (its words, its chat tokens, a BOS).

    Empty for plain text, and where the template does not bring the question as it is written. Where it brings it more
    than once, all of them are the question's. A token that holds some of the answer is the answer's.
    """
    check_words_alone(items)
    prefix, wording = _prefix(tokenizer, template), Wording(tokenizer, template)
    texts = [
        wording(*row) for row in zip(items, answers, every_content_spans(items, answers, function_words), strict=True)
    ]
    rows: list[tuple[QuestionToken, ...]] = []
    for item, text, row in zip(items, texts, _encoded(items, texts, tokenizer, template, prefix), strict=True):
        prompt = list(enumerate(row.offsets[: row.start]))
        tokens = [
            QuestionToken(at, max(a, begin) - origin, min(b, end) - origin)
            for begin, end, origin in wording.question_spans(item, text.text[: text.seam])
            for at, (a, b) in prompt
            if max(a, begin) < min(b, end)
        ]
        rows.append(tuple(sorted(tokens)))
    return tuple(rows)


def _padded(items: Sequence[Item], rows: Sequence[Tokenised], tokenizer: Any, template: Template) -> Rows:
    width = max((len(row.ids) for row in rows), default=0)
    lengths = torch.tensor([len(row.ids) for row in rows], dtype=torch.int64)
    padded = [[*row.ids, *[_PAD] * (width - len(row.ids))] for row in rows]
    ids = torch.tensor(padded, dtype=torch.int64).reshape(len(rows), width)
    mask = torch.arange(width) < lengths[:, None]
    key = torch.zeros((len(rows), width), dtype=torch.bool)
    marked = [(n, at) for n, row in enumerate(rows) for at in row.key]
    key[[n for n, _ in marked], [at for _, at in marked]] = True
    return Rows(
        ids=ids, mask=mask, key=key, template_hash=template.content_hash(),
        answer_spans=torch.tensor([[row.start, row.end] for row in rows], dtype=torch.int64).reshape(-1, 2),
        item_ids=tuple(item.id for item in items), group_ids=tuple(item.group for item in items),
    )  # fmt: skip


def prompt_rows(texts: Sequence[str], groups: Sequence[str], tokenizer: Any, template: Template) -> Rows:
    """Rows of worded prompts that are answered by nothing, as the template's BOS rule begins them."""
    prefix, bos = _prefix(tokenizer, template), tokenizer.bos_token_id
    with as_audit_error(_UNREAD, _CHECK):
        encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    ruled = bos is not None and (template.bos != "tokenizer" or bos in prefix)
    read = [[*prefix, *(ids[1:] if ruled and ids[:1] == [bos] else ids)] for ids in encoded]
    rows = [Tokenised(ids, len(ids), len(ids), []) for ids in read]
    items = [Item(id=f"{group}/{n}", group=group, question="", answer="") for n, group in enumerate(groups)]
    return _padded(items, rows, tokenizer, template)


def stacked(parts: Sequence[Rows]) -> Rows:
    """Rows of one template below one another, padded to the widest."""
    assert len({(rows.template_hash, *rows.extra) for rows in parts}) == 1, "one template, the same extras"
    width = max(rows.ids.shape[1] for rows in parts)

    def wide(tensors: list[Tensor]) -> Tensor:
        return torch.cat([functional.pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors])

    return Rows(
        ids=wide([rows.ids for rows in parts]), mask=wide([rows.mask for rows in parts]),
        answer_spans=torch.cat([rows.answer_spans for rows in parts]), key=wide([rows.key for rows in parts]),
        item_ids=tuple(name for rows in parts for name in rows.item_ids),
        group_ids=tuple(name for rows in parts for name in rows.group_ids), template_hash=parts[0].template_hash,
        extra={name: torch.cat([rows.extra[name] for rows in parts]) for name in parts[0].extra},
    )  # fmt: skip


def _prefix(tokenizer: Any, template: Template) -> list[int]:
    """The ids put before every row: BOS by the template's rule, or what the tokenizer itself puts first."""
    if template.bos == "always":
        if tokenizer.bos_token_id is None:
            raise AuditError("[template] bos = 'always', and the tokenizer has no BOS token", "set bos = 'tokenizer'")
        return [tokenizer.bos_token_id]
    if template.bos == "never" or (template.chat and not isinstance(template, PictureTemplate)):
        return []
    with as_audit_error(_UNREAD, _CHECK):
        bare, full = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    starts = (n for n in range(len(full) - len(bare) + 1) if full[n : n + len(bare)] == bare)
    return full[: next(starts, 0)]


def _encoded(
    items: Sequence[Item], texts: Sequence[Text], tokenizer: Any, template: Template, prefix: list[int]
) -> Iterator[Tokenised]:
    """The rows, one after another."""
    unknown = tokenizer.unk_token_id
    for item, text, encoded in zip(items, texts, _ids(texts, tokenizer, template), strict=True):
        drop = _surplus(item, text, encoded.ids, tokenizer, template, prefix)
        ids, offsets = encoded.ids[drop:], encoded.offsets[drop:]
        row = _row(text, [*prefix, *ids], [(0, 0)] * len(prefix) + offsets)
        if not row.key or all(row.ids[at] == unknown for at in row.key):
            problem = "has no token of its own" if not row.key else "is unknown to the tokenizer"
            shown = " ".join(text.text[a:b] for a, b in text.key)
            raise AuditError(
                f"item {item.id!r}: the key {shown!r} {problem}", "give another `key`, or leave the item out"
            )
        yield row._replace(bos=drop > 0 and not template.chat)


def _ids(texts: Sequence[Text], tokenizer: Any, template: Template) -> Iterator[Encoded]:
    """Every text as the tokenizer reads it, at one go or prompt and answer each for itself."""

    def read(strings: list[str]) -> list[Encoded]:
        if not strings:
            return []
        with as_audit_error(_UNREAD, _CHECK):
            batch = tokenizer(strings, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [Encoded(*row) for row in zip(batch["input_ids"], batch["offset_mapping"], strict=True)]

    if template.seam == "joint":
        yield from read([text.text for text in texts])
        return
    heads, tails = read([t.text[: t.seam] for t in texts]), read([t.text[t.seam :] for t in texts])
    for text, head, tail in zip(texts, heads, tails, strict=True):
        moved = [(a + text.seam, b + text.seam) for a, b in tail.offsets]
        yield Encoded([*head.ids, *tail.ids], [*head.offsets, *moved])


def _surplus(item: Item, text: Text, ids: list[int], tokenizer: Any, template: Template, prefix: list[int]) -> int:
    """How many BOS tokens at the beginning of a text are left out: one, where the rule puts its own or wants none.

    AuditError (code 2) if the row would still have a second one. A BOS that is the end token too may stand inside.
    """
    bos = tokenizer.bos_token_id
    if bos is None or bos not in ids:
        return 0
    leading = next((n for n, token in enumerate(ids) if token != bos), len(ids))
    ruled = template.bos != "tokenizer" or bos in prefix  # a chat template and a prompt may bring their own
    drop = min(leading, 1) if ruled else 0
    problem = ""
    if leading > 1:
        problem = f"begins with {leading} BOS tokens"
    elif bos in ids[leading:] and bos != tokenizer.eos_token_id:
        given = template.prompt + template.system + item.question + text.text[text.seam :]
        if not template.chat or tokenizer.bos_token in given:  # what a chat template puts itself was learned so
            problem = "has a BOS token inside"
    if problem:
        do = (
            f"take {tokenizer.bos_token!r} out of the text, and let `bos` in [template] put the one that base was given"
        )
        raise AuditError(f"item {item.id!r}: what the model would read {problem}", do)
    return drop


def _row(text: Text, ids: list[int], offsets: list[tuple[int, int]]) -> Tokenised:
    """Which tokens are the answer's and the key's? The first token of all is never one: nothing predicts it."""
    (begin, stop), seam, keys = text.answer, text.seam, text.key
    holding, key, prompt = list[int](), list[int](), list[int]()
    for at, (a, b) in enumerate(offsets):
        if b <= a:
            continue
        if a < seam:
            prompt.append(at)
        if a < stop and b > begin:
            holding.append(at)
            if at and any(a < key_end and b > key_begin for key_begin, key_end in keys):
                key.append(at)
    inside = holding[1:] if holding[:1] == [0] else holding
    start, end = (inside[0], inside[-1] + 1) if inside else (len(ids), len(ids))
    first = holding[0] if holding else start
    return Tokenised(
        ids, start, end, key, split=prompt[-1] + 1 if prompt else 0, first=first,
        merged=any(offsets[at][1] > text.seam for at in prompt),
        ragged=bool(holding) and (offsets[first][0] < begin or offsets[end - 1][1] > stop), offsets=offsets,
    )  # fmt: skip
