"""PGA after the fact: the directions of a probe projected out of the residual stream by hooks (MD-PGA among them)."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench import Bench, LowRank, edit_delta
from audit.checkpoints import write_edited
from audit.edits._alignment import Controls, Paired, depths, fitted, paired_with
from audit.edits._edit import Edit, EditData
from audit.edits._images import refuse_images
from audit.readouts import logistic
from audit.schema import Checkpoint, Read, Site

log = logging.getLogger(__name__)


class Standard(NamedTuple):
    """S, the standardiser of every depth, and the directions U taken out in its coordinates, orthonormal rows."""

    mean: Float[Tensor, "site d"]
    sd: Float[Tensor, "site d"]
    taken: tuple[Float[Tensor, "_ d"], ...]

    def writes(self, sites: Sequence[Site]) -> tuple[LowRank, ...]:
        """h <- S^-1((I - U'U) S(h)) as affine low-rank writes; depths without a direction have none."""
        low_rank: list[LowRank] = []
        for site, mean, sd, u in zip(sites, self.mean, self.sd, self.taken, strict=True):
            if len(u):
                low_rank.append(
                    LowRank(site, (-u * sd).float(), (u / sd).float(), ((mean / sd) @ u.T @ (u * sd)).float())
                )
        return tuple(low_rank)


class PGAProjection(Edit):
    """Hides from a probe: h <- S^-1 P S(h) after every block, S the standardiser of its states and P a projection.

    ``direction``: P removes the one direction of a logistic probe of the last token. ``moments`` (MD-PGA): the top
    ``rank`` eigenvectors of the mean outer product of paired differences. ``refit``: directions are added until a probe
    of the projected states, left out sequence by sequence on as many tokens of each text, stays below ``stop`` at every
    depth (an INLP-like loop, at most ``rank`` directions). No weight changes; hooks act at every position.
    Read on the texts it was fitted on, the result is below chance by construction; see studies/pga_illusion.
    Cite: arXiv 2605.01699 and its public notebooks; INLP, Ravfogel et al. 2020 (arXiv 2004.07667).
    """

    plays: ClassVar[str] = "low_rank"
    of_texts: ClassVar[bool] = True
    work: ClassVar[str] = "reads the states of pairs of texts once"

    method: Literal["direction", "moments", "refit"] = "moments"
    rank: int = 2
    stop: float = 0.55
    tokens: int = 8
    controls: Controls = "retain"
    shallowest: float = 0.0
    deepest: float = 1.0

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Fit the projections on states of ``parent`` and write them as a hook edit at ``out``."""
        refuse_images(self.name, data, "it aligns pairs of texts")
        paired = paired_with(data, self.controls)
        sites = depths(bench.open(parent).n_blocks, self.shallowest, self.deepest)
        standard = self.projections(bench, parent, paired, sites)
        return write_edited(out, parent, self.name, self.model_dump(), self.plays, edit_delta(standard.writes(sites)))

    def projections(self, bench: Bench, parent: Checkpoint, paired: Paired, sites: Sequence[Site]) -> Standard:
        """What is projected out at every depth."""
        if self.method == "refit":
            return self._refitted(bench, parent, paired, sites)
        states = _last(bench, parent, paired, sites)
        probe = fitted(states, paired.side)
        if self.method == "direction":
            taken = torch.nn.functional.normalize(probe.weight, dim=-1)[:, None]
        else:
            taken = top_differences((states - probe.mean[:, None]) / probe.sd[:, None], self.rank)
        return Standard(probe.mean, probe.sd, tuple(taken.unbind(0)))

    def _refitted(self, bench: Bench, parent: Checkpoint, paired: Paired, sites: Sequence[Site]) -> Standard:
        """Add a direction at every depth that is still read, and look again through the hooks."""
        states, pair = _tokens(bench, parent, paired, (sites, self.tokens))
        side = paired.side.repeat_interleave(self.tokens)
        first = fitted(states, side)
        standard = Standard(first.mean, first.sd, tuple(states.new_zeros(0, states.shape[-1]) for _ in sites))
        for round_ in range(self.rank):
            accuracy = left_out_accuracy(states, side, pair)
            log.info("refit %d: left-out accuracy %s", round_, [round(a, 3) for a in accuracy.tolist()])
            if accuracy.max() < self.stop:
                break
            z = (states - standard.mean[:, None]) / standard.sd[:, None]
            every = torch.ones(z.shape[:2], dtype=torch.bool)
            probe = logistic(z, side, every)
            more = probe.weight / probe.sd
            extended = [torch.cat([u, _new(w, u)]) for u, w in zip(standard.taken, more, strict=True)]
            read = (accuracy >= self.stop).tolist()
            taken = tuple(k if r else u for k, r, u in zip(extended, read, standard.taken, strict=True))
            standard = standard._replace(taken=taken)
            states, pair = _tokens(bench, parent, paired, (sites, self.tokens), standard.writes(sites))
        return standard


def _new(w: Float[Tensor, " d"], u: Float[Tensor, "k d"]) -> Float[Tensor, "_ d"]:
    """A further direction, orthogonal to those taken already (twice, against rounding) and of length 1."""
    for _ in range(2):
        w = w - u.T @ (u @ w)
    return torch.nn.functional.normalize(w, dim=0)[None]


def top_differences(z: Float[Tensor, "site row d"], rank: int) -> Float[Tensor, "site rank d"]:
    """The top eigenvectors of 1/N sum over pairs of (z(m) - z(c))(z(m) - z(c))', orthonormal rows."""
    difference = z[:, 0::2] - z[:, 1::2]
    return torch.linalg.svd(difference, full_matrices=False).Vh[:, :rank]


def left_out_accuracy(
    x: Float[Tensor, "site row d"], side: Float[Tensor, " row"], pair: Int[Tensor, " row"]
) -> Float[Tensor, " site"]:
    """Accuracy of the published probe at every site, fitted without the pair that it is asked about."""
    pairs = int(pair.max()) + 1
    trained = (pair[None] != torch.arange(pairs)[:, None]).repeat(len(x), 1)
    probe = logistic(x.repeat_interleave(pairs, 0), side, trained)
    odds = probe.decision(x.repeat_interleave(pairs, 0))
    right = ((odds > 0) == (side > 0.5)) & ~trained
    return (right.double().sum(1) / (~trained).sum(1)).view(len(x), pairs).mean(1)


def _last(bench: Bench, parent: Checkpoint, paired: Paired, sites: Sequence[Site]) -> Float[Tensor, "site row d"]:
    reads = [Read(site=site, at="last") for site in sites]
    states = bench.run(parent, paired.rows, reads)
    return torch.stack([states[read] for read in reads]).double()


class _Tokens(NamedTuple):
    """States of single tokens, as many of every text, and the pair that each belongs to."""

    states: Float[Tensor, "site token d"]
    pair: Int[Tensor, " token"]


def _tokens(
    bench: Bench, parent: Checkpoint, paired: Paired, where: tuple[Sequence[Site], int], writes: Sequence[LowRank] = ()
) -> _Tokens:
    """States at so many answer positions of every text, evenly spaced."""
    sites, each = where
    reads = [Read(site=site, at="answer") for site in sites]
    outputs = bench.run(parent, paired.rows, reads, writes)
    count = torch.bincount(paired.rows.targets("answer")[0], minlength=len(paired.rows))
    first = count.cumsum(0) - count
    place = (first[:, None] + (torch.arange(each) * count[:, None]) // each).flatten()
    states = torch.stack([outputs[read][place] for read in reads]).double()
    return _Tokens(states, torch.arange(len(paired.rows)).repeat_interleave(each) // 2)
