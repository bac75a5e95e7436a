"""How deep a document is nested: one that is deeper than any real one would exhaust whoever walks through it."""

from collections.abc import Iterable
from typing import Any, Final, cast

_DEEPEST: Final = 64


def too_deep(value: Any) -> bool:
    """Is a value of lists and mappings nested deeper than any document that people write?"""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        part, depth = waiting.pop()
        if depth > _DEEPEST:
            return True
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        waiting.extend((each, depth + 1) for each in cast("Iterable[Any]", inner) if isinstance(each, dict | list))
    return False
