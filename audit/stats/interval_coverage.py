"""From how many clusters an interval is what it says, by measured coverage. Free of numpy: pages ask."""

from typing import Literal

Method = Literal["percentile", "logit_t", "bootstrap_t"]
"""Ways to an interval for an AUROC over clusters."""

ENOUGH_UNITS: dict[Method, int | None] = {
    "percentile": None,
    "logit_t": 30,
    "bootstrap_t": None,
}
"""From how many clusters a nominal 95 % interval covers at least 93 % in every cell of ``studies/coverage``;
None: with no number of them that was tried. A test holds these against the committed table."""


def approximate(method: Method, units: int) -> bool:
    """Does a nominal 95 % interval of this kind over so many clusters (people) cover less than 93 %?

    By the committed table of ``studies/coverage``. Calibrations and reports call such an interval approximate.
    """
    enough = ENOUGH_UNITS[method]
    return enough is None or units < enough
