"""Everything that is said passes here on its way to a stream: messages, logs, warnings, progress and JSON.

What stands in a message may come from data, from a checkpoint or from a file's name. Texts of the data are masked as in
reports, control and bidirectional characters are shown and not sent, and whatever is long is cut.
"""

import json
import logging
import secrets
import sys
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console

    from audit.runs import Screen

_MOST_LINES: Final = 60
_TRACEBACK: Final = 400
_SAYS_NOTHING: Final = frozenset({"yes", "true", "false", "none"})
_SHORTEST: Final = 3


def printable(text: str, lines: int = _MOST_LINES) -> str:
    """A message as it may be printed: masked, without a hidden character but line ends, each line and all of it cut."""
    from audit.wording import visible

    shown = [visible(line) for line in _masked(text).expandtabs(4).split("\n")]
    more = [f"… {len(shown) - lines} more lines"] if len(shown) > lines else []
    return "\n".join(shown[:lines] + more)


def json_line(document: object) -> str:
    """One JSON object on one line, in which no hidden character stands as itself."""
    from audit.wording import is_hidden

    text = json.dumps(document, ensure_ascii=False, sort_keys=True)
    return "".join(json.dumps(c)[1:-1] if is_hidden(c) else c for c in text)


def traceback_of(error: BaseException) -> str:
    """The traceback of an error, as it may be printed."""
    import traceback

    return printable("".join(traceback.format_exception(error)), _TRACEBACK)


def console(**settings: Any) -> "Console":
    """A console of rich on stderr that sends no hidden character of what it shows; its own colours pass."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    from audit.wording import is_hidden, visible

    def clean(segment: Segment) -> Segment:
        if segment.control or not any(is_hidden(c) and c != "\n" for c in segment.text):
            return segment
        lines = segment.text.split("\n")
        return segment._replace(text="\n".join(visible(line, len(line)) for line in lines))

    class Clean(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            return map(clean, super().render(renderable, options))

    return Clean(stderr=True, **settings)


@contextmanager
def guarded() -> Generator[None]:
    """Logs and warnings of every library pass :func:`printable` too, as long as the block runs."""
    factory, show = logging.getLogRecordFactory(), warnings.showwarning
    logging.setLogRecordFactory(_Record)
    warnings.showwarning = _warn
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)
        warnings.showwarning = show


class _Record(logging.LogRecord):
    def getMessage(self) -> str:  # noqa: N802 (the name is the library's)
        return printable(super().getMessage(), _TRACEBACK)


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    sys.stderr.write(f"{filename}:{lineno}: {category.__name__}: {printable(str(message))}\n")


# ---- masked -----------------------------------------------------------------------------------------------------
def _masked(text: str) -> str:
    from audit.wording import confidences

    sources = confidences()
    return _screen(sources)(text) if sources else text


@cache
def _key() -> bytes:
    return secrets.token_bytes(32)


@cache
def _screen(_sources: tuple[Callable[[], Iterable[str]], ...]) -> "Screen":
    """Masks what was confided by now, with a key of this process."""
    from audit.runs import Mask, Screen
    from audit.wording import confided, folded

    return Screen(Mask(_key()), (text for text in confided() if _tells(folded(text.strip()))))


def _tells(text: str) -> bool:
    """Does it say anything of the data? A word that messages are made of does not, nor do one or two characters."""
    from audit.case import FUNCTION_WORDS

    return sum(map(str.isalnum, text)) >= _SHORTEST and text not in FUNCTION_WORDS | _SAYS_NOTHING
