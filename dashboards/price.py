"""What `residua plan --json` says of time and memory, in words; an answer without a price says that it has none."""

from collections.abc import Mapping
from typing import NamedTuple, Self

from pydantic import JsonValue, ValidationError

from audit.schema import Record
from audit.wording import NAME, size, visible
from dashboards.progress import span

UNKNOWN = "not priced by this Residua"


class _Unit(Record, extra="ignore"):
    unit: str
    seconds: tuple[float, float]
    peak_bytes: int


class _PlanPrice(Record, extra="ignore"):
    seconds: tuple[float, float]
    source: str
    peak_bytes: int
    units: tuple[_Unit, ...]


class Price(NamedTuple):
    """Time as a range, memory, and both for each unit of work."""

    time: str
    memory: str
    units: Mapping[str, str]

    @classmethod
    def of(cls, answer: Mapping[str, JsonValue]) -> Self:
        """The price in an answer of the planner."""
        try:
            price = _PlanPrice.model_validate(answer.get("price"))
        except ValidationError:
            return cls(UNKNOWN, UNKNOWN, {})
        units = {u.unit: f"{_range(*u.seconds)}, {size(u.peak_bytes)}" for u in price.units}
        time = f"{_range(*price.seconds)}, {visible(price.source, NAME)}"
        return cls(time, f"about {size(price.peak_bytes)} at most", units)


def _range(low: float, high: float) -> str:
    return f"{low:.1f} to {high:.1f} s" if high < 90 else f"{span(low)} to {span(high)}"
