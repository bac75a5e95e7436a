"""Are there more of a set's members among the first of a ranking than chance puts there?"""

import numpy as np
import scipy
from jaxtyping import Float
from numpy import ndarray


def log10_tail(members: int, first: int, of: int) -> Float[ndarray, " hits"]:
    """log10 of the chance that at least 0, 1, .. all ``members`` of ``of`` are among the ``first`` ones of a random
    ranking: the upper tail of the hypergeometric distribution (Fisher 1935, JRSS 98:39), summed from its end in
    logarithms, so that it never underflows. -inf for more hits than ``first`` places can hold."""
    hits = np.arange(members + 1)
    density = scipy.stats.hypergeom.logpmf(hits, of, members, first)
    tail = np.minimum(np.logaddexp.accumulate(density[::-1])[::-1], 0.0) / np.log(10)
    tail[0] = 0.0
    return tail
