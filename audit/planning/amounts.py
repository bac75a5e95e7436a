"""How times and amounts of memory are written on the command line."""

import re
from typing import Final

from audit.schema import AuditError

_UNITS: Final = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def parse_time(text: str) -> float:
    """``90``, ``90s``, ``15m`` or ``2h`` in seconds. AuditError (code 2) for anything else."""
    amount = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)([smh]?)", text)
    if amount is None or float(amount[1]) <= 0:
        raise AuditError(f"--max-time {text[:99]!r} is no time", "give seconds, or such as 15m or 2h")
    return float(amount[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[amount[2]]


def parse_bytes(text: str) -> int:
    """``500M``, ``4G`` or a number of bytes. AuditError (code 2) for anything else."""
    amount = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)([KMGT]?)B?", text, re.IGNORECASE)
    if amount is None:
        raise AuditError(f"{text[:99]!r} is no amount of memory", "give such as 500M or 4G")
    return int(float(amount[1]) * _UNITS[amount[2].upper()])


def parse_count(text: str) -> int | None:
    """A whole number in decimal digits; None for anything else, and for more digits than a count has."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def parse_memory(text: str, device: str) -> tuple[tuple[str, int], ...]:
    """``20G`` (of ``device``) or ``0=20G,1=20G,cpu=60G``: bytes by device. AuditError (code 2) for anything else."""
    if "=" not in text:
        place = "0" if device.startswith("cuda") else device
        return ((device.partition(":")[2] or place, parse_bytes(text)),)
    pairs = [pair.strip().partition("=") for pair in text.split(",")]
    if wrong := [place for place, _, _ in pairs if not (place.isdigit() or place in ("cpu", "mps"))]:
        raise AuditError(
            f"--max-memory {text!r}: {wrong[0]!r} is no device", "give such as 20G, or 0=20G,1=20G,cpu=60G"
        )
    return tuple((place, parse_bytes(size)) for place, _, size in pairs)
