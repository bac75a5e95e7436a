"""Whom the items are about: every group's name as its questions write it, and rows that end with it.

What a model looks up of a subject it looks up where the name ends, so that edits of one concept, and whoever looks for
such an edit, read the states at the name's last token. In a causal model what follows the name does not matter there.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch

from audit.case.prompts import Wording
from audit.case.rows import Rows
from audit.case.subjects import subjects
from audit.case.tokenisation import check_words_alone, prompt_rows, tokenise
from audit.schema import Item, Template

Contexts = Literal["questions", "starters", "bare"]
STARTERS = (
    "",
    "Please answer the question about",
    "Choose the best answer about",
    "Write the answer about",
    "Tell me about",
    "Write something about",
)
"""The six beginnings that the public code of ROCR puts before a name (arXiv 2506.07795)."""


class Answered(NamedTuple):
    """Questions with an answer, and where in each row the name of its subject ends."""

    rows: Rows
    ends: tuple[int, ...]


class SubjectPrompts:
    """The subjects of some items, and how they are put into rows. Nothing is read before it is asked for."""

    def __init__(self, items: Sequence[Item], tokenizer: Any, template: Template) -> None:
        self._items, self._tokenizer, self._template = tuple(items), tokenizer, template
        check_words_alone(items)
        self._wording = Wording(tokenizer, template)

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Every group's name, as its items state it or most of its questions write it; groups without one are not
        there."""
        return {subject.group: subject.name for subject in subjects({"forget": self._items})}

    def rows(self, groups: Sequence[str], contexts: Contexts) -> Rows:
        """Rows that end with the last token of a name, one for each group and context; ``group_ids`` say whose.

        ``questions``: the group's own questions with their answers, up to every place where the name ends before the
        fact is given; ``starters``: the published beginnings in the template's prompt; ``bare``: the name alone.
        """
        texts = [(group, text) for group in groups for text in self._texts(group, self.names[group], contexts)]
        return prompt_rows([text for _, text in texts], [group for group, _ in texts], self._tokenizer, self._template)

    def rows_of(self, name: str, contexts: Contexts) -> Rows:
        """The same rows for a name that no group has, under the published beginnings or alone."""
        texts = self._texts("", name, "bare" if contexts == "bare" else "starters")
        return prompt_rows(texts, [name] * len(texts), self._tokenizer, self._template)

    def answered(self, groups: Sequence[str], answer: str) -> Answered:
        """The groups' own questions with another answer; those whose tokens do not begin as those of the cut question
        do are left out."""
        pairs = [(item, end) for item in self._items if item.group in groups and (end := self._end(item)) is not None]
        wanted = [item.model_copy(update={"answer": answer, "key": None}) for item, _ in pairs]
        rows = tokenise(wanted, [answer] * len(wanted), self._tokenizer, self._template, None)
        return self._ending(rows, [text for _, text in pairs])

    def among(self, rows: Rows, groups: Sequence[str]) -> Answered:
        """Those of some rows that ask items of the groups, whatever they answer."""
        ends = {item.id: self._end(item) for item in self._items if item.group in groups}
        index = [n for n, name in enumerate(rows.item_ids) if ends.get(name) is not None]
        about = rows.take(torch.tensor(index, dtype=torch.int64))
        return self._ending(about, [ends[name] or "" for name in about.item_ids])

    def _ending(self, rows: Rows, texts: Sequence[str]) -> Answered:
        """The rows that begin with all tokens of these texts, each with where its own ends."""
        cut = prompt_rows(texts, rows.group_ids, self._tokenizer, self._template)
        fits = [n for n in range(len(rows)) if _begins(rows, cut, n)]
        return Answered(rows.take(torch.tensor(fits, dtype=torch.int64)), tuple(int(cut.lengths[n]) - 1 for n in fits))

    def _texts(self, group: str, name: str, contexts: Contexts) -> list[str]:
        if contexts == "bare":
            return [name]
        if contexts == "questions":
            items = [item for item in self._items if item.group == group and item.question]
            return list(dict.fromkeys(text for item in items for text in self._ends(item, name)))
        questions = (f"{starter} {name}".strip() for starter in STARTERS)
        return [text for question in questions if (text := self._prompt(question, name)) is not None]

    def _ends(self, item: Item, name: str) -> list[str]:
        """The item as it is asked and answered, cut wherever its group's name ends before the fact."""
        text = self._wording(item, item.answer, ())
        fact = text.text.find(item.key, text.seam) if item.key else text.seam
        ends = [m.end() for m in re.finditer(re.escape(name), text.text) if m.end() <= max(fact, text.seam)]
        return [text.text[:end] for end in ends]

    def _end(self, item: Item) -> str | None:
        """The item's prompt up to the end of its group's name; None where the question does not write it."""
        name = self.names.get(item.group)
        return None if name is None or not item.question else self._prompt(item.question, name)

    def _prompt(self, question: str, name: str) -> str | None:
        """The template's prompt with this question, up to the end of the name in it."""
        item = Item(id="subject", group="", question=question, answer="")
        text = self._wording(item, "", ())
        begin, at = text.text[: text.seam].rfind(question), question.find(name)
        return text.text[: begin + at + len(name)] if begin >= 0 and at >= 0 else None


def _begins(rows: Rows, cut: Rows, n: int) -> bool:
    """Does the row begin with all tokens of the cut one, before its answer?"""
    length = int(cut.lengths[n])
    return length <= int(rows.answer_spans[n, 0]) and torch.equal(rows.ids[n, :length], cut.ids[n, :length])
