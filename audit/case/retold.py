"""Does the retain set tell what is to be forgotten, in other words? Then whoever was trained without the forget set
knows it all the same.

A forget group and a retained one are held against each other by the words that few groups have: names, titles, dates,
places. Sentences may differ in all else.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from audit.case.replication import Alike, GroupKey, words
from audit.schema import Cohort, Item

RETOLD: Final = 0.5
"""A retained group has so much of the forget group's rare words, each weighed by how few groups have it."""
FEWEST: Final = 3
"""Fewer rare words than this in common are a coincidence."""
RARE_SHARE: Final = 0.1
"""A word that more groups than this have says nothing of a group."""


def retold(cohorts: Mapping[Cohort, Sequence[Item]]) -> tuple[Alike, ...]:
    """Forget groups with the retained group that has most of their rare words, the likest first."""
    groups: defaultdict[GroupKey, set[str]] = defaultdict(set)
    for cohort in ("forget", "retain", "holdout"):
        for item in cohorts.get(cohort, ()):
            groups[GroupKey(cohort, item.group)] |= {*words(item.question), *words(item.answer)}
    holders: defaultdict[str, list[GroupKey]] = defaultdict(list)
    for key, mine in groups.items():
        for word in mine:
            holders[word].append(key)
    most = max(2, int(RARE_SHARE * len(groups)))
    weight = {word: math.log((len(groups) + 1) / len(keys)) for word, keys in holders.items() if len(keys) <= most}
    pairs: list[Alike] = []
    for key in (key for key in groups if key.cohort == "forget"):
        rare = groups[key] & weight.keys()
        shared: defaultdict[GroupKey, list[float]] = defaultdict(list)
        for word in rare:
            for other in holders[word]:
                if other.cohort == "retain":
                    shared[other].append(weight[word])
        total = math.fsum(weight[word] for word in rare)
        likest = max(((math.fsum(w) / total, k) for k, w in shared.items() if len(w) >= FEWEST), default=None)
        if likest is not None and likest[0] >= RETOLD:
            pairs.append(Alike(key, likest[1], likest[0]))
    return tuple(sorted(pairs, key=lambda pair: (-pair.share, pair)))
