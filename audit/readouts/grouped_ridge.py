"""Read-outs that never see the group that they are asked about, in closed form and for many sites at once.

A read-out here is linear in its labels: out-of-group scores are ``S @ y`` with a matrix S [site row row] that depends
on the states alone and is zero inside every group. Ridge, kernel ridge, nearest neighbours and a network whose hidden
layer is fixed at random all have one, so that a thousand relabellings cost one product and no fit.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

States = Float[Tensor, "site row d"]
Gram = Float[Tensor, "site row row"]
Smoother = Float[Tensor, "site row row"]

_FLAT = 1e-12


def standardised(x: States) -> States:
    """Every column less its mean, over its standard deviation (of the rows, n - 1), whatever the labels.

    A column that does not vary is zero.
    """
    centred = x - x.mean(-2, keepdim=True)
    spread = x.std(-2, keepdim=True)
    scale = x.abs().amax(-2, keepdim=True).clamp_min(_FLAT)
    return torch.where(spread > _FLAT * scale, centred / spread.clamp_min(_FLAT * scale), 0.0)


def linear_gram(x: States) -> Gram:
    """Inner products of standardised states, plus d: a constant column of size sqrt(d) in place of an intercept."""
    return x @ x.transpose(-1, -2) + x.shape[-1]


def radial_gram(x: States) -> Gram:
    """exp(-|x - x'|^2 / m), m the median squared distance of two rows, plus 1 in place of an intercept."""
    squared = torch.cdist(x, x).square()
    rows = x.shape[-2]
    between = squared[..., ~torch.eye(rows, dtype=torch.bool, device=x.device)]
    return torch.exp(-squared / between.median(-1).values.clamp_min(_FLAT)[..., None, None]) + 1


def random_layer(x: States, width: int, seed: int) -> Float[Tensor, "site row width"]:
    """Standardised ReLU features of a hidden layer that is drawn once and not trained, the same for every site."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(x.shape[-1], width, generator=generator, dtype=torch.float64)
    bias = torch.randn(width, generator=generator, dtype=torch.float64)
    hidden = x @ (weight / x.shape[-1] ** 0.5).to(x) + bias.to(x)
    return standardised(hidden.relu())


def members(group: Int[Tensor, " row"]) -> list[Int[Tensor, "_ _"]]:
    """The rows of every group, groups of one size together."""
    rows = [torch.nonzero(group == g)[:, 0] for g in torch.unique(group)]
    return [torch.stack([r for r in rows if len(r) == size]) for size in sorted({len(r) for r in rows})]


def ridge_smoother(gram: Gram, group: Int[Tensor, " row"], penalty: float) -> Smoother:
    """S of kernel ridge refitted without each group: S = I - blockdiag(A_gg)^-1 A, A = (gram + penalty I)^-1.

    Exact, not an approximation: H = K A gives I - H = penalty A, and the left-out score of group g is
    y_g - (I - H_gg)^-1 (y - H y)_g, in which the penalty cancels (case deletion, Cook and Weisberg 1982, for blocks of
    rows). Inside a group S is exactly zero.
    """
    rows = gram.shape[-1]
    eye = torch.eye(rows, dtype=gram.dtype, device=gram.device)
    return _left_out(torch.cholesky_inverse(torch.linalg.cholesky(gram + penalty * eye)), group)


def linear_smoother(x: States, group: Int[Tensor, " row"], penalty: float) -> Smoother:
    """:func:`ridge_smoother` of :func:`linear_gram`, by a system of d + 1 unknowns where there are fewer than rows.

    With F = [x, sqrt(d)], A = (F F' + penalty I)^-1 = (I - F (F'F + penalty I)^-1 F')/penalty (Woodbury 1950).
    """
    rows, d = x.shape[-2:]
    if d + 1 >= rows:
        return ridge_smoother(linear_gram(x), group, penalty)
    f = torch.cat([x, torch.full_like(x[..., :1], d**0.5)], -1)
    small = f.transpose(-1, -2) @ f + penalty * torch.eye(d + 1, dtype=x.dtype, device=x.device)
    hat = f @ torch.linalg.solve(small, f.transpose(-1, -2))
    return _left_out((torch.eye(rows, dtype=x.dtype, device=x.device) - hat) / penalty, group)


def _left_out(inverse: Gram, group: Int[Tensor, " row"]) -> Smoother:
    smoother = torch.empty_like(inverse)
    for index in members(group.to(inverse.device)):
        own = inverse[..., index[:, :, None], index[:, None, :]]
        smoother[..., index, :] = -torch.linalg.solve(own, inverse[..., index, :])
    return without_own_group(smoother, group)


def nearest_smoother(x: States, group: Int[Tensor, " row"], neighbours: int) -> Smoother:
    """S of the mean label of the nearest rows of other groups (Euclidean)."""
    distance = torch.cdist(x, x)
    same = group[:, None] == group[None, :]
    near = distance.masked_fill(same.to(x.device), torch.inf).topk(neighbours, largest=False).indices
    return torch.zeros_like(distance).scatter(-1, near, 1 / neighbours)


def without_own_group(smoother: Smoother, group: Int[Tensor, " row"]) -> Smoother:
    """The same with exact zeros inside every group, where rounding leaves some dust."""
    same = (group[:, None] == group[None, :]).to(smoother.device)
    return smoother.masked_fill(same, 0.0)


def ridge_scores(
    x: States, y: Float[Tensor, "row labelling"], group: Int[Tensor, " row"], kappa: float = 1.0
) -> Float[Tensor, "site row labelling"]:
    """Out-of-group scores of linear ridge with penalty ``kappa`` d, for every site and labelling.

    States are standardised over all rows, without labels. Equals a refit without the group, one by one.
    """
    x = standardised(x)
    return linear_smoother(x, group, kappa * x.shape[-1]) @ y.to(x)


def battery(x: States, group: Int[Tensor, " row"], kappas: Sequence[float], seed: int) -> dict[str, Smoother]:
    """The fixed battery on the same states: linear ridge at several penalties, radial ridge, 5 neighbours, a network.

    The network has 64 hidden units that are drawn and not trained, under a ridge output layer.
    """
    x = standardised(x)
    d = x.shape[-1]
    smoothers = {f"ridge_{kappa:g}": linear_smoother(x, group, kappa * d) for kappa in kappas}
    hidden = random_layer(x, 64, seed)
    return smoothers | {
        "radial_ridge": ridge_smoother(radial_gram(x), group, 0.1),
        "neighbours_5": nearest_smoother(x, group, 5),
        "random_network": linear_smoother(hidden, group, 64.0),
    }
