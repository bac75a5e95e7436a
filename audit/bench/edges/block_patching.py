"""Exact edge patching: each reader sees the kept writers of this run and another run's writers for the rest.

A reader's input is this run's residual stream plus, for every edge that is cut, the other run's write minus this run's
own. The residual stream itself is not touched, so that every edge is cut alone, through the reader's own norm.
Source: path patching, arXiv 2304.05969 section 3; edges as in ACDC, arXiv 2304.14997.
"""

from collections.abc import Callable
from typing import Protocol, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from audit.bench.layout import Geometry
from audit.bench.reads.readout import FINAL
from audit.bench.results import Pass
from audit.schema import AuditError, Part, Read, Site
from audit.wrappers import Tap, Wrapper


class _ReadsThroughNorms(Protocol):
    """What edge patching needs beyond a wrapper: the norm in front of a reader."""

    def reader_norm(self, part: str, block: int, states: Tensor) -> Tensor: ...


def edge_taps(keep: Bool[Tensor, "*row writer reader"], other: Pass, wrapper: Wrapper, where: Geometry) -> list[Tap]:
    """Taps for one batch: which edges are kept, and the run that the others come from.

    AuditError: a backend or model without the parts, a matrix of the wrong shape.
    """
    if where.prefix is not None:
        raise AuditError("edges cannot be cut beside virtual tokens", "run the pass without Prefix")
    if not wrapper.tower().by_token:
        raise AuditError(f"edges are not cut in {wrapper.name}, whose positions are no tokens", "use a language model")
    n = 1 + 2 * wrapper.n_blocks
    if keep.shape != (n, n):
        taps = _of_heads(keep, other, wrapper, where)
        if taps is not None:
            return taps
        has = f"this model has {n} writers and {n} readers"
        raise AuditError(f"keep is {tuple(keep.shape)}; {has}", f"give [{n} {n}]")
    if not hasattr(wrapper, "reader_norm") or not {"attn_in", "mlp_in", "attn_out", "mlp_out"} <= wrapper.parts:
        raise AuditError(f"the {wrapper.backend} backend cannot cut edges in this model", "use the native backend")
    return _Cut(keep, other, wrapper, where).taps()


def _of_heads(keep: Tensor, other: Pass, wrapper: Wrapper, where: Geometry) -> list[Tap] | None:
    """The taps of edges between heads, if that is what the matrix is of."""
    from audit.bench.edges.graph import graph_of
    from audit.bench.edges.head_patching import head_edge_taps

    if "q" not in wrapper.parts or "z" not in wrapper.parts:
        return None
    fits = keep.shape[-2:] == graph_of(wrapper).exists.shape
    return head_edge_taps(keep, other, wrapper, where) if fits else None


class _Cut:
    """One batch's edges: what each writer wrote differently, summed for each reader."""

    def __init__(
        self, keep: Bool[Tensor, "writer reader"], other: Pass, wrapper: Wrapper, where: Geometry
    ) -> None:  # fmt: skip
        self.keep: Bool[Tensor, "writer reader"] = keep.cpu()
        self.wrapper, self.where, self.other = wrapper, where, other
        self.middle: Part = "resid_mid" if "resid_mid" in wrapper.parts else "resid_in"
        self.differences: dict[int, Float[Tensor, "row pos d"]] = {}
        self.stream: dict[str, Tensor] = {}

    def taps(self) -> list[Tap]:
        taps = [self._writer(Site(part="embed"), 0)]
        for block in range(self.wrapper.n_blocks):
            middle = Site(part=self.middle, block=block)
            taps += self._reader("attn_in", block, Site(part="resid_in", block=block))
            taps.append(self._writer(Site(part="attn_out", block=block), 1 + 2 * block))
            taps += self._reader("mlp_in", block, middle)
            taps.append(self._writer(Site(part="mlp_out", block=block), 2 + 2 * block))
        last = Site(part="resid_out", block=self.wrapper.n_blocks - 1)
        return [*taps, Tap(last, self._seeing("final")), Tap(FINAL, self._reading("final", 2 * self.wrapper.n_blocks))]

    def _writer(self, site: Site, writer: int) -> Tap:
        read = Read(site=site, at="all")
        if read not in self.other.reads:
            raise AuditError(
                f"the other run of the edges lacks {site}", "read embed, attn_out and mlp_out at all positions"
            )

        def visit(state: Tensor) -> None:
            theirs = self.other[read]
            if self.where.index is not None:
                theirs = theirs[self.where.index]
            self.differences[writer] = theirs[:, : self.where.width].to(state) - state

        return Tap(site, visit)

    def _reader(self, part: Part, block: int, stream: Site) -> list[Tap]:
        number = 2 * block + (part == "mlp_in")
        name = f"{part}{block}"
        return [Tap(stream, self._seeing(name)), Tap(Site(part=part, block=block), self._reading(name, number))]

    def _seeing(self, name: str) -> Callable[[Tensor], None]:
        def visit(state: Tensor) -> None:
            self.stream[name] = state.clone()

        return visit

    def _reading(self, name: str, reader: int) -> Callable[[Tensor], Tensor | None]:
        parallel = self.middle == "resid_in" and name.startswith("mlp_in")
        upstream = reader if parallel else reader + 1  # a parallel mlp does not read its block's attention

        def visit(state: Tensor) -> Tensor | None:
            cut = [self.differences[w] for w in range(upstream) if not self.keep[w, reader]]
            stream = self.stream.pop(name)
            if not cut:
                return None
            stream = stream + torch.stack(cut).sum(0)
            if name == "final":
                return self.wrapper.norm(stream)
            norms = cast(_ReadsThroughNorms, self.wrapper)
            return norms.reader_norm(name.rstrip("0123456789"), reader // 2, stream)

        return visit
