"""Calibrated judging: what a measurement, and all of them together, say by models of known truth.

Where a probe's calibration holds, its evidence carries a likelihood ratio with its ceiling and the counted mistakes of
its threshold. The verdict is then the joint rule's, if a causal measurement is among those that ran; gate and outputs
come first, as in every case. Where nothing holds, all stays as :mod:`audit.judging` has it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from audit.calibration import (
    JOINT,
    Calibrated,
    Calibration,
    CalibrationLibrary,
    ErrorRates,
    Feature,
    FeatureRow,
    InCaseState,
    Joined,
    Joint,
    Moved,
    ProbeIdentity,
    exceeds,
    feature_row,
    read,
    read_library,
    use_of,
)
from audit.calibration import joint_rule as joints
from audit.judging.axes import is_trace
from audit.judging.decoy_rates import decoys_of, own_sentence
from audit.judging.explain import Given
from audit.judging.in_case import OUTCOMES, judge
from audit.judging.ladder import Reached, confirmed, in_case_state, is_below, reach, some_people, stands, worded
from audit.judging.reasons import CONSISTENT, Unheard, axes_sentence, limits, strength, would_change
from audit.judging.replicates import replicates_of, unit_of
from audit.judging.support import (
    NEVER,
    band,
    power_sentence,
    rates_sentence,
    ratio_sentence,
    supported,
)
from audit.schema import (
    ALPHA,
    CalibrationUse,
    Domain,
    Evidence,
    Interval,
    LikelihoodRatio,
    Missing,
    Validation,
    Verdict,
    VerdictWord,
)
from audit.stats import Scale, likelihood_ratio, significant
from audit.wording import Replicate

DIGITS = 4


class ApplicableCalibrations(NamedTuple):
    """Which calibrations judge a case, and what is said of every probe's."""

    shelf: CalibrationLibrary
    holding: dict[str, Calibration]
    uses: tuple[CalibrationUse, ...]

    def of(self, probe: str, name: str) -> Calibrated | None:
        """The calibration of one measurement, if it holds."""
        calibration = self.holding.get(probe)
        return next((m for m in calibration.measurements if m.name == name), None) if calibration else None


NOTHING = ApplicableCalibrations(CalibrationLibrary(Path(), None, {}), {}, ())
"""No calibration at all: everything is judged in-case."""


def stand(folder: Path, ran: Mapping[str, ProbeIdentity], domain: Domain, moved: Moved) -> ApplicableCalibrations:
    """Which calibrations of a folder hold for these probes and this audit.

    ``moved`` says of a recorded behaviour what is another by what is installed.
    """
    shelf = read_library(folder)
    uses = tuple(use_of(shelf, probe, identity, domain, moved) for probe, identity in sorted(ran.items()))
    return ApplicableCalibrations(
        shelf, {u.probe: shelf.calibrations[u.probe] for u in uses if u.status == "holds"}, uses
    )


def refused(ran: Mapping[str, ProbeIdentity], because: str) -> ApplicableCalibrations:
    """No calibration judges these probes, and why."""
    uses = tuple(CalibrationUse(probe=name, status="outside", because=because, renew="") for name in sorted(ran))
    return NOTHING._replace(uses=uses)


def restand(folder: Path, uses: Sequence[CalibrationUse]) -> ApplicableCalibrations | None:
    """The calibrations by which a finished report was judged; None where others are stored now."""
    shelf = read_library(folder)
    holding: dict[str, Calibration] = {}
    for use in uses:
        if use.status == "holds":
            found = shelf.calibrations.get(use.probe)
            if found is None or found.content_hash() != use.sha256:
                return None
            holding[use.probe] = found
    return ApplicableCalibrations(shelf, holding, tuple(uses))


# ---- one measurement --------------------------------------------------------------------------------------------
def _power(log10: float) -> float:
    return significant(10.0**log10, DIGITS)


def ratio_of(scale: Scale, score: float, record: ErrorRates, calibration: str) -> LikelihoodRatio:
    """The likelihood ratio of a score, never beyond what the number of worlds supports."""
    found = likelihood_ratio.ratio(scale, score)
    ci95 = Interval(lo=_power(found.lo), hi=_power(found.hi))
    return LikelihoodRatio(
        value=_power(found.log10_lr), ci95=ci95, floor=_power(found.floor), ceiling=_power(found.ceiling),
        words=band(ci95), false_alarms=record.false_alarms, misses=record.misses, limit=record.limit,
        calibration=calibration,
    )  # fmt: skip


def weigh(
    evidence: Evidence, row: Mapping[str, float], standing: ApplicableCalibrations, low: bool = False
) -> Evidence:
    """In-case evidence, weighed by its measurement's calibration where that holds.

    ``row``: its features. Below the never-trained level stays the in-case finding that it is, and a suspect that is
    below (``low``) is told no ratio in favour of never trained; a ratio that supports neither is inconclusive.
    """
    m = evidence.measurement
    calibrated = standing.of(m.probe, m.name)
    if calibrated is None or "effect" not in row or evidence.direction == "below":
        return evidence
    name = f"{m.probe} {standing.holding[m.probe].content_hash()[:12]}"
    ratio = ratio_of(calibrated.scale, row["effect"], calibrated.record, name)
    if low and ratio.value < 1:
        return evidence
    above = exceeds(row, calibrated.threshold)
    status = "trace" if above else "silent" if supported(ratio) == NEVER else "undecided"
    side, outcome = (
        "above" if row["effect"] > calibrated.threshold else "not above",
        OUTCOMES.get(status, "inconclusive"),
    )
    direction = "above" if above else "none"
    untested = side == "above" and not above
    lead = f"overall effect {row['effect']:.3f}, {side} the calibrated threshold of {calibrated.threshold:.3f}"
    lead += f", but not by its own test (p not below {ALPHA})" if untested else ""
    sentences = [lead, ratio_sentence(ratio, "This effect is"), rates_sentence(ratio)]
    sentences += [power_sentence(ratio.limit, unit_of(m))] if outcome == "no trace found" else []
    because = f"{sentences[0]}. {' '.join(sentences[1:])}"
    return Evidence(
        measurement=m, outcome=outcome, status=status, direction=direction, because=because, basis="calibrated",
        ratio=ratio, threshold=calibrated.threshold,
    )  # fmt: skip


# ---- all of them ------------------------------------------------------------------------------------------------
class Opinion(NamedTuple):
    """What the joint rule says of this case."""

    joint: Joint
    joined: Joined
    ratio: LikelihoodRatio


def opinion(
    evidence: Sequence[Evidence], rows: Sequence[FeatureRow], standing: ApplicableCalibrations
) -> Opinion | None:
    """The joint rule for exactly the calibrated measurements that ran; None without a causal one among them.

    ``rows``: the features of each.
    """
    if standing.shelf.subjects is None:
        return None
    columns: dict[Feature, float] = {}
    causal = False
    for m, row in zip((e.measurement for e in evidence), rows, strict=True):
        joins = standing.of(m.probe, m.name) is not None and standing.holding[m.probe].joins
        if joins and m.form == "trained" and m.kind != "context":
            columns |= row.columns
            causal = causal or (m.kind == "causal" and "effect" in row.values)
    if not causal:
        return None
    joint = _joint(standing, columns)
    joined = joints.apply(joint, columns)
    name = f"joint {joint.content_hash()[:12]}"
    return Opinion(joint, joined, ratio_of(joint.scale, joined.score, joint.record, name))


def _joint(standing: ApplicableCalibrations, found: Mapping[Feature, float]) -> Joint:
    """The stored rule where it is the one for these features, else one refitted from the stored scores."""
    shelf = standing.shelf
    assert shelf.subjects is not None
    path = shelf.folder / JOINT
    if path.is_file() and set(standing.holding) == set(shelf.calibrations):
        kept = read(path, Joint)
        same = kept.made_from == {probe: c.content_hash() for probe, c in standing.holding.items()}
        everything = joints.table_of(shelf.subjects, standing.holding, tuple(found)).columns
        if same and set(kept.columns) == set(everything):
            return kept
    ordered = joints.table_of(shelf.subjects, standing.holding, None).columns
    wanted = tuple(column for column in ordered if column in found)
    return joints.refitted(shelf.subjects, standing.holding, wanted)


def validation(
    evidence: Sequence[Evidence], reached: Verdict, standing: ApplicableCalibrations
) -> Validation | Missing:
    """How the joint rule that judged a case did on models of known truth; missing where the case was judged alone."""
    rows = [feature_row(e.measurement) for e in evidence]
    found = None if reached.basis == "in-case" else opinion(evidence, rows, standing)
    if found is None or standing.shelf.subjects is None:
        return Missing(missing="the verdict is this case's own: no calibration judged it")
    joint, subjects = found.joint, standing.shelf.subjects
    return Validation(
        rule=found.ratio.calibration, pool=subjects.name, worlds=subjects.worlds,
        score=significant(found.joined.score, DIGITS), reliability=joint.reliability,
        counted=joint.record.counted, doses=joint.record.doses, decoys=decoys_of(subjects, joint.record),
    )  # fmt: skip


def decide(
    evidence: Sequence[Evidence], roles: Given, standing: ApplicableCalibrations
) -> tuple[tuple[Evidence, ...], Verdict]:
    """Weigh in-case evidence and reach the verdict: whether there is a trace says the joint rule where there is one."""
    reached = reach(evidence, roles)
    final, low = reached.evidence, is_below(reached.evidence)
    rows = [feature_row(e.measurement) for e in final]
    weighed = tuple(weigh(e, row.values, standing, low) for e, row in zip(final, rows, strict=True))
    joint_opinion = opinion(final, rows, standing)
    outcomes = {(e.measurement.probe, e.measurement.name): e.outcome for e in weighed if e.basis == "calibrated"}
    above = {key for key, outcome in outcomes.items() if outcome == "trace found"}
    first = in_case_state(final, above, outcomes.keys() - above)
    reached = reach(confirmed(final, outcomes.keys() - above), roles)
    calibrated = None
    if joint_opinion is not None:
        subjects = standing.shelf.subjects
        of_whom = None if subjects is None else decoys_of(subjects, joint_opinion.joint.record)
        calibrated = _calibrated(reached, first, roles, joint_opinion)
        if calibrated is not None and of_whom is not None:
            sentence = own_sentence(of_whom, joint_opinion.ratio)
            calibrated = calibrated.model_copy(update={"because": (*calibrated.because, sentence)})
    return weighed, calibrated or worded(reached, roles, _stale(standing))


def _stale(standing: ApplicableCalibrations) -> str:
    """What an in-case verdict says of calibrations that are stale, and which command renews them; empty without any."""
    stale = [use for use in standing.uses if use.status == "stale"]
    if not stale:
        return ""
    names = ", ".join(use.probe for use in stale)
    return f"In-case basis: the calibration of {names} is stale (the probe has changed); {stale[0].renew} renews it."


def judged(
    measurements: Sequence[Evidence], roles: Given, standing: ApplicableCalibrations, floors: Mapping[str, float]
) -> tuple[tuple[Evidence, ...], Verdict]:
    """Judge again what a report states, from its measurements alone."""
    return decide(tuple(judge(e.measurement, floors) for e in measurements), roles, standing)


def _calibrated(reached: Reached, first: InCaseState, roles: Given, heard: Opinion) -> Verdict | None:
    """The joint rule's verdict, its word by the axes; None where the case's own stays.

    The case's own stays where the gate stops it, where no causal test reads it, where it lies below the never-trained
    level without a joint trace, and where it shows a trace by itself that the joint rule does not see.
    """
    if stands(first, heard.joined.found):
        return None
    if heard.joined.found:
        if is_below(reached.evidence) and heard.ratio.value < 1:
            return None
        return _stated(reached.axes.word(), "above", reached, roles, heard)
    if first == "elsewhere":
        return _stated("PARTIAL", "above", reached, roles, heard)
    clean = supported(heard.ratio) == NEVER and not any(map(is_trace, reached.axes.inside))
    return _stated(CONSISTENT if clean else "INCONCLUSIVE", "none", reached, roles, heard)


def _stated(word: VerdictWord, direction: str, reached: Reached, roles: Given, heard: Opinion) -> Verdict:
    ratio, plain, evidence = heard.ratio, reached.rung, reached.evidence
    over = replicates_of(evidence)
    because = [_joint_sentence(heard, over), rates_sentence(ratio)]
    because += [axes_sentence(word, reached.axes)] if direction == "above" else []
    if direction != "above" or word == "PARTIAL":
        because.append(power_sentence(ratio.limit, over))
    if word == plain.word:
        because += [x for x in plain.because if x not in because]
    elif plain.word not in ("INCONCLUSIVE", "INVALID"):
        because.append(f"by this case alone the verdict would be {plain.word}")
    people = some_people(word, reached.people, over)
    head = people or ("the joint score and this case's own tests do not decide" if word == "INCONCLUSIVE" else "")
    head = f"{head[0].upper()}{head[1:]}. " if head else ""
    return Verdict.model_validate(
        {
            "word": word, "sentence": f"{word}: {head}{ratio_sentence(ratio)}", "because": tuple(because),
            "strength": strength(word, roles, evidence), "direction": direction, "basis": "calibrated",
            "limits": limits((), Unheard(), roles, ratio.calibration, over=over),
            "would_change": would_change(word, roles, evidence),
            "ratio": ratio, "outputs": reached.axes.outputs, "internals": reached.axes.internals,
            "people": reached.people,
        }
    )  # fmt: skip


def _joint_sentence(found: Opinion, over: Replicate) -> str:
    joined = found.joined
    side = "above" if joined.score > 0 else "not above"
    measurements = dict.fromkeys(weight.measurement for weight in found.joint.weights)
    few = f", few {over.plural}"
    lit = ", ".join(f"{x.kind} ({x.measurement}{few if x.few else ''})" for x in joined.lit) or "none"
    enough = "" if joined.found or joined.score <= 0 else "; not enough: it takes two classes, one of them from inside"
    return (
        f"the joint score of {len(measurements)} measurements is {joined.score:.2f}, {side} its threshold of "
        f"0 (a model that never knew typically reads -1); findings above their own thresholds: {lit}{enough}"
    )
