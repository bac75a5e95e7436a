"""The run-time check of annotations that tests/conftest.py hangs on every function of ours."""

import typing
from collections.abc import Callable, Iterator
from typing import Any

from beartype import BeartypeConf, beartype

NUMERICAL = [
    "audit.bench", "audit.calibration.error_rates", "audit.calibration.joint_rule", "audit.case.alternates",
    "audit.case.rows", "audit.circuits", "audit.edits", "audit.forecasting", "audit.pools.fit", "audit.probing",
    "audit.readouts", "audit.review.comparison", "audit.stats", "audit.wrappers", "audit.zoo", "probes",
]  # fmt: skip
"""Packages and modules that handle arrays. Preparing a check takes time at import; elsewhere the type checker has
already said what a check at run time would say."""

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with its arguments and result checked; a method that says ``Self`` is left alone.

    ``Self`` has no meaning without the class, and the import hook sees methods one by one. A protocol is checked by the
    names of its members. An ``int`` is accepted for a ``float``, as type checkers do. A function inside a function is
    left alone too: it is made anew at every call, and preparing its check costs a hundred times what it does.
    """
    if "<locals>" in function.__qualname__:
        return function
    for hint in _parts(getattr(function, "__annotations__", {}).values()):
        if hint is typing.Self:
            return function
        if isinstance(hint, type) and getattr(hint, "_is_protocol", False):
            typing.runtime_checkable(hint)
    return _check(function)


def _parts(hints: typing.Iterable[Any]) -> Iterator[Any]:
    """Every hint, and whatever stands inside its brackets."""
    for hint in hints:
        yield hint
        inside = typing.get_args(hint)
        yield from _parts([part for item in inside for part in (item if isinstance(item, list) else [item])])
