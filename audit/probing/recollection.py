"""Does base recall the forget items under this prompt template? If not, the audit is blind here and is not made."""

import logging
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from audit.bench import Bench
from audit.case import OpenCase, row_means
from audit.probing.template_search import LOW_RECALL, SCORE, search_template
from audit.schema import RECALL_LIFT, AuditError, Checkpoint, ExitCode, Texts

log = logging.getLogger(__name__)


class Recall(NamedTuple):
    """Mean item probability of base on the forget items, and of what it is held against.

    ``note``: what there is to tell of the prompt template, where another was looked for.
    """

    base: float
    against: float
    what: str
    note: str = ""


def item_probabilities(
    bench: Bench, checkpoint: Checkpoint, case: OpenCase, texts: Texts
) -> Float[np.ndarray, " item"]:
    """exp of the mean log-probability over each item's key tokens."""
    rows = case.rows(texts)
    logprob = row_means(bench.run(checkpoint, rows, [SCORE])[SCORE], rows)
    return np.exp(logprob[rows.key.any(1).numpy()])


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
    """What base recalls. AuditError (code 4) unless that is :data:`~audit.schema.RECALL_LIFT` above the null (else the
    audit is blind here), and if base was clearly trained with another prompt template.

    Where base recalls little of texts, other templates are tried, and the message says which one it was trained with,
    as lines for case.toml.
    """
    found = recall(bench, case)
    blind = found.base - found.against < RECALL_LIFT
    if case.modality == "image":
        return _of_images(found, blind)
    searched = search_template(bench, case) if found.base < LOW_RECALL and case.modality == "text" else None
    lines = searched.lines() if searched else ""
    if blind or (searched and searched.learned):
        fault = "blind here" if blind else "not the prompt template that base was trained with"
        lacking = f", {found.what} {found.against:.3f}; at least {RECALL_LIFT} more is needed" if blind else ""
        do = "give the template that base was trained with ([template] in case.toml), or check that base knew the items"
        raise AuditError(
            f"{fault}: under this prompt template base gives the forget items a mean probability of "
            f"{found.base:.3f}{lacking}{f'; {searched}' if searched else ''}",
            f"put the template that base was most likely trained with into case.toml:\n{lines}" if lines else do,
            ExitCode.UNDECIDED,
        )
    if not lines:
        return found
    note = f"base recalls more under another prompt template: {searched}: {lines}".replace("\n", " ")
    log.warning("%s", note)
    return found._replace(note=note)


def _of_images(reading: Recall, blind: bool) -> Recall:
    """No template stands between a classifier and an image. AuditError (code 4) as :func:`check_recall`."""
    if blind:
        raise AuditError(
            f"blind here: base gives the classes of the forget images a mean probability of {reading.base:.3f}, "
            f"{reading.what} {reading.against:.3f}; at least {RECALL_LIFT} more is needed",
            "check that base knew these images, that labels are numbered as base numbers its classes, and that "
            "preprocessor_config.json is that of its training",
            ExitCode.UNDECIDED,
        )
    return reading
