"""Steering with a gate: which prompts are moved (a linear gate off the retained states), and whither (a direction).

The published steering matrix W is the least that sends forgotten prompts' states by a direction r and acts on nothing
that retained prompts use. It has rank one: W = u r^T, so that two vectors a place say all of it.
"""

from collections import Counter
from collections.abc import Sequence
from math import floor

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from audit.bench import Bench, Write
from audit.case import Rows, row_means
from audit.schema import AuditError, Checkpoint, Read, Site


def free_directions(retain: Float[Tensor, "row d"], share: float) -> Float[Tensor, "d k"]:
    """The floor(share d) right singular vectors of H^T H with the smallest singular values, H the retained states.

    H^T H is symmetric, so that they are its eigenvectors. Float64. AuditError where the share is none or all of them.
    """
    d = retain.shape[1]
    k = floor(share * d)
    if not 0 < k < d:
        raise AuditError(f"a share {share} of {d} directions is none, or all of them", "give a share such as .3")
    states = retain.double()
    return torch.linalg.eigh(states.T @ states).eigenvectors[:, :k]


def gate_vector(
    forget: Float[Tensor, "row d"], free: Float[Tensor, "d k"], ridge: float, absolute: bool = False
) -> Float[Tensor, " d"]:
    """u = Q (Y^T Y + lam I)^-1 Y^T 1 with Y = H Q: what reads 1 at forgotten states, by the free directions alone.

    ``ridge``: lam in units of the mean eigenvalue of Y^T Y, or as it is where ``absolute``. Float64. Equal to the
    published dense solution P pinv(X^T X + lam P) X^T 1 r^T = u r^T with P = Q Q^T, X = H P.
    """
    seen = forget.double() @ free
    moment = seen.T @ seen
    lam = ridge if absolute else ridge * float(moment.trace()) / len(moment)
    system = moment + lam * torch.eye(len(moment), dtype=torch.float64, device=moment.device)
    return free @ torch.linalg.solve(system, seen.sum(0))


def at_prompt_end(bench: Bench, ckpt: Checkpoint, rows: Rows, sites: list[Site]) -> dict[Site, Float[Tensor, "row d"]]:
    """The states of each row's last prompt token: those before its answer's first token, or of an image what the head
    reads."""
    reads = [Read(site=site, at="answer") for site in sites]
    states = bench.run(ckpt, rows, reads).reads
    firsts = torch.searchsorted(rows.targets("answer")[0].contiguous(), torch.arange(len(rows)))
    return {read.site: states[read][firsts].double() for read in reads}


def at_row_end(bench: Bench, ckpt: Checkpoint, rows: Rows, sites: list[Site]) -> dict[Site, Float[Tensor, "row d"]]:
    """The states of each row's last token, where its answer has been given."""
    reads = [Read(site=site, at="last") for site in sites]
    states = bench.run(ckpt, rows, reads).reads
    return {read.site: states[read].double() for read in reads}


def probability(bench: Bench, ckpt: Checkpoint, rows: Rows, writes: Sequence[Write]) -> float:
    """What a model gives the content tokens of these rows (geometric mean over tokens), mean over rows."""
    read = Read(site=Site(part="logits"), at="key", reduce="logprob")
    return float(np.nanmean(np.exp(row_means(bench.run(ckpt, rows, (read,), writes)[read], rows))))


def rows_of_other_topic(rows: Rows, seed: int) -> Bool[Tensor, " row"]:
    """Which rows are about one topic drawn from these: those with the same content in their answers, else one group.

    AuditError where there are no two topics.
    """
    answers = [tuple(rows.ids[i][rows.key[i]].tolist()) for i in range(len(rows))]
    shared = sorted(answer for answer, count in Counter(answers).items() if 1 < count < len(rows))
    topics: list[tuple[int, ...] | str] = list(shared or dict.fromkeys(rows.group_ids))
    if len(topics) < 2:
        raise AuditError("the retained rows are about one thing: there is no other topic", "give more retain items")
    drawn = topics[int(torch.randint(len(topics), (1,), generator=torch.Generator().manual_seed(seed)))]
    of_row = answers if shared else rows.group_ids
    return torch.tensor([topic == drawn for topic in of_row])


def random_like(direction: Float[Tensor, " d"], seed: int) -> Float[Tensor, " d"]:
    """A random direction of the same norm."""
    drawn = torch.randn(len(direction), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (drawn / drawn.norm()).to(direction) * direction.norm()
