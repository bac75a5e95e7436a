"""What a user can fix, and the exit codes of the command line."""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

_MOST_CHARACTERS = 400
_PANICS = "pyo3_runtime"
"""Of this module is what PyO3 makes of a panic, in every library alike: a ``BaseException``."""


class ExitCode:
    """The process exit codes of the command line (see ``residua --help-exit-codes``)."""

    OK = 0
    GATE = 1
    INPUT = 2
    INTEGRITY = 3
    UNDECIDED = 4
    INTERRUPTED = 130


class AuditError(Exception):
    """Something a user can fix: what happened and where, and what to do about it.

    Shown without a traceback. ``code`` is the process exit code: 2 for input, 3 for integrity or tool faults,
    4 where the audit cannot decide (for instance: base does not recall under the template).
    """

    def __init__(self, what: str, do: str, code: int = ExitCode.INPUT) -> None:
        super().__init__(f"{what}\n  what to do: {do}")
        self.what, self.do, self.code = what, do, code

    def __reduce__(self) -> tuple[type["AuditError"], tuple[str, str, int]]:
        """Whole across processes too: an exception is otherwise rebuilt from its message alone."""
        return type(self), (self.what, self.do, self.code)

    @property
    def error_id(self) -> str:
        """Eight hex digits: the same fault has the same id, so that two people can see that they mean one thing."""
        return hashlib.sha256(f"{self.what}\n{self.do}".encode(errors="replace")).hexdigest()[:8]


class AbsentPartError(AuditError):
    """A model has nothing that a test asks for (hidden units of some mixtures, a pass from embeddings alone): the test
    is left out for this reason, and the audit is as whole as an audit of such a model can be. What another backend,
    attention or placement would show is a plain :class:`AuditError`."""


class SilentModelError(AuditError):
    """A model that says the same whatever it reads: an integrity fault (code 3) in whoever judges; of a suspect, in
    which an edit can have done it, the tests that need its outputs are skipped for this reason."""


def is_fault(error: BaseException) -> bool:
    """Does a program break with it? An ``Exception``, or what PyO3 makes of a panic; no interrupt and no exit."""
    return isinstance(error, Exception) or type(error).__module__ == _PANICS


@contextmanager
def as_audit_error(fault: str, do: str, code: int = ExitCode.INPUT) -> Generator[None]:
    """Whatever a library raises inside, as an :class:`AuditError` ``fault: <the original>``; ours pass, and so
    does an interrupt. A panic of a library in Rust (tokenizers, safetensors) is one of these, though no ``Exception``.

    To be put round the one call of a library that opens what a user gave (a checkpoint, a template, a data file), never
    round our own code: a fault of ours must stay one.
    """
    try:
        yield
    except AuditError:
        raise
    except BaseException as error:
        if not is_fault(error):
            raise
        original = " ".join(f"{type(error).__name__}: {error}".split())
        if len(original) > _MOST_CHARACTERS:
            original = f"{original[:_MOST_CHARACTERS]} ..."
        raise AuditError(f"{fault}: {original}", do, code) from error
