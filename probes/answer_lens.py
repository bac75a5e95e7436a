"""Answer lens: the forgotten answer, decoded from the suspect's own states through its own head."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    EFFECT_UNIT,
    LOGITS,
    Bench,
    Case,
    CaseModels,
    Checkpoint,
    Cohort,
    Cost,
    Count,
    Curve,
    Design,
    Form,
    GroupTest,
    Measurement,
    ModelScores,
    Naming,
    Need,
    OpenCase,
    PersonRows,
    Probe,
    Read,
    Requires,
    Rows,
    Texts,
    aligned,
    assess,
    blank,
    by_person,
    case_models_of,
    group_test,
    item_table,
    n_blocks,
    panel_of,
    person_rows_of,
    row_means,
    variants,
)
from probes._profiles import after, curve

LEAST_GAP_NATS = 0.5


class _Contrast(NamedTuple):
    """The rows whose content tokens are true, and the rows of what was never trained in their place."""

    sheet: PersonRows
    true: Rows
    other: tuple[Rows, ...]


class _Seen(NamedTuple):
    """One model: lift in nats, and lift in top-k hits, per item and layer (the output comes last)."""

    lift: Float[ndarray, "row layer"]
    hits: Float[ndarray, "row layer"]


class _LensReading(NamedTuple):
    """What every model shows of the contrast: by item, by forget person, and by holdout person where there are any."""

    contrast: _Contrast
    seen: Mapping[str, _Seen]
    scored: ModelScores
    holdout: ModelScores | None


class AnswerLens(Probe):
    """Does the suspect's own head still decode the forgotten answer, rather than an alternate, from its states?

    Logit lens: the states that predict the content tokens are read after every block, and at the output, through the
    suspect's own final norm and head. The score is a lift: the mean log-probability of the true content tokens less
    that of never-trained values of the same attribute in the same place, so that a shift of all answers cancels. The
    lift of top-k hits (head projection) stands beside it. No other model's basis is involved, so this sees what
    reverse patching cannot read, and holds for suspects of another initialisation too.

    Null: the same lift in the first reference, else in the ancestor; p is for the difference in differences: it
    permutes forget/holdout labels over people (the largest over layers at which base exceeds the null by half a nat).
    Without holdout people the signs of people's differences are flipped; without any model that never knew the effect
    itself is forget less holdout people, else the lift over alternates stands alone.
    Positive control: the same statistic in base.
    Blind to: answers that are encoded but not aligned with the head; an edit of the head that maps them elsewhere.
    Cite: Patil et al. 2024 (arXiv 2309.17410), head projection; nostalgebraist 2020, logit lens; Belrose et al. 2023
    (arXiv 2303.08112), section 2.
    """

    requires: ClassVar[Requires] = Requires(roles=("base", "suspect"), data=("forget",))
    most_alternates: int = 4
    top_k: int = 4
    permutations: int = 9999

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None ahead of time: which layers there are is known once base is found; see :meth:`cost`."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """True answers and alternates of forget and holdout people, once through every model."""
        tokens = 0
        for cohort in ("forget", "holdout"):
            if case.has(Texts(cohort=cohort)):
                contrast = self._contrast(case, cohort, "trained")
                tokens += 0 if contrast is None else sum(int(r.mask.sum()) for r in (contrast.true, *contrast.other))
        return Cost(fwd_tokens=tokens * len(case_models_of(case).by_name()))

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people; without holdout people the signs of people's differences."""
        return group_test(case, self.permutations)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """The lens on the rows that the edit was told to forget."""
        cast, seed = case_models_of(case), case.case.seed
        naming = Naming(
            probe="answer_lens", name="lens_lift", kind="decoding",
            statistic="largest effect over layers on the lift of the true answer over never-trained alternates, "
            "through the model's own head",
            unit=EFFECT_UNIT, scale="effect",
        )  # fmt: skip
        forget = self._contrast(case, "forget", "trained")
        if forget is None:
            rows = len(case.rows(Texts(cohort="forget")))
            return (
                blank(
                    naming,
                    "the items have neither alternates nor perturbed answers",
                    Count(scored=0, unscored=rows),
                    0,
                    seed,
                ),
            )
        holdout = self._contrast(case, "holdout", "trained") if case.has(Texts(cohort="holdout")) else None
        seen = {name: self._seen(bench, c, forget) for name, c in cast.by_name().items()}
        scored = by_person(forget.sheet, {name: s.lift for name, s in seen.items()})
        other = None
        if holdout is not None:
            lifts = {name: self._seen(bench, c, holdout).lift for name, c in cast.by_name().items()}
            other = by_person(holdout.sheet, lifts)
        return (self._judged(case, cast, naming, _LensReading(forget, seen, scored, other)),)

    def _judged(self, case: OpenCase, cast: CaseModels, naming: Naming, evidence: _LensReading) -> Measurement:
        """The lift as an effect over people and layers."""
        contrast, seen, scored, other = evidence
        seed, people = case.case.seed, scored.people
        design = Design(
            seed, LEAST_GAP_NATS, differenced=cast.null is None and other is not None, draws=self.permutations
        )
        assessed = assess(panel_of(scored, other), design)
        lifts = {name: s.lift for name, s in seen.items()}
        hits = {f"top{self.top_k}_hit_lift_{name}": float(np.nanmean(s.hits, 0).max()) for name, s in seen.items()}
        readings = assessed.readings | {
            "layer_of_largest_effect": float(assessed.layer),
            **{f"output_lift_nats_{name}": float(x[:, -1].mean()) for name, x in people.items()},
            **{f"late_suppression_nats_{name}": float(x.mean(0).max() - x.mean(0)[-1]) for name, x in people.items()},
            **{name: value for name, value in hits.items() if np.isfinite(value)},
        }
        table = item_table(
            case, "answer_lens", contrast.sheet, lifts, {name: cast.role(name) for name in lifts}, "layer"
        )
        empty = blank(naming, "", scored.n, len(people["suspect"]), seed)
        last = n_blocks(case)
        return assessed.onto(empty).model_copy(
            update={
                "items": table, "layer": assessed.layer if assessed.layer >= 0 else None, "readings": readings,
                "curves": _curves(people, cast, seed), "notes": (f"layer {last} is the output itself", assessed.test),
            }
        )  # fmt: skip

    def _contrast(self, case: OpenCase, cohort: Cohort, form: Form) -> _Contrast | None:
        """True answers against alternates; where there are none, paraphrased against perturbed answers."""
        texts = Texts(cohort=cohort, form=form)
        sheet = person_rows_of(case, texts)
        alternates = variants(case, texts.model_copy(update={"answer": "alternate"}), self.most_alternates)
        if alternates:
            return _Contrast(sheet, sheet.rows, tuple(alternates))
        true = variants(case, texts.model_copy(update={"answer": "paraphrased"}), 1)
        perturbed = variants(case, texts.model_copy(update={"answer": "perturbed"}), self.most_alternates)
        return _Contrast(sheet, true[0], tuple(perturbed)) if true and perturbed else None

    def _seen(self, bench: Bench, checkpoint: Checkpoint, contrast: _Contrast) -> _Seen:
        """One pass per set of rows reads every layer."""
        sites = [after(layer) for layer in range(bench.open(checkpoint).n_blocks)] + [LOGITS]
        reads = tuple(Read(site=site, at="key", reduce=reduce) for site in sites for reduce in ("logprob", "rank"))
        ids = contrast.sheet.rows.item_ids

        def table(rows: Rows) -> tuple[ndarray, ndarray]:
            outputs = bench.run(checkpoint, rows, reads)
            logprob = [aligned(row_means(outputs[r], rows), rows.item_ids, ids) for r in reads[::2]]
            hit = [
                aligned(row_means((outputs[r] < self.top_k).double(), rows), rows.item_ids, ids) for r in reads[1::2]
            ]
            return np.stack(logprob, 1), np.stack(hit, 1)

        true, others = table(contrast.true), [table(rows) for rows in contrast.other]
        return _Seen(true[0] - _mean([other[0] for other in others]), true[1] - _mean([other[1] for other in others]))


def _mean(tables: list[Float[ndarray, "row layer"]]) -> Float[ndarray, "row layer"]:
    """Mean over the alternates that an item has; NaN for an item without any."""
    stack = np.stack(tables)
    finite = ~np.isnan(stack)
    count = finite.sum(0)
    return np.where(count > 0, np.where(finite, stack, 0.0).sum(0) / np.maximum(count, 1), np.nan)


def _curves(people: Mapping[str, Float[ndarray, "person layer"]], cast: CaseModels, seed: int) -> tuple[Curve, ...]:
    """Lift of forget people at every layer, per model."""
    roles = {"base": "base", "suspect": "suspect"}
    if cast.null_role is not None:
        roles["null"] = cast.null_role
    roles |= {name: "floor" for name in people if name.startswith("floor")}
    return tuple(
        curve(role, people[name], seed).model_copy(
            update={"unit": "lift of the true answer (nats)", "scale": "difference"}
        )
        for name, role in roles.items()
    )
