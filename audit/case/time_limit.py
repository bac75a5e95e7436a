"""A limit on how long a program of a checkpoint's may run: a chat template can loop for ever."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def within(seconds: float) -> Generator[None]:
    """TimeoutError inside the block once so many seconds have passed. Only the main thread can be interrupted: in any
    other nothing is limited. Whoever has an alarm set keeps it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, left)
