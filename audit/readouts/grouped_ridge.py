"""Read-outs that never see the group that they are asked about, in closed form, for many labellings at once.

A read-out here is linear in its labels: out-of-group scores are ``S @ y`` with a matrix S [row row] that depends on the
states alone and is zero inside every group. Ridge, kernel ridge, nearest neighbours and a network whose hidden layer is
fixed at random all have one, so that a thousand relabellings cost one product and no fit. S itself is written out only
where the states have at least as many dimensions as there are rows. Elsewhere it is kept as two factors, one row for
every row and one column for every dimension, made for a few groups at a time, or as lists of neighbours: time is linear
in the rows, and so is memory, of which beside the states themselves a constant is used.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

States = Float[Tensor, "*site row d"]
Gram = Float[Tensor, "*site row row"]
Smoother = Float[Tensor, "*site row row"]
Labels = Float[Tensor, "row labelling"]

EXACT_ROWS = 1024
"""Up to so many rows kernels and neighbours are exact; beyond, so many rows are candidates for neighbours."""
LANDMARKS = 256
"""The radial kernel of more rows than that is that of the projections on so many of them (Nystrom)."""
ENTRIES_AT_ONCE = 1 << 19
"""What is made of the states a part at a time has about so many numbers, so that memory stays below a constant."""
_FLAT = 1e-12


class Readout(Protocol):
    """A read-out of one site that is linear in its labels."""

    def scores(self, y: Labels) -> Labels:
        """Every row's score by the read-out that was fitted without its group, for every labelling."""
        ...


class Dense(NamedTuple):
    """A read-out as the matrix S, zero inside every group."""

    matrix: Float[Tensor, "row row"]

    def scores(self, y: Labels) -> Labels:
        """S y."""
        return self.matrix @ y


class Factored(NamedTuple):
    """Ridge on some columns, refitted without each group; S has as many columns' factors and is never written out.

    With M = F'F + penalty I = LL' and G = F L'^-1 the fit on all rows has the hat matrix GG', and without group g that
    group's scores are (I - G_g G_g')^-1 G_g times what the other groups' rows of G say of their labels (Woodbury 1950).
    """

    columns: Float[Tensor, "row k"]
    lower: Float[Tensor, "k k"]
    group: Int[Tensor, " row"]

    def scores(self, y: Labels) -> Labels:
        """S y, without S."""
        heard = _whitened((self.columns.T @ y).T, self.lower).T
        scores = torch.empty_like(y)
        for index, left, right in self.factors():
            scores[index] = left @ (heard - right.transpose(1, 2) @ y[index])
        return scores

    def factors(
        self,
    ) -> Iterator[tuple[Int[Tensor, "group row"], Float[Tensor, "group row k"], Float[Tensor, "group row k"]]]:
        """Some groups of one size at a time: their rows, and both factors there. Between groups S is left right'."""
        for index in members(self.group):
            for part in index.split(max(1, ENTRIES_AT_ONCE // (index.shape[1] * self.columns.shape[1]))):
                right = _whitened(self.columns[part], self.lower)
                yield part, right + _leverage_solved(right, right), right


class Neighbours(NamedTuple):
    """A read-out that is the mean label of these rows, none of them of the own group."""

    nearest: Int[Tensor, "row neighbour"]

    def scores(self, y: Labels) -> Labels:
        """Mean labels."""
        return y[self.nearest].mean(1)


def standardised(x: States) -> States:
    """Every column less its mean, over its standard deviation (of the rows, n - 1), whatever the labels.

    A column that does not vary is zero.
    """
    spread = x.std(-2, keepdim=True)
    least = _FLAT * torch.maximum(x.amax(-2, keepdim=True), -x.amin(-2, keepdim=True)).clamp_min(_FLAT)
    centred = x - x.mean(-2, keepdim=True)
    return centred.div_(spread.clamp_min(least)).masked_fill_(spread <= least, 0.0)


def linear_gram(x: States) -> Gram:
    """Inner products of standardised states, plus d: a constant column of size sqrt(d) in place of an intercept."""
    return x @ x.transpose(-1, -2) + x.shape[-1]


def radial_gram(x: States) -> Gram:
    """exp(-|x - x'|^2 / m), m the median squared distance of two rows, plus 1 in place of an intercept."""
    squared = torch.cdist(x, x).square()
    return torch.exp(-squared / _median_apart(squared)[..., None, None]) + 1


def _median_apart(squared: Gram) -> Float[Tensor, "*site"]:
    between = squared[..., ~torch.eye(squared.shape[-1], dtype=torch.bool, device=squared.device)]
    return between.median(-1).values.clamp_min(_FLAT)


def random_layer(x: States, width: int, seed: int) -> Float[Tensor, "*site row width"]:
    """Standardised ReLU features of a hidden layer that is drawn once and not trained, the same for every site."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(x.shape[-1], width, generator=generator, dtype=torch.float64)
    bias = torch.randn(width, generator=generator, dtype=torch.float64)
    hidden = x @ (weight / x.shape[-1] ** 0.5).to(x) + bias.to(x)
    return standardised(hidden.relu())


def members(group: Int[Tensor, " row"]) -> list[Int[Tensor, "_ _"]]:
    """The rows of every group, groups of one size together."""
    order = torch.argsort(group, stable=True)
    sizes = torch.unique(group, return_counts=True)[1]
    rows = order.split(sizes.tolist())
    return [torch.stack([r for r in rows if len(r) == size]) for size in sorted(set(sizes.tolist()))]


# ---- ridge ------------------------------------------------------------------------------------------------------
def ridge_smoother(gram: Gram, group: Int[Tensor, " row"], penalty: float) -> Smoother:
    """S of kernel ridge refitted without each group: S = I - blockdiag(A_gg)^-1 A, A = (gram + penalty I)^-1.

    Exact, not an approximation: H = K A gives I - H = penalty A, and the left-out score of group g is
    y_g - (I - H_gg)^-1 (y - H y)_g, in which the penalty cancels (case deletion, Cook and Weisberg 1982, for blocks of
    rows). Inside a group S is exactly zero.
    """
    inverse = _inverse(gram, penalty)
    smoother = torch.empty_like(inverse)
    for index in members(group.to(inverse.device)):
        own = inverse[..., index[:, :, None], index[:, None, :]]
        smoother[..., index, :] = -torch.linalg.solve(own, inverse[..., index, :])
    return without_own_group(smoother, group)


def _inverse(gram: Gram, penalty: float) -> Gram:
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(gram + penalty * eye))


def without_own_group(smoother: Smoother, group: Int[Tensor, " row"]) -> Smoother:
    """The same with exact zeros inside every group, where rounding leaves some dust."""
    same = (group[:, None] == group[None, :]).to(smoother.device)
    return smoother.masked_fill(same, 0.0)


def linear_readouts(
    x: Float[Tensor, "row d"], group: Int[Tensor, " row"], penalties: Sequence[float]
) -> Sequence[Dense | Factored]:
    """Ridge on the columns of x and a constant column sqrt(d), refitted without each group, at several penalties.

    One matrix of inner products serves all folds and penalties: of rows where there are at most d + 1, else of columns.
    """
    rows, d = x.shape
    if d + 1 >= rows:
        gram = linear_gram(x)
        return [Dense(ridge_smoother(gram, group, penalty)) for penalty in penalties]
    return factored_ridge(_with_constant(x), group, penalties)


def linear_readout(x: Float[Tensor, "row d"], group: Int[Tensor, " row"], penalty: float) -> Dense | Factored:
    """:func:`linear_readouts` at one penalty."""
    return linear_readouts(x, group, [penalty])[0]


def _with_constant(x: Float[Tensor, "row d"]) -> Float[Tensor, "row k"]:
    return torch.cat([x, torch.full_like(x[:, :1], x.shape[1] ** 0.5)], -1)


def factored_ridge(
    columns: Float[Tensor, "row k"], group: Int[Tensor, " row"], penalties: Sequence[float]
) -> list[Factored]:
    """Ridge on these columns, refitted without each group, at several penalties, by systems of k unknowns or of a
    group's rows."""
    products = columns.T @ columns
    eye = torch.eye(len(products), dtype=columns.dtype, device=columns.device)
    return [Factored(columns, torch.linalg.cholesky(products + penalty * eye), group) for penalty in penalties]


def _whitened(columns: Float[Tensor, "*group row k"], lower: Float[Tensor, "k k"]) -> Float[Tensor, "*group row k"]:
    return torch.linalg.solve_triangular(lower, columns.flatten(0, -2).T, upper=False).T.reshape(columns.shape)


def _leverage_solved(
    own: Float[Tensor, "group row k"], queries: Float[Tensor, "group query k"]
) -> Float[Tensor, "group query k"]:
    """Q G'(I - GG')^-1 G for every group's G and queries Q, which is Q ((I - G'G)^-1 - I), by the smaller system."""
    rows, k = own.shape[1:]
    turned = own.transpose(1, 2)
    if rows <= k:
        eye = torch.eye(rows, dtype=own.dtype, device=own.device)
        return (queries @ turned) @ torch.linalg.solve(eye - own @ turned, own)
    eye = torch.eye(k, dtype=own.dtype, device=own.device)
    return torch.linalg.solve(eye - turned @ own, queries.transpose(1, 2)).transpose(1, 2) - queries


def ridge_scores(
    x: Float[Tensor, "site row d"], y: Labels, group: Int[Tensor, " row"], kappa: float = 1.0
) -> Float[Tensor, "site row labelling"]:
    """Out-of-group scores of linear ridge with penalty ``kappa`` d, for every site and labelling.

    States are standardised over all rows, without labels. Equals a refit without the group, one by one.
    """
    group = group.to(x.device)
    return torch.stack([linear_readout(standardised(at), group, kappa * x.shape[-1]).scores(y.to(x)) for at in x])


def query_scores(
    x: Float[Tensor, "row d"], y: Float[Tensor, " row"], group: Int[Tensor, " row"],
    queries: Float[Tensor, "query d"], query_group: Int[Tensor, " query"], penalty: float,
) -> Float[Tensor, " query"]:  # fmt: skip
    """Scores of rows that no read-out was fitted on, each by the ridge fitted on the rows of all groups but its own."""
    rows, d = x.shape
    scores = queries.new_empty(len(queries))
    if d + 1 >= rows:
        inverse = _inverse(linear_gram(x), penalty)
        weight, reach = inverse @ y, (queries @ x.T + d) @ inverse
        for g in torch.unique(query_group):
            own, mine = group == g, query_group == g
            lost = torch.linalg.solve(inverse[own][:, own], weight[own])
            scores[mine] = reach[mine] @ y - reach[mine][:, own] @ lost
        return scores
    [fit] = factored_ridge(_with_constant(x), group, [penalty])
    fitted, turned = (_whitened(part, fit.lower) for part in (fit.columns, _with_constant(queries)))
    heard = fitted.T @ y
    for g in torch.unique(query_group):
        own, mine = fitted[group == g], turned[query_group == g]
        others = heard - own.T @ y[group == g]
        scores[query_group == g] = (mine + _leverage_solved(own[None], mine[None])[0]) @ others
    return scores


# ---- what is not linear in the states ---------------------------------------------------------------------------
def nearest_readout(
    x: Float[Tensor, "row d"], group: Int[Tensor, " row"], neighbours: int, among: Int[Tensor, " _"] | None = None
) -> Neighbours:
    """The mean label of the nearest rows of other groups (Euclidean), of all rows or of some."""
    among = torch.arange(len(x), device=x.device) if among is None else among.to(x.device)
    candidates, theirs, parts = x[among], group.to(x.device)[among], list[Tensor]()
    size = max(1, ENTRIES_AT_ONCE // len(among))
    for rows, own in zip(x.split(size), group.to(x.device).split(size), strict=True):
        distance = torch.cdist(rows, candidates).masked_fill_(own[:, None] == theirs[None, :], torch.inf)
        parts.append(distance.topk(neighbours, largest=False).indices)
    return Neighbours(among[torch.cat(parts)])


def radial_readout(
    x: Float[Tensor, "row d"], group: Int[Tensor, " row"], penalty: float, landmarks: Int[Tensor, " _"]
) -> Dense | Factored:
    """Radial ridge: exact up to :data:`EXACT_ROWS` rows, else with the kernel of projections on the landmarks.

    There the median distance is the landmarks' too (Nystrom features, Williams and Seeger 2001).
    """
    if len(x) <= EXACT_ROWS:
        return Dense(ridge_smoother(radial_gram(x), group, penalty))
    chosen = x[landmarks[:LANDMARKS].to(x.device)]
    squared = torch.cdist(chosen, chosen).square()
    scale = _median_apart(squared)
    own = torch.exp(-squared / scale) + 1e-9 * torch.eye(len(chosen), dtype=x.dtype, device=x.device)
    across = torch.cdist(x, chosen).square_().div_(-scale).exp_()
    features = torch.ones(len(x), len(chosen) + 1, dtype=x.dtype, device=x.device)
    features[:, :-1] = _whitened(across, torch.linalg.cholesky(own))
    return factored_ridge(features, group, [penalty])[0]


def battery(
    x: Float[Tensor, "row d"], group: Int[Tensor, " row"], kappas: Sequence[float], seed: int,
    landmarks: Int[Tensor, " _"] | None = None,
) -> dict[str, Dense | Factored | Neighbours]:  # fmt: skip
    """The fixed battery on one site: linear ridge at several penalties, radial ridge, 5 neighbours, a network.

    The network has 64 hidden units that are drawn and not trained, under a ridge output layer. ``landmarks`` are rows
    that stand for all where there are more than :data:`EXACT_ROWS`; a set that swaps of labels leave as it is keeps the
    swaps exchangeable.
    """
    x, group = standardised(x), group.to(x.device)
    landmarks = torch.arange(len(x)) if landmarks is None else landmarks
    hidden = random_layer(x, 64, seed)
    ridges = linear_readouts(x, group, [kappa * x.shape[1] for kappa in kappas])
    return {f"ridge_{kappa:g}": readout for kappa, readout in zip(kappas, ridges, strict=True)} | {
        "radial_ridge": radial_readout(x, group, 0.1, landmarks),
        "neighbours_5": nearest_readout(x, group, 5, landmarks[:EXACT_ROWS] if len(x) > EXACT_ROWS else None),
        "random_network": linear_readout(hidden, group, 64.0),
    }
