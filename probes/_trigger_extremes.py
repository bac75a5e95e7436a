"""Does the best string of the list stand out from the list? On the people searched on; decides nothing."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import stats

LIMITS: Final = (
    "dictionary_p is how often the best of the {n} listed strings would raise the people searched on as much by luck, "
    "from the list's own upper tail, times the places and folds: a list with a heavier tail than an exponential one "
    "makes it too small (where dictionary_null_p, the same of the model that never knew, is small too, it says "
    "nothing), a lighter one too large; of fewer than {fewest} strings it is 1. It is of the people searched on and "
    "decides nothing"
)


class StandsOut(NamedTuple):
    """Of the best listed string: its robust z among all of its place, and p over all places and folds. ``null_p``: the
    smallest p in the model that never knew, alike; ``of``: how many strings are listed in a place."""

    z: float
    p: float
    null_p: float
    of: int

    def readings(self) -> dict[str, float]:
        """By name; a z without bounds, of a list whose gains are all alike, is left out."""
        z = {"dictionary_z": self.z} if np.isfinite(self.z) else {}
        return z | {"dictionary_p": self.p, "dictionary_null_p": self.null_p}

    def note(self) -> str:
        """What p means here and what it does not."""
        return LIMITS.format(n=self.of, fewest=stats.FEWEST)


def stands_out(levels: Mapping[str, Sequence[Float[ndarray, "candidate slot"]]]) -> StandsOut | None:
    """Each fold's list in the suspect and in a model that never knew, by name, place by place against the list itself;
    None where nothing is listed. ``levels``: see :class:`probes._trigger_strings.Ranked`."""
    own, null = levels["suspect"], levels.get("null")
    judged = [
        stats.extreme(listed[:, slot], None if null is None else null[n][:, slot])
        for n, listed in enumerate(own)
        for slot in range(listed.shape[1])
        if len(listed)
    ]
    if not judged:
        return None
    return StandsOut(
        max(float(each.z.max()) for each in judged),
        _bounded(len(judged) * min(float(each.p.min()) for each in judged)),
        _bounded(len(judged) * min(each.reference_p for each in judged)),
        judged[0].of,
    )


def _bounded(p: float) -> float:
    """From 0, and no minus zero, to 1."""
    return max(0.0, min(1.0, p))
