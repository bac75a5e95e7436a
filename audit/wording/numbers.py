"""Numbers as words: two significant figures, a true minus sign, and missing values with their reason."""

import re
from typing import Final

from audit.schema import Interval, Measurement, Missing, Number
from audit.wording.replicates import replicate_of
from audit.wording.untrusted import CELL, NAME, visible

_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Number) -> str:
    """Two significant figures with a true minus sign; a missing value is the word 'missing' with its reason."""
    if isinstance(value, Missing):
        return f"missing ({visible(value.missing, CELL)})"
    if value == 0:
        return "0"
    mantissa, exponent = f"{abs(value):.1e}".split("e")
    power = int(exponent)
    if power < -4 or power > 5:
        shown = f"{mantissa}×10{str(power).translate(_RAISED)}"
    else:
        shown = f"{float(f'{abs(value):.1e}'):.{max(0, 1 - power)}f}"
    return f"−{shown}" if value < 0 else shown


def interval(ci95: Interval | Missing) -> str:
    """Both ends of a 95 % interval, or why there is none."""
    if isinstance(ci95, Missing):
        return f"no interval ({visible(ci95.missing, CELL)})"
    joint = "–" if ci95.lo >= 0 else " to "
    return f"{number(ci95.lo)}{joint}{number(ci95.hi)}"


def bounds(m: Measurement) -> str:
    """The interval of a measurement; the reason why there is none is not told twice."""
    return "missing" if isinstance(m.ci95, Missing) and m.ci95 == m.value else interval(m.ci95)


def unit(text: str) -> str:
    """A unit without what its author explains in brackets."""
    return visible(text.partition(" (")[0], NAME)


def least_p(m: Measurement) -> float:
    """The smallest p that the test of a measurement allows: as recorded, else of k draws (k + 1 with the data), or of
    the 2^n signs of n."""
    if isinstance(m.null, Missing):
        return 2.0**-m.units if m.units else 0.0
    return m.null.least_p if isinstance(m.null.least_p, float) else 1 / (m.null.n + 1)


def p_value(value: Number, least: float = 0.0) -> str:
    """``p = 0.0012``, or why there is none; never smaller than ``least``, what the design of the test allows."""
    if isinstance(value, Missing):
        return f"no p ({visible(value.missing, CELL)})"
    least = max(least, 1e-4)
    return f"p < {number(least)}" if value < least * (1 - 1e-9) else f"p = {number(value)}"


def p_of(m: Measurement) -> str:
    """The p of a measurement, above its null."""
    return p_value(m.p, least_p(m))


def units(m: Measurement) -> str:
    """How many units of replication stand behind a number: ``16 people``."""
    if m.units == 0:
        return "not over units"
    return visible(replicate_of(m).amount(m.units), NAME)


def size(size_bytes: int) -> str:
    """Bytes in the largest unit that leaves at least one."""
    value, unit = float(size_bytes), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"


def moment(text: str) -> str:
    """A UTC time as people write it; any other text as it is."""
    shown = visible(text, NAME)
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?(?:Z|\+00:00)", shown)
    return f"{match[1]}, {match[2]} UTC" if match else shown


def lasting(lo: float, hi: float) -> str:
    """A time range in words; both ends in seconds."""
    unit, per = ("h", 3600) if hi >= 7200 else ("min", 60) if hi >= 120 else ("s", 1)
    return f"{lo / per:.2g} to {hi / per:.2g} {unit}"


def told_bytes(n: int) -> str:
    """An amount of memory in words."""
    if n >= 1e9:
        return f"{n / 1e9:.0f} GB" if n >= 99.5e9 else f"{n / 1e9:.2g} GB"
    return f"{n / 1e6:.0f} MB"
