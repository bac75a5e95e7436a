"""Models under attack, scored and let go: the scores are kept, named by content, and never the attacked weights."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit.bench import BENCH_VERSION, Bench, Learner
from audit.case import OpenCase, Rows
from audit.probing.person_scores import CaseModels, row_means
from audit.schema import Texts

ATTACK_VERSION = 1
"""Raised when code changes the scores that the same attack gives."""


def cached_scores(
    bench: Bench, identity: Sequence[object], compute: Callable[[], Mapping[str, ndarray]]
) -> dict[str, Float[ndarray, "row ..."]]:
    """Scores from the bench's store under a name over ``identity`` (JSON) and the bench; computed where it has none.

    So every model of a case is attacked once, whichever suspect it is compared with.
    """
    document = json.dumps([ATTACK_VERSION, BENCH_VERSION, torch.__version__, bench.settings, *identity])
    key = hashlib.sha256(document.encode()).hexdigest()
    tensors = None if bench.store is None else bench.store.get(key)
    if tensors is None:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(scores)) for name, scores in compute().items()}
        if bench.store is not None:
            bench.store.put(key, tensors, {"scores": "of an attacked model"})
    return {name: scores.numpy() for name, scores in tensors.items()}


def live_logprob(learner: Learner, rows: Rows, token_budget: int) -> Float[ndarray, " row"]:
    """Mean log-probability (nats) of each row's content tokens in a live model, a budget of padded tokens at a time."""
    size = max(1, token_budget // rows.ids.shape[1])
    parts: list[ndarray] = []
    with torch.no_grad():
        for first in range(0, len(rows), size):
            batch = rows.take(torch.arange(first, min(first + size, len(rows))))
            forward = learner.answers(batch)
            content: Tensor = forward.logprob[forward.key].float().cpu()
            parts.append(row_means(content, batch))
    return np.concatenate(parts)


def not_attackable(case: OpenCase, cast: CaseModels) -> str:
    """Why no attack on the suspect's weights says anything in this case, or an empty string."""
    if any(edit.plays != "weights" for edit in cast.suspect.edits):
        return "the suspect is edited by a hook, which is no weight: whoever attacks its weights leaves the hook away"
    if cast.null is None and not case.has(Texts(cohort="holdout")):
        return "no model that never knew and no holdout people to compare with"
    return ""
