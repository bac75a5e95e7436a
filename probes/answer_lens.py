"""Answer lens: the forgotten answer, decoded from the suspect's own states through its own head."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

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
    Likelihoods,
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
    checked,
    group_test,
    item_table,
    matched,
    n_blocks,
    panel_of,
    person_rows_of,
    row_means,
    variants,
    with_alternates,
)
from probes._profiles import after, curve, first_read

LEAST_GAP_NATS = 0.5


class _Contrast(NamedTuple):
    """The rows whose content tokens are true (of each item the first), and of what was never trained in their place."""

    sheet: PersonRows
    true: tuple[Rows, ...]
    other: tuple[Rows, ...]
    note: str = ""

    @property
    def by_rule(self) -> bool:
        """Are there alternates that no file gave?"""
        return any(item.alternates_from != "given" for item in self.sheet.items)


class _Table(NamedTuple):
    """One model's mean log-probability and top-k hits per item and layer: of the true answer, and of each alternate."""

    true: tuple[Float[ndarray, "row layer"], Float[ndarray, "row layer"]]
    others: tuple[tuple[Float[ndarray, "row layer"], Float[ndarray, "row layer"]], ...]

    def output(self) -> Likelihoods:
        """What the model itself gives each text, after its last block."""
        return Likelihoods(self.true[0][:, -1], np.stack([logprob[:, -1] for logprob, _ in self.others], 1))

    def lifts(self, fit: Bool[ndarray, "row other"]) -> "_Seen":
        """The true answer over the mean of the alternates that fit; NaN for an item without any."""

        def mean(n: int) -> Float[ndarray, "row layer"]:
            return _mean([np.where(fit[:, [k]], other[n], np.nan) for k, other in enumerate(self.others)])

        return _Seen(self.true[0] - mean(0), self.true[1] - mean(1))


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
    first: int = 0


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

    requires: ClassVar[Requires] = Requires(
        roles=("base", "suspect"), modalities=("text", "image", "image+text"), data=("forget",)
    )
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
                tokens += 0 if contrast is None else sum(int(r.mask.sum()) for r in (*contrast.true, *contrast.other))
        return Cost(fwd_tokens=tokens * len(case_models_of(case).by_name()))

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people; without holdout people the signs of people's differences."""
        return group_test(case, self.permutations, usable=with_alternates)

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
                    "the items have neither alternates nor perturbed answers, and no other people are asked the same",
                    Count(scored=0, unscored=rows),
                    0,
                    seed,
                ),
            )
        holdout = self._contrast(case, "holdout", "trained") if case.has(Texts(cohort="holdout")) else None
        seen, note = self._seen(bench, case, forget, taught=True)
        scored = by_person(forget.sheet, {name: s.lift for name, s in seen.items()})
        other = None
        if holdout is not None:
            lifts, _ = self._seen(bench, case, holdout, taught=False)
            other = by_person(holdout.sheet, {name: s.lift for name, s in lifts.items()})
        first = first_read(bench, case.base)
        unread = f"blocks before block {first} are of a width that the head cannot read" if first else ""
        forget = forget._replace(note="; ".join(filter(None, (forget.note, note, unread))))
        return (self._judged(case, cast, naming, _LensReading(forget, seen, scored, other, first)),)

    def _judged(self, case: OpenCase, cast: CaseModels, naming: Naming, evidence: _LensReading) -> Measurement:
        """The lift as an effect over people and layers."""
        contrast, seen, scored, other, first = evidence
        seed, people = case.case.seed, scored.people
        design = Design(
            seed,
            LEAST_GAP_NATS,
            differenced=cast.null is None and other is not None,
            draws=self.permutations,
            name=naming.key,
        )
        assessed = assess(panel_of(scored, other), design)
        unread = ((0, 0), (first, 0))  # no line of the table is of a block that the head cannot read
        lifts = {name: np.pad(s.lift, unread, constant_values=np.nan) for name, s in seen.items()}
        hits = {f"top{self.top_k}_hit_lift_{name}": float(np.nanmean(s.hits, 0).max()) for name, s in seen.items()}
        readings = assessed.readings | {
            "layer_of_largest_effect": float(assessed.layer + first if assessed.layer >= 0 else assessed.layer),
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
                "items": table, "layer": assessed.layer + first if assessed.layer >= 0 else None, "readings": readings,
                "curves": _curves(people, cast, seed, first),
                "notes": (f"layer {last} is the output itself", assessed.test, *filter(None, (contrast.note,))),
            }
        )  # fmt: skip

    def _contrast(self, case: OpenCase, cohort: Cohort, form: Form) -> _Contrast | None:
        """True answers against alternates; where there are none, paraphrased against perturbed answers, and the answer
        itself where an item has no paraphrased one."""
        texts = Texts(cohort=cohort, form=form)
        sheet = person_rows_of(case, texts)
        alternates = variants(case, texts.model_copy(update={"answer": "alternate"}), self.most_alternates)
        if alternates:
            contrast = _Contrast(sheet, (sheet.rows,), tuple(alternates))
            return contrast._replace(note=matched(sheet.items, case.case.seed).said()) if contrast.by_rule else contrast
        true = variants(case, texts.model_copy(update={"answer": "paraphrased"}), 1)
        perturbed = variants(case, texts.model_copy(update={"answer": "perturbed"}), self.most_alternates)
        if not perturbed:
            return None
        bare = sum(bool(item.perturbed_answers) and item.paraphrased_answer is None for item in sheet.items)
        if not bare:
            return _Contrast(sheet, tuple(true), tuple(perturbed))
        note = (
            f"perturbed answers of {bare} items stand against the answer itself: they have no paraphrased one, so that "
            "wording in which the two differ is not cancelled"
        )
        return _Contrast(sheet, (*true, sheet.rows), tuple(perturbed), note)

    def _seen(self, bench: Bench, case: OpenCase, contrast: _Contrast, taught: bool) -> tuple[dict[str, _Seen], str]:
        """What every model shows of the contrast, and what is said of alternates by rule that do not hold up.

        ``taught``: base learned these items, so that it must prefer them.
        """
        cast = case_models_of(case)
        tables = {name: self._table(bench, checkpoint, contrast) for name, checkpoint in cast.by_name().items()}
        fit, note = np.ones((len(contrast.sheet.rows), len(contrast.other)), dtype=bool), ""
        if contrast.by_rule and (taught or "null" in tables):
            blind, base = tables.get("null"), tables["base"] if taught else None
            fit, note = checked(
                contrast.sheet.items, None if blind is None else blind.output(), None if base is None else base.output()
            )
        return {name: table.lifts(fit) for name, table in tables.items()}, note

    def _table(self, bench: Bench, checkpoint: Checkpoint, contrast: _Contrast) -> _Table:
        """One pass per set of rows reads every layer that the head can read."""
        first = first_read(bench, checkpoint)
        sites = [after(layer) for layer in range(first, bench.open(checkpoint).n_blocks)] + [LOGITS]
        reads = tuple(Read(site=site, at="key", reduce=reduce) for site in sites for reduce in ("logprob", "rank"))
        ids = contrast.sheet.rows.item_ids

        def table(rows: Rows, outputs: Mapping[Read, Tensor]) -> tuple[ndarray, ndarray]:
            logprob = [aligned(row_means(outputs[r], rows), rows.item_ids, ids) for r in reads[::2]]
            hit = [
                aligned(row_means((outputs[r] < self.top_k).double(), rows), rows.item_ids, ids) for r in reads[1::2]
            ]
            return np.stack(logprob, 1), np.stack(hit, 1)

        every = bench.run_together(checkpoint, [(rows, reads) for rows in (*contrast.true, *contrast.other)])
        (true, *instead), other = (
            [table(each.rows, each.reads) for each in part]
            for part in (every[: len(contrast.true)], every[len(contrast.true) :])
        )
        for logprob, hit in instead:
            true = np.where(np.isnan(true[0]), logprob, true[0]), np.where(np.isnan(true[1]), hit, true[1])
        return _Table(true, tuple(other))


def _mean(tables: list[Float[ndarray, "row layer"]]) -> Float[ndarray, "row layer"]:
    """Mean over the alternates that an item has; NaN for an item without any."""
    stack = np.stack(tables)
    finite = ~np.isnan(stack)
    count = finite.sum(0)
    return np.where(count > 0, np.where(finite, stack, 0.0).sum(0) / np.maximum(count, 1), np.nan)


def _curves(
    people: Mapping[str, Float[ndarray, "person layer"]], cast: CaseModels, seed: int, first: int
) -> tuple[Curve, ...]:
    """Lift of forget people at every layer, per model."""
    roles = {"base": "base", "suspect": "suspect"}
    if cast.null_role is not None:
        roles["null"] = cast.null_role
    roles |= {name: "floor" for name in people if name.startswith("floor")}
    return tuple(
        drawn.model_copy(
            update={
                "unit": "lift of the true answer (nats)",
                "scale": "difference",
                "x": tuple(first + place for place in drawn.x),
            }
        )
        for drawn in (curve(role, people[name], seed) for name, role in roles.items())
    )
