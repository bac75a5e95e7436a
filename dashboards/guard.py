"""The border of a page: an error of ours becomes a panel with an id, and its traceback goes to a log, never on screen.

Streamlit's own panel would offer to send the error elsewhere. What ends a script on purpose (a rerun, a stop) passes.
"""

import hashlib
import logging
import traceback
from pathlib import Path
from types import TracebackType

from markupsafe import escape

from audit.schema import AuditError
from audit.storage import cache_root
from dashboards import states

log = logging.getLogger(__name__)


def log_path() -> Path:
    """Where tracebacks of the dashboard go."""
    return cache_root() / "dashboard.log"


class Guard:
    """Use as ``with Guard():`` around a page."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if not isinstance(error, Exception):
            return False
        if isinstance(error, AuditError):
            message = f"<p>{escape(error.what)}</p><p>What to do: {escape(error.do)}</p>"
            states.panel("This cannot be shown", f"{message}<p>Error id: {error.error_id}</p>", "bad", role="alert")
            return True
        trace = "".join(traceback.format_exception(error))
        error_id = hashlib.sha256(trace.encode(errors="replace")).hexdigest()[:8]
        where = _keep(f"error {error_id}\n{trace}")
        message = f"<p>Error id: <code>{error_id}</code>. The details are in <code>{escape(where)}</code> alone.</p>"
        states.panel(
            "This page broke", f"{message}<p>Other pages still work. Reload to try again.</p>", "bad", role="alert"
        )
        return True


def _keep(words: str) -> str:
    """Append to the log; where it cannot be written, the server's own output has it."""
    path = log_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(words + "\n")
    except OSError:
        log.error("%s", words)
        return "the output of the server"
    return str(path)
