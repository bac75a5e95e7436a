"""L2-regularised logistic regression for many sites and folds at once, by Newton's method on tensors.

The published probes are ``LogisticRegression(C)`` behind a ``StandardScaler`` that is fitted on the training rows; this
is the same minimum, reached for all sites and folds in a few batched solves. :mod:`audit.stats.monotone` weighs items
and needs no tensors, for a handful of scores.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_STEPS = 60
_TOLERANCE = 1e-10


class Logistic(NamedTuple):
    """Fitted weights of standardised states, the intercept, and the standardiser: p = sigmoid(w (x - mean)/sd + b)."""

    weight: Float[Tensor, "fit d"]
    intercept: Float[Tensor, " fit"]
    mean: Float[Tensor, "fit d"]
    sd: Float[Tensor, "fit d"]

    def decision(self, x: Float[Tensor, "fit row d"]) -> Float[Tensor, "fit row"]:
        """Log-odds of rows."""
        z = (x - self.mean[:, None]) / self.sd[:, None]
        return (z @ self.weight[..., None])[..., 0] + self.intercept[:, None]

    def direction(self) -> Float[Tensor, "fit d"]:
        """The unit vector along which the log-odds rise in the space of the states: weight / sd, normalised."""
        raw = self.weight / self.sd
        return raw / raw.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(raw.dtype).tiny)


def logistic(
    x: Float[Tensor, "fit row d"], y: Float[Tensor, " row"], trained: Bool[Tensor, "fit row"], c: float = 1.0
) -> Logistic:
    """Fit y in {0, 1} on the trained rows of every fit: |w|^2/2 + c sum of log-losses, intercept free.

    Standardised by mean and population standard deviation of the trained rows; a constant column counts as it is.
    """
    weight = trained.to(x)
    count = weight.sum(1)[:, None]
    mean = (x * weight[..., None]).sum(1) / count
    variance = ((x - mean[:, None]).square() * weight[..., None]).sum(1) / count
    flat = variance <= torch.finfo(x.dtype).eps * (1 + mean.square())
    sd = torch.where(flat, 1.0, variance.sqrt())
    z = (x - mean[:, None]) / sd[:, None] * weight[..., None]
    side = y.to(x).expand(len(x), -1)
    if z.shape[1] >= z.shape[2]:
        solution = _newton(torch.cat([z, weight[..., None]], 2), side, weight, c)
        return Logistic(solution[:, :-1], solution[:, -1], mean, sd)
    # The minimum lies in the span of the trained rows: fewer coordinates than d where there are fewer rows.
    basis = torch.linalg.svd(z, full_matrices=False).Vh
    solution = _newton(torch.cat([z @ basis.transpose(1, 2), weight[..., None]], 2), side, weight, c)
    return Logistic((solution[:, None, :-1] @ basis)[:, 0], solution[:, -1], mean, sd)


def _newton(
    a: Float[Tensor, "fit row k"], y: Float[Tensor, "fit row"], weight: Float[Tensor, "fit row"], c: float
) -> Float[Tensor, "fit k"]:
    """Damped Newton steps, the last column unpenalised; every fit halves its own step until its loss falls."""
    penalty = torch.ones(a.shape[-1], dtype=a.dtype, device=a.device)
    penalty[-1] = 0.0
    ridge = torch.diag(penalty) + 1e-12 * torch.eye(len(penalty), dtype=a.dtype, device=a.device)

    def loss(w: Tensor) -> Tensor:
        odds = (a @ w[..., None])[..., 0]
        return (w.square() * penalty).sum(1) / 2 + c * (weight * (torch.nn.functional.softplus(odds) - y * odds)).sum(1)

    w = a.new_zeros(a.shape[0], a.shape[2])
    value = loss(w)
    for _ in range(_STEPS):
        p = (a @ w[..., None])[..., 0].sigmoid()
        gradient = w * penalty + c * (a * (weight * (p - y))[..., None]).sum(1)
        hessian = ridge + c * (a.transpose(1, 2) * (weight * p * (1 - p))[:, None]) @ a
        step = torch.linalg.solve(hessian, gradient)
        size = torch.ones_like(value)
        for _ in range(30):
            new = w - size[:, None] * step
            worse = loss(new) > value
            if not worse.any():
                break
            size = torch.where(worse, size / 2, size)
        fallen = value - loss(w - size[:, None] * step)
        w = torch.where((fallen >= 0)[:, None], w - size[:, None] * step, w)
        value = loss(w)
        if bool((fallen <= _TOLERANCE * (1 + value)).all()):
            break
    return w
