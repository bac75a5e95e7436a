"""The content rule: which words of an answer carry the fact.

**Content rule.** The key, where the item names one: its first whole-word occurrence in the answer. A matched alternate
has its own key: the one given, else what stands where the answer's key stood. Everything else (answers without a key,
paraphrased and perturbed answers, so that both sides of a truth ratio follow one rule): the words of the answer that
are not in the question and are no English function words; if nothing is left, the whole answer. No model is asked.
"""

import re

from audit.schema import AuditError, Item

_WORD = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")
_POSSESSIVE = re.compile(r"['’]s$")
_FUNCTION_WORDS = (
    "a an the and or but nor so yet if than that this these those there here it its he she they them his her their "
    "him hers theirs i me my we us our you your who whom whose which what when where why how is am are was were be "
    "been being do does did done has have had having will would shall should can could may might must not no yes "
    "of in on at to from by for with about as into onto over under after before during between through per via "
    "also very just both each any all some such own same other"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


# ---- the content rule -------------------------------------------------------------------------------------------
def content_spans(item: Item, answer: str) -> tuple[tuple[int, int], ...]:
    """Which characters of ``answer`` carry the fact? Spans [start, end), by the content rule of this module.

    ``answer`` is one of the item's answers. AuditError (code 2) if the item's key is not in it.
    """
    key = _key_of(item, answer)
    if key is None:
        return _content_words(item.question, answer)
    match = re.search(rf"(?<!\w){re.escape(key)}(?!\w)", answer)
    start = match.start() if match else answer.find(key)
    if start < 0 or not key:
        raise AuditError(f"item {item.id!r}: its key {key!r} is not in the answer {answer!r}", "correct the key")
    return ((start, start + len(key)),)


def _key_of(item: Item, answer: str) -> str | None:
    """The key that the item names for this answer, or None."""
    if answer == item.answer:
        return item.key
    if answer not in item.alternates:
        return None
    index = item.alternates.index(answer)
    if index < len(item.alternate_keys):
        return item.alternate_keys[index]
    if item.key is None:
        return None
    before, _, after = item.answer.partition(item.key)
    middle = answer[len(before) : len(answer) - len(after)]
    return middle if middle and before + middle + after == answer else None


def _content_words(question: str, answer: str) -> tuple[tuple[int, int], ...]:
    """Spans of the answer's words that the question does not give away."""
    given_away = {_plain(match.group()) for match in _WORD.finditer(question)}
    spans = [m.span() for m in _WORD.finditer(answer) if _plain(m.group()) not in given_away | FUNCTION_WORDS]
    if spans:
        return tuple(spans)
    start = len(answer) - len(answer.lstrip())
    return ((start, len(answer.rstrip())),)


def _plain(word: str) -> str:
    return _POSSESSIVE.sub("", word.casefold())
