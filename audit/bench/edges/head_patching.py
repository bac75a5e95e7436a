"""Exact edge patching at the granularity of attention heads: the check that edge scores are held against.

As in :mod:`audit.bench.edges`, a reader's input is this run's residual stream plus, for every edge that is cut, the
other run's write minus this run's own, through the reader's own norm; here every q, k and v head reads an input of its
own. Writers are compared as they are in the patched run itself, so that cuts further down see those further up.
Source: path patching, arXiv 2304.05969 section 3; circuits evaluated as in EAP-IG, arXiv 2403.17806 section 3.
"""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from audit.bench.edges.graph import Graph, graph_of
from audit.bench.layout import Geometry
from audit.bench.results import Pass
from audit.schema import AuditError, Read, Site
from audit.wrappers import NativeWrapper, Tap, Wrapper, block_maps

Visit = Callable[[Tensor], Tensor | None]


def head_edge_taps(
    keep: Bool[Tensor, "*row writer reader"], other: Pass, wrapper: Wrapper, where: Geometry
) -> list[Tap]:
    """Taps for one batch; ``keep`` is [writer reader] of :func:`~.graph.graph_of`, or one such a row."""
    keep = keep if keep.ndim == 2 else where.of_rows(keep)
    return _Cut(keep, other, cast(NativeWrapper, wrapper), graph_of(wrapper), where).taps()


def reads_of_writers(graph: Graph) -> tuple[Read, ...]:
    """What the other run of head-level edges has to read: embed, and every block's z and mlp_out, at all positions."""
    blocks = [Site(part=part, block=b) for b in range(graph.blocks) for part in ("z", "mlp_out")]
    return tuple(Read(site=site, at="all") for site in (Site(part="embed"), *blocks))


class _Cut:
    """One batch: what each writer wrote differently, and what every reader therefore sees."""

    def __init__(self, keep: Tensor, other: Pass, wrapper: NativeWrapper, graph: Graph, where: Geometry) -> None:
        self.other, self.wrapper, self.graph, self.where = other, wrapper, graph, where
        self.cut = (~keep & graph.exists.to(keep.device)).to(wrapper.device)
        self.maps = block_maps(wrapper)
        self.wide = torch.promote_types(wrapper.dtype, torch.float32)
        self.differences: list[Float[Tensor, "row writer pos d"]] = []
        self.stream: dict[int, Tensor] = {}
        self.moved: dict[int, Tensor] = {}

    def taps(self) -> list[Tap]:
        """Every writer's and every reader's tap, in the order in which a block meets them."""
        graph, n = self.graph, self.graph.blocks
        middle = "resid_in" if graph.parallel else "resid_mid"
        taps = [Tap(Site(part="embed"), self._wrote_embed)]
        for block in range(n):
            taps.append(Tap(Site(part="resid_in", block=block), self._attention_reads(block)))
            taps += [Tap(Site(part=p, block=block), self._moves(block, p)) for p in ("q", "k", "v")]
            if graph.parallel:  # the MLP may run before or after attention, and sees none of its heads
                taps.append(Tap(Site(part=middle, block=block), self._mlp_reads(block)))
            taps.append(Tap(Site(part="z", block=block), self._wrote_heads(block)))
            if not graph.parallel:
                taps.append(Tap(Site(part=middle, block=block), self._mlp_reads(block)))
            taps.append(Tap(Site(part="mlp_in", block=block), self._mlp_sees(block)))
            taps.append(Tap(Site(part="mlp_out", block=block), self._wrote_mlp(block)))
        last = Site(part="resid_out", block=n - 1)
        return [*taps, Tap(last, self._final_reads), Tap(Site(part="final_in"), self._final_sees)]

    # ---- writers ------------------------------------------------------------------------------------------------
    def _theirs(self, site: Site, like: Tensor) -> Tensor:
        read = Read(site=site, at="all")
        if read not in self.other.reads:
            do = "read embed, z and mlp_out at all positions (reads_of_writers)"
            raise AuditError(f"the other run of the edges lacks {site}", do)
        theirs = self.other[read]
        theirs = theirs if self.where.index is None else theirs[self.where.index]
        return theirs[:, : self.where.width].to(like.device, self.wide)

    def _wrote_embed(self, state: Tensor) -> None:
        self.differences = [(self._theirs(Site(part="embed"), state) - state.to(self.wide))[:, None]]

    def _wrote_heads(self, block: int) -> Visit:
        def visit(z: Tensor) -> None:
            maps, theirs = self.maps[block], self._theirs(Site(part="z", block=block), z)
            self.differences.append(maps.written(theirs) - maps.written(z.to(self.wide)))

        return visit

    def _wrote_mlp(self, block: int) -> Visit:
        def visit(state: Tensor) -> None:
            theirs = self._theirs(Site(part="mlp_out", block=block), state)
            self.differences.append((theirs - state.to(self.wide))[:, None])

        return visit

    # ---- readers ------------------------------------------------------------------------------------------------
    def _shift(self, first: int, last: int) -> Float[Tensor, "row reader pos d"]:
        """What the cut edges put on top of the stream, reader by reader."""
        seen = torch.cat(self.differences, 1)
        cut = self.cut[..., : seen.shape[1], first:last].to(self.wide)
        return torch.einsum("bwr,bwpd->brpd" if cut.ndim == 3 else "wr,bwpd->brpd", cut, seen)

    def _attention_reads(self, block: int) -> Visit:
        first = block * self.graph.per_block

        def visit(state: Tensor) -> None:
            shift = self._shift(first, first + self.graph.per_block - 1).to(state.dtype)
            normed = self.wrapper.reader_norm("attn_in", block, state[:, None] + shift)
            self.moved[block] = (normed - self.wrapper.reader_norm("attn_in", block, state)[:, None]).to(self.wide)

        return visit

    def _moves(self, block: int, part: str) -> Visit:
        heads = {"q": self.graph.heads, "k": self.graph.kv_heads, "v": self.graph.kv_heads}[part]
        first = {"q": 0, "k": self.graph.heads, "v": self.graph.heads + self.graph.kv_heads}[part]

        def visit(state: Tensor) -> Tensor:
            moved = self.moved[block][:, first : first + heads]
            by = torch.einsum("bhpd,hed->bphe", moved, self.maps[block].reads[part])
            return state + by.to(state.dtype)

        return visit

    def _mlp_reads(self, block: int) -> Visit:
        at = (block + 1) * self.graph.per_block - 1

        def visit(state: Tensor) -> None:
            self.stream[block] = state + self._shift(at, at + 1)[:, 0].to(state.dtype)

        return visit

    def _mlp_sees(self, block: int) -> Visit:
        return lambda state: self.wrapper.reader_norm("mlp_in", block, self.stream.pop(block))

    def _final_reads(self, state: Tensor) -> None:
        at = len(self.graph.readers) - 1
        self.stream[self.graph.blocks] = state + self._shift(at, at + 1)[:, 0].to(state.dtype)

    def _final_sees(self, state: Tensor) -> Tensor:
        return self.wrapper.norm(self.stream.pop(self.graph.blocks))
