"""Which prompt template was base trained with? Other seams, spaces and BOS rules, tried on a few items.

A model that was trained with prompt and answer tokenised apart, without the space, or behind a chat header, can recall
next to nothing under the template of a case file, and the template gets the blame that the spaces deserve. So where
base recalls little, its log-probabilities are read under every template near the given one, on forget items and on
retain items, which base knows whatever became of the others. Templates cut a text into other tokens: what is compared
is the probability of the whole key and the whole answer, per token of the given template, so that a key in more pieces
is no better for it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.bench import Bench
from audit.case import OpenCase, Rows, chat_template_names, row_means, stacked, tokenise, with_date
from audit.schema import RECALL_LIFT, AuditError, Cohort, Item, Read, Site, Template, Texts

SCORE = Read(site=Site(part="logits"), at="key", reduce="logprob")
ANSWER_SCORE = Read(site=Site(part="logits"), at="answer", reduce="logprob")
LOW_RECALL = 0.5
"""Below this mean probability of the forget items another template is looked for. A run is priced without it."""
LEARNED = 0.8
"""From this mean probability on, base was trained on such texts in such a template."""
BETTER_ITEMS = 0.75
"""A template is clearly better if it lifts the mean by RECALL_LIFT, and the probability of this share of the items.
Of those that the best does not beat on so many items, the one nearest to the given template is named."""
_PER_COHORT = 8
_SPACES = (("", " "), ("", ""), (" ", ""), (" ", " "), ("\n", ""), ("", "\n"))
"""What stands at the end of a prompt, and at the beginning of its answer."""


class TemplateSearch(NamedTuple):
    """What base recalls of ``items`` items under the given template, and under the best of ``tried`` others.

    ``retained`` is what it recalls of the retain items among them under the given one. ``best`` is None unless it is
    clearly better; ``top`` is what the best recalls, clearly better or not.
    """

    given: Template
    best: Template | None
    items: int
    tried: int
    recall: float
    retained: float
    top: float

    @property
    def learned(self) -> bool:
        """Was base trained on such texts under the best template, and so not under the given one?"""
        return self.best is not None and self.top >= LEARNED

    def lines(self) -> str:
        """What to change, as lines of a case file; nothing if no template is clearly better."""
        return "" if self.best is None else _lines(self.given, self.best)

    def __str__(self) -> str:
        if not self.tried:
            return "no other template could be tried"
        scope = f"on {self.items} forget and retain items base gives the key a mean probability of"
        if self.best is not None:
            return f"{scope} {self.top:.3f} under another template, and {self.recall:.3f} under this one"
        none = f"of {self.tried} other templates (seams, spaces, BOS, chat) none is clearly better: {scope} at most"
        known = f"; the retain items alone have {self.retained:.3f}, so that base reads this template"
        return f"{none} {self.top:.3f}, and {self.recall:.3f} under this one{known if self.retained >= LEARNED else ''}"


class Scores(NamedTuple):
    """Log-probabilities (nats) of keys and of answers, per token of the given template, which is the first."""

    key: Float[ndarray, "template item"]
    answer: Float[ndarray, "template item"]


class _Tried(NamedTuple):
    template: Template
    rows: Rows


def search_template(bench: Bench, case: OpenCase) -> TemplateSearch:
    """Try the templates near the case's own on base alone: the suspect is never looked at, so that nothing is chosen by
    what is audited."""
    forget, retain = _items(case, "forget"), _items(case, "retain")
    items, given = (*forget, *retain), case.case.template
    tried = list(_different(case, items)) if items else []
    if len(tried) < 2:
        return TemplateSearch(given, None, len(items), 0, 0.0, 0.0, 0.0)
    scores = _scores(bench, case, tried)
    best = choose(scores, [len(_changed(given, trial.template)) for trial in tried])
    recalls = np.exp(scores.key).mean(1)
    retained = float(np.exp(scores.key[0, len(forget) :]).mean()) if retain else 0.0
    top = float(recalls.max() if best is None else recalls[best])
    template = None if best is None else tried[best].template
    return TemplateSearch(given, template, len(items), len(tried) - 1, float(recalls[0]), retained, top)


def choose(scores: Scores, changes: Sequence[int]) -> int | None:
    """The template that base was most likely trained with, if it is clearly better than the first, which was given.

    ``changes``: in how many entries each differs from the given one.
    """
    key, answer = scores
    first = int(np.exp(answer).mean(1).argmax())
    level = [n for n in range(len(key)) if n == first or (answer[first] > answer[n]).mean() < BETTER_ITEMS]
    best = min(level, key=lambda n: (changes[n], -np.exp(answer[n]).mean()))
    lifts = np.exp(key[best]).mean() - np.exp(key[0]).mean() >= RECALL_LIFT
    return best if lifts and (key[best] > key[0]).mean() >= BETTER_ITEMS else None


# ---- items and templates -------------------------------------------------------------------------------------------
def _items(case: OpenCase, cohort: Cohort) -> tuple[Item, ...]:
    """A few trained items that ask something, evenly over the file."""
    asking = [item for item in case.items(Texts(cohort=cohort)) if item.question]
    step = max(len(asking) // _PER_COHORT, 1)
    return tuple(asking[::step][:_PER_COHORT])


def _different(case: OpenCase, items: Sequence[Item]) -> Iterator[_Tried]:
    """The given template, then every other under which these items are other tokens, the nearest first."""
    given, seen = case.case.template, set[str]()
    answers = [item.answer for item in items]
    for template in sorted(_candidates(case, given, items[0].question), key=lambda t: len(_changed(given, t))):
        try:
            rows = tokenise(items, answers, case.tokenizer, template, case.max_length, case.function_words.words)
        except AuditError:
            continue  # a template that these items cannot be read under is not what base was trained with
        bare = replace(rows, template_hash="")
        if bare.hash not in seen:
            seen.add(bare.hash)
            yield _Tried(template, bare)


def _candidates(case: OpenCase, given: Template, question: str) -> Iterator[Template]:
    yield given
    for base in (*_plain(given), *_chats(case, given, question)):
        for seam in ("joint", "apart"):
            for bos in ("tokenizer", "always", "never"):
                yield base.model_copy(update={"seam": seam, "bos": bos})


def _plain(given: Template) -> Iterator[Template]:
    """Without a chat template: the given prompt, with other spaces."""
    bare = {"chat": False, "chat_template": "", "system": "", "variables": {}}
    yield given.model_copy(update=bare)
    for tail, lead in _SPACES:
        worded = {"prompt": given.prompt.rstrip() + tail, "answer": _led(given.answer, lead)}
        yield given.model_copy(update={**bare, **worded})


def _chats(case: OpenCase, given: Template, question: str) -> Iterator[Template]:
    """In the words of each of the tokenizer's chat templates."""
    for name in chat_template_names(case.tokenizer):
        variables = given.variables if given.chat and name == given.chat_template else {}
        for prompt in dict.fromkeys((given.prompt, "{question}")):
            worded = {"chat": True, "chat_template": name, "prompt": prompt, "variables": variables}
            try:
                dated = with_date(case.tokenizer, given.model_copy(update=worded), question)
            except AuditError:
                continue
            answers = dict.fromkeys((given.answer, *(_led(given.answer, lead) for lead in ("", " ", "\n"))))
            yield from (dated.model_copy(update={"answer": answer}) for answer in answers)


def _led(answer: str, lead: str) -> str:
    """The answer's part with another space before the answer."""
    before, _, after = answer.partition("{answer}")
    return f"{before.rstrip()}{lead}{{answer}}{after}"


# ---- scores --------------------------------------------------------------------------------------------------------
def _scores(bench: Bench, case: OpenCase, tried: Sequence[_Tried]) -> Scores:
    """Log-probabilities of keys and answers under every template, per token that the first of them cuts them into."""
    rows = stacked([trial.rows for trial in tried])
    reads = bench.run(case.base, rows, [SCORE, ANSWER_SCORE])
    shape = (len(tried), len(tried[0].rows))

    def per_token(read: Read) -> Float[ndarray, "template item"]:
        count = np.bincount(rows.targets(read.at)[0].numpy(), minlength=len(rows)).reshape(shape)
        return row_means(reads[read], rows, read.at).reshape(shape) * count / count[:1].clip(1)

    return Scores(per_token(SCORE), per_token(ANSWER_SCORE))


# ---- said ----------------------------------------------------------------------------------------------------------
def _changed(given: Template, other: Template) -> list[str]:
    return [name for name in Template.model_fields if getattr(given, name) != getattr(other, name)]


def _lines(given: Template, other: Template) -> str:
    changed = _changed(given, other)
    lines = ["[template]"] + [f"{name} = {json.dumps(getattr(other, name))}" for name in changed if name != "variables"]
    if other.variables and "variables" in changed:
        lines += ["[template.variables]", *(f"{name} = {json.dumps(value)}" for name, value in other.variables.items())]
    return "\n".join(lines)
