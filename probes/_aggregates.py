"""The TOFU aggregates of a case: forget quality and privacy leakage, listed for comparison and never in a verdict.

They follow the published formulas: all tokens of the answer, every perturbed answer that an item has, the mean of their
losses before the exponential (as the logs of arXiv 2506.12618 do; the text of arXiv 2401.06121 averages probabilities).
An end token that a loader appends to answers is not among the tokens. What is corrected: the distance D stands beside
the KS p, which falls with the number of facts; both sides of the leakage are reported; nothing falls back to an assumed
value for an absent model.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    ALPHA,
    ANSWER_LOGPROB,
    Bench,
    CaseModels,
    Checkpoint,
    Control,
    Count,
    Measurement,
    Missing,
    Naming,
    OpenCase,
    Texts,
    blank,
    perturbed_answers,
    stats,
    tofu,
    variant_losses,
    without_variants,
)

AGGREGATE = "an aggregate over items, listed for comparison with published tables; people are not its unit"


def forget_quality(bench: Bench, case: OpenCase, cast: CaseModels) -> Measurement:
    """KS distance between the truth ratios of suspect and reference; its p is the paper's forget quality."""
    texts = Texts(cohort="forget")
    rows, absent = len(case.rows(texts)), without_variants(case, texts)
    read = "" if absent else f" (every perturbed answer: {perturbed_answers(case, texts)} an item; all answer tokens)"
    naming = Naming(
        probe="forget_likelihood", name="forget_quality", kind="context",
        statistic=f"KS distance between truth ratios P_pert/P_para{read} of the suspect and of a model that never knew",
        unit="KS distance D (0 same distribution)", scale="distance",
    )  # fmt: skip

    def missing(reason: str) -> Measurement:
        return blank(naming, reason, Count(scored=0, unscored=rows), 0, case.case.seed)

    if cast.null is None:
        return missing("no reference and no ancestor to compare truth ratios with")
    ratios: dict[str, ndarray] = {}
    for name, checkpoint in cast.by_name().items():
        losses = variant_losses(bench, case, checkpoint, texts, "answer")
        if losses is None:
            return missing(absent)
        ratios[name] = tofu.truth_ratio(losses.paraphrased, losses.perturbed)
    finite = np.isfinite(np.stack(list(ratios.values()))).all(0)
    if not finite.any():
        return missing("no item has a truth ratio in every model")
    tested = {name: tofu.forget_quality(r[finite], ratios["null"][finite]) for name, r in ratios.items()}
    floors = [t.d for name, t in tested.items() if name.startswith("floor")]
    aggregated = {
        f"truth_ratio_{reduction}_{name}": tofu.aggregate_truth_ratio(ratios[name][finite], reduction)
        for name in ("suspect", "base", "null")
        for reduction in ("closer_to_1_better", "prob_mean")
    }
    return blank(
        naming, AGGREGATE, Count(scored=int(finite.sum()), unscored=int((~finite).sum())), 0, case.case.seed
    ).model_copy(
        update={
            "value": tested["suspect"].d,
            "positive_control": Control(
                value=tested["base"].d, ci95=Missing(missing=AGGREGATE), found=tested["base"].p < ALPHA
            ),
            "floor": max(floors) if floors else Missing(missing="no second reference"),
            "readings": {"forget_quality_p": tested["suspect"].p, **aggregated},
            "notes": ("The p falls with the number of facts and compares with one retrained model only.",),
        }
    )


def _min_k_auc(bench: Bench, case: OpenCase, checkpoint: Checkpoint, k: float) -> float:
    """AUROC of forget against holdout items by the mean of their lowest token log-probabilities."""
    signal: list[Float[ndarray, " row"]] = []
    for texts in (Texts(cohort="forget"), Texts(cohort="holdout")):
        rows = case.rows(texts)
        values = bench.run(checkpoint, rows, (ANSWER_LOGPROB,))[ANSWER_LOGPROB].double().numpy()
        lowest = stats.min_k(values, rows.targets("answer")[0].numpy(), len(rows), k)
        signal.append(lowest[~np.isnan(lowest)])
    return stats.auroc(signal[0], signal[1])


def privacy_leakage(bench: Bench, case: OpenCase, cast: CaseModels, k: float) -> Measurement:
    """Privacy leakage: how far the suspect's Min-K AUROC of forget against holdout is from that of the null."""
    naming = Naming(
        probe="forget_likelihood", name="privacy_leakage", kind="context",
        statistic=f"1 - AUROC (forget against holdout, Min-K {100 * k:g}%) relative to a model that never knew",
        unit="% (0 like never trained; below 0 leaks, above 0 over-suppressed)", scale="percent",
    )  # fmt: skip
    if not case.has(Texts(cohort="holdout")) or cast.null is None:
        reason = "needs holdout people and a model that never knew"
        return blank(naming, reason, Count(scored=0), 0, case.case.seed)
    auc = {name: _min_k_auc(bench, case, checkpoint, k) for name, checkpoint in cast.by_name().items()}
    floors = [abs(tofu.privleak(a, auc["null"])) for name, a in auc.items() if name.startswith("floor")]
    base = tofu.privleak(auc["base"], auc["null"])
    n = Count(scored=len(case.rows(Texts(cohort="forget"))) + len(case.rows(Texts(cohort="holdout"))))
    return blank(naming, AGGREGATE, n, 0, case.case.seed).model_copy(
        update={
            "value": tofu.privleak(auc["suspect"], auc["null"]),
            "positive_control": Control(value=base, ci95=Missing(missing=AGGREGATE), found=base < -5.0),
            "floor": max(floors) if floors else Missing(missing="no second reference"),
            "readings": {f"auc_{name}": a for name, a in auc.items()},
            "notes": ("Two-sided: the floor is the largest distance of another reference on either side.",),
        }
    )
