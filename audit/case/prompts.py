"""A question and an answer worded as one text, of which is known what is the prompt's, the answer's and the key's.

Whatever words the question (two strings, or a chat template), it must be whole in the prompt: a chat template may
ignore, cut or rewrite what it is given.
"""

import html
import json
import unicodedata
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from audit.case.chat_template import ChatPrompt
from audit.schema import AuditError, Item, Template
from audit.wording import Span


class Text(NamedTuple):
    """A full text, and which of its characters are the answer's (with the space before it) and the key's.

    The first ``seam`` characters are the prompt. ``spaces``: white space stands on both sides of the seam, or before an
    answer that brings its own.
    """

    text: str
    answer: tuple[int, int]
    key: tuple[tuple[int, int], ...]
    seam: int = 0
    spaces: bool = False


class QuestionSpan(NamedTuple):
    """Where a question stands in a prompt, in characters; ``origin``: where it would begin with its own white space."""

    begin: int
    end: int
    origin: int


class Wording:
    """Words items by one template. AuditError (code 2) if the template cannot, or drops a question."""

    def __init__(self, tokenizer: Any, template: Template) -> None:
        self._tokenizer, self._template = tokenizer, template
        unread = [name for name in ("chat_template", "variables") if getattr(template, name)]
        if unread and not template.chat:
            raise AuditError(f"[template] states {' and '.join(unread)} without a chat template", "set `chat = true`")

    @cached_property
    def _chat(self) -> ChatPrompt:
        return ChatPrompt(self._tokenizer, self._template)

    def __call__(self, item: Item, answer: str, key: tuple[Span, ...]) -> Text:
        """Prompt and answer as one text; ``key`` are spans of the answer. Plain text (no question) is taken as it is,
        without a template."""
        before, lead, after = "", "", ""
        if item.question:
            prompt = self._template.prompt.replace("{question}", item.question)
            before = self._chat(prompt) if self._template.chat else prompt
            _check_question(item, before)
            lead, _, after = self._template.answer.partition("{answer}")
        begin = len(before) + len(lead)
        return Text(
            text=before + lead + answer + after,
            answer=(len(before) + len(lead.rstrip()), begin + len(answer)),
            key=tuple((begin + a, begin + b) for a, b in key),
            seam=len(before),
            spaces=_meet(before, lead + answer) or _meet(lead, answer),
        )

    def question_spans(self, item: Item, before: str) -> tuple[QuestionSpan, ...]:
        """Where the question stands in a prompt of this template; () for plain text, and where it was rewritten."""
        pieces = self._template.prompt.split("{question}")
        prompt = item.question.join(pieces)
        bare = prompt.strip()  # most chat templates strip what they are given
        first = before.rfind(bare)
        if not item.question or first < 0:
            return ()
        origin, stop = first - prompt.index(bare), first + len(bare)
        spans: list[QuestionSpan] = []
        for piece in pieces[:-1]:
            origin += len(piece)
            end = origin + len(item.question)
            spans.append(QuestionSpan(max(origin, first), min(end, stop), origin))
            origin = end
        return tuple(spans)


@lru_cache(maxsize=4096)
def folded(text: str) -> str:
    """The characters of a text without white space, case and compatibility forms: what is compared of two texts."""
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return "".join(plain.casefold().split())


def _meet(left: str, right: str) -> bool:
    return left[-1:].isspace() and right[:1].isspace()


def _check_question(item: Item, prompt: str) -> None:
    """Is the question whole in the prompt, as it is or escaped?"""
    read = folded(prompt)
    if folded(item.question) in read:
        return
    quoted = (folded(json.dumps(item.question, ensure_ascii=plain)[1:-1]) for plain in (False, True))
    if folded(item.question) not in folded(html.unescape(prompt)) and not any(form in read for form in quoted):
        lost = [word for word in item.question.split() if folded(word) not in read]
        missing = f" ({', '.join(lost[:5])})" if lost else ""
        raise AuditError(
            f"item {item.id!r}: its question is not whole in the prompt that [template] makes of it{missing}",
            "give a template that asks the whole question: the model cannot answer what it does not read",
        )
