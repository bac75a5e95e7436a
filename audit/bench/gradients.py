"""Passes with gradients: of a summed row objective, at sites, at the input embeddings, the pixels or the parameters.

Rows stay independent because the objective gives one number a row and the numbers are only added; what is returned at a
site is therefore each row's own gradient. Only the targets' positions go through the head.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench.batching import batches, halving
from audit.bench.layout import Geometry, Targets
from audit.bench.passes import Job, LoadedModel, Opener, entering, virtual_tokens_of
from audit.bench.places import Places, places, row_positions
from audit.bench.reads.readout import FINAL
from audit.bench.reads.vocabulary_sweep import biased
from audit.bench.results import Forward, Grads, RowObjective
from audit.schema import AuditError, Site
from audit.wrappers import PIXELS, Tap, Wrapper

At = Sequence[Site] | Literal["inputs", "pixels", "params"]


class Live(NamedTuple):
    """A forward pass that gradients can be taken of, and the embedded input that it started from."""

    forward: Forward
    inputs: Float[Tensor, "row pos d"]


def live(
    opened: LoadedModel, opener: Opener, job: Job, where: Geometry, sites: Sequence[Site], given: Tensor | None = None
) -> Live:
    """One batch forward with gradients, scoring the answers. Other models of the writes run without gradients.

    ``given`` [row pos d] enters in place of the rows' own embeddings.
    """
    wrapper = opened.wrapper
    with torch.no_grad():
        entered = entering(opened, opener, job, where)
    states: dict[Site, Tensor] = {}
    final: list[Tensor] = []

    def keeping(site: Site) -> Tap:
        def visit(state: Tensor) -> Tensor:
            # in a tower of images nothing that gradients are taken of enters below
            states[site] = state if state.requires_grad else state.detach().requires_grad_()
            return states[site]

        return Tap(site, visit)

    batch = where.batch(wrapper)
    inputs = wrapper.inputs(batch) if given is None else given
    if not inputs.requires_grad:
        inputs = inputs.detach().requires_grad_()
    taps = [*entered.taps, *map(keeping, sites), Tap(FINAL, final.append)]
    wrapper.forward(batch._replace(embeds=inputs), taps, entered.resume, None)
    row, position, _ = where.targets.cut("answer", where.index)
    row, position = row.to(where.device), position.to(where.device)
    spots = places(where, wrapper, FINAL)
    logits = biased(wrapper.head(spots.take(final[0], "answer")), entered.bias).float()
    target = where.ids[row, position]
    logprob = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
    key = (where.rows.key if where.index is None else where.rows.key[where.index]).to(where.device)[row, position]
    return Live(Forward(logprob, logits, target, row, key, states, _at(spots, row)), inputs)


def _at(spots: Places, row: Tensor) -> Tensor | None:
    """Where in its row each state lies that predicts a target; None for a mean of all."""
    if spots.tower.by_token:
        return spots.where.flat("answer") - row * spots.where.total
    return torch.zeros_like(row) if spots.tower.summary == "class" else None


def valued(objective: RowObjective, forward: Forward, n: int) -> Float[Tensor, " row"]:
    """The objective of each row. Raises AuditError when it does not give one number a row."""
    value = objective(forward)
    if value.shape != (n,):
        raise AuditError(
            f"the objective gave shape {tuple(value.shape)} for {n} rows", "return one number a row, in row order"
        )
    return value


@contextmanager
def trainable_only(parameters: Mapping[str, Tensor], wanted: bool) -> Generator[None]:
    """Parameters ask for gradients only inside this block."""
    before = {name: p.requires_grad for name, p in parameters.items()}
    try:
        for p in parameters.values():
            p.requires_grad_(wanted)
        yield
    finally:
        for name, p in parameters.items():
            p.requires_grad_(before[name])


def gradients(opened: LoadedModel, opener: Opener, job: Job, at: At, objective: RowObjective, budget: int) -> Grads:
    """Gradients of the summed objective, batch by batch, in input row order, in float32 on the CPU."""
    wrapper, rows = opened.wrapper, job.rows
    prefix, targets = virtual_tokens_of(job.writes), Targets(rows)
    sites = () if isinstance(at, str) else tuple(at)
    if any(site.part in ("pattern", "logits") or site.head is not None for site in sites):
        raise AuditError("gradients are not taken at patterns, logits or one head", "take them at q, k, v or z, whole")
    for site in sites:
        wrapper.tower(site.tower)
    wrapper.refuse_ignored(rows.extra)
    value = torch.zeros(len(rows))
    at_sites: dict[Site | str, Tensor] = {}
    parameters = wrapper.parameters() if at == "params" else {}
    if any(p.is_meta for p in parameters.values()):
        raise AuditError(
            f"{wrapper.name}: its weights are offloaded, and weights on disk have no gradients",
            "open it whole: leave out --device-map, or give it more --max-memory",
        )
    if at == "pixels" and PIXELS not in rows.extra:
        raise AuditError(f"the rows bring no {PIXELS}, of which gradients would be taken", "give rows with images")
    at_pixels: list[Tensor] = []
    once = {id(p): p for p in parameters.values()}
    summed: dict[int, Tensor] = {}

    def run_batch(index: Tensor | None) -> None:
        where = Geometry(targets, index, prefix, wrapper.device)
        pixels = [where.leaf(PIXELS)] if at == "pixels" else []
        run = live(opened, opener, job, where, sites)
        each = valued(objective, run.forward, where.n)
        states = pixels or [run.forward.states[s] for s in sites] or [run.inputs]
        sources = list(once.values()) if parameters else states
        got = torch.autograd.grad(each.sum(), sources, allow_unused=True, materialize_grads=True)
        value[slice(None) if index is None else index] = each.detach().float().cpu()
        if parameters:
            for key, g in zip(once, got, strict=True):
                summed[key] = summed[key] + g if key in summed else g.clone()
            return
        if pixels:
            at_pixels[:] = at_pixels or [torch.zeros(rows.extra[PIXELS].shape)]
            at_pixels[0][slice(None) if index is None else index] = got[0].float().cpu()
            return
        for name, g in zip(sites or ("inputs",), got, strict=True):
            _put(at_sites, name, g, where, wrapper)

    with torch.enable_grad(), trainable_only(wrapper.parameters(), bool(parameters)):
        lengths = row_positions(rows, wrapper)
        for index in batches(lengths, max(lengths.tolist(), default=0), budget, wrapper.device):
            halving(run_batch, index, len(rows))
    at_params = {name: summed[id(p)] for name, p in parameters.items()}
    read = {s: at_sites[s] for s in sites}
    return Grads(value, read, at_sites.get("inputs"), at_params, at_pixels[0] if at_pixels else None)


def _put(at_sites: dict[Site | str, Tensor], name: Site | str, got: Tensor, where: Geometry, wrapper: Wrapper) -> None:
    """One batch's gradients at real tokens, into the place of its rows (inside a batch rows keep the input order); all
    positions of an image are real."""
    mask = where.rows.mask
    if not wrapper.tower(name.tower if isinstance(name, Site) else None).by_token:
        buffer = at_sites.setdefault(name, torch.zeros(len(mask), *got.shape[1:]))
        buffer[slice(None) if where.index is None else where.index] = got.float().cpu()
        return
    if name not in at_sites:
        at_sites[name] = torch.zeros(*mask.shape, *got.shape[2:])
    if where.index is not None:
        mask = torch.zeros_like(mask).index_copy(0, where.index, mask[where.index])
    at_sites[name][mask] = got.flatten(0, 1)[where.flat("all")].float().cpu()
