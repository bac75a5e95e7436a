"""Text that came from elsewhere: whatever a model, a data file or a file name says is hostile until it was here."""

import unicodedata

PROSE, CELL, NAME = 1200, 240, 80
"""Caps in characters for a paragraph, a table cell and a name."""


def visible(text: str, cap: int = PROSE) -> str:
    """Hostile text made harmless to read: control, bidirectional and invisible characters shown, length capped.

    Markup is not touched: escaping is the business of the view that knows its own syntax.
    """
    head = text[:cap]
    shown = head if head.isascii() and head.isprintable() else "".join(_seen(c) for c in head)
    return shown if len(text) <= cap else f"{shown} … {len(text) - cap} more characters"


def is_hidden(c: str) -> bool:
    """Is a character one that nobody sees: control, format, private, unassigned, half a pair, or a selector?"""
    hidden = unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    selector = "\ufe00" <= c <= "\ufe0f" or "\U000e0100" <= c <= "\U000e01ef"
    return hidden or selector


def _seen(c: str) -> str:
    return f"‹U+{ord(c):04X}›" if is_hidden(c) else c
