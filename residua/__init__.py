"""Residua: what remains of the thing a model was asked to forget, and how sure are we?

The documented door: ``residua.run``, ``plan`` and ``forecast`` with ``Case`` and ``Report``, and ``Probe``, ``Edit``
and ``Bench`` for who adds to it. All of it is :mod:`audit`'s, imported when it is first used.
"""

import audit


def __getattr__(name: str) -> object:
    return getattr(audit, name)


def __dir__() -> list[str]:
    return sorted(vars(audit)["__all__"])
