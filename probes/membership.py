"""Membership: whether a text can be told to have been trained on, beside a model that never knew it."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field

from audit.probing import (
    EFFECT_UNIT,
    Bench,
    Case,
    CaseModels,
    Cost,
    Count,
    Design,
    GroupTest,
    Measurement,
    Missing,
    ModelScores,
    Naming,
    Need,
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
    models_of,
    panel_of,
    person_rows_of,
)
from probes._member_scores import (
    ALONE,
    BESIDE,
    LISTED,
    READS,
    Answers,
    TokenScores,
    alone,
    answers_of,
    beside,
    iam_published,
    spread_of,
    token_scores,
)
from probes._member_table import NO_OTHERS, Scored, table_of

PROBE = "membership"
LEAST_GAP = 0.1
LEAST_SPREAD = 1e-9
FORGET, HOLDOUT = Texts(cohort="forget"), Texts(cohort="holdout")
EXCESS = Naming(
    probe=PROBE, name="excess", kind="recovery",
    statistic="largest excess over statistics of membership of the answers, each in its own standard deviations over "
    "items, judged together (max-T); forget less holdout people",
    unit=EFFECT_UNIT, scale="score", witness="output",
)  # fmt: skip
AUROC = Naming(
    probe=PROBE, name="auroc", kind="context", mode="paper",
    statistic="AUROC of forget against holdout items by {by}",
    unit="AUROC (0.5 cannot be told apart; below 0.5 told apart as over-unlearned)", scale="probability",
)  # fmt: skip
TWO_SIDED = (
    "Above 0 the suspect treats the texts as trained on, below 0 as less likely than a model that never knew does "
    "(over-unlearned): two findings, of which a small p below is the second."
)
NOTHING = "needs a model that never knew, or holdout people"


class _Read(NamedTuple):
    """Both cohorts as every model reads them; without holdout people the first alone."""

    answers: tuple[Answers, ...]
    tokens: tuple[Mapping[str, TokenScores], ...]


class Membership(Probe):
    """Can it be told from the suspect's outputs that it was trained on the forgotten texts?

    Members are the forget items, the others the holdout items. One pass of every model gives all statistics of the
    answers' tokens: loss, loss over compressed bytes (zlib), Min-K% and Min-K%++ of the lowest share ``min_k``; beside
    the null also window votes and the error zone. Each becomes an effect over people, (suspect - null)/(base - null),
    and the largest is judged by max-T over all of them. A table gives every statistic's AUROC and its hits at few false
    alarms with intervals over groups, as published and so without a control, beside what the words alone tell and
    beside the same in a model that never knew. IAM, which places the suspect between the null and base, stands in the
    table alone: base knows forget items and no others, so that IAM tells them apart in a model that never saw either.

    Null: the first reference, else the ancestor, on the same texts; p permutes forget/holdout labels over people.
    Without holdout people the signs of people's differences are flipped, which a shift of the whole model moves too.
    Without any model that never knew, forget people less holdout people.
    Positive control: the same statistics in base.
    Blind to: everything that the outputs do not show: refusals, edited heads and filters read as not trained on.
    Differences of topic or format between the cohorts, which the words alone would tell, are left in the table.
    Cite: Yeom et al. 2018 (arXiv 1709.01604); Carlini et al. 2021 (arXiv 2012.07805), zlib; Shi et al. 2024 (arXiv
    2310.16789), Min-K%; Zhang et al. 2024 (arXiv 2404.02936), Min-K%++; IAM (arXiv 2506.06112); window votes (arXiv
    2601.02751); error zone (arXiv 2601.12104); Das et al. 2024 (arXiv 2406.16201), blind baselines.
    """

    requires: ClassVar[Requires] = Requires(roles=("base", "suspect"), data=("forget",))
    min_k: float = Field(default=0.2, gt=0.0, le=1.0)
    draws: int = Field(default=999, ge=99)
    permutations: int = 9999

    def needs(self, case: Case) -> tuple[Need, ...]:
        """Log-probability, rank, entropy and its variance at every token of the answers, in every model."""
        return tuple(
            Need(role=role, reference=i, texts=texts, reads=READS)
            for role, i in models_of(case)
            for texts in (FORGET, HOLDOUT)
        )

    def cost(self, case: OpenCase) -> Cost:
        """Nothing beyond the needs."""
        return Cost()

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people; without holdout people the signs of people's differences."""
        return group_test(case, self.permutations)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """The excess over a model that never knew, and the published numbers beside it."""
        cast, seed = case_models_of(case), case.case.seed
        sheets = [person_rows_of(case, texts) for texts in (FORGET, HOLDOUT) if case.has(texts)]
        read = _Read(
            tuple(answers_of(sheet) for sheet in sheets),
            tuple({name: token_scores(bench, m, sheet) for name, m in cast.by_name().items()} for sheet in sheets),
        )
        scores = self._scores(read, cast)
        excess = self._excess(case, cast, sheets, scores)
        published = self._published(read, scores, cast)
        by = "IAM, as its code has it" if "iam_published" in published else f"Min-K% of the lowest {self.min_k:.0%}"
        naming = AUROC._replace(statistic=AUROC.statistic.format(by=by))
        n = Count(scored=sum(len(sheet.rows) for sheet in sheets))
        if len(sheets) < 2:
            return excess, blank(naming, NO_OTHERS, n, len(sheets[0].people), seed)
        groups = len(sheets[0].people) + len(sheets[1].people)
        lead = "iam_published" if "iam_published" in published else "min_k"
        table = table_of(Scored(published, sheets[0], sheets[1]), lead, seed, self.draws)
        missing = Missing(missing="published without a control; the excess is tested")
        listed = table.onto(blank(naming, missing.missing, n, groups, seed))
        readings = listed.readings | _completeness(sheets[0], scores[0].get("iam", {}))
        return excess, listed.model_copy(update={"readings": readings})

    def _scores(self, read: _Read, cast: CaseModels) -> list[dict[str, dict[str, ndarray]]]:
        """Statistic -> model -> [row], of either cohort."""
        judged = read.answers[-1:], read.tokens[-1:]
        sigma = None if cast.null is None else spread_of(*judged)
        found: list[dict[str, dict[str, ndarray]]] = []
        for answers, tokens in zip(*read, strict=True):
            by_statistic: dict[str, dict[str, ndarray]] = {}
            for name, own in tokens.items():
                each = alone(answers, own, self.min_k)
                each |= {} if sigma is None else beside(answers, tokens, name, sigma)
                for statistic, values in each.items():
                    by_statistic.setdefault(statistic, {})[name] = values
            found.append(by_statistic)
        return found

    def _published(
        self, read: _Read, scores: list[dict[str, dict[str, ndarray]]], cast: CaseModels
    ) -> dict[str, dict[str, ndarray]]:
        """Statistic -> model -> [item], forget items first, in the order of the table."""
        joined = {
            statistic: {name: np.concatenate([part[statistic][name] for part in scores]) for name in models}
            for statistic, models in scores[0].items()
        }
        if cast.null is not None:
            names = read.tokens[0]
            joined["iam_published"] = {name: iam_published(read.answers, read.tokens, name) for name in names}
        return {name: joined[name] for name in LISTED if name in joined}

    def _excess(
        self, case: OpenCase, cast: CaseModels, sheets: list[PersonRows], scores: list[dict[str, dict[str, ndarray]]]
    ) -> Measurement:
        """All statistics as one family, each in standard deviations over the items of base and of the null."""
        seed, sheet = case.case.seed, sheets[0]
        spread = _deviations(scores, [name for name in (*ALONE, *BESIDE) if name in scores[0]])
        names, columns = [*spread], [_in_deviations(part, spread) for part in scores] if spread else []
        if not spread:
            n = Count(scored=0, unscored=len(sheet.rows))
            return blank(EXCESS, "no statistic differs between items", n, len(sheet.people), seed)
        scored, other = by_person(sheet, columns[0]), None
        if len(sheets) > 1:
            other = by_person(sheets[1], columns[1])
        empty = blank(EXCESS, NOTHING, scored.n, len(sheet.people), seed)
        if cast.null is None and other is None:
            return empty
        design = Design(seed, LEAST_GAP, differenced=other is not None, draws=self.permutations, name=EXCESS.key)
        assessed = assess(panel_of(scored, other), design)
        roles = {name: cast.role(name) for name in columns[0]}
        table = item_table(case, f"{PROBE}_excess", sheet, columns[0], roles, axis="statistic")
        filled = assessed.onto(empty)
        led = () if assessed.layer < 0 else (f"the largest is of {names[assessed.layer].replace('_', ' ')}",)
        numbered = "statistics by number: " + ", ".join(f"{n} {name}" for n, name in enumerate(names))
        return filled.model_copy(
            update={
                "items": table, "readings": filled.readings | _each(scored, other, names),
                "notes": (TWO_SIDED, *led, numbered, *filled.notes),
            }
        )  # fmt: skip


Statistics = Mapping[str, Mapping[str, ndarray]]
"""Statistic -> model -> [row]."""


def _deviations(scores: Sequence[Statistics], names: Sequence[str]) -> dict[str, float]:
    """The standard deviation of each statistic over the items of all cohorts, in base and in the null together; those
    of which it is none are left out."""
    found: dict[str, float] = {}
    for name in names:
        values = np.concatenate([part[name][who] for part in scores for who in ("base", "null") if who in part[name]])
        finite = values[np.isfinite(values)]
        spread = float(finite.std()) if len(finite) else 0.0
        if spread > LEAST_SPREAD:
            found[name] = spread
    return found


def _in_deviations(part: Statistics, spread: Mapping[str, float]) -> dict[str, Float[ndarray, "row statistic"]]:
    """Model -> scores of one cohort, each statistic in its standard deviations."""
    models = part[next(iter(part))]
    return {who: np.stack([part[name][who] / by for name, by in spread.items()], 1) for who in models}


def _each(scored: ModelScores, other: ModelScores | None, names: Sequence[str]) -> dict[str, float]:
    """By how many standard deviations suspect and base exceed the null, statistic by statistic."""

    def excess(who: str) -> Float[ndarray, " statistic"]:
        means = [
            of.people[who].mean(0) - (of.people["null"].mean(0) if "null" in of.people else 0.0)
            for of in (scored, other)
            if of is not None
        ]
        return means[0] - (means[1] if len(means) > 1 else 0.0)

    each = {who: excess(who) for who in ("suspect", "base")}
    return {f"deviations_{name}_{who}": float(x[n]) for who, x in each.items() for n, name in enumerate(names)}


def _completeness(sheet: PersonRows, iam: Mapping[str, Float[ndarray, " row"]]) -> dict[str, float]:
    """IAM's completeness of unlearning on the forget items, averaged over people: 0 as base, 1 as never trained."""
    if not iam:
        return {}
    people = by_person(sheet, {name: values[:, None] for name, values in iam.items()}).people
    return {f"iam_completeness_{name}": 1 - float(x.mean()) for name, x in people.items() if len(x)}
