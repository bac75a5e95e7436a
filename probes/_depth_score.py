"""The unlearning depth score as published, from the same patched readings."""

import numpy as np

from audit.probing import Count, Measurement, Missing, Naming, blank, interval
from probes._profiles import Reading

NOTE = (
    "States are taken and put by hooks on the blocks, before the final norm; the public code takes the last layer's "
    "after it. Ratios are clipped to [0, 1] as published; the unclipped ratio stands in the readings."
)
NAMING = Naming(
    probe="reverse_patch", name="unlearning_depth_score", kind="context", mode="paper",
    statistic="unlearning depth score, content tokens of trained rows", unit="score (1 like the null, 0 like base)",
    scale="score",
)  # fmt: skip
ACROSS = NAMING._replace(
    name="unlearning_depth_score_across", mode="controlled",
    statistic="unlearning depth score over vision blocks, projector and language model, content tokens of trained rows",
)  # fmt: skip
WHOLE_STATES = (
    "Weighted as published, over whole states handed over before, in and after the projector; the public code patches "
    "answer positions of a language model alone."
)


def depth_score(reading: Reading, tau_nats: float, seed: int) -> Measurement:
    """How much of what base loses under the reference's states does it lose under the suspect's? 1 erased, 0 intact.

    Per fact, D_l = base's mean log-probability less that under the patched state; over the layers where the reference's
    D_l exceeds tau, the mean of clip(D_suspect/D_reference, 0, 1) weighted by D_reference. Facts without such a layer
    are unscored. Source: arXiv 2605.24614, steps 1-3.
    """
    naming = NAMING if not reading.places else ACROSS
    loss = {name: reading.logprob["base"] - x for name, x in reading.logprob.items()}
    finite = np.isfinite(loss["suspect"] + loss["null"]).sum(1) == loss["null"].shape[1]
    weight = np.where((loss["null"] > tau_nats) & finite[:, None], loss["null"], 0.0)
    scored = weight.sum(1) > 0
    n = Count(scored=int(scored.sum()), errored=int((~finite).sum()), unscored=int((finite & ~scored).sum()))
    if not scored.any():
        return blank(naming, f"no layer encodes a fact: the reference loses at most {tau_nats} nats", n, 0, seed)
    weight, person = weight[scored], reading.sheet.person[scored]

    def per_item(name: str, low: float, high: float) -> np.ndarray:
        raw = np.divide(loss[name][scored], weight, out=np.zeros_like(weight), where=weight > 0)
        return (weight * np.clip(raw, low, high)).sum(1) / weight.sum(1)

    score = per_item("suspect", 0.0, 1.0)
    people, index = np.unique(person, return_inverse=True)
    totals = np.stack([np.bincount(index, weights=score), np.bincount(index)], 1).astype(float)
    floors = {f"score_{name}": float(per_item(name, 0.0, 1.0).mean()) for name in loss if name.startswith("floor")}
    notes = () if not reading.places else (WHOLE_STATES, reading.places)
    return blank(naming, "the published score has no test", n, len(people), seed).model_copy(
        update={
            "value": float(score.mean()), "ci95": interval(totals[:, :1], totals[:, 1:], seed),
            "positive_control": Missing(missing="base scores 0 by definition, the reference 1"),
            "readings": {"unclipped": float(per_item("suspect", -np.inf, np.inf).mean()), **floors},
            "notes": (NOTE, *notes),
        }
    )  # fmt: skip
