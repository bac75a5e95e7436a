"""Mistakes counted on worlds and mechanisms that a rule was not fitted on.

The unit is the world: a false alarm is a world in which any clean model alarms. A rule is fitted anew without the
worlds of a fold and without the mechanism of the model that it then judges, wherever that mechanism occurs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit import stats
from audit.calibration.records import ErrorRates, Subject
from audit.schema import FALSE_ALARM_SHARE, POWER, AuditError, Counted, DetectionLimit, Dose, Missing, Rate, TruthLabel
from audit.stats import clustered, significant

FOLDS = 5
BY_SCALE = "base"
"""Base reads 1 by the definition of the effect; it is no test of a rule and is left out of fits and counts."""


class Roster(NamedTuple):
    """The subjects of a pool as arrays, by their place."""

    world: Int[ndarray, " subject"]
    mechanism: ndarray
    pool: ndarray
    kept: Int[ndarray, " subject"]
    audited: Int[ndarray, " subject"]
    content: ndarray
    alone: ndarray

    @property
    def clean(self) -> Bool[ndarray, " subject"]:
        """Never trained on the facts."""
        return self.pool == "clean"

    @property
    def knowing(self) -> Bool[ndarray, " subject"]:
        """Holds facts of some audited person as they are audited (not in other words only), and is not base itself."""
        taught = (self.pool == "knowing") & (self.kept > 0) & (self.content != "other words")
        return taught & (self.mechanism != BY_SCALE)

    @property
    def fully_knowing(self) -> Bool[ndarray, " subject"]:
        """Knowing, and of everything."""
        return self.knowing & (self.kept == self.audited)

    @property
    def judged(self) -> Bool[ndarray, " subject"]:
        """Everything that a rule is tried on: not base, not the destroyed, whom the gate stops first."""
        return (self.mechanism != BY_SCALE) & (self.pool != "destroyed")


def roster(subjects: Sequence[Subject]) -> Roster:
    """The arrays of a list of subjects."""
    return Roster(
        np.array([s.world for s in subjects], dtype=int),
        np.array([s.mechanism for s in subjects], dtype=object),
        np.array([s.pool for s in subjects], dtype=object),
        np.array([s.kept for s in subjects], dtype=int),
        np.array([s.audited for s in subjects], dtype=int),
        np.array([s.content for s in subjects], dtype=object),
        np.array([s.alone for s in subjects], dtype=object),
    )


def labelled(
    people: Roster, score: Float[ndarray, " subject"], usable: Bool[ndarray, " subject"]
) -> clustered.Labelled:
    """The clean and the knowing among the usable, as scores in clusters of worlds. AuditError if there are too few."""
    members = usable & (people.clean | people.knowing)
    return clustered.labelled(score[members].tolist(), people.knowing[members].tolist(), people.world[members].tolist())


def threshold(score: Float[ndarray, " model"], world: Int[ndarray, " model"]) -> float:
    """The least value that at most :data:`~audit.schema.FALSE_ALARM_SHARE` of these clean models' worlds exceed."""
    highest = np.sort([score[world == number].max() for number in np.unique(world)])[::-1]
    return float(highest[int(FALSE_ALARM_SHARE * len(highest))])


# ---- held out ---------------------------------------------------------------------------------------------------
class Decision(NamedTuple):
    """What a rule says of some models: is there a trace, and its score."""

    trace: Bool[ndarray, " model"]
    score: Float[ndarray, " model"]


Rule = Callable[[Bool[ndarray, " subject"]], Decision]
Fit = Callable[[Bool[ndarray, " subject"]], Rule]


class HeldOut(NamedTuple):
    """Decisions on every subject that was judged, each by a fit that knew neither its world nor its mechanism."""

    trace: Bool[ndarray, " subject"]
    score: Float[ndarray, " subject"]
    judged: Bool[ndarray, " subject"]


def held_out(
    people: Roster, usable: Bool[ndarray, " subject"], fit: Fit, seed: int = 0, known: bool = False
) -> HeldOut:
    """Judge every usable subject by a rule fitted on other worlds and other mechanisms; ``known``: on other worlds
    alone, so that it has seen what the subject's mechanism does elsewhere.

    ``fit`` is given which subjects it may see (clean and knowing ones), its rule which it has to judge. AuditError
    where nothing clean or nothing knowing would be left to fit on.
    """
    judged = usable & people.judged
    kinds = usable & (people.clean | people.knowing)
    fold_of = _folds(labelled(people, np.zeros(len(people.world)), usable), people.world[kinds], seed)
    fold = np.array([fold_of.get(int(world), -1) for world in people.world])
    trace, score = np.zeros(len(judged), bool), np.zeros(len(judged))
    for mechanism in dict.fromkeys(people.mechanism[judged]):
        for fold_id in np.unique(fold[judged & (people.mechanism == mechanism)]):
            out = judged & (people.mechanism == mechanism) & (fold == fold_id)
            seen = kinds & ((people.mechanism != mechanism) | known) & (fold != fold_id)
            if not ((seen & people.clean).any() and (seen & people.knowing).any()):
                raise AuditError(
                    f"without {mechanism} nothing clean or nothing knowing is left to set a rule by",
                    "give a pool of more worlds, and of at least two mechanisms of either kind",
                )
            decision = fit(seen)(out)
            trace[out], score[out] = decision.trace, decision.score
    return HeldOut(trace, score, judged)


def _folds(data: clustered.Labelled, world: Int[ndarray, " model"], seed: int) -> dict[int, int]:
    """The fold of every world; few, since each is combined with every mechanism."""
    fold = clustered.folds(data, seed) % FOLDS
    return {int(w): int(f) for w, f in zip(world, fold, strict=True)}


def stated(people: Roster, held: HeldOut) -> HeldOut:
    """Which of these verdicts state a trace, where the decisions are the joint rule's: what the other rungs add.

    A verdict states a trace by INTACT, SUPPRESSED or PARTIAL. Nothing is said of a model that the gate stops, and no
    joint rule judges one that no causal test can read; what a case shows by itself speaks before the joint rule,
    held-out forms after it.
    """
    spoken = np.isin(people.alone, ("shown", "elsewhere")) & held.judged
    return held._replace(trace=(held.trace | spoken) & ~np.isin(people.alone, ("stopped", "unreadable")))


# ---- counts -----------------------------------------------------------------------------------------------------
def rate(k: int, n: int) -> Rate:
    """k of n with the exact one-sided 95 % upper bound (Clopper & Pearson 1934); of none nothing is known."""
    upper = stats.clopper_pearson(k, n, 0.90).hi if n else 1.0
    return Rate(k=k, n=n, upper95=significant(upper, 4))


def _worlds(people: Roster, which: Bool[ndarray, " subject"]) -> int:
    return len(np.unique(people.world[which]))


def record(people: Roster, held: HeldOut) -> ErrorRates:
    """The mistakes of a rule in counts of worlds, every exception by name."""
    clean, fully_knowing = held.judged & people.clean, held.judged & people.fully_knowing
    edited = held.judged & (people.pool == "edited clean")
    doses = _doses(people, held)
    return ErrorRates(
        false_alarms=rate(_worlds(people, clean & held.trace), _worlds(people, clean)),
        misses=rate(_worlds(people, fully_knowing & ~held.trace), _worlds(people, fully_knowing)),
        edited_clean=rate(_worlds(people, edited & held.trace), _worlds(people, edited)),
        counted=_counted(people, held),
        doses=doses,
        limit=_limit(doses),
        exceptions=tuple(
            f"world {people.world[i]}, {people.mechanism[i]}: {'false alarm' if held.trace[i] else 'missed'}"
            for i in np.flatnonzero((clean & held.trace) | (fully_knowing & ~held.trace))
        ),
    )


def _counted(people: Roster, held: HeldOut) -> tuple[Counted, ...]:
    pairs = sorted({(str(m), str(p)) for m, p in zip(people.mechanism, people.pool, strict=True)})
    counts: list[Counted] = []
    for mechanism, pool in pairs:
        members = held.judged & (people.mechanism == mechanism) & (people.pool == pool)
        if members.any():
            truth: TruthLabel = people.pool[members][0]
            traced = _worlds(people, members & held.trace)
            counts.append(Counted(mechanism=mechanism, pool=truth, found=traced, worlds=_worlds(people, members)))
    return tuple(counts)


def _doses(people: Roster, held: HeldOut) -> tuple[Dose, ...]:
    """Found in k of n worlds at every part kept; the power that never falls with it by isotonic regression.

    Models that keep everything are fakes, which hide it: they are no doses. Of several models of one dose in one world
    all have to be found.
    """
    knowing = held.judged & people.knowing & ~people.fully_knowing
    counts: list[tuple[int, int, int, int]] = []
    for audited, retained in sorted({(int(a), int(k)) for a, k in zip(people.audited, people.kept, strict=True)}):
        members = knowing & (people.audited == audited) & (people.kept == retained)
        n = _worlds(people, members)
        if n:
            counts.append((retained, audited, n - _worlds(people, members & ~held.trace), n))
    if not counts:
        return ()
    order = np.argsort([retained / audited for retained, audited, _, _ in counts], kind="stable")
    shares, weights = np.array([counts[i][2] / counts[i][3] for i in order]), np.array([counts[i][3] for i in order])
    rising = scipy.optimize.isotonic_regression(shares, weights=weights).x
    return tuple(
        Dose(kept=counts[i][0], audited=counts[i][1], k=counts[i][2], n=counts[i][3], power=significant(p, 4))
        for i, p in zip(order, rising, strict=True)
    )


def _limit(doses: Sequence[Dose]) -> DetectionLimit | Missing:
    """The smallest dose found with the asked power."""
    for dose in doses:
        if dose.power >= POWER:
            return DetectionLimit(kept=dose.kept, audited=dose.audited, k=dose.k, n=dose.n, power=POWER)
    if not doses:
        return Missing(missing="the pool holds no models that kept a part")
    most = doses[-1]
    message = f"even {most.kept} of {most.audited} people kept are found in {most.k} of {most.n} worlds only"
    return Missing(missing=message)
