"""From person means to a measurement: effect, interval, test, null distribution, positive control and floor.

effect = (suspect - null)/(base - null): 0 is a model that never knew, 1 is base. Over a family of layers the statistic
is the largest effect, and the test is max-T over the same layers.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit import stats
from audit.probing.known_people import Gaps, people_of, power_of
from audit.schema import (
    Control,
    Count,
    Form,
    Interval,
    Kind,
    Measurement,
    MeasurementScale,
    Missing,
    Null,
    Number,
    Overall,
    PeopleKept,
    Power,
)
from audit.stats import sparse

ALPHA = 0.01
NORMAL_95 = 1.96
"""Standard errors of a normal 95 % interval, on either side."""
BLIND = Missing(missing="blind here: base reads no higher than a model that never knew")
NO_FLOOR = Missing(missing="no second reference, so one never-trained model cannot be compared with another")


class Sides(NamedTuple):
    """One model's person means [person layer]: forget people, and never-trained holdout people where there are any."""

    forget: Float[ndarray, "person layer"]
    holdout: Float[ndarray, "other layer"] | None = None

    def minus(self, other: "Sides") -> "Sides":
        """Person by person, this model less another."""
        both = self.holdout is not None and other.holdout is not None
        return Sides(self.forget - other.forget, self.holdout - other.holdout if both else None)  # type: ignore[operator]

    def plus(self, other: "Sides") -> "Sides":
        """Person by person, this model and another together."""
        both = self.holdout is not None and other.holdout is not None
        return Sides(self.forget + other.forget, self.holdout + other.holdout if both else None)  # type: ignore[operator]

    def at(self, layers: ndarray) -> "Sides":
        """Some layers only."""
        return Sides(self.forget[:, layers], None if self.holdout is None else self.holdout[:, layers])

    def joined(self) -> tuple[Float[ndarray, "person layer"], ndarray | None]:
        """All people in one array, and which of them are forget people (None without holdout)."""
        if self.holdout is None:
            return self.forget, None
        labels = np.arange(len(self.forget) + len(self.holdout)) < len(self.forget)
        return np.concatenate([self.forget, self.holdout]), labels


class Panel(NamedTuple):
    """The models of one statistic. ``null`` may be zeros where the scores are already relative to something unknown.

    ``names`` are the groups' in the order of the forget people, where they are known.
    """

    suspect: Sides
    base: Sides
    null: Sides
    floors: tuple[Sides, ...] = ()
    names: tuple[str, ...] = ()

    def at(self, layers: ndarray) -> "Panel":
        """Some layers only."""
        floors = tuple(floor.at(layers) for floor in self.floors)
        return Panel(self.suspect.at(layers), self.base.at(layers), self.null.at(layers), floors, self.names)


class Design(NamedTuple):
    """How an effect is tested.

    ``differenced``: the effect itself is a difference in differences, forget less holdout (else only the test is).
    ``least_gap``: base must exceed the null by this much, in the unit of the score, to count as a positive control.
    ``shared``: the standard error, in that unit, of what all people have in common because they were read by the same
    few fits; it widens the intervals. ``name``: the measurement (``probe.name``) whose panel a recorder keeps.
    """

    seed: int
    least_gap: float
    differenced: bool = False
    draws: int = 9999
    shared: float = 0.0
    name: str = ""


class Naming(NamedTuple):
    """What a measurement is called, and the part it may play."""

    probe: str
    name: str
    kind: Kind
    statistic: str
    unit: str
    scale: MeasurementScale
    form: Form = "trained"
    mode: Literal["controlled", "paper"] = "controlled"
    witness: Kind | None = None

    @property
    def key(self) -> str:
        """``probe.name``."""
        return f"{self.probe}.{self.name}"


def blank(naming: Naming, reason: str, n: Count, people: int, seed: int) -> Measurement:
    """A measurement without numbers, and the reason; :meth:`Assessment.onto` fills it."""
    missing = Missing(missing=reason)
    return Measurement(
        probe=naming.probe, name=naming.name, kind=naming.kind, witness=naming.witness, mode=naming.mode,
        form=naming.form,
        statistic=naming.statistic, value=missing, unit=naming.unit, scale=naming.scale, ci95=missing, n=n,
        unit_of_replication="person", units=people, seed=seed, p=missing, p_below=missing, null=missing,
        positive_control=missing, floor=missing, items=missing,
    )  # fmt: skip


class Assessment(NamedTuple):
    """Everything about an effect that a measurement holds; ``layer`` is where the largest effect is."""

    value: Number
    ci95: Interval | Missing
    p: Number
    p_below: Number
    null: Null | Missing
    control: Control
    floor: Number
    overall: Overall | Missing
    layer: int
    effects: tuple[float, ...]
    readings: dict[str, float]
    test: str
    power: Power | Missing = BLIND
    people: PeopleKept | Missing = BLIND

    def onto(self, blank: Measurement) -> Measurement:
        """The measurement with these numbers in place of its missing ones."""
        return blank.model_copy(
            update={
                "value": self.value, "ci95": self.ci95, "p": self.p, "p_below": self.p_below, "null": self.null,
                "positive_control": self.control, "floor": self.floor,
                "overall": self.overall, "power": self.power, "people": self.people,
                "readings": blank.readings | self.readings, "notes": (*blank.notes, self.test),
            }
        )  # fmt: skip


class Recorded(NamedTuple):
    """What was assessed, and how: enough to assess it again without a model."""

    panel: Panel
    design: Design
    result: Assessment


_recorder: ContextVar[list[Recorded] | None] = ContextVar("recorder", default=None)


@contextmanager
def recording() -> Generator[list[Recorded]]:
    """Keep every named panel that is assessed inside, in order."""
    panels: list[Recorded] = []
    token = _recorder.set(panels)
    try:
        yield panels
    finally:
        _recorder.reset(token)


def _test(gap: Sides, scale: ndarray, design: Design) -> stats.MaxT:
    x, labels = gap.joined()
    return stats.mean_max_t(x, design.seed, labels, design.draws, scale)


def _value(gap: Sides, design: Design) -> Float[ndarray, " layer"]:
    x, labels = gap.joined() if design.differenced else (gap.forget, None)
    return stats.contrast(x, labels)


def base_gap(panel: Panel, design: Design) -> Float[ndarray, " layer"]:
    """By how much base exceeds the null at every layer: the unit of the effect."""
    return _value(panel.base.minus(panel.null), design)


Pair = tuple[Float[ndarray, "person layer"], Float[ndarray, "person layer"], ndarray | None]
"""Numerator and denominator of an effect, person by person, and which are forget people (None: all)."""


def _pair(gap: Sides, base_excess: Sides, design: Design) -> Pair:
    if not design.differenced:
        return gap.forget, base_excess.forget, None
    (x, labels), (y, _) = gap.joined(), base_excess.joined()
    return x, y, labels


def interval(
    numerator: Float[ndarray, "person layer"],
    denominator: Float[ndarray, "person layer"],
    seed: int,
    forget: ndarray | None = None,
) -> Interval | Missing:
    """95 % over people of the ratio of contrasts, of the largest over layers: where there are at least two people, on
    either side, and the denominator is no zero."""
    if stats.fewest(len(numerator), forget) < 2:
        return Missing(missing="an interval over people needs at least two")
    if not stats.contrast(denominator, forget).all():
        return Missing(missing="what it would be a share of is zero")
    return stats.largest_ratio_bounds(numerator, denominator, seed, forget)


def _control(base_excess: Sides, scale: ndarray, pair: Pair, design: Design) -> Control:
    """Base in the suspect's place: found if it exceeds the null clearly and by enough to matter."""
    passed = bool(_test(base_excess, scale, design).p < ALPHA and scale.max() >= design.least_gap)
    best = [int(scale.argmax())]
    unit = np.ones_like(pair[1][:, best]) * (1.0 if pair[2] is None else np.where(pair[2], 1.0, 0.0)[:, None])
    share = interval(pair[1][:, best] / scale[best], unit, design.seed, pair[2])
    return Control(value=1.0, ci95=share, found=passed)


def _test_name(people: int, others: int) -> str:
    """How p comes about, fixed by the numbers of people alone."""
    if stats.judged_by_t(people, others):
        over = "of forget less holdout people" if others else "over people"
        return f"Student's t {over}, corrected for skewness, Bonferroni over layers"
    corrected = ", corrected for skewness" if min(people, others or people) > 1 else ""
    return _randomised(others) + corrected


def _randomised(others: int) -> str:
    return "forget/holdout labels permuted over people" if others else "sign flips over people"


def _interval_name(people: int) -> str:
    """What is said of the interval: which it is, and where it covers less than it should with so few people."""
    few = f"; over {people} people it is not reliable" if 2 <= people < stats.ENOUGH_PEOPLE else ""
    return f"; 95 % intervals: t and Hall of the linearised ratio{few}" if people >= 2 else ""


def _sparse(gap: Sides, others: Sequence[Sides], scale: float) -> dict[str, float]:
    """Do a few people stand out? Person effects, layers weighted as in the overall effect, against null people's.

    Null people are, as far as the case has them, everybody in another reference against the null, and holdout people in
    the suspect against the null. Without either only the number of people is known.
    """

    def effects(people: Sequence[ndarray | None]) -> ndarray:
        return np.concatenate([x.sum(1) / scale for x in people if x is not None] or [np.zeros(0)])

    nulls = [effects([x for other in others for x in other]), effects([gap.holdout])]
    statistics = sparse(effects([gap.forget]), nulls)
    return {"people": float(len(gap.forget)), **({} if statistics is None else statistics._asdict())}


def assess(panel: Panel, design: Design) -> Assessment:
    """Effect of the suspect with everything that is needed to judge it; scores are [person layer], people aligned.

    Where base does not exceed the null at any layer the value is missing: there is nothing to find.
    """
    result = _assess(panel, design)
    recorder = _recorder.get()
    if recorder is not None and design.name:
        recorder.append(Recorded(panel, design, result))
    return result


def _widened(ci95: Interval | Missing, value: float, shared: float) -> Interval | Missing:
    """The interval with a common error of all people beside that of the people themselves."""
    if isinstance(ci95, Missing) or not shared:
        return ci95
    lower, upper = (float(np.hypot(value - end, NORMAL_95 * shared)) for end in ci95.ends)
    return Interval(lo=value - lower, hi=value + upper)


def _assess(panel: Panel, design: Design) -> Assessment:
    base_excess, gap = panel.base.minus(panel.null), panel.suspect.minus(panel.null)
    scale = _value(base_excess, design)
    unlike = 0 if gap.holdout is None else len(gap.holdout)
    test = f"p: {_test_name(len(gap.forget), unlike)}"
    # A layer where base barely exceeds the null divides noise by almost nothing; it counts only if there is no other.
    usable = np.flatnonzero(scale >= (design.least_gap if scale.max() >= design.least_gap else 1e-9))
    if not len(usable):
        silent = Control(value=0.0, ci95=BLIND, found=False)
        return Assessment(BLIND, BLIND, BLIND, BLIND, BLIND, silent, BLIND, BLIND, -1, (), {}, test)
    base_excess, gap, scale = base_excess.at(usable), gap.at(usable), scale[usable]
    effects = _value(gap, design) / scale
    tested = _test(gap, scale, design)
    exact = tested.exact and not stats.judged_by_t(len(gap.forget), unlike)
    pair = _pair(gap, base_excess, design)
    others = [floor.minus(panel.null).at(usable) for floor in panel.floors]
    spread = [_value(other, design) for other in others]
    floors = [float((gaps / scale).max()) for gaps in spread]
    shared = design.shared, panel.names, design.draws
    gaps = Gaps(gap, base_excess, tuple(others), scale, design.differenced, *shared)
    return Assessment(
        value=float(effects.max()),
        ci95=_widened(
            interval(pair[0], pair[1], design.seed, pair[2]),
            float(effects.max()),
            design.shared / float(scale[effects.argmax()]),
        ),
        p=tested.p,
        p_below=tested.p_below,
        null=Null(
            kind=_randomised(unlike),
            quantiles=stats.quantile_summary(tested.null_effect),
            n=len(tested.null_effect),
            least_p=stats.least_p(len(gap.forget), unlike, design.draws, len(usable)),
        ),
        control=_control(base_excess, scale, pair, design),
        floor=max(floors) if floors else NO_FLOOR,
        overall=Overall(
            value=(overall := float((effects * scale).sum() / scale.sum())),
            ci95=_widened(
                interval(pair[0].sum(1)[:, None], pair[1].sum(1)[:, None], design.seed, pair[2]),
                overall,
                design.shared / float(scale.mean()),
            ),
            floor=max(abs(float(gaps.sum() / scale.sum())) for gaps in spread) if spread else NO_FLOOR,
        ),
        layer=int(usable[effects.argmax()]),
        effects=tuple(float(e) for e in effects),
        readings=_sparse(gap, others, float(scale.sum())),
        test=test + (", enumerated" if exact else "") + _interval_name(stats.fewest(len(pair[0]), pair[2])),
        power=power_of(gaps, max(floors, default=None), design.seed),
        people=people_of(gaps),
    )
