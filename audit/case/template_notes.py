"""What there is to tell of a prompt template on its data, in sentences: seams, spaces, BOS, words that are lost."""

from collections.abc import Sequence
from typing import NamedTuple

from audit.case.tokenisation import Noticed

_SHOWN = 3


class ItemNotice(NamedTuple):
    """What was noticed of one item with one of its answers."""

    item: str
    noticed: Noticed


def sentences(notices: Sequence[ItemNotice], quoting: bool = False) -> tuple[str, ...]:
    """What was noticed, each kind in a sentence with its share of the items; nothing where nothing was noticed.

    ``quoting``: lost words are shown, and the items that they are of, which may be names of people.
    """
    n = len(notices)
    count = {kind: sum(getattr(notice.noticed, kind) for notice in notices) for kind in ("merged", "spaces", "bos")}
    sentence = {
        "merged": "one token holds the end of the prompt and the start of the answer (`seam = \"apart\"` in [template] "
        "tokenises each for itself)",
        "spaces": "white space meets white space where the answer begins: the model reads both",
        "bos": "the text begins with a BOS token: it is left out, and the rule of `bos` alone decides what is read",
    }  # fmt: skip
    notes = [f"in {count[kind]} of {n} items {words}" for kind, words in sentence.items() if count[kind]]
    return (*notes, *_lost(notices, quoting))


def _lost(notices: Sequence[ItemNotice], quoting: bool) -> tuple[str, ...]:
    losing = [notice for notice in notices if notice.noticed.lost]
    if not losing:
        return ()
    items: dict[str, str] = {}
    for notice in losing:
        for word in notice.noticed.lost:
            items.setdefault(word, notice.item)
    examples = [f"{word!r} ({item})" for word, item in items.items()]
    more = f" and {len(examples) - _SHOWN} more" if len(examples) > _SHOWN else ""
    shown = f": {', '.join(examples[:_SHOWN])}{more}" if quoting else ""
    return (f"in {len(losing)} of {len(notices)} items the model does not read every word{shown}",)
