"""Which word every model of the pools is told, by its case alone and by a joint rule that knew neither world nor kind.

From scores alone: the judging is done again on the measurements that they restore, so that a changed constant of the
rule shows at once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Bool
from numpy import ndarray

from audit import stats
from audit.calibration import Roster, ScoredModel, Subjects, WorldScores, zoo_floors
from audit.judging import Given, Reached, judge, reach, stands
from audit.schema import Interval, Rate, Record

HIDERS = ("rmu_shallow", "rmu_deep", "npo", "kl_min")
"""The described models of whom the verdict is asked to say that they hide or still say something."""
HIDDEN = ("SUPPRESSED", "PARTIAL")
TRACES = (*HIDDEN, "INTACT")
CLEAN_WORD = "CONSISTENT WITH NEVER TRAINED"
SILENT = "no trace stated"
"""The joint rule states none: CONSISTENT or INCONCLUSIVE, as its likelihood ratio says."""
PART = "some_"


class Words(Record):
    """How often the models of one mechanism in one pool are told each word, by the case alone and by the joint rule."""

    pool: str
    mechanism: str
    models: int
    in_case: dict[str, int]
    calibrated: dict[str, int]


class Detected(Record):
    """Models that know so many of the forget people, drawn from all: in how many worlds a trace is stated.

    ``ci95`` is the exact interval of that share (Clopper and Pearson 1934); by the case alone and by the joint rule.
    """

    people: int
    of: int
    worlds: int
    in_case: int
    in_case_ci95: Interval
    calibrated: int
    calibrated_ci95: Interval


class Spoken(Record):
    """All words, and the counts of them that are claimed; ``hiders``: RMU, NPO and KL-min as described models."""

    words: tuple[Words, ...]
    detection: tuple[Detected, ...]
    clean_consistent: Rate
    clean_open: dict[str, int]
    hiders_in_case: Rate
    hiders_calibrated: Rate
    edited_clean_alarms_in_case: Rate
    clean_alarms_in_case: Rate


class JudgedModel(NamedTuple):
    """A scored model with what its case says alone, and its word where the joint rule judges."""

    scored: ScoredModel
    reached: Reached
    calibrated: str


def spoken(
    worlds: Sequence[WorldScores], subjects: Subjects, people: Roster, joint: Bool[ndarray, " subject"]
) -> Spoken:
    """Every word of the models in ``worlds`` that are among the ``subjects``; ``joint``: does a held-out joint rule
    find a trace in them?"""
    place = {(s.world, s.model): i for i, s in enumerate(subjects.subjects)}
    floors = zoo_floors()
    models = [
        _judged(scored, floors, str(people.alone[i]), bool(joint[i]))
        for world in worlds
        for scored in world.models
        if (i := place.get((scored.world, scored.model))) is not None
    ]
    return summary(models)


def summary(models: Sequence[JudgedModel]) -> Spoken:
    """Every word of these models, and the counts of them."""
    clean, hiders = _of(models, "clean"), [m for m in _of(models, "described") if m.scored.mechanism in HIDERS]
    edited = _of(models, "edited clean")
    return Spoken(
        words=_words(models), detection=_detection(models),
        clean_consistent=_rate([m.reached.rung.word == CLEAN_WORD for m in clean]),
        clean_open=dict(Counter(m.reached.rung.reason for m in clean if m.reached.rung.reason)),
        hiders_in_case=_rate([m.reached.rung.word in HIDDEN for m in hiders]),
        hiders_calibrated=_rate([m.calibrated in HIDDEN for m in hiders]),
        edited_clean_alarms_in_case=_rate([m.reached.rung.word in TRACES for m in edited]),
        clean_alarms_in_case=_rate([m.reached.rung.word in TRACES for m in clean]),
    )  # fmt: skip


def by_case(scored: ScoredModel, floors: Mapping[str, float]) -> tuple[Reached, Given]:
    """What a model's scores say by themselves, and the roles that were given."""
    roles = Given(scored.domain.references, scored.domain.null in ("ancestor", "reference"), holdout=True)
    return reach([judge(score.restored(), floors) for score in scored.scores], roles), roles


def _judged(scored: ScoredModel, floors: Mapping[str, float], state: str, joint: bool) -> JudgedModel:
    reached, _ = by_case(scored, floors)
    if stands(state, joint):
        return JudgedModel(scored, reached, reached.rung.word)
    return JudgedModel(scored, reached, reached.axes.word() if joint else "PARTIAL" if state == "elsewhere" else SILENT)


def _of(models: Sequence[JudgedModel], pool: str) -> list[JudgedModel]:
    return [m for m in models if m.scored.pool == pool]


def _rate(hits: Sequence[bool]) -> Rate:
    upper = stats.clopper_pearson(sum(hits), len(hits), 0.90).hi if hits else 1.0
    return Rate(k=sum(hits), n=len(hits), upper95=stats.significant(upper, 4))


def _words(models: Sequence[JudgedModel]) -> tuple[Words, ...]:
    kinds = sorted({(m.scored.pool, _kind(m.scored)) for m in models})
    lines: list[Words] = []
    for pool, kind in kinds:
        group = [m for m in models if (m.scored.pool, _kind(m.scored)) == (pool, kind)]
        alone_words, joint_words = Counter(m.reached.rung.word for m in group), Counter(m.calibrated for m in group)
        lines.append(
            Words(pool=pool, mechanism=kind, models=len(group), in_case=dict(alone_words), calibrated=dict(joint_words))
        )
    return tuple(lines)


def _kind(scored: ScoredModel) -> str:
    """The mechanism; of a dose also how many of how many people it knows."""
    return f"{scored.model} of {scored.audited}" if scored.mechanism == "dose" else scored.mechanism


def _detection(models: Sequence[JudgedModel]) -> tuple[Detected, ...]:
    parts = [m for m in models if m.scored.model.startswith(PART)]
    curve: list[Detected] = []
    for people, of in sorted({(m.scored.kept, m.scored.audited) for m in parts}):
        group = [m for m in parts if (m.scored.kept, m.scored.audited) == (people, of)]
        alone_hits = sum(m.reached.rung.word in TRACES for m in group)
        joint_hits = sum(m.calibrated in TRACES for m in group)
        curve.append(
            Detected(
                people=people, of=of, worlds=len(group), in_case=alone_hits,
                in_case_ci95=_exact(alone_hits, len(group)), calibrated=joint_hits,
                calibrated_ci95=_exact(joint_hits, len(group)),
            )
        )  # fmt: skip
    return tuple(curve)


def _exact(k: int, n: int) -> Interval:
    ends = stats.clopper_pearson(k, n, 0.95)
    return Interval(lo=stats.significant(ends.lo, 4), hi=stats.significant(ends.hi, 4))


# ---- the README's tables ----------------------------------------------------------------------------------------
def markdown(spoken_words: Spoken) -> list[str]:
    """The tables of words, and the detection curve."""
    rows = [
        f"| {x.pool} | `{x.mechanism}` | {x.models} | {_listed(x.in_case)} | {_listed(x.calibrated)} |"
        for x in spoken_words.words
    ]
    curve = [
        f"| {x.people} of {x.of} | {x.worlds} | {x.in_case} ({_ends(x.in_case_ci95)}) | {x.calibrated} "
        f"({_ends(x.calibrated_ci95)}) |"
        for x in spoken_words.detection
    ]
    counted = (
        ("clean models that are CONSISTENT by the case alone", spoken_words.clean_consistent),
        ("clean models of which the case alone states a trace", spoken_words.clean_alarms_in_case),
        ("edited clean models of which the case alone states a trace", spoken_words.edited_clean_alarms_in_case),
        ("RMU, NPO and KL-min, described: SUPPRESSED or PARTIAL by the case alone", spoken_words.hiders_in_case),
        ("the same by the joint rule", spoken_words.hiders_calibrated),
    )
    return [
        "| models | count |", "|---|---|", *(f"| {name} | {x.k} of {x.n} |" for name, x in counted),
        "",
        "Why clean models are not CONSISTENT by the case alone:",
        "",
        *(f"- {n} times: {reason}" for reason, n in sorted(spoken_words.clean_open.items(), key=_often)),
        "",
        "A trace is stated of models that know so many of the forget people (exact 95 % intervals of the share):",
        "",
        "| people known | worlds | by the case alone | by the joint rule |", "|---|---|---|---|", *curve,
        "",
        "Words by the case alone, and by the joint rule of other worlds and mechanisms:",
        "",
        "| pool | mechanism | models | by the case alone | by the joint rule |", "|---|---|---|---|---|", *rows,
    ]  # fmt: skip


def _often(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {word}" for word, n in sorted(counts.items(), key=_often))


def _ends(ci95: Interval) -> str:
    return f"{ci95.lo:.2f} to {ci95.hi:.2f}"
