"""Does base recall the forget items under this prompt template? If not, the audit is blind here and is not made."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from audit.bench import Bench
from audit.case import OpenCase
from audit.schema import RECALL_LIFT, AuditError, Checkpoint, ExitCode, Read, Site, Texts

SCORE = Read(site=Site(part="logits"), at="key", reduce="logprob")


class Recall(NamedTuple):
    """Mean item probability of base on the forget items, and of what it is held against."""

    base: float
    against: float
    what: str


def item_probabilities(
    bench: Bench, checkpoint: Checkpoint, case: OpenCase, texts: Texts
) -> Float[np.ndarray, " item"]:
    """exp of the mean log-probability over each item's key tokens."""
    rows = case.rows(texts)
    logprob = bench.run(checkpoint, rows, [SCORE])[SCORE].to(torch.float64).numpy()
    row = rows.targets("key")[0].numpy()
    count = np.bincount(row, minlength=len(rows))
    total = np.bincount(row, weights=logprob, minlength=len(rows))
    return np.exp(total[count > 0] / count[count > 0])


def recall(bench: Bench, case: OpenCase) -> Recall:
    """What base recalls on the trained forget rows, against the null, else against never-trained alternates."""
    texts = Texts(cohort="forget")
    base = float(item_probabilities(bench, case.base, case, texts).mean())
    if case.null is not None:
        role, index = case.null
        null = item_probabilities(bench, case.checkpoint(role, index), case, texts)
        return Recall(base, float(null.mean()), f"the null ({role})")
    alternates = Texts(cohort="forget", answer="alternate")
    if case.has(alternates):
        other = item_probabilities(bench, case.base, case, alternates)
        return Recall(base, float(other.mean()), "the never-trained alternates, read by base")
    return Recall(base, 0.0, "nothing (no null and no alternates)")


def check_recall(bench: Bench, case: OpenCase) -> Recall:
    """Raises AuditError (code 4, blind here) unless base recalls by :data:`~audit.schema.RECALL_LIFT` above the
    null."""
    found = recall(bench, case)
    if found.base - found.against < RECALL_LIFT:
        raise AuditError(
            f"blind here: under this prompt template base gives the forget items a mean probability of "
            f"{found.base:.3f}, {found.what} {found.against:.3f}; at least {RECALL_LIFT} more is needed",
            "give the template that base was trained with ([template] in case.toml), or check that base knew the items",
            ExitCode.UNDECIDED,
        )
    return found
