"""Reads as taps: each pools its state on the device, inside the forward, straight into the place where it is kept.

Statistics are in float32 whatever the model's dtype. Nothing of size positions x vocabulary is made unless the read
asks for logits at all positions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.geometry import Geometry, Targets
from audit.bench.shapes import Rows
from audit.nouns import AuditError, Positions, Read, Site
from audit.wrappers.backend import Tap, Wrapper

SCORED = frozenset({"logits", "final_in", "resid_in", "resid_mid", "resid_out"})
STREAM = SCORED - {"logits"} | {"embed", "attn_in", "mlp_in", "attn_out", "mlp_out"}
FINAL = Site(part="final_in")
_LOGITS_AT_ONCE = 1 << 24


def normal(*shape: int) -> Tensor:
    """A float32 CPU tensor that autograd may use later, although it is filled in inference mode."""
    with torch.inference_mode(False):
        return torch.zeros(*shape)


class Readout(ABC):
    """Some reads that are collected in the same way."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read]) -> None:
        self.rows, self.targets, self.reads = rows, targets, reads

    @abstractmethod
    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        """Taps for one batch."""

    @abstractmethod
    def close(self) -> None:
        """Move what the batch's taps pooled to where it is kept."""

    @abstractmethod
    def results(self) -> list[Tensor]:
        """One tensor a read."""

    def size(self, at: Positions) -> int:
        """Length of the first axis over all rows."""
        return self.targets.total(at) if at in ("answer", "key") else len(self.rows)

    def place(self, where: Geometry) -> Int[Tensor, " entry"] | None:
        """Where this batch's entries lie among all; None: they are all, in order."""
        at = self.reads[0].at
        return where.targets.cut(at, where.index).place if at in ("answer", "key") else where.index


class Stream(Readout):
    """Pooled states of model width at several sites: one buffer, one copy to the host a batch."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read], wrapper: Wrapper) -> None:
        super().__init__(rows, targets, reads)
        self.at: Positions = reads[0].at
        self.kept = torch.empty(len(reads), self.size(self.at), wrapper.d_model)
        self.views = self.kept.unbind(0)
        self.direct = wrapper.device.type == "cpu" and wrapper.dtype == torch.float32

    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        self.at_place = self.place(where)
        in_place = self.direct and self.at_place is None
        wide = wrapper.dtype != torch.float32
        if self.at == "mean":
            n, make = where.n, _mean_wide if wide else _mean
            index = where.weights
        else:
            index = where.flat(self.at)
            n, make = len(index), _gather
        dtype = torch.float32 if self.at == "mean" else wrapper.dtype
        if in_place:
            self.buffer, outs = self.kept, self.views
        else:
            self.buffer = torch.empty(len(self.reads), n, wrapper.d_model, dtype=dtype, device=wrapper.device)
            outs = self.buffer.unbind(0)
        return [Tap(r.site, make(index, out)) for r, out in zip(self.reads, outs, strict=True)]

    def close(self) -> None:
        if self.buffer is not self.kept:
            new = self.buffer.float().cpu()
            if self.at_place is None:
                self.kept.copy_(new)
            else:
                self.kept[:, self.at_place] = new
        del self.buffer

    def results(self) -> list[Tensor]:
        return list(self.views)


def _gather(index: Tensor, out: Tensor) -> Callable[[Tensor], None]:
    def visit(state: Tensor) -> None:
        torch.index_select(state.flatten(0, 1), 0, index, out=out)

    return visit


def _mean(weights: Tensor, out: Tensor) -> Callable[[Tensor], None]:
    out = out.unsqueeze(1)

    def visit(state: Tensor) -> None:
        torch.bmm(weights, state, out=out)

    return visit


def _mean_wide(weights: Tensor, out: Tensor) -> Callable[[Tensor], None]:
    """Half-precision states: the mask is exact in any dtype, the sum and the division are in float32."""
    weights = weights.squeeze(1)
    scale, real = weights.amax(1, keepdim=True), (weights > 0).unsqueeze(-1)

    def visit(state: Tensor) -> None:
        torch.sum(state * real, 1, dtype=torch.float32, out=out)
        out.mul_(scale)

    return visit


class Whole(Readout):
    """States at all positions, in token order, padding zero; written to the host as the forward goes."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read]) -> None:
        super().__init__(rows, targets, reads)
        self.kept: list[Tensor | None] = [None] * len(reads)

    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        return [Tap(_tapped(r.site), self._visit(i, r, wrapper, where, bias)) for i, r in enumerate(self.reads)]

    def _visit(
        self, i: int, read: Read, wrapper: Wrapper, where: Geometry, bias: Tensor | None
    ) -> Callable[[Tensor], None]:
        site, n, width = read.site, len(self.rows), where.width
        rows = slice(None) if where.index is None else where.index
        if site.part == "pattern" and where.prefix is not None:
            raise AuditError("a pattern cannot be read beside virtual tokens", "read it in a pass without Prefix")

        def visit(state: Tensor) -> None:
            state = of_head(state, site)
            if site.part == "logits":
                state = biased(wrapper.head(state), bias)
            if where.prefix is not None:
                packed, real = state.flatten(0, 1)[where.flat("all")], where.mask
                state = state.new_zeros(where.n, width, *state.shape[2:])
                state[real] = packed
            kept = self.kept[i]
            if kept is None:
                trail = (*state.shape[1:-2], self.rows.ids.shape[1], self.rows.ids.shape[1])
                shape = trail if site.part == "pattern" else (self.rows.ids.shape[1], *state.shape[2:])
                kept = self.kept[i] = normal(n, *shape)
            region = kept[..., :width, :width] if site.part == "pattern" else kept[:, :width]
            region[rows] = state.to("cpu", torch.float32)

        return visit

    def close(self) -> None:
        """Nothing is left on the device."""

    def results(self) -> list[Tensor]:
        found = []
        for read, kept in zip(self.reads, self.kept, strict=True):
            assert kept is not None, "every tap of a whole pass is called"
            padding = ~self.rows.mask
            if read.site.part == "pattern":
                padding = padding.view(len(padding), *[1] * (kept.ndim - 3), -1)
                kept.masked_fill_(padding[..., None, :], 0.0)
            found.append(kept.masked_fill_(padding.view(*padding.shape, *[1] * (kept.ndim - padding.ndim)), 0.0))
        return found


class Loose(Readout):
    """Pooled states of any other width (heads, hidden units, logits), kept read by read."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read]) -> None:
        super().__init__(rows, targets, reads)
        self.kept: list[Tensor | None] = [None] * len(reads)

    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        self.at_place = self.place(where)
        return [Tap(_tapped(r.site), self._visit(i, r, wrapper, where, bias)) for i, r in enumerate(self.reads)]

    def _visit(
        self, i: int, read: Read, wrapper: Wrapper, where: Geometry, bias: Tensor | None
    ) -> Callable[[Tensor], None]:
        if read.site.part == "pattern":
            raise AuditError(f"a pattern is read at all positions, not at {read.at!r}", "use Read(at='all')")
        logits = read.site.part == "logits"

        def visit(state: Tensor) -> None:
            state = of_head(state, read.site)
            if read.at == "mean":
                full = biased(wrapper.head(state), bias) if logits else state
                pooled = torch.einsum("rxp,rp...->r...", where.weights, full.float())
            else:
                pooled = state.flatten(0, 1)[where.flat(read.at)]
                pooled = biased(wrapper.head(pooled), bias) if logits else pooled
            kept = self.kept[i]
            if kept is None:
                kept = self.kept[i] = normal(self.size(read.at), *pooled.shape[1:])
            kept[slice(None) if self.at_place is None else self.at_place] = pooled.float().cpu()

        return visit

    def close(self) -> None:
        """Nothing is left on the device."""

    def results(self) -> list[Tensor]:
        return [kept if kept is not None else normal(0) for kept in self.kept]


class Scores(Readout):
    """Log-probability and rank of the next token, through the model's own norm and head, at the asked positions."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read]) -> None:
        super().__init__(rows, targets, reads)
        self.kept = normal(len(reads), self.size(reads[0].at))

    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        at = self.reads[0].at
        place, index = self.place(where), where.flat(at)
        row, position, _ = where.targets.cut(at, where.index)
        target = where.ids[row.to(where.device), position.to(where.device)]

        def visitor(site: Site, wanted: list[int]) -> Callable[[Tensor], None]:
            def visit(state: Tensor) -> None:
                states = state.flatten(0, 1)[index]
                if site.part not in ("logits", "final_in"):
                    states = wrapper.norm(states)
                both = scored(wrapper, states, target, bias)
                for i in wanted:
                    kept = self.kept[i]
                    kept[slice(None) if place is None else place] = both[self.reads[i].reduce == "rank"].cpu()

            return visit

        by_site: dict[Site, list[int]] = {}
        for i, read in enumerate(self.reads):
            if read.site.head is not None or read.site.part not in SCORED:
                raise AuditError(f"{read.site} cannot be scored", "score at logits, final_in or a residual site")
            by_site.setdefault(read.site, []).append(i)
        return [Tap(_tapped(site), visitor(site, wanted)) for site, wanted in by_site.items()]

    def close(self) -> None:
        """Nothing is left on the device."""

    def results(self) -> list[Tensor]:
        return list(self.kept.unbind(0))


def scored(
    wrapper: Wrapper, states: Float[Tensor, "token d"], target: Int[Tensor, " token"], bias: Tensor | None
) -> tuple[Float[Tensor, " token"], Float[Tensor, " token"]]:
    """Log-probability (nats) and rank (0 = best) of each target, a few tokens at a time."""
    step = max(1, _LOGITS_AT_ONCE // wrapper.vocab_size)
    logprobs, ranks = [torch.zeros(0, device=states.device)], [torch.zeros(0, device=states.device)]
    for part, t in zip(states.split(step), target.split(step), strict=True):
        logits = biased(wrapper.head(part), bias).float()
        own = logits.gather(1, t[:, None])
        logprobs.append((own - logits.logsumexp(1, keepdim=True)).squeeze(1))
        ranks.append((logits > own).sum(1).float())
    return torch.cat(logprobs), torch.cat(ranks)


def biased(logits: Tensor, bias: Tensor | None) -> Tensor:
    """Logits plus the bias that LogitBias writes set."""
    return logits if bias is None else logits + bias.to(logits)


def of_head(state: Tensor, site: Site) -> Tensor:
    """The one head that a site names, or all of them."""
    if site.head is None:
        return state
    return state[:, site.head] if site.part == "pattern" else state[:, :, site.head]


def _tapped(site: Site) -> Site:
    """Where the wrapper taps: the whole of a part; logits are read from the states that the head reads."""
    if site.part == "logits":
        return FINAL
    return site if site.head is None else site.model_copy(update={"head": None})


def readouts(rows: Rows, targets: Targets, reads: Sequence[Read], wrapper: Wrapper) -> list[Readout]:
    """Group the reads so that each group is collected together."""

    def kind(read: Read) -> tuple[str, str]:
        if read.reduce != "state":
            return "scores", read.at
        if read.at == "all":
            return "whole", read.at
        return ("stream" if read.site.part in STREAM and read.site.head is None else "loose"), read.at

    groups: dict[tuple[str, str], list[Read]] = {}
    for read in reads:
        groups.setdefault(kind(read), []).append(read)
    found: list[Readout] = []
    for (how, _), members in groups.items():
        if how == "stream":
            found.append(Stream(rows, targets, members, wrapper))
        else:
            found.append({"scores": Scores, "whole": Whole, "loose": Loose}[how](rows, targets, members))
    return found
