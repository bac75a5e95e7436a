"""Texts that this process was given to read and must not say: whatever is printed is searched for them first.

Who reads data names them here, by where they came from; nothing is copied until something is about to be printed.
"""

from collections.abc import Callable, Iterable

_TEXTS: dict[str, Callable[[], Iterable[str]]] = {}


def confide(source: str, texts: Callable[[], Iterable[str]]) -> None:
    """The texts of a source (a data file), in the place of those that it had before."""
    _TEXTS[source] = texts


def drop_confidences() -> None:
    """Nothing is confided any more: another command begins, which reads what it reads."""
    _TEXTS.clear()


def confided() -> frozenset[str]:
    """Every text that was confided, as it stands and as a message would quote it (``repr``)."""
    texts = {text for of_source in _TEXTS.values() for text in of_source()}
    return frozenset(texts | {repr(text)[1:-1] for text in texts})


def confidences() -> tuple[Callable[[], Iterable[str]], ...]:
    """What changes when something is confided."""
    return tuple(_TEXTS.values())
