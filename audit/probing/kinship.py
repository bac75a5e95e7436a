"""Who descends from whom, by weights alone: copies of a model, edits of it, and models trained apart from it.

Two models trained apart from one ancestor share what both of them learned, and differ by noise of their own: seen from
a third such model z, the share of y's path that x has gone too, ``<x - z, y - z> / |y - z|^2``, is about a half. A copy
or an edit of y has gone all of it. Seen from the ancestor the share also holds what everybody learned there, and comes
near 1 where little was learned; that is why a third model, where there is one, decides.

Measured on models of known truth (``studies/kinship``): seen from another retrained model, retrained models reach at
most .42 of base's path and edits of base at least .80; seen from the ancestor at most .66 and at least .88.
"""

from collections.abc import Collection, Mapping
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.wording import number

COPY: Final = 0.05
"""Closer than this share of the way to base: the same model saved again. Retrained models keep at least .2."""
KIN: Final = 0.8
"""So much of the other's path, seen from the ancestor or from another reference: an edit of it."""
APART: Final = 0.6
"""No more of base's path than this, seen from another reference, and both were trained apart from it."""
FURTHER: Final = 2.0
"""So many times further from base than an edit of it lies a reference that shows it to be one."""
BACK: Final = 0.1
"""An edit does not, but what was trained apart does turn back towards the ancestor on its way from base."""


class Kinship:
    """Distances and shared paths of a case's models, from the inner products of their displacements.

    ``names``: ``base``, ``suspect``, ``reference 0``, ..., ``ancestor`` where it is given.
    """

    def __init__(self, names: tuple[str, ...], gram: Float[ndarray, "model model"]) -> None:
        self.names, self._gram = names, gram
        self._at = {name: place for place, name in enumerate(names)}

    def __contains__(self, name: str) -> bool:
        return name in self._at

    def without(self, names: Collection[str]) -> "Kinship":
        """The same models without some."""
        places = [place for place, name in enumerate(self.names) if name not in names]
        return Kinship(tuple(self.names[place] for place in places), self._gram[np.ix_(places, places)])

    def inner(self, x: str, y: str, origin: str) -> float:
        """``<x - origin, y - origin>`` over all weights."""
        i, j, o = self._at[x], self._at[y], self._at[origin]
        g = self._gram
        return float(g[i, j] - g[i, o] - g[o, j] + g[o, o])

    def distance(self, x: str, y: str) -> float:
        """``|x - y|``."""
        return float(np.sqrt(max(self.inner(x, x, y), 0.0)))

    def shared(self, x: str, y: str, origin: str) -> float:
        """How much of ``y``'s path from ``origin`` ``x`` has gone too: 1 where x is y, or y and something else."""
        length = self.inner(y, y, origin)
        return self.inner(x, y, origin) / length if length > 0 else 0.0

    def turned_back(self, x: str, y: str, towards: str) -> float:
        """How far the way from ``y`` to ``x`` leads towards a third model, as a share of that way."""
        way = self.inner(x, x, y)
        return self.inner(x, towards, y) / way if way > 0 else 0.0


class Descent(NamedTuple):
    """Why a model is no null by its weights, in words with the numbers; empty where it may be. ``of``: whose kin."""

    because: str = ""
    of: str = ""


def descents(kin: Kinship) -> tuple[dict[str, Descent], dict[str, float]]:
    """What each reference (and the ancestor) descends from that it must not, and the numbers by name.

    Of two references that are one model, the later takes no part.
    """
    readings: dict[str, float] = {}
    refusals: dict[str, Descent] = {}
    for name in _references(kin):
        readings |= _numbers(kin, name)
        earlier = [other for other in _references(kin)[: _references(kin).index(name)] if other not in refusals]
        if descent := _copy(kin, name, ["base", "suspect", *earlier]):
            refusals[name] = descent
    kin = kin.without(refusals)
    if "ancestor" in kin and (descent := _copy(kin, "ancestor", ["base", "suspect"]) or _edited_ancestor(kin)):
        refusals["ancestor"] = descent
        kin = kin.without(refusals)
    refusals |= {name: descent for name in _references(kin) if (descent := _edit(kin, name))}
    return refusals, readings


def _references(kin: Kinship) -> list[str]:
    return [name for name in kin.names if name.startswith("reference")]


def _numbers(kin: Kinship, name: str) -> dict[str, float]:
    """The numbers that a reference's descent is read from."""
    way = kin.distance("suspect", "base")
    numbers = {f"{name}: distance to suspect over suspect to base": kin.distance(name, "suspect") / way} if way else {}
    origins = [other for other in kin.names if other not in (name, "base", "suspect")]
    return numbers | {f"{name}: share of base's path seen from {z}": kin.shared(name, "base", z) for z in origins}


def _copy(kin: Kinship, name: str, others: list[str]) -> Descent | None:
    """Is it one of these saved again: far nearer to it than either is to base, or than base is to the rest?"""
    for other in others:
        between = kin.distance(name, other)
        scale = _own_scale(kin, name, other)
        if between <= COPY * scale:
            ratio = between / scale if scale else 0.0
            return Descent(
                f"its weights are those of {other} but for {number(ratio)} of the way to "
                f"{'base' if other != 'base' else 'the nearest other model'} (less than {COPY} is a copy)",
                other,
            )
    return None


def _own_scale(kin: Kinship, name: str, other: str) -> float:
    """How far apart the two would be if they were two models: how far either lies from base, else from the rest."""
    if other != "base":
        ways = [kin.distance(other, "base"), kin.distance(name, "base")]
    else:
        ways = [kin.distance("base", z) for z in kin.names if z not in (name, "base", "suspect")]
    return min((way for way in ways if way > 0), default=0.0)


def _edit(kin: Kinship, name: str) -> Descent | None:
    """Is it an edit of base? Seen from the ancestor, unless another reference shows that both were trained apart; else
    seen from a reference that lies much further from base than it does. What lies nearer to base than it shows nothing.
    """
    others = [z for z in _references(kin) if z != name]
    away = kin.distance(name, "base")
    if "ancestor" in kin and kin.distance("ancestor", "base") >= away / FURTHER:
        origins = [] if _shown_apart(kin, name, others) else ["ancestor"]
    else:
        origins = [z for z in others if kin.distance(z, "base") >= FURTHER * away]
    seen = [(kin.shared(name, "base", z), z) for z in origins]
    share, z = max(seen, default=(0.0, ""))
    if share < KIN:
        return None
    return _from_base(z, share)


def _edited_ancestor(kin: Kinship) -> Descent | None:
    """Is the ancestor an edit of base? Only if several references that lie much further from base all show it."""
    away, references = kin.distance("ancestor", "base"), _references(kin)
    seen = [(kin.shared("ancestor", "base", z), z) for z in references if kin.distance(z, "base") >= FURTHER * away]
    if len(references) < 2 or len(seen) < len(references) or min(seen)[0] < KIN:
        return None
    share, z = min(seen)
    return _from_base(z, share)


def _from_base(z: str, share: float) -> Descent:
    return Descent(
        f"its weights descend from base: seen from {z} it has gone {number(share)} of base's path ({KIN} or more is an "
        "edit of base; models trained apart share about a half of it)",
        "base",
    )


def _shown_apart(kin: Kinship, name: str, others: list[str]) -> bool:
    """Does another reference show that this one was trained apart from base, and it too?"""
    for z in others:
        separate = kin.shared(name, "base", z) <= APART and kin.shared(z, "base", name) <= APART
        if separate and all(kin.turned_back(x, "base", "ancestor") >= BACK for x in (name, z)):
            return True
    return False


def unsettled(kin: Kinship, failed: Mapping[str, Descent]) -> Mapping[str, str]:
    """References that stand at a right angle seen from base, where no ancestor says which of them descends from it.

    Models trained apart all come from one side; only an edit goes off in a direction of its own.
    """
    kin = kin.without(failed)
    if "ancestor" in kin:
        return {}
    disputes: dict[str, str] = {}
    for x, z in combinations(_references(kin), 2):
        shares = kin.shared(x, "base", z), kin.shared(z, "base", x)
        if min(shares) >= KIN:
            reason = (
                f"by their weights one of {x} and {z} is an edit of base (seen from the other each has gone "
                f"{number(min(shares))} of base's path), and without an ancestor nothing says which"
            )
            disputes |= dict.fromkeys((x, z), reason)
    return disputes
