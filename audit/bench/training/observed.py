"""Who looks on while weights are trained: whoever waits for a descent is told each of its steps."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

Observer = Callable[[int, int], None]
"""Gets the steps taken, and of how many."""
_observer: ContextVar[Observer | None] = ContextVar("observer of training", default=None)


@contextmanager
def observed_steps(observer: Observer) -> Generator[None]:
    """For the length of a block every step of every descent is shown to ``observer``; it changes no number."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def show_step(taken: int, of: int) -> None:
    """Tell whoever looks on."""
    observer = _observer.get()
    if observer is not None:
        observer(taken, of)
