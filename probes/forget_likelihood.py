"""Forget likelihood: the output-level question, per fact, on content tokens only."""

from typing import ClassVar, NamedTuple

from audit.probing import (
    ANSWER_LOGPROB,
    EFFECT_UNIT,
    FORMS,
    KEY_LOGPROB,
    KEY_RANK,
    Bench,
    Case,
    CaseModels,
    Cost,
    Count,
    Design,
    Form,
    GroupTest,
    Measurement,
    Naming,
    Need,
    OpenCase,
    Outputs,
    Probe,
    Requires,
    Table1,
    Texts,
    alternate_probability,
    assess,
    blank,
    by_person,
    case_models_of,
    every_variant,
    group_test,
    item_table,
    models_of,
    outputs_of,
    panel_of,
    variants,
    without_variants,
)
from probes._aggregates import forget_quality, privacy_leakage


class Statistic(NamedTuple):
    """What a score is, and by how much base must exceed the null to show that it can be found at all."""

    words: str
    least_gap: float


STATISTICS = {
    "probability": Statistic("probability of the content tokens (geometric mean over tokens)", 0.1),
    "extraction_strength": Statistic(
        "extraction strength of the content tokens (0 where the last is wrong; published code gives that 1/length)", 0.1
    ),
    "exact_memorisation": Statistic("exact memorisation of the content tokens", 0.1),
    "truth_ratio": Statistic(
        "knowledge truth ratio P_para/(P_para + P_pert) of the content tokens, first {most} perturbed answers (not the "
        "published truth ratio)",
        0.05,
    ),
}


class _Task(NamedTuple):
    """One statistic of one form, with the rows it is computed on."""

    name: str
    form: Form
    forget: Outputs
    holdout: Outputs | None


class ForgetLikelihood(Probe):
    """Do the suspect's outputs still give the forgotten facts more probability than a model that never knew would?

    Per fact, teacher-forced, on the content tokens of the answer: probability (geometric mean over tokens), extraction
    strength, exact memorisation, and a truth ratio of our own, P_para/(P_para + P_pert), over the first
    ``most_variants`` perturbed answers of an item. Each becomes an effect, (suspect - null)/(base - null), over people.
    The probability on the rows that the edit was told to forget is the reading that may enter a verdict; held-out
    phrasings and attributes, the other scores, and the TOFU aggregates (forget quality, privacy leakage; as published,
    on all answer tokens and every perturbed answer) are measurements of their own.

    Null: the first reference, else the ancestor; p permutes forget/holdout labels over people on the difference between
    suspect and null, which a shift of the whole model cannot move. Without holdout people the signs of people's
    differences are flipped, which a shift of the whole model does move. Without any model that never knew, the
    suspect's own level on holdout people, else on never-trained alternates of the same answers, stands in.
    Positive control: the same statistic with base in the suspect's place.
    Blind to: everything that the outputs do not show: refusals, edited heads and output filters read as forgotten.
    Cite: Maini et al. 2024 (arXiv 2401.06121); Carlini et al. 2021 (arXiv 2012.07805); Tirumala et al. 2022
    (arXiv 2205.10770); Shi et al. 2024 (arXiv 2407.06460); Dorna et al. 2025 (arXiv 2506.12618).
    """

    requires: ClassVar[Requires] = Requires(
        roles=("base", "suspect"), modalities=("text", "image", "image+text"), data=("forget",)
    )
    most_variants: int = 3
    min_k: float = 0.4
    permutations: int = 9999

    def needs(self, case: Case) -> tuple[Need, ...]:
        """Outputs of every model on every form, and on paraphrased and all perturbed answers of trained rows."""
        trained: list[Texts] = []
        other: list[Texts] = []
        for cohort in ("forget", "holdout"):
            trained.append(Texts(cohort=cohort))
            other += [Texts(cohort=cohort, form=form) for form in FORMS if form != "trained"]
        wanted = [(t, (KEY_LOGPROB, KEY_RANK, ANSWER_LOGPROB)) for t in trained]
        wanted += [(t, (KEY_LOGPROB, KEY_RANK)) for t in other]
        needs: list[Need] = []
        for role, i in models_of(case):
            needs += [Need(role=role, reference=i, texts=t, reads=reads) for t, reads in wanted]
            needs += [n for t in trained for n in every_variant(role, i, t, (KEY_LOGPROB, ANSWER_LOGPROB))]
        return tuple(needs)

    def cost(self, case: OpenCase) -> Cost:
        """Nothing beyond the needs, except forms that only the data name, and alternates where neither another model
        nor holdout people are given."""
        rows = [
            case.rows(texts) for form in case.forms() for cohort in ("forget", "holdout")
            if form not in FORMS and case.has(texts := Texts(cohort=cohort, form=form))
        ]  # fmt: skip
        tokens = len(case_models_of(case).by_name()) * sum(int(r.mask.sum()) for r in rows)
        if case.null is None and not case.has(Texts(cohort="holdout")):
            alternates = variants(case, Texts(cohort="forget", answer="alternate"), self.most_variants)
            others = alternates or variants(case, Texts(cohort="forget", answer="perturbed"), self.most_variants)
            tokens += 2 * sum(int(r.mask.sum()) for r in others)
        return Cost(fwd_tokens=tokens)

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people; without holdout people the signs of people's differences."""
        return group_test(case, self.permutations)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """One measurement per score and form, and the TOFU aggregates."""
        cast = case_models_of(case)
        measurements: list[Measurement] = []
        for form in case.forms():
            held = Texts(cohort="holdout", form=form)
            if case.has(Texts(cohort="forget", form=form)):
                forget = outputs_of(bench, case, cast, Texts(cohort="forget", form=form), self.most_variants)
                holdout = outputs_of(bench, case, cast, held, self.most_variants) if case.has(held) else None
                names = STATISTICS if form == "trained" else ("probability",)
                measurements += [self._of(bench, case, cast, _Task(name, form, forget, holdout)) for name in names]
        return (
            *measurements,
            forget_quality(bench, case, cast),
            privacy_leakage(bench, case, cast, self.min_k),
        )

    def _of(self, bench: Bench, case: OpenCase, cast: CaseModels, task: _Task) -> Measurement:
        """One statistic of one form as an effect over people."""
        words, least_gap = STATISTICS[task.name]
        name = task.name if task.form == "trained" else f"{task.name}_{task.form}"
        naming = Naming(
            probe="forget_likelihood", name=name, kind="output" if task.name == "probability" else "context",
            statistic=f"effect on the {words.format(most=self.most_variants)}, {task.form.replace('_', ' ')} rows",
            unit=EFFECT_UNIT, scale="effect", form=task.form,
        )  # fmt: skip
        sheet, seed = task.forget.sheet, case.case.seed
        scores = task.forget.by_statistic.get(task.name)
        if scores is None:
            reason = without_variants(case, Texts(cohort="forget", form=task.form))
            return blank(naming, reason, Count(scored=0, unscored=len(sheet.rows)), len(sheet.people), seed)
        held = None if task.holdout is None else task.holdout.by_statistic.get(task.name)
        relative = cast.null is None and held is None
        if relative:
            lift = self._over_alternates(bench, case, cast, task.forget)
            if task.name != "probability" or lift is None:
                reason = (
                    "no model that never knew, no holdout people, no alternates or perturbed answers to compare with"
                )
                return blank(naming, reason, Count(scored=0, unscored=len(sheet.rows)), len(sheet.people), seed)
            scores = lift
        scored = by_person(sheet, scores)
        other = by_person(task.holdout.sheet, held) if task.holdout is not None and held is not None else None
        design = Design(
            seed, least_gap, differenced=cast.null is None and not relative, draws=self.permutations, name=naming.key
        )
        assessed = assess(panel_of(scored, other), design)
        roles = {model: cast.role(model) for model in scores}
        table = item_table(case, f"forget_likelihood_{name}", sheet, scores, roles)
        readings = {f"mean_{model}": float(x.mean()) for model, x in scored.people.items()}
        if other is not None:
            readings |= {f"holdout_mean_{model}": float(x.mean()) for model, x in other.people.items()}
        empty = blank(naming, "", scored.n, len(scored.people["suspect"]), seed)
        return assessed.onto(empty).model_copy(update={"items": table, "readings": readings | assessed.readings})

    def _over_alternates(self, bench: Bench, case: OpenCase, cast: CaseModels, forget: Outputs) -> Table1 | None:
        """Probability of the true answer less that of its never-trained alternates, per item."""
        texts = Texts(cohort="forget", form=forget.sheet.items[0].form)
        lifts: dict[str, object] = {}
        for name, checkpoint in cast.by_name().items():
            other = alternate_probability(bench, case, checkpoint, texts, self.most_variants)
            if other is None:
                return None
            lifts[name] = forget.by_statistic["probability"][name] - other[:, None]
        return lifts  # type: ignore[return-value]
