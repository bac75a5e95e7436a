"""A question with its options below it, an option a line, in every order that is a turn of the first."""

from collections.abc import Sequence
from typing import TypeVar

Option = TypeVar("Option")


def offering(question: str, options: Sequence[str]) -> str:
    """The question, and below it the options in this order."""
    return "\n".join((question, *options))


def turned(options: Sequence[Option]) -> tuple[tuple[Option, ...], ...]:
    """All cyclic turns of the options: each of them stands in each place once."""
    return tuple((*options[n:], *options[:n]) for n in range(len(options)))
