"""Is the suspect a child of base, by weights alone? Read as references are audited (:mod:`audit.probing.kinship`)."""

from typing import Final, NamedTuple

from audit.bench import Bench
from audit.case import OpenCase
from audit.probing.kinship import APART, COPY, KIN, Kinship
from audit.probing.role_audit import never_trained
from audit.wording import number

UNSEEN: Final = (
    "no third model was given from which the ways of base and suspect could be path apart: weights that two models "
    "share show a common parent at least"
)


class SuspectDescent(NamedTuple):
    """What the weights say, in a sentence, and the numbers by name."""

    sentence: str
    readings: dict[str, float]


def suspect_descent(bench: Bench, case: OpenCase) -> SuspectDescent:
    """How much of base's way the suspect has gone too, seen from each model that never knew."""
    never = never_trained(case)
    if not never:
        return SuspectDescent(UNSEEN, {})
    models = {"base": case.base, "suspect": case.suspect, **never}
    kin = Kinship(tuple(models), bench.displacements(*models.values()))
    shares = {name: kin.shared("suspect", "base", name) for name in never}
    readings = {f"path_share_from_{name.replace(' ', '_')}": share for name, share in shares.items()}
    least, name = min((share, name) for name, share in shares.items())
    path = f"seen from {name} it has gone {number(least)} of base's path"
    if (copy := _copied(kin, list(never))) is not None:
        return SuspectDescent(f"the suspect's weights are those of {copy} but for {COPY} of the way", readings)
    if least >= KIN:
        return SuspectDescent(f"the suspect is a child of base: {path} ({KIN} or more is an edit of it)", readings)
    if any(share <= APART for name, share in shares.items() if name != "ancestor"):
        return SuspectDescent(f"the suspect was trained apart from base: {path} (an edit of base has {KIN})", readings)
    return SuspectDescent(f"whether the suspect is a child of base stays open: {path}", readings)


def _copied(kin: Kinship, never: list[str]) -> str | None:
    """Whose weights the suspect has, of the models that never knew."""
    return next((z for z in never if kin.distance("suspect", z) <= COPY * kin.distance("base", z)), None)
