"""What the study found, as frozen nouns: written to results.json."""

from audit.schema import Interval, Missing, Number, Record
from studies.provenance import Stamp


class Value(Record):
    """A mean over worlds, its 95 % interval (worlds and people resampled), and how many worlds agree in sign."""

    value: float
    ci95: Interval
    agree: int


class PredictorRow(Record):
    """One predictor: Spearman with every target within worlds, with length and loss taken out, and what it adds.

    ``partial`` and ``r2_gain`` (R2 in held-out worlds beside length and loss, less that of length and loss alone) are
    missing for length and loss themselves. ``p``: permutations of whole people, two-sided, of the correlation with
    ``all``, and of the partial one.
    """

    name: str
    spearman: dict[str, Value]
    p: float
    partial: Value | Missing
    partial_p: Number
    r2_gain: Value | Missing


class CudRow(Record):
    """CUD in one mode: Spearman with the difficulty by a method (and by a seed) that had no part in its anchors.

    ``r2_gain`` beside length and loss. ``shuffled``: anchors from permuted labels, which is what nothing gives.
    ``own``: anchors and difficulty by the same runs, as published; ``own_shuffled``: both permuted, so that what is
    left is the leak of labels into anchors.
    """

    circuits: str
    mode: str
    part: str
    other_methods: Value
    other_seeds: Value
    r2_gain: Value
    shuffled: Value
    own: Value
    own_shuffled: Value


class Claim(Record):
    """A published claim, the number that tests it, and whether the interval agrees."""

    claim: str
    value: Value
    holds: bool


class Faithful(Record):
    """Share of the behaviour kept by each item's own n largest edges: median and middle half over items, per n."""

    model: str
    items: int
    all_edges: int
    edges: tuple[int, ...]
    median: tuple[float, ...]
    quarter: tuple[float, ...]
    three_quarters: tuple[float, ...]


class Results(Record):
    """Everything. ``reliability``: Spearman between halves of the methods, between seeds, and of one with the rest."""

    stamp: Stamp
    worlds: tuple[int, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    items: int
    reliability: dict[str, dict[str, Value]]
    predictors: tuple[PredictorRow, ...]
    cud: tuple[CudRow, ...]
    frequency: dict[str, Value]
    claims: tuple[Claim, ...]
    entangled: dict[str, Value]
    stability: dict[str, Value]
    completeness_gap: dict[str, Value]
    forecast: dict[str, Value]
    forecast_by_method: dict[str, Value]
    faithful: tuple[Faithful, ...] = ()
