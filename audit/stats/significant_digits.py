"""Numbers as files keep them: to a number of significant digits."""


def significant(value: float, digits: int) -> float:
    """``value`` to so many significant digits, rounded half to even in decimal as ``format`` does; infinities stay."""
    return float(f"{float(value):.{digits}g}")
