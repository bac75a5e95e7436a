"""Many writes or starts on the same rows of one model: what they have in common runs once.

Batch by batch, another model that gives states to several variants runs once, as far as the deepest of them needs; and
a variant goes on from the model's own state below the first block that it changes. Numbers are those of passes one by
one.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from audit.bench import cache_keys
from audit.bench.batching import batches, halving, padded_tokens
from audit.bench.layout import Geometry, Targets
from audit.bench.passes import (
    Computed,
    Entering,
    Job,
    LoadedModel,
    Opener,
    check_job,
    entering,
    last_block,
    other_models,
    read_batch,
    results,
    virtual_tokens_of,
)
from audit.bench.places import row_positions
from audit.bench.reads.readout import Readout
from audit.bench.reads.readouts import readouts
from audit.bench.results import Pass
from audit.schema import Checkpoint, Read, Site
from audit.wrappers import Resume, Stop, Tap, Wrapper

if TYPE_CHECKING:
    from audit.bench.bench import Bench

_HELD_BYTES = 1 << 28
"""States of one batch that are held for variants to come."""


class _Variant(NamedTuple):
    """One variant under way: its readouts, where it stops, and after which block it may go on from the plain run."""

    job: Job
    groups: list[Readout]
    stop: Stop | None
    after: int | None


def run_variants(bench: "Bench", ckpt: Checkpoint, jobs: Sequence[Job]) -> list[Pass]:
    """What ``bench.run`` would give one by one, in the same order; all jobs are on the same rows."""
    if not jobs:
        return []
    separate = [n for n, job in enumerate(jobs) if virtual_tokens_of(job.writes) is not None or bench.runs_apart(job)]
    cached = {n: bench.run(ckpt, jobs[n].rows, jobs[n].reads, jobs[n].writes, jobs[n].start) for n in separate}
    joint = [n for n in range(len(jobs)) if n not in cached]
    cached |= zip(joint, _kept(bench, ckpt, [jobs[n] for n in joint]), strict=True)
    return [cached[n] for n in range(len(jobs))]


def _kept(bench: "Bench", ckpt: Checkpoint, jobs: Sequence[Job]) -> list[Pass]:
    """The reads of every variant: what has a name from the store, and into it."""
    store = bench.store
    if store is None:
        return [Pass(job.rows, reads) for job, reads in zip(jobs, bench.compute_jobs(ckpt, jobs), strict=True)]
    settings, model = bench.pool.settings_of(False), bench.pool.key(ckpt)
    identities = [cache_keys.PassNames(model, job.rows, job.writes, job.start) for job in jobs]
    names = [cache_keys.read_names(settings, of, job.reads) or {} for of, job in zip(identities, jobs, strict=True)]

    def looked_up() -> tuple[list[dict[Read, Tensor]], list[int]]:
        cached = [cache_keys.stored(store, of) for of in names]
        return cached, [n for n, job in enumerate(jobs) if len(cached[n]) < len(job.reads)]

    cached, waiting = looked_up()
    with ExitStack() as stack:
        if waiting and store.waits:
            nameable = [n for n in waiting if names[n]]
            for name in sorted({cache_keys.pass_name(settings, identities[n]) for n in nameable}):
                stack.enter_context(store.exclusively(name))
            cached, waiting = looked_up()
        missing = [
            jobs[n]._replace(reads=tuple(read for read in jobs[n].reads if read not in cached[n])) for n in waiting
        ]
        for n, reads in zip(waiting, bench.compute_jobs(ckpt, missing), strict=True):
            if names[n]:
                cache_keys.keep(store, names[n], reads)
            cached[n] |= reads
    return [Pass(job.rows, {read: reads[read] for read in job.reads}) for job, reads in zip(jobs, cached, strict=True)]


def compute_variants(opened: LoadedModel, opener: Opener, jobs: Sequence[Job], budget: int) -> list[Computed]:
    """Run the jobs, on the same rows and without virtual tokens, so many at once that what is held for them stays
    small."""
    wrapper = opened.wrapper
    state = padded_tokens(budget, wrapper.device) * wrapper.d_model * wrapper.dtype.itemsize
    each = max(1, _HELD_BYTES // (2 * state))
    return [done for first in range(0, len(jobs), each)
            for done in _together(opened, opener, jobs[first : first + each], budget)]  # fmt: skip


def _together(opened: LoadedModel, opener: Opener, jobs: Sequence[Job], budget: int) -> list[Computed]:
    wrapper, rows, head = opened.wrapper, jobs[0].rows, opened.wrapper.head_tower
    for job in jobs:
        check_job(job, False, wrapper)
    targets, lengths = Targets(rows), row_positions(rows, wrapper)
    separate = (
        bool(rows.extra or opened.plays) or getattr(wrapper, "starts_whole", False) or not wrapper.tower().by_token
    )
    variants = [
        _Variant(job, readouts(rows, targets, job.reads, wrapper), last_block(job, head),
                 None if separate else unchanged_below(job, wrapper)) for job in jobs
    ]  # fmt: skip
    if sum(variant.after is not None for variant in variants) < 2:
        variants = [variant._replace(after=None) for variant in variants]
    run = partial(_one_batch, opened, opener, variants, targets)
    with torch.inference_mode():
        cut = batches(lengths, max(lengths.tolist(), default=0), budget, wrapper.device)
        halvings = sum(halving(run, index, len(rows)) for index in cut)
    # what variants share is a part of the first one's pass
    states = int(lengths.sum())
    return [Computed(results(variant.groups), 0 if n else halvings, states) for n, variant in enumerate(variants)]


def _one_batch(
    opened: LoadedModel, opener: Opener, variants: Sequence[_Variant], targets: Targets, index: Tensor | None
) -> None:
    wrapper = opened.wrapper
    where = Geometry(targets, index, None, wrapper.device)
    if not where.n:
        return
    given = other_models(opener, [variant.job for variant in variants], where)
    own = _own_states(wrapper, where, {variant.after for variant in variants if variant.after is not None})
    for variant in variants:
        entered: Entering = entering(opened, opener, variant.job, where, given)
        if variant.after is not None:
            entered = entered._replace(resume=Resume(variant.after, own[variant.after], wrapper.head_tower))
        read_batch(wrapper, where, entered, variant.groups, variant.stop)


def _own_states(wrapper: Wrapper, where: Geometry, after: set[int]) -> Mapping[int, Tensor]:
    """The model's own states after some blocks, in one run up to the last of them."""
    states: dict[int, Tensor] = {}

    def keeping(block: int) -> Tap:
        return Tap(Site(part="resid_out", block=block), lambda state: states.__setitem__(block, state))

    if after:
        stop = Stop(max(after), wrapper.head_tower)
        wrapper.forward(where.batch(wrapper), [keeping(block) for block in sorted(after)], None, stop)
    return states


def unchanged_below(job: Job, wrapper: Wrapper) -> int | None:
    """After which block a pass with these writes may go on from the state of one without: below everything that it
    changes or reads. None where it has to run from the start, or starts elsewhere anyway."""
    if job.start is not None or not job.writes:
        return None
    sites: list[Site] = [read.site for read in job.reads]
    for write in job.writes:
        site = getattr(write, "site", None)
        if isinstance(site, Site):
            sites.append(site)
        elif write.logit_shift() is None:
            return None
    if any(site.tower not in (None, wrapper.head_tower) or site.part == "embed" for site in sites):
        return None
    after = min((_before(site, wrapper.n_blocks) for site in sites), default=-inf)
    return int(after) if after >= 0 else None


def _before(site: Site, blocks: int) -> int:
    """The last block that has run before a site is there; a block's own output is there after it."""
    if site.block is None:
        return blocks - 1
    return site.block if site.part == "resid_out" else site.block - 1
