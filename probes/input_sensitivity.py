"""Input sensitivity: how strongly the forgotten words answer to small changes of the input that asks for them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field
from torch import Tensor

from audit.probing import (
    EFFECT_UNIT,
    Bench,
    Case,
    CaseModels,
    Checkpoint,
    Cost,
    Count,
    Design,
    Forward,
    GroupTest,
    Measurement,
    Naming,
    Need,
    Op,
    OpenCase,
    PersonRows,
    Probe,
    Requires,
    Rows,
    Texts,
    assess,
    blank,
    by_person,
    case_models_of,
    group_test,
    item_table,
    panel_of,
    person_rows_of,
    row_mean,
    stats,
    with_alternates,
)
from probes._wrong_answers import NO_WRONG, over_wrong, wrong_rows

PROBE = "input_sensitivity"
LEAST_GAP = 0.1
LEAST_NORM = 1e-6
"""Norms are read no finer than this."""
FORGET, HOLDOUT = Texts(cohort="forget"), Texts(cohort="holdout")
OVER_ALTERNATES = Naming(
    probe=PROBE, name="over_alternates", kind="context",
    statistic="log norm of the gradient of the content tokens' logits by the embedded input, of wrong answers "
    "less the true one; forget less holdout people",
    unit=EFFECT_UNIT, scale="score",
)  # fmt: skip
INSENSITIVITY = OVER_ALTERNATES._replace(
    name="insensitivity",
    statistic="minus the log norm of the gradient of the content tokens' logits by the embedded input; forget "
    "less holdout people",
)  # fmt: skip
PUBLISHED = Naming(
    probe=PROBE, name="squared_norms", kind="context", mode="paper",
    statistic="AUROC of forget against holdout items by the squared input gradient of the right words' logits less "
    "that of drawn words'",
    unit="AUROC (0.5 cannot be told apart)", scale="probability",
)  # fmt: skip
TWO_SIDED = (
    "Above 0 the words answer to their input as those of a text that was trained on, below 0 they are more exposed to "
    "it than in a model that never knew: two findings, of which a small p below is the second."
)
AS_TRAINED = (
    "In the small transformers that it was tried on, training makes these gradients smaller; for image classifiers the "
    "published observation is that it makes them larger. Where base is not below the never-trained model, it is blind."
)
OBSERVED = "the observation behind MU-Mis, as an AUROC: no loss is minimised here, and no control stands behind it"
OF_EDITS = (
    "An edit that pushes texts away flattens every gradient there, in models that never knew as well: what is read "
    "over wrong answers is not moved by that."
)
NO_OTHERS = "needs holdout people"
NOTHING = "needs a model that never knew, or holdout people"


class _Norms(NamedTuple):
    """Of every row: the gradient's norm for the right words' logits and for those of drawn words (NaN: not asked)."""

    right: Float[ndarray, " row"]
    drawn: Float[ndarray, " row"]


class _Cohort(NamedTuple):
    """One cohort: its norms in every model, and how far the log norms of wrong answers lie above (empty: there are
    none)."""

    sheet: PersonRows
    norms: Mapping[str, _Norms]
    lift: dict[str, Float[ndarray, " row"]]


class InputSensitivity(Probe):
    """Do the forgotten words answer to their input as words do that a model was trained on?

    The gradient of the content tokens' logits by the embedded tokens before them, one backward pass a row: a bias that
    an output filter or a head edit adds to the logits has none, so that what it hides is read all the same. The
    logarithm of its norm is set against that of ``most_alternates`` wrong answers to the same question, and becomes an
    effect over people, (suspect - null)/(base - null), forget less holdout people where these are given. The same
    without wrong answers stands beside it. ``published`` adds what MU-Mis looks at, in one more backward pass: the
    squared norm for the right words less that for words drawn at random.

    Null: the first reference, else the ancestor, on the same texts; p permutes forget/holdout labels over people.
    Without holdout people the signs of people's differences are flipped, which a flatter model as a whole moves too.
    Without any model that never knew, forget people less holdout people.
    Positive control: the same statistic in base.
    Blind to: what later blocks or an edited head make of the states, which moves gradients as it moves outputs: a
    refusal or a trained last block reads below a model that never knew. Logits that all rise and fall with the input
    would move it and change no model.
    Cite: MU-Mis, Cheng et al. 2024 (arXiv 2402.15109), whose observation it is; the statistic is ours.
    """

    requires: ClassVar[Requires] = Requires(roles=("base", "suspect"), data=("forget",), ops=(Op.READ, Op.GRADIENT))
    most_alternates: int = Field(default=2, ge=1)
    published: bool = False
    permutations: int = 9999

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None: gradients are no cacheable reads."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """Forget and holdout people with their wrong answers, forward and backward through every model; the true
        answers twice with what is published."""
        cohorts = [texts for texts in (FORGET, HOLDOUT) if case.has(texts)]
        tokens = sum(int(case.rows(texts).mask.sum()) for texts in cohorts) * (2 if self.published else 1)
        tokens += sum(int(r.mask.sum()) for texts in cohorts for r, _ in wrong_rows(case, texts, self.most_alternates))
        passes = tokens * len(case_models_of(case).by_name())
        return Cost(fwd_tokens=passes, bwd_tokens=passes)

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people whose items have wrong answers; without holdout people signs."""
        return group_test(case, self.permutations, usable=with_alternates)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """Against models that never knew: over wrong answers, and plain; the published comparison where asked for."""
        cast = case_models_of(case)
        cohorts = [self._cohort(bench, case, cast, texts) for texts in (FORGET, HOLDOUT) if case.has(texts)]
        lifted = [(each.sheet, each.lift) for each in cohorts]
        plain = [(each.sheet, {name: _insensitivity(n) for name, n in each.norms.items()}) for each in cohorts]
        measured = (self._judged(case, cast, OVER_ALTERNATES, lifted), self._judged(case, cast, INSENSITIVITY, plain))
        return (*measured, _published(case, cohorts)) if self.published else measured

    def _cohort(self, bench: Bench, case: OpenCase, cast: CaseModels, texts: Texts) -> _Cohort:
        """The norms of one cohort in every model, and by how much those of wrong answers exceed them (in logs)."""
        sheet, wrong = person_rows_of(case, texts), [rows for rows, _ in wrong_rows(case, texts, self.most_alternates)]
        norms = {name: self._norms(bench, case, m, sheet.rows, self.published) for name, m in cast.by_name().items()}
        lift: dict[str, ndarray] = {}
        for name, model in cast.by_name().items() if wrong else ():
            others = [(_insensitivity(self._norms(bench, case, model, rows)), rows.item_ids) for rows in wrong]
            lift[name] = over_wrong(_insensitivity(norms[name]), sheet.rows.item_ids, others)
        return _Cohort(sheet, norms, lift)

    def _norms(self, bench: Bench, case: OpenCase, model: Checkpoint, rows: Rows, published: bool = False) -> _Norms:
        """Of one model; kept in the store."""
        objectives = {"right": right_logit}
        if published:
            objectives |= {"drawn": partial(drawn_logit, seed=case.case.seed)}

        def compute() -> dict[str, ndarray]:
            return {name: input_norms(bench, model, rows, objective) for name, objective in objectives.items()}

        seed = case.case.seed if published else 0
        result = bench.cached([PROBE, self.version, model.key, rows.hash, seed, *objectives], compute)
        return _Norms(result["right"], result.get("drawn", np.full(len(rows), np.nan)))

    def _judged(
        self, case: OpenCase, cast: CaseModels, naming: Naming, cohorts: list[tuple[PersonRows, dict[str, ndarray]]]
    ) -> Measurement:
        """One statistic as an effect over people."""
        seed, sheet = case.case.seed, cohorts[0][0]
        if not all(scores for _, scores in cohorts):
            return blank(naming, NO_WRONG, Count(scored=0, unscored=len(sheet.rows)), len(sheet.people), seed)
        columns = [{name: x[:, None] for name, x in scores.items()} for _, scores in cohorts]
        scored, other = by_person(sheet, columns[0]), None
        empty = blank(naming, NOTHING, scored.n, len(scored.people["suspect"]), seed)
        if cast.null is None and len(cohorts) < 2:
            return empty
        if len(cohorts) > 1:
            other = by_person(cohorts[1][0], columns[1])
        differenced = other is not None
        design = Design(seed, LEAST_GAP, differenced, self.permutations, name=naming.key)
        filled = assess(panel_of(scored, other), design).onto(empty)
        roles = {name: cast.role(name) for name in columns[0]}
        table = item_table(case, f"{PROBE}_{naming.name}", sheet, columns[0], roles)
        levels = {f"nats_{name}": float(x.mean()) for name, x in scored.people.items()}
        held = {} if other is None else {f"nats_holdout_{name}": float(x.mean()) for name, x in other.people.items()}
        notes = (*((OF_EDITS,) if naming is INSENSITIVITY else ()), TWO_SIDED, AS_TRAINED, *filled.notes)
        return filled.model_copy(update={"items": table, "readings": filled.readings | levels | held, "notes": notes})


def _insensitivity(norms: _Norms) -> Float[ndarray, " row"]:
    """Minus the logarithm of the norm."""
    return -np.log(norms.right + LEAST_NORM)


# ---- objectives ---------------------------------------------------------------------------------------------------
def right_logit(forward: Forward) -> Float[Tensor, " row"]:
    """Mean logit of the content tokens."""
    return _of_content(forward.logits.gather(1, forward.target[:, None])[:, 0], forward)


def drawn_logit(forward: Forward, seed: int) -> Float[Tensor, " row"]:
    """The same of another word in place of each content token, drawn by the seed for every word of the vocabulary."""
    words = forward.logits.shape[1]
    steps = torch.randint(1, max(words, 2), (words,), generator=torch.Generator().manual_seed(seed))
    other = (forward.target + steps.to(forward.target.device)[forward.target]) % words
    return _of_content(forward.logits.gather(1, other[:, None])[:, 0], forward)


def _of_content(values: Float[Tensor, " token"], forward: Forward) -> Float[Tensor, " row"]:
    """Mean over the content tokens of each row; 0 for a row without any."""
    key, rows = forward.key, int(forward.row.max()) + 1
    return row_mean(values[key], forward.row[key], rows, 0.0)


def input_norms(
    bench: Bench, model: Checkpoint, rows: Rows, objective: Callable[[Forward], Float[Tensor, " row"]]
) -> Float[ndarray, " row"]:
    """The Euclidean norm over all embedded tokens of each row of the objective's gradient; NaN without content."""
    inputs = bench.gradients(model, rows, "inputs", objective).at_inputs
    assert inputs is not None, "gradients were asked for at the inputs"
    norms = inputs.double().square().sum((1, 2)).sqrt().numpy()
    return np.where(rows.key.any(1).numpy(), norms, np.nan)


# ---- as published -------------------------------------------------------------------------------------------------
def _published(case: OpenCase, cohorts: list[_Cohort]) -> Measurement:
    """Squared norms of right less drawn words, of members and others."""
    seed, n = case.case.seed, Count(scored=sum(len(each.sheet.rows) for each in cohorts))
    groups = sum(len(each.sheet.people) for each in cohorts)
    if len(cohorts) < 2:
        return blank(PUBLISHED, NO_OTHERS, n, groups, seed)
    areas: dict[str, float] = {}
    for name in cohorts[0].norms:
        members, others = (
            excess[np.isfinite(excess)]
            for excess in (each.norms[name].right ** 2 - each.norms[name].drawn ** 2 for each in cohorts)
        )
        if len(members) and len(others):
            areas[name] = stats.auroc(members, others)
    empty = blank(PUBLISHED, "published without a control", n, groups, seed)
    if "suspect" not in areas:
        return empty
    readings = {f"auroc_{name}": area for name, area in areas.items()}
    return empty.model_copy(update={"value": areas["suspect"], "readings": readings, "notes": (OBSERVED,)})
