"""Numbers that a probe returns: a value with its interval, null, positive control, floor and curves.

A probe returns :class:`Measurement` values: numbers, never a verdict. Judging turns each into evidence.
"""

from collections.abc import Collection
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from audit.schema.case import Form
from audit.schema.error_rates import DetectionLimit as DetectionLimit
from audit.schema.error_rates import Rate as Rate
from audit.schema.interval import Interval
from audit.schema.record import Missing, Record
from audit.schema.requirements import Cost

Number = float | Missing
MeasurementScale = Literal["effect", "ratio", "probability", "distance", "difference", "score", "percent", "other"]
"""What a value is read against: ``effect`` 0 never trained and 1 base, ``ratio`` 1 base; ``unit`` says it in words."""
EFFECT_UNIT: Final = "effect (0 never trained, 1 base)"
RATIO_UNIT: Final = "ratio to base (1 unchanged)"


class Count(Record):
    """Items behind a number. Nothing drops out of a denominator silently: errored and unscored are counted."""

    scored: int
    errored: int = 0
    unscored: int = 0


class Null(Record):
    """The same statistic where the knowledge is absent: 101 quantiles (0..100 %) and how many draws they summarise.

    ``least_p`` is the smallest p that the test can reach with so many units: where Student's t judges a few of them it
    is not one over the draws. Where it is missing, it is.
    """

    kind: str
    quantiles: tuple[float, ...]
    n: int
    least_p: Number = Missing(missing="one over the draws")


class Control(Record):
    """Positive control: the same statistic in base, which must be found for a negative to mean anything."""

    value: float
    ci95: Interval | Missing
    found: bool


class Overall(Record):
    """The effect over a whole family of layers: summed (suspect - null) over summed (base - null).

    A layer weighs as much as base exceeds the null there (the weights of the Unlearning Depth Score, arXiv 2605.24614).
    The largest effect of several layers finds traces; this one bounds them, since the largest of several noisy effects
    is never small. ``floor`` is its largest size, above or below, between models that never knew.
    """

    value: float
    ci95: Interval | Missing
    floor: Number


class Power(Record):
    """What this test would find here: base's excess planted into the case's own people, at the case's own noise.

    ``share``: the least part of base's excess, held of everybody, that the test finds with probability ``power``;
    ``people``: the least number of people, of ``of``, who are found so if they are known in full. Missing where even
    all of it is not found.
    """

    share: Number
    people: int | Missing
    of: int
    power: float


class PeopleKept(Record):
    """Who is known: a mixture over people of what a model that never knew reads and of what base reads.

    ``kept``: the share of people who are known, ``level`` how much of base is read of those. ``log10_ratio``: how many
    times likelier (log10) the readings are where all is known of some people than where some is known of all. ``named``
    are the groups that stand out at a false discovery rate of ``fdr``, strongest first, of ``of`` people.
    """

    kept: float
    ci95: Interval | Missing
    level: float
    log10_ratio: float
    named: tuple[str, ...]
    fdr: float
    of: int


class Curve(Record):
    """A profile over depth or steps, with everything a figure needs; lo/hi are pointwise 95 %."""

    axis: str
    unit: str
    scale: MeasurementScale
    role: Literal["base", "suspect", "reference", "ancestor", "floor", "gate"]
    x: tuple[float, ...]
    y: tuple[float, ...]
    lo: tuple[float, ...] = ()
    hi: tuple[float, ...] = ()
    null_lo: tuple[float, ...] = ()
    null_hi: tuple[float, ...] = ()


class Table(Record):
    """A Parquet table of items beside the report (columns: item group role prompt target output score axis_value).

    ``axis`` names what ``axis_value`` counts (a layer, a site, a precision); empty where an item has one score a role.
    """

    path: str
    sha256: str
    rows: int
    columns: tuple[str, ...]
    axis: str


Cell = str | int | float | None


class HeatMap(Record):
    """Three columns of a listing that are to be drawn as a map: across, down, and the number that gives the colour.

    Where several rows fall on one place (the heads of a block), the number largest in size is drawn, and the picture
    says over which columns it is the largest. ``signed``: the number lies on both sides of 0, as a z does.
    """

    x: str
    y: str
    value: str
    signed: bool = False


class Listing(Record):
    """A small table of what was found, a finding a row, which stands in the report itself: vectors, modules, forms.

    ``rows`` are the first of ``of``, in the order in which they are to be read. ``quoted`` names the columns whose
    cells are words of the case's own data (a name, a token): they are masked where the data are. ``maps`` are drawn
    beside the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    of: int
    quoted: tuple[str, ...] = ()
    maps: tuple[HeatMap, ...] = Field(default=(), exclude_if=lambda maps: not maps)

    @model_validator(mode="after")
    def _rows_fit_columns(self) -> Self:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"the listing {self.title!r} has rows of another length than its columns")
        if unknown := [name for name in self.quoted if name not in self.columns]:
            raise ValueError(f"the listing {self.title!r} quotes a column {unknown[0]!r} that it has not")
        if self.of < len(self.rows):
            raise ValueError(f"the listing {self.title!r} shows more rows than there are")
        return self

    @model_validator(mode="after")
    def _maps_have_columns(self) -> Self:
        for each in self.maps:
            columns = (each.x, each.y, each.value)
            if unknown := [name for name in columns if name not in self.columns]:
                raise ValueError(f"a map of the listing {self.title!r} needs a column {unknown[0]!r} that it has not")
            if len(set(columns)) < len(columns):
                raise ValueError(f"a map of the listing {self.title!r} needs three columns, one for each of its parts")
        return self


class TriggerText(Record):
    """A string that brings the forgotten back, its place in a prompt, and what it does for people it was not found on.

    ``transfer`` is on the effect scale (0 never trained, 1 base), over ``units`` held-out people (or whatever its
    measurement replicates over): the Nth of K folds of the forget people where ``fold`` is (N, K).
    ``quoted``: it may hold words of the case's own data, so it is masked where the data are; ``masked``: it is, and
    ``text`` is its mark.
    """

    text: str
    slot: Literal["prefix", "infix", "suffix"] | int
    transfer: Number
    ci95: Interval | Missing
    units: int
    fold: tuple[int, int] | None = None
    quoted: bool = True
    masked: bool = False


class Finding(Record):
    """A thing that a test of this kind may find, and whether it did: "recoverable by a short prefix", "backdoored".

    ``holds`` is Missing where the rule could not be asked. ``because`` says it with the numbers of this case, ``rule``
    what was compared with what. ``false_alarms`` are of models known not to be so, ``hits`` of models made so, both
    under this very rule; ``blind_to`` is what the search that was made cannot find. A finding that does not hold is
    never the absence of the thing. ``trigger`` is the string that shows it, where a string does.
    """

    name: str
    holds: bool | Missing
    because: str
    rule: str
    false_alarms: Rate | Missing
    hits: Rate | Missing
    blind_to: str
    trigger: TriggerText | None = Field(default=None, exclude_if=lambda trigger: trigger is None)


def axis_column(columns: Collection[str]) -> str | None:
    """The column of an item table that holds the place on its axis: before schema 1.3 it was called ``layer``."""
    return next((name for name in ("axis_value", "layer") if name in columns), None)


Kind = Literal["gate", "output", "causal", "decoding", "recovery", "context"]


class Measurement(Record):
    """One question answered with numbers.

    ``scale`` is what the value is read against: on ``effect`` 0 is the never-trained level and 1 is base. ``layer`` is
    the one at which the value was read, None where it belongs to no single layer. ``kind`` says what part a number may
    play: ``gate`` (is the suspect usable at all), ``output``, ``causal``, ``decoding`` and ``recovery`` (what comes
    back under an attack, on the effect scale) enter the verdict, ``context`` never does. ``p`` is for *above* the null,
    ``p_below`` for below it. ``floor`` is the same effect for one unaudited reference against another. A gate's
    ``value`` is the suspect's statistic over base's. ``power`` is what the test would find here, ``people`` whom it
    finds. ``listings`` are small tables of single findings. ``findings`` are what its rules of yes or no say.
    ``witness`` says as which kind of evidence it counts where it is no witness of its own: what a model says when its
    weights are rounded is still what it says. ``form`` says which rows it reads: the verdict rests on ``trained`` rows,
    held-out forms are measurements of their own. A causal ``value`` that is missing says why no layer is eligible.
    """

    probe: str
    name: str
    kind: Kind
    witness: Kind | None = None
    mode: Literal["controlled", "paper"] = "controlled"
    form: Form = "trained"
    statistic: str
    value: Number
    unit: str
    scale: MeasurementScale
    layer: int | None = None
    ci95: Interval | Missing
    n: Count
    unit_of_replication: str
    units: int
    seed: int
    p: Number
    p_below: Number
    null: Null | Missing
    positive_control: Control | Missing
    floor: Number
    overall: Overall | Missing = Missing(missing="one number, no family of layers")
    power: Power | Missing = Missing(missing="not computed")
    people: PeopleKept | Missing = Missing(missing="not computed")
    readings: dict[str, float] = {}
    curves: tuple[Curve, ...] = ()
    items: Table | Missing
    listings: tuple[Listing, ...] = Field(default=(), exclude_if=lambda listings: not listings)
    findings: tuple[Finding, ...] = Field(default=(), exclude_if=lambda findings: not findings)
    cost: Cost = Cost()
    notes: tuple[str, ...] = ()

    @property
    def bound(self) -> Interval | Missing:
        """The interval that bounds what may be left: of the overall effect where there is a family of layers."""
        return self.ci95 if isinstance(self.overall, Missing) else self.overall.ci95
