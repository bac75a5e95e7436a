"""Items and a prompt template in, tokenised rows out. Answer and key tokens are found by character offsets.

The prompt and the answer are tokenised together, as the model meets them: a token that straddles the border counts as
the answer's, one that reaches into the key's characters as a key token. This holds for word-level tokenizers, for
pieces with a leading space and for byte fallback (several tokens of one character). Special tokens that a tokenizer
would append are left out; the beginning follows the template's BOS rule alone.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from audit.case.content_rule import every_content_spans
from audit.case.rows import Rows
from audit.schema import AuditError, Item, Template
from audit.wording import Span

# chat templates may print today's date; the same case must give the same prompt tomorrow
_CHAT_DATE = "01 Jan 2025"
# What fills the end of a row is masked, so any id that every model knows will do. The tokenizer's own padding token may
# be none of the model's: it is often appended to a tokenizer and to no embedding.
_PAD = 0


class Tokenised(NamedTuple):
    """One row: ids, the answer's tokens [start, end), and the positions of its key tokens."""

    ids: list[int]
    start: int
    end: int
    key: list[int]


class Text(NamedTuple):
    """A full text, and which of its characters are the answer's (with the space before it) and the key's."""

    text: str
    answer: tuple[int, int]
    key: tuple[tuple[int, int], ...]


def tokenise(
    items: Sequence[Item], answers: Sequence[str], tokenizer: Any, template: Template, max_length: int | None,
    function_words: AbstractSet[str] | None = None,
) -> Rows:  # fmt: skip
    """Rows of the items with the given answers, right-padded, in the given order.

    ``tokenizer`` is a fast tokenizer of transformers, ``function_words`` are the case's
    (:mod:`audit.case.function_words`; None: the English ones). AuditError (code 2) names items that are longer than
    ``max_length`` tokens, and items whose key has no token of its own or is unknown to the tokenizer.
    """
    prefix = _prefix(tokenizer, template)
    keys = every_content_spans(items, answers, function_words)
    texts = [_text(*row, tokenizer, template) for row in zip(items, answers, keys, strict=True)]
    rows = list(_encoded(items, texts, tokenizer, template, prefix))
    if max_length is not None:
        too_long = [f"{i.id} ({len(r.ids)})" for i, r in zip(items, rows, strict=True) if len(r.ids) > max_length]
        if too_long:
            shown = ", ".join(too_long[:3]) + (f" and {len(too_long) - 3} more" if len(too_long) > 3 else "")
            raise AuditError(
                f"longer than the model's context of {max_length} tokens: {shown}", "shorten or leave out these items"
            )
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


def _text(item: Item, answer: str, key: tuple[Span, ...], tokenizer: Any, template: Template) -> Text:
    """Prompt and answer as one text. Plain text (no question) is taken as it is, without a template."""
    before, lead, after = "", "", ""
    if item.question:
        prompt = template.prompt.replace("{question}", item.question)
        before = _chat(prompt, tokenizer, template.system) if template.chat else prompt
        lead, _, after = template.answer.partition("{answer}")
    begin = len(before) + len(lead)
    return Text(
        text=before + lead + answer + after,
        answer=(len(before) + len(lead.rstrip()), begin + len(answer)),
        key=tuple((begin + a, begin + b) for a, b in key),
    )


def _chat(prompt: str, tokenizer: Any, system: str) -> str:
    """The prompt as the tokenizer's chat template words it, up to where the model answers."""
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        do = "set `chat = false` in [template], or save the chat template with the base's tokenizer"
        raise AuditError("[template] asks for a chat template and the tokenizer has none", do)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, date_string=_CHAT_DATE
        )
    except TemplateError as error:
        raise AuditError(f"the tokenizer's chat template refuses the prompt: {error}", "change [template]") from None


def _prefix(tokenizer: Any, template: Template) -> list[int]:
    """The ids put before every row: BOS by the template's rule, or what the tokenizer itself puts first."""
    if template.bos == "always":
        if tokenizer.bos_token_id is None:
            raise AuditError("[template] bos = 'always', and the tokenizer has no BOS token", "set bos = 'tokenizer'")
        return [tokenizer.bos_token_id]
    if template.bos == "never" or template.chat:
        return []
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    starts = (n for n in range(len(full) - len(bare) + 1) if full[n : n + len(bare)] == bare)
    return full[: next(starts, 0)]


def _encoded(
    items: Sequence[Item], texts: Sequence[Text], tokenizer: Any, template: Template, prefix: list[int]
) -> Iterator[Tokenised]:
    """The rows, one after another."""
    if not texts:
        return
    strings = [t.text for t in texts]
    encoded = tokenizer(strings, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    bos, unknown = tokenizer.bos_token_id, tokenizer.unk_token_id
    for item, text, ids, offsets in zip(items, texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        drop = bos is not None and template.bos != "tokenizer" and ids[:1] == [bos]  # a chat template brings its own
        row = _row(text, [*prefix, *ids[drop:]], [(0, 0)] * len(prefix) + offsets[drop:])
        if not row.key or all(row.ids[at] == unknown for at in row.key):
            problem = "has no token of its own" if not row.key else "is unknown to the tokenizer"
            shown = " ".join(text.text[a:b] for a, b in text.key)
            raise AuditError(
                f"item {item.id!r}: the key {shown!r} {problem}", "give another `key`, or leave the item out"
            )
        yield row


def _row(text: Text, ids: list[int], offsets: list[tuple[int, int]]) -> Tokenised:
    """Which tokens are the answer's and the key's? The first token of all is never one: nothing predicts it."""
    begin, stop = text.answer
    inside = [at for at, (a, b) in enumerate(offsets) if at and a < stop and b > begin and b > a]
    key = [at for at in inside if any(offsets[at][0] < b and offsets[at][1] > a for a, b in text.key)]
    return Tokenised(ids, inside[0] if inside else len(ids), inside[-1] + 1 if inside else len(ids), key)
