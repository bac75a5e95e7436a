"""Models under attack, scored and let go."""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit.bench import Learner, batches
from audit.case import OpenCase, Rows, row_means, shortened
from audit.probing.case_models import CaseModels
from audit.schema import Texts


def live_logprob(learner: Learner, rows: Rows, token_budget: int) -> Float[ndarray, " row"]:
    """Mean log-probability (nats) of each row's content tokens in a live model, a budget of padded tokens at a time;
    NaN for a row without any."""
    scored = rows.key.any(1).nonzero()[:, 0]
    short, means = shortened(rows.take(scored)), np.full(len(rows), np.nan)
    device = next(iter(learner.parameters().values())).device
    with torch.no_grad():
        for index in batches(short.lengths, short.ids.shape[1], token_budget, device) if len(scored) else ():
            chosen = torch.arange(len(scored)) if index is None else index
            batch = short.take(chosen)
            forward = learner.answers(batch)
            content: Tensor = forward.logprob[forward.key].float().cpu()
            means[scored[chosen].numpy()] = row_means(content, batch)
    return means


def not_attackable(case: OpenCase, cast: CaseModels) -> str:
    """Why no attack on the suspect's weights says anything in this case, or an empty string."""
    if any(edit.plays != "weights" for edit in cast.suspect.edits):
        return "the suspect is edited by a hook, which is no weight: whoever attacks its weights leaves the hook away"
    if cast.null is None and not case.has(Texts(cohort="holdout")):
        return "no model that never knew and no holdout people to compare with"
    return ""
