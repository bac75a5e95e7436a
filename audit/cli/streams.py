"""Everything that is said passes here on its way to a stream: messages, logs, warnings, progress and JSON.

Texts pass :func:`audit.runs.printable`, in this process as in every worker's; JSON and tables are cleaned as such.
"""

import json
import os
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from audit.runs import guarded as guarded
from audit.runs import printable as printable
from audit.runs import traceback_of as traceback_of

if TYPE_CHECKING:
    from rich.console import Console


def json_line(document: object) -> str:
    """One JSON object on one line, in which no hidden character stands as itself."""
    from audit.wording import is_hidden

    text = json.dumps(document, ensure_ascii=False, sort_keys=True)
    return "".join(json.dumps(c)[1:-1] if is_hidden(c) else c for c in text)


@contextmanager
def unread() -> Generator[None]:
    """What is written in here and nobody reads any more, as behind ``| head``, is dropped, and so is what follows."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(err: bool = True, **settings: Any) -> "Console":
    """A console of rich that sends no hidden character of what it shows; its own colours pass. ``err``: on stderr."""
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

    return Clean(stderr=err, **settings)
