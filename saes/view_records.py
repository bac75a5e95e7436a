"""What is seen of a dictionary on the models of a case, as a file that the dashboard reads. Free of torch."""

from typing import Literal, Self

from pydantic import model_validator

from audit.schema import Cohort, Record
from saes.records import Fidelity, PatchSample, Validity

VIEW = "features.json"
SILENT, HALF = 0.1, 0.5
"""A feature that fires less often than this share of how often it does in base is silent, or fires less."""


class TopRow(Record):
    """An item at which a feature is most active. ``text`` is its mark where it is ``masked``; ``spot`` names the place
    in it, empty where it has one state alone; ``share`` of its rows are active."""

    text: str
    masked: bool
    cohort: Cohort
    code: float
    share: float
    spot: str


class FeatureView(Record):
    """A feature and the items that it is most active at, a list a model, in the order of the view's models."""

    feature: int
    top: tuple[tuple[TopRow, ...], ...]


class ModelView(Record):
    """A dictionary on one model of the case. ``rates``: the share of all rows at which each feature is active,
    ``forget_rates``: of the rows of items to be forgotten alone, empty where the case has none."""

    name: str
    fidelity: Fidelity
    validity: Validity
    rates: tuple[float, ...]
    forget_rates: tuple[float, ...]


class MatchView(Record):
    """Features of this dictionary and of another in pairs, by the cosines of what they write."""

    other: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    cosine: tuple[float, ...]
    mean_max_cosine: float


class DictionaryView(Record):
    """A dictionary on the models of a case; the first model is base, the second the suspect.

    ``features`` are those that fire most often in base, and those whose rate changed most from base to the suspect.
    """

    version: Literal[1] = 1
    name: str
    case: str
    site: str
    patches: PatchSample | None
    activation: str
    k: int | None
    width: int
    own_base: bool
    models: tuple[ModelView, ...]
    features: tuple[FeatureView, ...]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(self.models) < 2 or not self.features:
            raise ValueError("a view is of base and the suspect at least, and of one feature")
        forget = {len(model.forget_rates) for model in self.models}
        rates = {len(model.rates) for model in self.models}
        if rates != {self.width} or forget not in ({0}, {self.width}):
            raise ValueError("every model has one rate a feature")
        for each in self.features:
            if not 0 <= each.feature < self.width or len(each.top) != len(self.models):
                raise ValueError(f"feature {each.feature} is none, or has no items of some model")
        return self

    def rate(self, model: int, feature: int, forget: bool) -> float:
        """How often a feature is active in a model: on rows to be forgotten, or on all."""
        own = self.models[model]
        return (own.forget_rates if forget and own.forget_rates else own.rates)[feature]

    def change(self, feature: FeatureView) -> str:
        """What became of a feature from base to the suspect, in words; a description, and no test."""
        forget = bool(self.models[0].forget_rates)
        parts = [] if self.models[1].validity.valid else ["the dictionary is not valid there"]
        parts += [_moved(*(self.rate(n, feature.feature, forget) for n in (0, 1)))]
        if len(self.models) > 2:
            place = "reference" if self.models[2].validity.valid else "reference, where the dictionary is not valid,"
            parts += [f"in the {place} it {_moved(*(self.rate(n, feature.feature, forget) for n in (0, 2)))}"]
        first, second = ({(row.text, row.cohort) for row in rows} for rows in feature.top[:2])
        if first:
            parts += [f"{len(first & second)} of base's {len(first)} top items are the suspect's too"]
        return "; ".join(parts)


def _moved(base: float, other: float) -> str:
    if base == 0:
        return "never fires, as in base" if other == 0 else "fires, and not in base"
    if other < SILENT * base:
        return "is silent"
    if other < HALF * base:
        return "fires less"
    return "fires more" if other > base / HALF else "fires about as often"
