"""Writes as taps: each changes a state on the way, exactly as its class says."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from audit.bench.layout import Geometry
from audit.bench.reads.readout import of_head
from audit.bench.writes.edges import Edges
from audit.bench.writes.features import Features
from audit.bench.writes.logit_bias import LogitBias
from audit.bench.writes.low_rank import LowRank
from audit.bench.writes.prefix import Prefix
from audit.bench.writes.replace import Replace
from audit.bench.writes.scale import Scale
from audit.bench.writes.write import Write
from audit.schema import AuditError, Positions, Site
from audit.wrappers import Tap, Wrapper

Visit = Callable[[Tensor], Tensor | None]


def prefix_of(writes: Sequence[Write]) -> Prefix | None:
    """The pass's virtual tokens. Raises AuditError for more than one."""
    found = [w for w in writes if isinstance(w, Prefix)]
    if len(found) > 1:
        raise AuditError("two prefixes in one pass", "join them into one Prefix")
    return found[0] if found else None


def bias_of(writes: Sequence[Write], device: torch.device) -> Tensor | None:
    """The sum of all logit biases, in float32 on the device; None without one."""
    found = [w.bias.to(device, torch.float32) for w in writes if isinstance(w, LogitBias)]
    return torch.stack(found).sum(0) if found else None


def taps_of(write: Write, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
    """Taps of one write for one batch; ``given`` is another model's state for a Replace by checkpoint."""
    if isinstance(write, Prefix | LogitBias):
        return []
    if isinstance(write, Edges):
        from audit.bench.edges.block_patching import edge_taps

        return edge_taps(write, wrapper, where)
    if isinstance(write, Replace):
        visit = _replace(write, wrapper, where, given)
    elif isinstance(write, LowRank):
        visit = _low_rank(write, wrapper, where)
    elif isinstance(write, Scale):
        visit = _scale(write, wrapper, where)
    else:
        visit = _features(write, wrapper)
    return [_tap(write.site, visit)]


def _tap(site: Site, visit: Visit) -> Tap:
    """The tap of one site; a site of one head changes that head only."""
    if site.part == "logits":
        raise AuditError("logits are written by LogitBias only", "use LogitBias, or write at final_in")
    if site.head is None:
        return Tap(site, visit)

    def of_one(state: Tensor) -> Tensor | None:
        new = visit(of_head(state, site))
        if new is None:
            return None
        state = state.clone()
        of_head(state, site).copy_(new)
        return state

    return Tap(site.model_copy(update={"head": None}), of_one)


def _rows(tensor: Tensor, where: Geometry) -> Tensor:
    return tensor if where.index is None else tensor[where.index.to(tensor.device)]


def _packed(tensor: Tensor, positions: Positions, where: Geometry) -> Tensor:
    """This batch's part of a replacement, one entry a flat position."""
    if positions in ("answer", "key"):
        want, place = where.targets.total(positions), where.targets.cut(positions, where.index).place
        _fits(tensor, want, positions)
        return tensor if place is None else tensor[place.to(tensor.device)]
    _fits(tensor, len(where.rows), positions)
    tensor = _rows(tensor, where)
    return tensor[:, : where.width][where.mask.to(tensor.device)] if positions == "all" else tensor


def _fits(tensor: Tensor, want: int, positions: Positions) -> None:
    if len(tensor) != want:
        raise AuditError(
            f"a replacement of length {len(tensor)} for {want} entries at {positions!r}",
            "give [row pos d] for all, [token d] packed for answer or key, [row d] for last",
        )


def _replace(write: Replace, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> Visit:
    if write.positions == "mean":
        raise AuditError("a state cannot be replaced at 'mean'", "use last, all, answer or key")
    if given is None:
        assert isinstance(write.source, Tensor), "a checkpoint's state is computed before its batch"
        given = _packed(write.source, write.positions, where)
    values, index = given.to(wrapper.device), where.flat(write.positions)

    def visit(state: Tensor) -> Tensor:
        return state.flatten(0, 1).index_copy(0, index, values.to(state.dtype)).view(state.shape)

    return visit


def _low_rank(write: LowRank, wrapper: Wrapper, where: Geometry) -> Visit:
    u, v, b = (x.to(wrapper.device, wrapper.dtype) for x in (write.u, write.v, write.b))
    chosen = None if write.rows is None else _rows(write.rows, where).to(wrapper.device)

    def visit(state: Tensor) -> Tensor:
        new = state + (state @ v.T) @ u + b
        if chosen is None:
            return new
        return torch.where(chosen.view(-1, *[1] * (state.ndim - 1)), new, state)

    return visit


def _scale(write: Scale, wrapper: Wrapper, where: Geometry) -> Visit:
    factor, columns = write.factor.to(wrapper.device, wrapper.dtype), write.columns.to(wrapper.device)
    if write.per_row:
        factor = _rows(factor, where)

    def visit(state: Tensor) -> Tensor:
        by = factor.view(len(factor), *[1] * (state.ndim - 2), -1) if write.per_row else factor
        state = state.clone()
        state[..., columns] = state[..., columns] * by
        return state

    return visit


def _features(write: Features, wrapper: Wrapper) -> Visit:
    columns = write.columns.to(wrapper.device)

    def visit(state: Tensor) -> Tensor:
        features = write.sae.encode(state)
        changed = features.clone()
        changed[..., columns] = changed[..., columns] * write.scale
        return state + (write.sae.decode(changed) - write.sae.decode(features)).to(state.dtype)

    return visit
