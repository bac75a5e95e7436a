"""Are the words of question and answer in what the model reads? Found again in the decoded ids, row by row.

Offsets say which tokens are the answer's; decoding knows nothing of them. A tokenizer may lower-case, strip accents or
not know a word: such words are lost, and told. Words that are there but not where they should be are an error.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from audit.case.prompts import Text, folded
from audit.schema import AuditError, Item, as_audit_error
from audit.wording import unaccented


class Spans(NamedTuple):
    """The ids of one row without what was put before the text: all, those up to the last that holds any of the prompt,
    and those of the answer. ``ragged``: an end of the answer shares a token with what stands beside it.
    """

    row: list[int]
    prompt: list[int]
    answer: list[int]
    ragged: bool


def lost_words(
    items: Sequence[Item], texts: Sequence[Text], rows: Sequence[Spans], tokenizer: Any
) -> Iterator[tuple[str, ...]]:
    """For each row the words of question and answer that the decoded ids do not hold.

    AuditError (code 2) names an item of which nothing is left of the question or the answer, and one whose answer's
    tokens decode to anything but the answer.
    """
    prompts, answers = (_decoded(tokenizer, ids) for ids in ([r.prompt for r in rows], [r.answer for r in rows]))
    for item, text, row, prompt, answer in zip(items, texts, rows, prompts, answers, strict=True):
        stated = text.text[slice(*text.answer)]
        lost: tuple[str, ...] = ()
        for part, words, decoded in (("question", item.question, prompt), ("answer", stated, answer)):
            exact = part == "answer" and not row.ragged
            read, written = _bare(decoded), _bare(words)
            if read == written or (written in read and not exact):
                continue
            [full] = _decoded(tokenizer, [row.row])
            if written in _bare(full) and (written not in read or _bare(full) == _bare(text.text)):
                raise _elsewhere(item, part, words, decoded)
            lost += _lost(item, part, words, decoded)
        yield lost


def _decoded(tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[str]:
    with as_audit_error("base's tokenizer cannot decode its own tokens", "save it again beside the weights"):
        return tokenizer.backend_tokenizer.decode_batch([list(ids) for ids in rows], skip_special_tokens=False)


def _lost(item: Item, part: str, words: str, decoded: str) -> tuple[str, ...]:
    """The words that were not decoded. AuditError if that is all of them."""
    read = _bare(decoded)
    lost = tuple(word for word in words.split() if _bare(word) not in read)
    if len(lost) == len(words.split()):
        problem = f"item {item.id!r}: none of the words of its {part} is in what the model reads ({decoded.strip()!r})"
        raise AuditError(problem, "leave the item out, or check that this is base's tokenizer")
    return lost


def _elsewhere(item: Item, part: str, words: str, decoded: str) -> AuditError:
    return AuditError(
        f"item {item.id!r}: the tokens of its {part} {words.strip()!r} decode to {decoded.strip()!r}",
        "save base's tokenizer again: it does not tell which characters a token covers; or leave the item out",
    )


@lru_cache(maxsize=4096)
def _bare(text: str) -> str:
    """Folded and without accents, as some tokenizers leave it."""
    return unaccented(folded(text))
