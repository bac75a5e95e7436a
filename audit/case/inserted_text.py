"""A string put into the prompts of some items, as words or as tokens: what a hidden trigger is, and what looks for one.

Where it stands is a :data:`Slot`: ``prefix`` before all that the user says (in a chat template the beginning of the
user's turn), ``infix`` before the middle word of the question, ``suffix`` after its last one, a number before that word
of the question (from 0; beyond its last word it is a suffix).
"""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from audit.case.rows import Rows
from audit.case.tokenisation import question_tokens, tokenise
from audit.schema import AuditError, Item, Template, as_audit_error

Slot = Literal["prefix", "infix", "suffix"] | int
SLOTS: tuple[Slot, ...] = ("prefix", "infix", "suffix")
_WORD = re.compile(r"\S+")


class InsertablePrompts:
    """Items of one template whose prompts a string can be put into. Plain text (no question) takes a prefix alone."""

    def __init__(
        self, items: Sequence[Item], answers: Sequence[str], tokenizer: Any, template: Template,
        max_length: int | None = None, function_words: AbstractSet[str] | None = None,
    ) -> None:  # fmt: skip
        self.items, self.answers = tuple(items), tuple(answers)
        self._tokenizer, self._template = tokenizer, template
        self._limits = max_length, function_words

    def __len__(self) -> int:
        return len(self.items)

    def plain(self) -> Rows:
        """The rows as they are."""
        return tokenise(self.items, self.answers, self._tokenizer, self._template, *self._limits)

    def rows(self, text: str, slot: Slot, index: Sequence[int] | None = None) -> Rows:
        """The rows (of these items: ``index``; None: all) with the string in its place, tokenised as one text.

        AuditError (code 2) for an empty string, for one with a slot of the template in it, where an item without a
        question has no such place, and where the tokens of an item become too many.
        """
        if not text.strip() or "{question}" in text:
            raise AuditError(f"{text!r} cannot be put into a prompt", "give a string of at least one word")
        chosen = range(len(self)) if index is None else index
        items, answers = [self.items[n] for n in chosen], [self.answers[n] for n in chosen]
        questions = [bool(item.question) for item in items]
        if not all(questions) and (any(questions) or slot != "prefix"):
            plain = next(item.id for item, asks in zip(items, questions, strict=True) if not asks)
            raise AuditError(f"item {plain!r} asks no question, and only a prefix has a place there", "use `prefix`")
        if not all(questions):
            spoken, template = (
                [item.model_copy(update={"question": before(text)}) for item in items],
                Template(answer="{answer}"),
            )
            template = template.model_copy(update={"bos": self._template.bos})
        elif slot == "prefix":
            spoken, template = items, self._template.model_copy(update={"prompt": before(text) + self._template.prompt})
        else:
            spoken = [item.model_copy(update={"question": inserted(item.question, text, slot)}) for item in items]
            template = self._template
        return tokenise(spoken, answers, self._tokenizer, template, *self._limits)

    def knows(self, text: str) -> bool:
        """Does the tokenizer have a token for any of the string's words?"""
        with as_audit_error(f"base's tokenizer cannot read {text!r}", "give another string"):
            ids = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return any(token != self._tokenizer.unk_token_id for token in ids)

    def places(self, slot: Slot) -> Int[Tensor, " row"]:
        """The position in each of the :meth:`plain` rows before which tokens of that slot stand.

        AuditError (code 2) where the template hides where the question stands, or there is none.
        """
        spoken = question_tokens(self.items, self.answers, self._tokenizer, self._template, self._limits[1])
        if slot == "prefix" and not self._template.chat:
            bos = self._tokenizer.bos_token_id
            return (self.plain().ids[:, 0] == -1 if bos is None else self.plain().ids[:, 0] == bos).long()
        if lost := [item.id for item, tokens in zip(self.items, spoken, strict=True) if not tokens]:
            raise AuditError(f"item {lost[0]!r}: where its question stands is not known", "look at a prefix alone")
        if slot == "prefix":
            return torch.tensor([tokens[0].position for tokens in spoken])
        places: list[int] = []
        for item, tokens in zip(self.items, spoken, strict=True):
            at = _character(item.question, slot)
            after = [token.position for token in tokens if token.begin >= at]
            places.append(after[0] if after else tokens[-1].position + 1)
        return torch.tensor(places)


def before(text: str) -> str:
    """The string as it stands before other words."""
    return text if text[-1:].isspace() else f"{text} "


def inserted(question: str, text: str, slot: Slot) -> str:
    """A question with the string in its place."""
    if slot == "prefix":
        return before(text) + question
    at = _character(question, slot)
    if at >= len(question):
        return f"{question} {text.strip()}"
    return question[:at] + before(text.lstrip() or text) + question[at:]


def _character(question: str, slot: Slot) -> int:
    """The character of a question before which the slot lies; its length for a suffix."""
    words = [match.start() for match in _WORD.finditer(question)]
    if slot == "prefix":
        return 0
    if slot == "suffix":
        return len(question)
    n = len(words) // 2 if slot == "infix" else slot
    return words[n] if 0 <= n < len(words) else len(question)


def with_tokens(rows: Rows, ids: Int[Tensor, " token"], at: Int[Tensor, " row"]) -> Rows:
    """The rows with these token ids put before position ``at`` of each: answers, content tokens and lengths move with
    it. Their hash says that tokens were put in, since the ids are another's."""
    n, width = len(ids), rows.ids.shape[1]
    column = torch.arange(width + n).expand(len(rows), -1)
    at = at.to(torch.long)[:, None]
    put = (column >= at) & (column < at + n)
    source = torch.where(column < at, column, (column - n).clamp(0)).clamp_max(width - 1)
    fresh = torch.zeros_like(column)
    fresh[put] = ids.to(torch.long).repeat(len(rows))
    moved = rows.answer_spans + n * (rows.answer_spans >= at)
    return Rows(
        ids=torch.where(put, fresh, rows.ids.gather(1, source)),
        mask=torch.arange(width + n) < (rows.lengths + n)[:, None],
        answer_spans=moved, key=rows.key.gather(1, source) & ~put,
        item_ids=rows.item_ids, group_ids=rows.group_ids, template_hash=rows.template_hash, extra=rows.extra,
    )  # fmt: skip
