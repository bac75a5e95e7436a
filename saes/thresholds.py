"""One threshold for all features, set so that held-out rows have the wanted number of active features.

In training, BatchTopK follows its threshold with a slow average that starts at 0: after few steps the saved form lets
several times as many features through, and in general more than k (sae_lens 6.54.12: 5.3 to 6.0 for k = 4).
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from audit.schema import AuditError, ExitCode
from saes.activations import Activations
from saes.sparse_coder import SparseCoder

_ENOUGH_ROWS = 1 << 16


def with_active(coder: SparseCoder, source: Activations, name: str, k: int) -> SparseCoder:
    """The jumprelu dictionary with the one threshold at which ``k`` features a row are active on these rows.

    It is the (rows k)-th largest positive pre-activation of all, or the least positive one where there are fewer; of
    many chunks some are looked at, spread over all of them. AuditError (code 4) if no feature is ever positive.
    """
    assert coder.activation == "jumprelu", "only thresholds can be set anew"
    chunks = _spread(source.sizes)
    wanted = k * sum(source.sizes[n] for n in chunks)
    largest = torch.zeros(0)
    with torch.no_grad():
        for n in chunks:
            largest = _largest(torch.cat([largest, _positive(coder, source.chunk(n)[name])]), wanted + 1)
    if not len(largest):
        raise AuditError(
            f"{name}: no feature is positive on any held-out row, so that no threshold lets {k} through",
            "train longer", ExitCode.UNDECIDED,
        )  # fmt: skip
    ordered = largest.sort(descending=True).values
    # strictly above the threshold is active: it lies between the last that is to pass and the next
    last = float(ordered[min(wanted, len(ordered)) - 1])
    following = float(ordered[wanted]) if len(ordered) > wanted else 0.0
    return replace(coder, threshold=torch.full((coder.features,), (last + following) / 2))


def with_threshold(coder: SparseCoder, source: Activations, name: str) -> SparseCoder:
    """A TopK dictionary with the one threshold at which as many features a row are active on average on these rows, so
    that a feature's code needs no other's; any other dictionary as it is. AuditError as :func:`with_active`."""
    if coder.k is None:
        return coder
    gated = replace(coder, activation="jumprelu", k=None, threshold=torch.zeros(coder.features))
    return with_active(gated, source, name, coder.k)


def _spread(sizes: tuple[int, ...]) -> list[int]:
    """Chunks at even distances that hold about as many rows as are enough, or all of them."""
    step = max(1, sum(sizes) // _ENOUGH_ROWS)
    return list(range(0, len(sizes), step))


def _positive(coder: SparseCoder, states: Float[Tensor, "row d"]) -> Float[Tensor, " value"]:
    pre = coder.pre_activations(states).flatten()
    return pre[pre > 0]


def _largest(values: Float[Tensor, " value"], count: int) -> Float[Tensor, " large"]:
    return values if len(values) <= count else values.topk(count, sorted=False).values
