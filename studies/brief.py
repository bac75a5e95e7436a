"""A measurement as results files of studies keep it: what tables need of it, rounded."""

from typing import Any, Final

from audit.judging import judge
from audit.schema import Measurement, Missing

DIGITS: Final = 5


def brief(m: Measurement) -> dict[str, Any]:
    """Value, p, floor, interval and readings of a measurement, and what judging says of one that may be evidence."""

    def number(x: float | Missing) -> float | str:
        return x.missing if isinstance(x, Missing) else round(x, DIGITS)

    readings = {name: round(value, DIGITS) for name, value in m.readings.items()}
    known: dict[str, Any] = {"value": number(m.value), "p": number(m.p), "floor": number(m.floor), "readings": readings}
    if not isinstance(m.ci95, Missing):
        known["ci95"] = [round(end, DIGITS) for end in m.ci95.ends]
    if m.kind != "context":
        known["outcome"] = judge(m).outcome
    return known
