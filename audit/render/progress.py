"""How long something lasts, in words."""


def lasting(lo: float, hi: float) -> str:
    """A time range in words; both ends in seconds."""
    unit, per = ("h", 3600) if hi >= 7200 else ("min", 60) if hi >= 120 else ("s", 1)
    return f"{lo / per:.2g} to {hi / per:.2g} {unit}"
