"""Concept vectors: do the stored value vectors still write the forgotten answers when they are activated?"""

from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from audit.probing import (
    EFFECT_UNIT,
    AuditError,
    Bench,
    Case,
    Cost,
    Count,
    Design,
    GroupTest,
    Measurement,
    Naming,
    Need,
    Op,
    OpenCase,
    PersonRows,
    Probe,
    Requires,
    Texts,
    assess,
    blank,
    by_person,
    case_models_of,
    group_test,
    item_table,
    n_blocks,
    panel_of,
    person_rows_of,
)
from probes._clamping import CLAMPS, answered, at_mean, held, under_clamps
from probes._value_columns import Columns, ValueModel, writing_columns

FORGET, RETAIN, HOLDOUT = (Texts(cohort=cohort) for cohort in ("forget", "retain", "holdout"))
LEAST_GAP = 0.3
LEAST_LEVER = 0.1
"""By so much (probability) base's answers have to fall when its coefficients are set to their mean."""
LEAST_RESTORED = 0.5
"""So much of that the candidates alone have to bring back."""
RESTORATION = Naming(
    probe="concept_vectors", name="restoration", kind="causal",
    statistic="largest effect over clamps on the probability of the answers when coefficients of the suspect's value "
    "vectors are held at base's",
    unit=EFFECT_UNIT, scale="effect",
)  # fmt: skip
NO_NULL = (
    "no model that never knew was given: base's coefficients themselves carry the answers, and what they bring to such "
    "a model cannot be told from what is stored"
)


class _Lever(NamedTuple):
    """Does holding coefficients bring anything back where they are known to be all that is missing? In base itself."""

    whole: float
    suppressed: float
    restored: float

    def usable(self) -> Bool[ndarray, " clamp"]:
        """The clamps that may be judged."""
        moved = self.whole - self.suppressed
        few = moved >= LEAST_LEVER and self.restored - self.suppressed >= LEAST_RESTORED * moved
        return np.array([few, moved >= LEAST_LEVER, few])

    def readings(self) -> dict[str, float]:
        return {
            "probability_base_plain": self.whole,
            "probability_base_mean_coefficients": self.suppressed,
            "probability_base_mean_coefficients_candidates": self.restored,
        }


class ConceptVectors(Probe):
    """Do the suspect's value vectors still write the forgotten answers when they are activated as in base?

    An MLP adds to the stream a sum of value vectors (the columns of its last matrix), each times its coefficient. A
    group's **candidates** are the ``candidates`` columns of all blocks that write most to its answers' content tokens,
    chosen in base alone by activated trace (size of coefficient times what the vector adds to the token's logit).
    **Restoration** (may be evidence): where content tokens are predicted, coefficients are held at what they are in
    base on the same prompt, and the probability of the content tokens is taken: of the candidates, of every value
    vector, and of the candidates with base's head reading the last state. The effect is (suspect - null)/(base - null)
    under the identical clamp, largest over the three: base's coefficients carry the answers by themselves, and what
    they bring to a model that never knew is its zero.

    Null: the first reference, else the ancestor, under the same clamps; p permutes forget/holdout labels over people on
    the difference between suspect and null, without holdout people it flips the signs of people's differences. Without
    a model that never knew nothing is said.
    Positive control: base in the suspect's place; and base with every coefficient at its mean over retained rows, whose
    answers the candidates alone must bring back, or they are not judged.
    Blind to: answers that attention writes, or that no coefficient at the positions before the content tokens decides.
    Cite: Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces (ConceptVectors), arXiv 2406.11614.
    """

    requires: ClassVar[Requires] = Requires(
        roles=("base", "suspect"), modalities=("text",), data=("forget", "retain"), ops=(Op.READ, Op.WRITE)
    )
    candidates: int = 50
    permutations: int = 9999

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None ahead of time: which columns are held depends on base, see :meth:`cost`."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """Forget and holdout rows under every clamp, read twice, for every model: an upper bound."""
        forget, retain = (int(case.rows(texts).mask.sum()) for texts in (FORGET, RETAIN))
        held_out = int(case.rows(HOLDOUT).mask.sum()) if case.has(HOLDOUT) else 0
        models, blocks = len(case_models_of(case).by_name()), n_blocks(case)
        tokens = (5 * models + blocks + 4) * (forget + held_out) + (blocks + 1) * retain
        return Cost(fwd_tokens=tokens, resident=2, kind="upper")

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people; without holdout people the signs of people's differences."""
        return group_test(case, self.permutations)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """Restoration."""
        cast, sheet = case_models_of(case), person_rows_of(case, FORGET)
        try:
            base = ValueModel(bench, cast.base)
        except AuditError as error:
            return (self._unmeasured(case, sheet, error.what),)
        columns = writing_columns(base, sheet.rows, sheet.people, self.candidates)
        return (self._restoration(case, base, sheet, columns),)

    def _unmeasured(self, case: OpenCase, sheet: PersonRows, reason: str) -> Measurement:
        n = Count(scored=0, unscored=len(sheet.rows))
        return blank(RESTORATION, reason, n, len(sheet.people), case.case.seed)

    def _restoration(self, case: OpenCase, base: ValueModel, sheet: PersonRows, columns: Columns) -> Measurement:
        cast, bench = case_models_of(case), base.bench
        models = cast.by_name()
        scores = under_clamps(bench, models, sheet.rows, sheet.people, columns)
        scored = by_person(sheet, scores)
        others = None
        if case.has(HOLDOUT):
            other = person_rows_of(case, HOLDOUT)
            own = writing_columns(base, other.rows, other.people, self.candidates)
            others = by_person(other, under_clamps(bench, models, other.rows, other.people, own))
        lever = _lever(case, base, sheet, columns)
        usable = np.flatnonzero(lever.usable())
        reason = NO_NULL if cast.null is None else (
            f"blind here: base's answers ({lever.whole:.2f}) do not rest on its coefficients: with every one at its "
            f"mean they are given at {lever.suppressed:.2f}"
        )  # fmt: skip
        empty = blank(RESTORATION, reason, scored.n, len(scored.people["suspect"]), case.case.seed)
        roles = {name: cast.role(name) for name in scores}
        table = item_table(case, "concept_vectors_restoration", sheet, scores, roles, "clamp")
        means = {
            f"probability_{name}_{clamp}": float(x[:, n].mean())
            for name, x in scored.people.items()
            for n, clamp in enumerate(CLAMPS)
        }
        empty = empty.model_copy(update={"items": table, "readings": lever.readings() | means})
        if cast.null is None or not len(usable):
            return empty
        design = Design(case.case.seed, LEAST_GAP, draws=self.permutations, name=RESTORATION.key)
        assessed = assess(panel_of(scored, others).at(usable), design)
        return assessed.onto(empty.model_copy(update={"notes": (_judged(usable),)}))


def _lever(case: OpenCase, base: ValueModel, sheet: PersonRows, columns: Columns) -> _Lever:
    """Base as it is, with every coefficient at its mean, and with the candidates put back."""
    flat = at_mean(base, sheet.rows, case.rows(RETAIN))
    back = held(base.checkpoint, columns, sheet.rows, sheet.people, base.blocks)
    means = [
        float(np.nanmean(answered(base.bench, base.checkpoint, base.checkpoint, sheet.rows, writes).own))
        for writes in ((), flat, (*flat, *back))
    ]
    return _Lever(*means)


def _judged(usable: ndarray) -> str:
    return "clamps judged: " + ", ".join(CLAMPS[n].replace("_", " ") for n in usable)
