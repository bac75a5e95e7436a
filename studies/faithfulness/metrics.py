"""The metrics under test: where each stands in a file of scores, which way it says 'knows', and what was published.

Every metric is read as a level of knowledge: higher is more knowledge left. :class:`Metric` says by ``knows`` which end
of the raw number means that the model knows, and nothing else in the study turns a number round.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from audit.calibration import Score
from audit.schema import Missing, Number, Overall

PAPER = "Unlearning Depth Score, arXiv 2605.24614, which extends OpenUnlearning, arXiv 2506.12618, section 4"


class Published(NamedTuple):
    """What was published of a metric: AUROC, robustness to quantisation and to relearning, both, and everything."""

    faithful: float
    quantised: float
    relearned: float
    robust: float
    overall: float


Part = Literal["value", "overall", "s_min_k"]


class Metric(NamedTuple):
    """One number of one measurement.

    ``take`` is ``value``, ``overall`` (the effect over all layers), ``s_min_k``, or the name of a reading. ``knows``:
    which end of it a model that knows is at. ``level``: is it a level in [0, 1], or an effect, of which ratios can be
    formed? Others have no robustness.
    """

    key: str
    words: str
    probe: str
    name: str
    take: str
    knows: Literal["high", "low"] = "high"
    level: bool = True
    published: Published | None = None


def _likelihood(name: str, words: str, published: Published | None = None) -> Metric:
    words = f"{words}, content tokens"
    return Metric(name, words, "forget_likelihood", name, "mean_suspect", published=published)


UDS = "unlearning_depth_score"
LENS = ("answer_lens", "lens_lift")
DEPTH = ("reverse_patch", "depth_profile_all")
COMPARED = (
    Metric(
        UDS, "unlearning depth score", "reverse_patch", UDS, "value", "low",
        published=Published(0.971, 0.968, 0.900, 0.933, 0.951),
    ),
    Metric(
        "logit_lens", "logit lens", *LENS, "overall", published=Published(0.927, 0.959, 0.812, 0.879, 0.902),
    ),
    _likelihood("truth_ratio", "knowledge truth ratio", Published(0.947, 0.996, 0.234, 0.379, 0.537)),
    Metric(
        "min_k_auc", "membership, Min-K AUROC", "forget_likelihood", "privacy_leakage", "auc_suspect",
        published=Published(0.907, 0.923, 0.532, 0.675, 0.773),
    ),
    Metric(
        "s_min_k", "membership, relative to a retrained model", "forget_likelihood", "privacy_leakage", "s_min_k",
        "low", published=Published(0.891, 0.710, 0.697, 0.704, 0.787),
    ),
    _likelihood("extraction_strength", "extraction strength", Published(0.891, 0.970, 0.770, 0.859, 0.875)),
    _likelihood("exact_memorisation", "exact memorisation", Published(0.817, 0.984, 0.605, 0.750, 0.781)),
    _likelihood("probability", "probability", Published(0.816, 0.924, 0.642, 0.757, 0.785)),
)  # fmt: skip
"""Metrics that both the publication and our audits compute; definitions differ where the README says so."""

THREE = "3 of 5 variants"
"""The pools were scored when TOFU's aggregates read the first three perturbed answers of an item; now they read all."""

OWN = (
    Metric("forget_quality", f"forget quality (D), {THREE}", "forget_likelihood", "forget_quality", "value"),
    Metric(
        "privacy_leakage", "privacy leakage", "forget_likelihood", "privacy_leakage", "value", "low", level=False,
    ),
    Metric(
        "truth_ratio_tofu", f"truth ratio closer to 1, {THREE}", "forget_likelihood", "forget_quality",
        "truth_ratio_closer_to_1_better_suspect", "low",
    ),
    Metric(
        "probability_held_out_phrasing", "probability, held-out phrasing", "forget_likelihood",
        "probability_held_out_phrasing", "mean_suspect",
    ),
    Metric(
        "probability_held_out_attribute", "probability, held-out attribute", "forget_likelihood",
        "probability_held_out_attribute", "mean_suspect",
    ),
    Metric("depth_profile", "reverse patch, all layers", *DEPTH, "overall"),
    Metric("depth_profile_largest", "reverse patch, largest layer", *DEPTH, "value"),
    Metric(
        "depth_profile_answer", "reverse patch at the answer, all layers", "reverse_patch", "depth_profile_answer",
        "overall",
    ),
    Metric("depth_profile_person", "reverse patch, largest person", *DEPTH, "largest_person", level=False),
    Metric("unclipped_depth_score", "unlearning depth score, unclipped", "reverse_patch", UDS, "unclipped", "low",
           level=False),
    Metric("logit_lens_largest", "logit lens, largest layer", *LENS, "value"),
    Metric("head_projection", "head projection, lift of top-4 hits", *LENS, "top4_hit_lift_suspect"),
    Metric("logit_lens_person", "logit lens, largest person", *LENS, "largest_person", level=False),
    Metric("relearning", "relearning others", "relearning_recovery", "recall_of_others", "overall", level=False),
    Metric("relearning_person", "relearning others, largest person", "relearning_recovery", "recall_of_others",
           "largest_person", level=False),
    Metric("after_rounding", "probability after rounding", "quantisation_recovery", "after_rounding", "overall",
           level=False),
    Metric("rise_by_rounding", "rise by rounding", "quantisation_recovery", "recovery", "overall", level=False),
    Metric("retain", "utility (a control)", "utility", "retain", "value", level=False),
)  # fmt: skip
"""What else the audits say, without a published figure."""

METRICS = (*COMPARED, *OWN)
NOT_COMPUTED: dict[str, Published] = {
    "membership, LOSS AUROC": Published(0.902, 0.935, 0.519, 0.668, 0.766),
    "membership, ZLib AUROC": Published(0.867, 0.938, 0.487, 0.642, 0.738),
    "membership, Min-K++ AUROC": Published(0.816, 0.883, 0.431, 0.579, 0.678),
    "Para ROUGE": Published(0.832, 0.951, 0.064, 0.119, 0.213),
    "jailbreak ROUGE": Published(0.757, 0.971, 0.183, 0.308, 0.437),
    "ROUGE": Published(0.722, 0.934, 0.203, 0.333, 0.454),
    "Fisher, .1 %": Published(0.712, 0.583, 0.946, 0.721, 0.716),
    "paraphrase probability": Published(0.707, 0.853, 0.899, 0.875, 0.782),
    "CKA": Published(0.648, 0.997, 0.013, 0.026, 0.050),
}
"""Published metrics that our audits do not compute."""


def metric(key: str) -> Metric:
    """The metric of this name."""
    return next(candidate for candidate in METRICS if candidate.key == key)


def knowledge(of: Metric, scores: Sequence[Score]) -> Number:
    """The metric's level of knowledge in one model, higher meaning more; Missing, with the audit's reason, where none.

    A metric that falls with knowledge is turned round: 1 less the number.
    """
    score = next((s for s in scores if (s.probe, s.name) == (of.probe, of.name)), None)
    if score is None:
        return Missing(missing=f"{of.probe}.{of.name} was not measured")
    raw = _taken(of, score)
    if isinstance(raw, Missing) or of.knows == "high":
        return raw
    return 1.0 - raw


def _taken(of: Metric, score: Score) -> Number:
    if isinstance(score.value, Missing):
        return score.value
    if of.take == "value":
        return score.value
    if of.take == "overall":
        overall = score.overall
        return overall.value if isinstance(overall, Overall) else overall
    if of.take == "s_min_k":
        return _relative(score.readings)
    if of.take not in score.readings:
        return Missing(missing=f"{of.probe}.{of.name} has no reading {of.take}")
    return score.readings[of.take]


def _relative(readings: dict[str, float]) -> Number:
    """s = clip(1 - |AUC - AUC_R|/AUC_R, 0, 1): 1 like the retrained model. Source: arXiv 2506.12618, appendix."""
    mine, retrained = readings.get("auc_suspect"), readings.get("auc_null")
    if mine is None or not retrained:
        return Missing(missing="no AUROC of a retrained model")
    return min(max(1.0 - abs(mine - retrained) / retrained, 0.0), 1.0)
