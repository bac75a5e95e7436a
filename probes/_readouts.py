"""What can be read from one model's states of learned texts and their alternates: out-of-person, under label swaps."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import COORDINATES, Bench, Checkpoint, OpenCase, Site, n_blocks, stacked, text_states
from audit.probing import grouped_ridge as ridge
from audit.probing import label_swaps as swaps
from probes._pairs import Pairs, logprob_and_length, words
from probes._profiles import after

KAPPAS = (0.1, 1.0, 10.0)
_TWO = (1.0, -1.0)


class Chances(NamedTuple):
    """How a read-out is tested: its penalty, how many label swaps, their seed, and whether by the battery too."""

    kappa: float
    draws: int
    seed: int
    battery: bool


def states(bench: Bench, case: OpenCase, model: Checkpoint, pairs: Pairs) -> Float[Tensor, "site row d"]:
    """States of learned, control and second texts, one below the other, at the embeddings and after every block.

    Sites are coordinates times depths; matches are taken with base's output head for every model.
    """
    depths = [Site(part="embed"), *(after(layer) for layer in range(n_blocks(case)))]
    rows = stacked([pairs.learned, pairs.control, pairs.second])
    return text_states(bench, model, case.base, rows, depths).flatten(0, 1)


def deep(sites: int) -> Bool[ndarray, " site"]:
    """Which sites are not the embeddings."""
    return np.arange(sites) % (sites // len(COORDINATES)) != 0


def people_of(pairs: Pairs, texts: int = 2) -> Int[Tensor, " row"]:
    """The person of every row, for so many texts of each item."""
    return torch.from_numpy(np.tile(pairs.person, texts))


def sides(items: int) -> Float[Tensor, " row"]:
    """+1 for the first text of every item, -1 for the second."""
    return torch.tensor(_TWO, dtype=torch.float64).repeat_interleave(items)


def item_margins(x: Float[Tensor, "site row d"], pairs: Pairs, kappa: float) -> Float[ndarray, "item site"]:
    """Out-of-person score of every learned text less that of its control."""
    n = len(pairs.items)
    scores = ridge.ridge_scores(x[:, : 2 * n], sides(n)[:, None], people_of(pairs), kappa)[..., 0]
    return (scores[:, :n] - scores[:, n:]).T.numpy()


def readable(x: Float[Tensor, "site row d"], pairs: Pairs, chances: Chances) -> dict[str, Float[ndarray, " _"]]:
    """Learned against control, and control against second (which nobody learned), under the same label swaps.

    ``concordance`` and ``pure`` are by site; ``p`` (sign-free, over depths and coordinates), ``p_margin`` (continuous,
    above), ``p_pure``, ``p_battery``, ``detectable`` are single numbers; ``null`` holds the largest |A - 1/2| under
    every swap. A site at a time: what is kept of each is by swap.
    """
    n, person = len(pairs.items), people_of(pairs)
    signs = swaps.swaps(len(pairs.people), chances.draws, chances.seed)
    family = torch.from_numpy(deep(len(x)))
    true, pure = (
        [_under(at[rows], person, signs, chances.kappa) for at in x] for rows in (slice(2 * n), slice(n, 3 * n))
    )
    a, b = (torch.stack([site.concordance for site in sites]) for sites in (true, pure))
    free = swaps.max_t(swaps.sign_free(a), family)
    quantities = {
        "concordance": a[:, 0], "pure": b[:, 0], "null": free.null_largest, "p": free.p,
        "p_margin": swaps.max_t(torch.stack([site.studentised for site in true]), family).p,
        "p_pure": swaps.max_t(swaps.sign_free(b), family).p, "detectable": swaps.minimum_detectable(a[family]),
    }  # fmt: skip
    if chances.battery:
        inside = (at[: 2 * n] for at, deeper in zip(x, family.tolist(), strict=True) if deeper)
        quantities["p_battery"] = _battery(inside, person, signs, chances.seed)
    return {name: np.atleast_1d(np.asarray(value, dtype=float)) for name, value in quantities.items()}


def _under(x: Float[Tensor, "row d"], person: Tensor, signs: swaps.Signs, kappa: float) -> swaps.UnderSwaps:
    return _under_standardised(ridge.standardised(x), person, signs, kappa)


def _under_standardised(
    z: Float[Tensor, "row d"], person: Tensor, signs: swaps.Signs, kappa: float
) -> swaps.UnderSwaps:
    readout = ridge.linear_readout(z, person, kappa * z.shape[1])
    return swaps.under_swaps(swaps.unit_form(readout, sides(len(person) // 2), person), signs)


def _battery(x: Iterable[Float[Tensor, "row d"]], person: Tensor, signs: swaps.Signs, seed: int) -> float:
    """One p for the whole battery: the largest studentised margin over read-outs, depths and coordinates."""
    side, landmarks = sides(len(person) // 2), _landmarks(len(person) // 2, seed)
    largest = [
        swaps.studentised_under_swaps(swaps.unit_form(readout, side, person), signs)
        for at in x for readout in ridge.battery(at, person, KAPPAS, seed, landmarks).values()
    ]  # fmt: skip
    return swaps.max_t(torch.stack(largest)).p


def approximated_by(rows: int) -> list[int]:
    """What stands for so many rows where read-outs of them are not exact; empty where they are."""
    return [ridge.EXACT_ROWS, ridge.LANDMARKS] if rows > ridge.EXACT_ROWS else []


def _landmarks(items: int, seed: int) -> Int[Tensor, " row"]:
    """Rows that stand for all: both texts of items drawn at random, so that swapped labels leave the set as it is."""
    chosen = torch.randperm(items, generator=torch.Generator().manual_seed(seed))[: ridge.EXACT_ROWS // 2]
    return torch.stack([chosen, chosen + items], 1).flatten()


def confounds(
    bench: Bench, model: Checkpoint, pairs: Pairs, x: Float[Tensor, "site row d"], chances: Chances,
    concordance: Float[ndarray, " site"],
) -> dict[str, float]:  # fmt: skip
    """What else could tell the texts apart, at the site where they are told apart best: that of :func:`readable`'s
    ``concordance``.

    ``words_alone``: concordance of a read-out of the texts themselves; ``depth_0``: the largest |A - 1/2| at the
    embeddings; ``given_logprob``: concordance, and p of the margin, once what log-probability and length predict of the
    scores (fitted on other people) is taken away; ``register``: the share of second alternates, which nobody learned
    and no read-out was fitted on, that land on the learned side.
    """
    n, person = len(pairs.items), people_of(pairs)
    signs = swaps.swaps(len(pairs.people), chances.draws, chances.seed)
    true = signs[:, :1]
    inside, margin = deep(len(x)), np.abs(concordance - 0.5)
    best = int(np.where(inside, margin, -1.0).argmax())
    rows = stacked([pairs.learned, pairs.control])
    by_words = _under_standardised(ridge.standardised(words(rows)), person, true, chances.kappa)
    predictable = ridge.standardised(logprob_and_length(bench, model, rows))
    z = ridge.standardised(x[best])
    readout = Unpredicted(
        ridge.linear_readout(z[: 2 * n], person, chances.kappa * z.shape[1]),
        ridge.linear_readout(predictable, person, 1e-6),
    )
    rest = swaps.under_swaps(swaps.unit_form(readout, sides(n), person), signs)
    return {
        "words_alone": float(by_words.concordance[0]),
        "depth_0": float(margin[~inside].max()),
        "given_logprob": float(rest.concordance[0]),
        "p_given_logprob": swaps.max_t(rest.studentised[None]).p,
        "register": _register(z, pairs, chances.kappa),
    }


class Unpredicted(NamedTuple):
    """A read-out's scores less what another predicts of them."""

    readout: ridge.Readout
    predictor: ridge.Readout

    def scores(self, y: ridge.Labels) -> ridge.Labels:
        """Both out of group."""
        scores = self.readout.scores(y)
        return scores - self.predictor.scores(scores)


def _register(z: Float[Tensor, "row d"], pairs: Pairs, kappa: float) -> float:
    """Share of second alternates on the learned side of read-outs fitted without their person."""
    n, person = len(pairs.items), people_of(pairs)
    landed = ridge.query_scores(z[: 2 * n], sides(n), person, z[2 * n :], person[:n], kappa * z.shape[1])
    return float((landed > 0).double().mean())


def numbers(quantities: Mapping[str, ndarray], name: str) -> dict[str, float]:
    """The single numbers of what is readable in one model, under its name."""
    inside = deep(len(quantities["concordance"]))
    true, pure = quantities["concordance"][inside], quantities["pure"][inside]
    best = int(np.abs(true - 0.5).argmax())
    gaps = true - pure
    p_values = {
        f"{key}_{name}": float(quantities[key][0])
        for key in ("p", "p_margin", "p_pure", "p_battery")
        if key in quantities
    }
    return p_values | {
        f"concordance_{name}": float(true[best]), f"pure_{name}": float(pure[best]),
        f"gap_mean_{name}": float(gaps.mean()), f"gap_peak_{name}": float(gaps.max()),
    }  # fmt: skip
