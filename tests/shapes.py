"""The run-time check of annotations that tests/conftest.py hangs on every function of ours."""

import typing
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, BeartypeStrategy, beartype

_check = beartype(conf=BeartypeConf(strategy=BeartypeStrategy.O1, is_pep484_tower=True))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` with its arguments and result checked; a method that says ``Self`` is left alone.

    ``Self`` has no meaning without the class, and the import hook sees methods one by one. An ``int`` is accepted for a
    ``float``, as type checkers do.
    """
    hints = getattr(function, "__annotations__", {})
    if any(hint is typing.Self or typing.Self in typing.get_args(hint) for hint in hints.values()):
        return function
    return _check(function)
