"""Which models are held against which: the published convention, fakes, and everything; their metrics as a table."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit.calibration import ScoredModel, WorldScores
from audit.schema import Missing, Number
from audit.stats import Labelled, labelled
from studies.faithfulness.metrics import METRICS, knowledge

LEARNERS = ("base", "paraphrased", "rephrased")
FAKES = ("last_layer", "head_edit", "logit_bias")
UNTOUCHED = ("retrain", "strangers")


class Contrast(NamedTuple):
    """Models that know against models that do not, each by how it was made."""

    key: str
    words: str
    knowing: Callable[[ScoredModel], bool]
    clean: Callable[[ScoredModel], bool]


def _clean(model: ScoredModel) -> bool:
    return model.pool == "clean"


def _knowing(model: ScoredModel) -> bool:
    return model.pool == "knowing" and model.kept > 0


def _learner(model: ScoredModel) -> bool:
    return _knowing(model) and model.mechanism in LEARNERS


def _fake(model: ScoredModel) -> bool:
    return _knowing(model) and model.mechanism in FAKES


def _untouched(model: ScoredModel) -> bool:
    return _clean(model) and model.mechanism in UNTOUCHED


PUBLISHED = Contrast("published", "learned it, in whatever words, against never trained on it", _learner, _untouched)
FAKED = Contrast("fakes", "hidden by a fake against never trained on it, unlearners of others included", _fake, _clean)
EVERYTHING = Contrast("everything", "all knowing models, doses included, against all clean ones", _knowing, _clean)
CONTRASTS = (PUBLISHED, FAKED, EVERYTHING)


class Absent(NamedTuple):
    """A model without a number of a metric, and why."""

    world: int
    model: str
    reason: str


class Table(NamedTuple):
    """Models in rows and, by metric, their levels of knowledge; NaN where ``absent`` names the model and the reason."""

    models: tuple[ScoredModel, ...]
    levels: Mapping[str, Float[ndarray, " model"]]
    absent: Mapping[str, tuple[Absent, ...]]

    @property
    def world(self) -> Int[ndarray, " model"]:
        """The world of every model."""
        return np.array([m.world for m in self.models], dtype=int)

    def where(self, holds: Callable[[ScoredModel], bool]) -> Bool[ndarray, " model"]:
        """Which models these are."""
        return np.array([holds(m) for m in self.models], dtype=bool)


def table(worlds: Sequence[WorldScores]) -> Table:
    """Every metric of every model of these worlds. A model without a number is named, never given one."""
    models = tuple(model for world in worlds for model in world.models)
    levels: dict[str, Float[ndarray, " model"]] = {}
    absent: dict[str, tuple[Absent, ...]] = {}
    for metric in METRICS:
        numbers: list[Number] = [knowledge(metric, model.scores) for model in models]
        levels[metric.key] = np.array([np.nan if isinstance(x, Missing) else x for x in numbers], dtype=float)
        absent[metric.key] = tuple(
            Absent(m.world, m.model, x.missing) for m, x in zip(models, numbers, strict=True) if isinstance(x, Missing)
        )
    return Table(models, levels, absent)


class Held(NamedTuple):
    """The models of a contrast that have a number of every asked metric, and those that have not.

    ``row``: their places in the table.
    """

    data: Labelled
    row: Int[ndarray, " item"]
    absent: tuple[Absent, ...]


def held(levels: Table, contrast: Contrast, keys: Sequence[str]) -> Held:
    """A contrast by its first metric, on the models that have all of them.

    AuditError where either kind of model is left in fewer than two worlds.
    """
    knows, clean = levels.where(contrast.knowing), levels.where(contrast.clean)
    complete = np.isfinite(np.stack([levels.levels[key] for key in keys])).all(0)
    row = np.flatnonzero((knows | clean) & complete)
    within = {(m.world, m.model) for m, inside in zip(levels.models, knows | clean, strict=True) if inside}
    absent = {(a.world, a.model): a for key in keys for a in levels.absent[key] if (a.world, a.model) in within}
    data = labelled(levels.levels[keys[0]][row], knows[row], levels.world[row])
    return Held(data, row, tuple(absent.values()))


def counted(absent: Sequence[Absent], most: int = 12) -> dict[str, object]:
    """How many models have no number, by reason in short, and their names (``most`` of them; the count is of all)."""
    reasons = Counter(a.reason.partition(":")[0] for a in absent)
    names = [f"{a.world} {a.model}" for a in absent[:most]]
    return {"models": len(absent), "by_reason": dict(reasons.most_common()), "names": names}
