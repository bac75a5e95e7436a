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
    with_alternates,
)
from probes._member_scores import (
    ALONE,
    BESIDE,
    LISTED,
    READS,
    Answers,
    Statistics,
    TokenScores,
    iam_published,
    lifts,
    spread_of,
    statistics,
    token_scores,
    true_answers,
    wrong_answers,
)
from probes._member_table import NO_OTHERS, Scored, table_of
from probes._wrong_answers import NO_WRONG

PROBE = "membership"
LEAST_GAP = 0.5
LEAST_SPREAD = 1e-9
FORGET, HOLDOUT = Texts(cohort="forget"), Texts(cohort="holdout")
FAMILY = (*ALONE, *BESIDE)
OVER_ALTERNATES = Naming(
    probe=PROBE, name="over_alternates", kind="context",
    statistic="largest lift of the true answer over wrong ones, among statistics of membership, each in its standard "
    "deviations over items, judged together (max-T); forget less holdout people",
    unit=EFFECT_UNIT, scale="score",
)  # fmt: skip
EXCESS = OVER_ALTERNATES._replace(
    name="excess",
    statistic="largest excess among statistics of membership of the answers, each in its own standard deviations over "
    "items, judged together (max-T); forget less holdout people",
)  # fmt: skip
AUROC = Naming(
    probe=PROBE, name="auroc", kind="context", mode="paper",
    statistic="AUROC of forget against holdout items by {by}",
    unit="AUROC (0.5 cannot be told apart; below 0.5 told apart as over-unlearned)", scale="probability",
)  # fmt: skip
TWO_SIDED = (
    "Above 0 the suspect treats the answers as trained on, below 0 as less likely than a model that never knew does "
    "(over-unlearned): two findings, of which a small p below is the second."
)
OF_EDITS = (
    "An edit that trains on the forget texts makes them members whatever it teaches, so that this excess is found in "
    "edited models that never knew as well."
)
NOTHING = "needs a model that never knew, or holdout people"


class _Cohort(NamedTuple):
    """One cohort as every model reads it: statistics of the true answers, and their lifts over wrong ones (empty where
    there are none)."""

    sheet: PersonRows
    answers: Answers
    tokens: Mapping[str, TokenScores]
    true: Statistics
    lift: Statistics


class Membership(Probe):
    """Can it be told from the suspect's outputs that it was trained on the forgotten texts?

    Members are the forget items, the others the holdout items. One pass of every model gives all statistics of an
    answer's tokens: loss, loss over compressed bytes (zlib), Min-K% and Min-K%++ of the lowest share ``min_k``; beside
    the null also window votes and the error zone. Each is taken of the true answer less at most ``most_alternates``
    wrong ones of the same question, and becomes an effect over people, (suspect - null)/(base - null); the largest is
    judged by max-T over all of them. The same without wrong answers stands beside it, and is moved by any edit on these
    texts. A table gives every statistic's AUROC and its hits at few false alarms with intervals over groups, as
    published and so without a control, beside what the words alone tell and beside the same in a model that never knew.
    IAM, which places the suspect between the null and base, stands in the table alone: base knows forget items and no
    others, so that IAM tells them apart in a model that never saw either.

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
    most_alternates: int = Field(default=2, ge=1)
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
        """The wrong answers of forget and holdout items through every model."""
        wrong = [
            each for texts in (FORGET, HOLDOUT) if case.has(texts)
            for each in wrong_answers(case, texts, self.most_alternates)
        ]  # fmt: skip
        tokens = sum(int(each.rows.mask.sum()) for each in wrong)
        return Cost(fwd_tokens=tokens * len(case_models_of(case).by_name()), kind="upper" if tokens else "exact")

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people whose items have wrong answers; without holdout people signs."""
        return group_test(case, self.permutations, usable=with_alternates)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """The lift over wrong answers and the excess, against a model that never knew; and the published numbers."""
        cast, seed = case_models_of(case), case.case.seed
        cohorts = self._cohorts(bench, case, cast)
        tested = (
            self._judged(case, cast, OVER_ALTERNATES, [(each.sheet, each.lift) for each in cohorts]),
            self._judged(case, cast, EXCESS, [(each.sheet, each.true) for each in cohorts]),
        )
        published = _published(cohorts, cast)
        by = "IAM, as its code has it" if "iam_published" in published else f"Min-K% of the lowest {self.min_k:.0%}"
        naming, n = AUROC._replace(statistic=AUROC.statistic.format(by=by)), sum(len(x.sheet.rows) for x in cohorts)
        groups = sum(len(each.sheet.people) for each in cohorts)
        if len(cohorts) < 2:
            return (*tested, blank(naming, NO_OTHERS, Count(scored=0, unscored=n), groups, seed))
        lead = "iam_published" if "iam_published" in published else "min_k"
        table = table_of(Scored(published, cohorts[0].sheet, cohorts[1].sheet), lead, seed, self.draws)
        listed = table.onto(blank(naming, "published without a control", Count(scored=n), groups, seed))
        readings = listed.readings | _completeness(cohorts[0].sheet, cohorts[0].true.get("iam", {}))
        return (*tested, listed.model_copy(update={"readings": readings}))

    def _cohorts(self, bench: Bench, case: OpenCase, cast: CaseModels) -> list[_Cohort]:
        """Forget people and, where there are any, holdout people, as every model reads them."""
        texts = [each for each in (FORGET, HOLDOUT) if case.has(each)]
        true = [true_answers(case, each) for each in texts]
        read: list[dict[str, TokenScores]] = [{} for _ in texts]
        for name, model in cast.by_name().items():
            for part, answers in zip(read, true, strict=True):
                (part[name],) = token_scores(bench, model, [answers])
        # the last cohort is that of the holdout people, who are not audited, where there are any
        sigma = None if cast.null is None else spread_of(true[-1:], read[-1:])
        cohorts: list[_Cohort] = []
        for each, answers, tokens in zip(texts, true, read, strict=True):
            scores = statistics(answers, tokens, self.min_k, sigma)
            wrong = self._wrong(bench, cast, wrong_answers(case, each, self.most_alternates), sigma)
            judged = {name: scores[name] for name in FAMILY if name in scores}
            lift = lifts(judged, wrong, answers.rows.item_ids) if wrong else {}
            cohorts.append(_Cohort(person_rows_of(case, each), answers, tokens, scores, lift))
        return cohorts

    def _wrong(
        self, bench: Bench, cast: CaseModels, wrong: list[Answers], sigma: Float[ndarray, " step"] | None
    ) -> list[tuple[Answers, Statistics]]:
        """The statistics of wrong answers in every model."""
        if not wrong:
            return []
        read = {name: token_scores(bench, model, wrong) for name, model in cast.by_name().items()}
        return [
            (answers, statistics(answers, {name: each[n] for name, each in read.items()}, self.min_k, sigma))
            for n, answers in enumerate(wrong)
        ]

    def _judged(
        self, case: OpenCase, cast: CaseModels, naming: Naming, cohorts: list[tuple[PersonRows, Statistics]]
    ) -> Measurement:
        """All statistics as one family, each in standard deviations over the items of base and of the null."""
        seed, sheet = case.case.seed, cohorts[0][0]
        lacking = Count(scored=0, unscored=len(sheet.rows))
        if not all(scores for _, scores in cohorts):
            return blank(naming, NO_WRONG, lacking, len(sheet.people), seed)
        spread = _deviations([scores for _, scores in cohorts])
        if not spread:
            return blank(naming, "no statistic differs between items", lacking, len(sheet.people), seed)
        columns = [_in_deviations(scores, spread) for _, scores in cohorts]
        scored = by_person(sheet, columns[0])
        other = by_person(cohorts[1][0], columns[1]) if len(cohorts) > 1 else None
        empty = blank(naming, NOTHING, scored.n, len(scored.people["suspect"]), seed)
        if cast.null is None and other is None:
            return empty
        design = Design(seed, LEAST_GAP, differenced=other is not None, draws=self.permutations, name=naming.key)
        assessed = assess(panel_of(scored, other), design)
        roles = {name: cast.role(name) for name in columns[0]}
        table = item_table(case, f"{PROBE}_{naming.name}", sheet, columns[0], roles, axis="statistic")
        names, filled = [*spread], assessed.onto(empty)
        led = () if assessed.layer < 0 else (f"the largest is of {names[assessed.layer].replace('_', ' ')}",)
        numbered = "statistics by number: " + ", ".join(f"{n} {name}" for n, name in enumerate(names))
        notes = (*((OF_EDITS,) if naming is EXCESS else ()), TWO_SIDED, *led, numbered, *filled.notes)
        readings = filled.readings | _each(scored, other, names)
        return filled.model_copy(update={"items": table, "readings": readings, "notes": notes})


def _published(cohorts: Sequence[_Cohort], cast: CaseModels) -> dict[str, dict[str, ndarray]]:
    """Statistic -> model -> [item], forget items first, in the order of the table."""
    joined = {
        statistic: {name: np.concatenate([each.true[statistic][name] for each in cohorts]) for name in models}
        for statistic, models in cohorts[0].true.items()
    }
    if cast.null is not None:
        answers, tokens = [each.answers for each in cohorts], [each.tokens for each in cohorts]
        joined["iam_published"] = {name: iam_published(answers, tokens, name) for name in tokens[0]}
    return {name: joined[name] for name in LISTED if name in joined}


class _Range(NamedTuple):
    """The standard deviation of a statistic over the items of base and of the null together, and its ends there."""

    deviation: float
    lowest: float
    highest: float


def _deviations(scores: Sequence[Statistics]) -> dict[str, _Range]:
    """The ranges of the family's statistics over all cohorts; those that do not vary are left out."""
    result: dict[str, _Range] = {}
    for name in (each for each in FAMILY if each in scores[0]):
        values = np.concatenate([part[name][who] for part in scores for who in ("base", "null") if who in part[name]])
        finite = values[np.isfinite(values)]
        if len(finite) and (spread := float(finite.std())) > LEAST_SPREAD:
            result[name] = _Range(spread, float(finite.min()), float(finite.max()))
    return result


def _in_deviations(part: Statistics, ranges: Mapping[str, _Range]) -> dict[str, Float[ndarray, "row statistic"]]:
    """Model -> scores of one cohort in standard deviations, no farther out than any of base and of the null: a model
    that an edit broke gives some texts any number, and one text would carry the mean."""
    models = part[next(iter(ranges))]
    return {
        who: np.stack([np.clip(part[name][who], r.lowest, r.highest) / r.deviation for name, r in ranges.items()], 1)
        for who in models
    }


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
