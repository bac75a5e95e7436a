"""States edited by features, as restoration tests edit them: ours, which keep what the dictionary does not describe,
and the published one, which does not.

Every function takes whole states and gives whole states of the same shape; nothing here runs a model. ``columns`` are
features by row, so that rows of several answers are edited at once; -1 is no feature.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saes.sparse_coder import SparseCoder


class StatePair(NamedTuple):
    """States of one block in two models on the same rows: ``own`` of the model that is edited, ``donor`` of the other.

    ``encoded``: the states that features describe. ``summary``: those that predict the answer, and are swapped whole
    (none in a network without such a state).
    """

    own: Float[Tensor, "row pos d"]
    donor: Float[Tensor, "row pos d"]
    encoded: Bool[Tensor, "row pos"]
    summary: Bool[Tensor, "row pos"]


def moved(
    coder: SparseCoder,
    states: Float[Tensor, "row pos d"],
    columns: Int[Tensor, "row column"],
    change: Float[Tensor, "row pos column"],
) -> Float[Tensor, "row pos d"]:
    """States with some features' codes moved: h + change W_dec[columns], in float32 and back.

    That is decode(z + change) + (h - decode(z)), by a product of as many columns as change. No change moves no bit.
    """
    live = change * (columns >= 0)[:, None, :]
    return states + torch.bmm(live, coder.W_dec.float()[columns.clamp_min(0)]).to(states.dtype)


def of_columns(
    codes: Float[Tensor, "row pos feature"], columns: Int[Tensor, "row column"]
) -> Float[Tensor, "row pos column"]:
    """The codes of each row's columns; those of no feature are the first one's, and change nothing."""
    return codes.gather(2, columns.clamp_min(0)[:, None, :].expand(-1, codes.shape[1], -1))


def donated(
    coder: SparseCoder,
    states: StatePair,
    codes: tuple[Tensor, Tensor],
    columns: Int[Tensor, "row column"],
    alpha: float = 1.0,
) -> Float[Tensor, "row pos d"]:
    """``own`` with the features' codes taken ``alpha`` of the way to the donor's; ``codes`` of own and donor,
    [row pos feature] both."""
    own, donor = (of_columns(z, columns) for z in codes)
    return moved(coder, states.own, columns, alpha * (donor - own) * states.encoded[..., None])


def summary_swapped(states: StatePair, alpha: float = 1.0) -> Float[Tensor, "row pos d"]:
    """``own`` with the states that predict the answer taken ``alpha`` of the way to the donor's; the rest untouched."""
    step = alpha * (states.donor - states.own)
    return torch.where(states.summary[..., None], states.own + step, states.own)


def published(
    coder: SparseCoder, states: StatePair, columns: Int[Tensor, "row column"], alpha: float
) -> Float[Tensor, "row pos d"]:
    """The released code's injection (arXiv 2602.18505, mode ``direct_injection``), as it is.

    f = (h - b_dec) W_enc of either model, without bias, TopK or ReLU; the columns of f_own are taken ``alpha`` of the
    way to f_donor; every encoded state is replaced by f W_dec + b_dec without an error term, and the summary state is
    taken ``alpha`` of the way to the donor's.
    """
    W_enc, b_dec = coder.W_enc.float(), coder.b_dec.float()
    f_own, f_donor = ((h.float() - b_dec) @ W_enc for h in (states.own, states.donor))
    step = alpha * (of_columns(f_donor, columns) - of_columns(f_own, columns)) * (columns >= 0)[:, None, :]
    f_own = f_own.scatter_add(2, columns.clamp_min(0)[:, None, :].expand_as(step), step)
    rebuilt = (f_own @ coder.W_dec.float() + b_dec).to(states.own.dtype)
    new = torch.where(states.encoded[..., None], rebuilt, states.own)
    return torch.where(states.summary[..., None], summary_swapped(states, alpha), new)
