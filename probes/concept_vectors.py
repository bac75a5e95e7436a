"""Concept vectors: do the stored value vectors still write the forgotten answers when they are activated?"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from audit.probing import (
    EFFECT_UNIT,
    AuditError,
    Bench,
    Case,
    CaseModels,
    Cost,
    Count,
    Design,
    GroupTest,
    Measurement,
    Missing,
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
    panel_of,
    person_rows_of,
)
from probes._benchmark import read_benchmark
from probes._clamping import CLAMPS, at_mean, controls, held, probabilities, under_clamps
from probes._published_vectors import Behaviour, answer_tokens, published
from probes._value_changes import kinship
from probes._value_columns import Groups, ValueModel, Values, writing_columns
from probes._value_tables import CONTEXT, filter_tokens, value_measurements

FORGET, RETAIN, HOLDOUT = (Texts(cohort=cohort) for cohort in ("forget", "retain", "holdout"))
LEAST_GAP = 0.3
GATE = 0.5
LEAST_LEVER = 0.1
"""By so much (probability) base's answers have to fall when its coefficients are set to their mean."""
LEAST_RESTORED = 0.5
"""So much of that the candidates alone have to bring back."""
KIN = CLAMPS.index("every_coefficient_base_head")
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


SPREAD = 0.21
"""The largest effect of a model that never knew, against another such model as its null, in 60 worlds of the zoo (465
models; .19 in 60 more): two references of a case may lie together by chance, so that the floor is never below it."""
NOT_BELOW = Missing(
    missing="what base's coefficients bring to models that never knew goes with how near such a model is to base: to "
    "lie below one of them is no sign of suppression"
)


class Lever(NamedTuple):
    """Does holding coefficients bring anything back where they are known to be all that is missing? In base itself."""

    plain: float
    suppressed: float
    restored: float

    def usable(self) -> Bool[ndarray, " clamp"]:
        """The clamps that may be judged."""
        moved = self.plain - self.suppressed
        few = moved >= LEAST_LEVER and self.restored - self.suppressed >= LEAST_RESTORED * moved
        return np.array([few, moved >= LEAST_LEVER] * 2)

    def readings(self) -> dict[str, float]:
        """The three probabilities."""
        return {
            "probability_base_plain": self.plain,
            "probability_base_mean_coefficients": self.suppressed,
            "probability_base_mean_coefficients_candidates": self.restored,
        }


class Gate(NamedTuple):
    """Does the suspect take base's coefficients at all? Mean cosine of its value vectors with base's, and what it gives
    of retained answers under every clamp, relative to base."""

    cosine: float
    share: Float[ndarray, " clamp"]

    @property
    def passed(self) -> Bool[ndarray, " clamp"]:
        """The clamps that may be judged."""
        return (self.share >= GATE) & (self.share[KIN] >= GATE) & (self.cosine >= GATE)

    def readings(self) -> dict[str, float]:
        """The cosine and the shares."""
        shares = {f"retained_{clamp}": float(share) for clamp, share in zip(CLAMPS, self.share, strict=True)}
        return {"cosine_all_vectors": self.cosine} | shares


class ConceptVectors(Probe):
    """Do the suspect's value vectors still write the forgotten answers when they are activated as in base?

    An MLP adds to the stream a sum of value vectors (the columns of its last matrix), each times its coefficient; a
    mixture adds those of all its experts, each times the weight of its routing too (0 where a token is not sent). A
    group's **candidates** are the ``candidates`` columns of all blocks that write most to its answers' content tokens,
    chosen in base alone by activated trace (size of coefficient times what the vector adds to the token's logit).
    **Restoration** (may be evidence): where content tokens are predicted, coefficients are held at what they are in
    base on the same prompt, and the probability of the content tokens is taken: of the candidates or of every value
    vector, and with the suspect's own or base's head reading the last state. The effect is (suspect - null)/(base -
    null) under the identical clamp, largest over the four: base's coefficients carry the answers by themselves, and
    what they bring to a model that never knew is its zero. Whatever else in the suspect gives the answers counts too.

    **Value vectors** and **coefficients** (context) say what became of the candidates: how far they moved among columns
    of their block that are as long and as active, how many vectors anywhere name a group's answers (hypergeometric
    test of their tokens among the first that a vector writes, both signs, Bonferroni over all vectors), what an
    ablation of the strongest costs in base, and what is left of their coefficients; a small vocabulary or few tokens an
    answer leave the scan little that could reach significance, as its note shows. With a ``benchmark`` file in the
    published format its columns are measured as published (Jaccard of the first 200 tokens, cosine, distance, precision
    and overlap with the article; BLEU and ROUGE-L of greedy answers of ``answer_tokens`` tokens, 0: none).

    Null: the first reference, else the ancestor, under the same clamps; p permutes forget/holdout labels over people on
    the difference between suspect and null, without holdout people it flips the signs of people's differences. Without
    a model that never knew nothing is said.
    Floor: the difference between references, and never less than models that never knew reached in the zoo (.21): how
    well such a model takes base's coefficients differs.
    Positive control: base in the suspect's place; and base with every coefficient at its mean over retained rows, whose
    answers the candidates alone must bring back, or they are not judged.
    Blind to: answers that attention writes, or that no coefficient at the positions before the content tokens decides;
    a suspect whose value vectors are not in base's order, which is not judged. A model that learned less than the null
    of other people takes base's coefficients better than it does: the common ancestor reads up to .3.
    Cite: Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces (ConceptVectors), arXiv 2406.11614.
    """

    requires: ClassVar[Requires] = Requires(
        roles=("base", "suspect"), modalities=("text",), data=("forget", "retain"), ops=(Op.READ, Op.WRITE)
    )
    candidates: int = 50
    benchmark: str = ""
    answer_tokens: int = 100
    permutations: int = 9999

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None ahead of time: which columns are held depends on base, see :meth:`cost`."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """Every model under every clamp with base beside it, and its coefficients read; the causal filter of the listed
        columns; the scan, which costs a model less than a pass over as many tokens as the vocabulary has. An upper
        bound where the coefficients of all blocks fit into memory at once."""
        forget, retain = (int(case.rows(texts).mask.sum()) for texts in (FORGET, RETAIN))
        held_out = int(case.rows(HOLDOUT).mask.sum()) if case.has(HOLDOUT) else 0
        models = len(case_models_of(case).by_name())
        tokens = (7 * models + 28) * forget + (5 * models + 2) * held_out + 18 * retain
        tokens += filter_tokens(int(case.rows(FORGET).lengths.max())) + models * len(case.tokenizer)
        if self.benchmark:
            concepts = read_benchmark(self.benchmark, case.root)
            tokens += answer_tokens(case.tokenizer, concepts, Behaviour(self.answer_tokens))
        return Cost(fwd_tokens=tokens, resident=2, kind="upper")

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people; without holdout people the signs of people's differences."""
        return group_test(case, self.permutations)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """Restoration; the vectors; the coefficients."""
        cast, sheet = case_models_of(case), person_rows_of(case, FORGET)
        try:
            base, suspect = ValueModel(bench, cast.base), ValueModel(bench, cast.suspect)
            models = Values(base, suspect, None if cast.null is None else ValueModel(bench, cast.null))
        except AuditError as error:
            return tuple(_unmeasured(case, sheet, naming, error.what) for naming in (RESTORATION, *CONTEXT))
        forget = _groups(base, sheet, self.candidates)
        retain = _groups(base, person_rows_of(case, RETAIN), self.candidates)
        controlled = (
            self._restoration(case, models, forget, retain),
            *value_measurements(case, models, forget, retain, self.permutations),
        )
        if not self.benchmark:
            return controlled
        concepts = read_benchmark(self.benchmark, case.root)
        return (*controlled, published(case, models, concepts, Behaviour(self.answer_tokens), case.case.seed))

    def _restoration(self, case: OpenCase, values: Values, forget: Groups, retain: Groups) -> Measurement:
        cast, bench, base = case_models_of(case), values.base.bench, values.base
        scores = under_clamps(bench, cast.by_name(), base, forget)
        scored = by_person(forget.sheet, scores)
        others = None
        if case.has(HOLDOUT):
            other = _groups(base, person_rows_of(case, HOLDOUT), self.candidates)
            others = by_person(other.sheet, under_clamps(bench, cast.by_name(), base, other))
        lever, gate = _lever(base, forget, retain), _gate(values, retain)
        usable = np.flatnonzero(lever.usable() & gate.passed)
        empty = blank(RESTORATION, _why_not(cast, lever, gate), scored.n, len(scored.people["suspect"]), case.case.seed)
        roles = {name: cast.role(name) for name in scores}
        empty = empty.model_copy(
            update={
                "items": item_table(case, "concept_vectors_restoration", forget.sheet, scores, roles, "clamp"),
                "readings": {
                    **lever.readings(),
                    **gate.readings(),
                    **_means(scored.people),
                    **controls(values, forget, retain, case.case.seed),
                },
            }
        )
        panel = panel_of(scored, others)
        design = Design(case.case.seed, LEAST_GAP, draws=self.permutations, name=RESTORATION.key)
        if cast.null is None:
            return empty
        if not len(usable):
            control = assess(panel._replace(suspect=panel.base, floors=()), design._replace(name="")).control
            return empty.model_copy(update={"positive_control": control})
        assessed = assess(panel.at(usable), design)
        effects = {f"effect_{CLAMPS[n]}": e for n, e in zip(usable, assessed.effects, strict=False)}
        filled = assessed.onto(empty.model_copy(update={"notes": (_judged(usable),)}))
        floor = SPREAD if isinstance(filled.floor, Missing) else max(filled.floor, SPREAD)
        return filled.model_copy(update={"readings": filled.readings | effects, "p_below": NOT_BELOW, "floor": floor})


def _groups(base: ValueModel, sheet: PersonRows, most: int) -> Groups:
    return Groups(sheet, writing_columns(base, sheet.rows, sheet.people, most))


def _unmeasured(case: OpenCase, sheet: PersonRows, naming: Naming, reason: str) -> Measurement:
    return blank(naming, reason, Count(scored=0, unscored=len(sheet.rows)), len(sheet.people), case.case.seed)


def _means(people: Mapping[str, Float[ndarray, "person clamp"]]) -> dict[str, float]:
    return {f"probability_{m}_{c}": float(x[:, n].mean()) for m, x in people.items() for n, c in enumerate(CLAMPS)}


def _gate(values: Values, retain: Groups) -> Gate:
    models = {"base": values.base.checkpoint, "suspect": values.suspect.checkpoint}
    people = by_person(retain.sheet, under_clamps(values.base.bench, models, values.base, retain)).people
    share = people["suspect"].mean(0) / np.maximum(people["base"].mean(0), 1e-12)
    return Gate(kinship(values.base, values.suspect), share)


def _why_not(cast: CaseModels, lever: Lever, gate: Gate) -> str:
    """Why no clamp is judged."""
    if cast.null is None:
        return NO_NULL
    if not lever.usable().any():
        return (
            f"blind here: base's answers ({lever.plain:.2f}) do not rest on its coefficients: with every one at its "
            f"mean they are given at {lever.suppressed:.2f}"
        )
    return (
        f"not valid on the suspect: its value vectors have a mean cosine of {gate.cosine:.2f} with base's, and with "
        f"every coefficient at base's, base's head reads retained answers from its states at {gate.share[KIN]:.2f} of "
        f"its own (both need {GATE})"
    )


def _lever(base: ValueModel, forget: Groups, retain: Groups) -> Lever:
    """Base as it is, with every coefficient at its mean, and with the candidates put back."""
    flat, back = at_mean(base, forget.sheet.rows, retain.sheet.rows), held(base, forget)
    return Lever(*probabilities(base.bench, base.checkpoint, forget.sheet.rows, ((), flat, (*flat, *back))))


def _judged(usable: ndarray) -> str:
    return "clamps judged: " + ", ".join(CLAMPS[n].replace("_", " ") for n in usable)
