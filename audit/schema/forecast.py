"""What a forecast says, before anything is unlearned: frozen and strict, like :mod:`audit.schema.measurement`.

It has neither suspect nor verdict. Item ids stand in it, texts do not.
"""

from typing import Literal

from audit.schema.canonical import canonical_hash
from audit.schema.case import Case
from audit.schema.interval import Interval
from audit.schema.measurement import Number
from audit.schema.record import Missing, Record
from audit.schema.report import Environment, Exhibit, Timing


class Forecast(Record):
    """How hard one item (or the mean of a group's items) will be: a rank in this forget set, 0 easiest, 1 hardest.

    ``interval`` is the 90 % interval of an item's measured rank; of a group, of the mean of its items. ``because``
    names the predictors that moved the rank most, with their sign.
    """

    name: str
    group: str
    items: int
    rank: float
    interval: Interval
    because: tuple[str, ...] = ()
    pilot: Number = Missing(missing="no pilot run")


class Entangled(Record):
    """A retained item that shares its circuit, or its gradient, with what is to be forgotten.

    ``circuit_cosine`` is the largest with a forget item (``nearest``), ``gradient_cosine`` that with the mean forget
    gradient. ``damage`` is the probability that pilots took from it, where there were any.
    """

    name: str
    group: str
    nearest: str
    circuit_cosine: float
    gradient_cosine: float
    damage: Number = Missing(missing="no pilot run")


class Collateral(Record):
    """What unlearning this may cost the retained facts: the share of their probability, by method, and where from."""

    method: str
    share_lost: Interval
    source: Literal["worlds of known truth", "pilot run"]


class Basis(Record):
    """What the forecast rests on: the fit, how well it did where it had not looked, and whether this case is like it.

    ``spearman`` is with difficulty measured by unseen methods in unseen worlds, beside ``ceiling``: what the other
    methods' own measured difficulty reaches there. ``plain`` is what a fit on lengths and losses alone reaches, and
    ``cud_gain`` what circuits between easy and hard anchors add to the R2 of that. ``ties``: Spearman of circuit and
    gradient cosines of retained items, and of one method's damage (a pilot), with the damage that other runs did.
    """

    worlds: int
    methods: tuple[str, ...]
    spearman: float
    spearman_ci95: Interval
    ceiling: float
    plain: float
    plain_ci95: Interval
    cud_gain: float
    cud_gain_ci95: Interval
    ties: dict[str, float]
    ties_ci95: dict[str, Interval]
    with_pilot: float
    with_pilot_ci95: Interval
    coverage: float
    coverage_ci95: Interval
    inside: bool
    because: tuple[str, ...]


class Stability(Record):
    """Do circuits mean the same whatever they are held against? Median Jaccard overlap of each item's largest edges.

    ``partners``: two draws of partners; ``corruptions``: partners and mean activations. ``passed``: both reach .6.
    ``completeness_gap``: median of |sum of the embedding's edges - change of the loss| over |change|.
    """

    edges: int
    partners: Number
    corruptions: Number
    swapped: int
    completeness_gap: float
    passed: bool


class Pilot(Record):
    """A short unlearning run by the user's own base: how far it came, and how its items' difficulty compares."""

    method: str
    steps: int
    median_steps: float
    not_reached: int
    share_lost: float
    agreement: float


class ForecastReport(Record):
    """The versioned document of a forecast: HTML, Markdown and the dashboard's page are pure functions of it."""

    schema_version: Literal["1.0"] = "1.0"
    kind: Literal["forecast"] = "forecast"
    report_id: str
    created: str
    tool: dict[str, str]
    plan_hash: str
    case: Case
    exhibits: tuple[Exhibit, ...]
    environment: Environment
    cohorts: dict[str, int]
    recall: float
    items: tuple[Forecast, ...]
    groups: tuple[Forecast, ...]
    collateral: tuple[Collateral, ...]
    entangled: tuple[Entangled, ...]
    order: tuple[str, ...]
    basis: Basis
    stability: Stability
    predictors: dict[str, Interval]
    pilots: tuple[Pilot, ...]
    limits: tuple[str, ...]
    timings: tuple[Timing, ...]


def forecast_id(report: ForecastReport) -> str:
    """``UF-`` and 12 hex digits of the sha256 of the document without its id, time and timings."""
    document = report.model_dump(mode="json", exclude={"report_id", "created", "timings"})
    return "UF-" + canonical_hash(document)[:12]
