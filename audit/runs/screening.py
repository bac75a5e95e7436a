"""The one function through which every text passes on its way to a stream: masked, cleaned and cut, in any process.

What stands in a message may come from data, from a checkpoint or from a file's name. Texts of the data are masked as in
reports, control and bidirectional characters are shown and not sent, and whatever is long is cut.
"""

import logging
import secrets
import sys
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from audit.runs.masking import Screen

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


def traceback_of(error: BaseException) -> str:
    """The traceback of an error, as it may be printed."""
    import traceback

    return printable("".join(traceback.format_exception(error)), _TRACEBACK)


@contextmanager
def guarded() -> Generator[None]:
    """Logs and warnings of every library pass :func:`printable` too, as long as the block runs.

    What cannot be logged is not printed in its stead: the library would print it as it is.
    """
    factory, show, raising = logging.getLogRecordFactory(), warnings.showwarning, logging.raiseExceptions
    logging.setLogRecordFactory(_Record)
    warnings.showwarning = _warn
    logging.raiseExceptions = False
    try:
        yield
    finally:
        logging.raiseExceptions = raising
        logging.setLogRecordFactory(factory)
        warnings.showwarning = show


class _Record(logging.LogRecord):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.exc_info and self.exc_info[1] is not None:
            self.exc_text = traceback_of(self.exc_info[1])  # what a handler would print of it otherwise
        if self.stack_info:
            self.stack_info = printable(self.stack_info, _TRACEBACK)

    def getMessage(self) -> str:  # noqa: N802 (the name is the library's)
        try:
            text = super().getMessage()
        except (TypeError, ValueError, KeyError):  # a message that its arguments do not fit
            text = f"{self.msg} {self.args}"
        return printable(text, _TRACEBACK)


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
    from audit.runs.masking import Mask, Screen
    from audit.wording import confided, folded

    return Screen(Mask(_key()), (text for text in confided() if _tells(folded(text.strip()))))


def _tells(text: str) -> bool:
    """Does it say anything of the data? A word that messages are made of does not, nor do one or two characters."""
    from audit.case import FUNCTION_WORDS

    return sum(map(str.isalnum, text)) >= _SHORTEST and text not in FUNCTION_WORDS | _SAYS_NOTHING
