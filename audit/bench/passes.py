"""One pass: rows through one model, batch by batch, with writes on the way in and reads on the way out.

Another model's state (a Start or Replace that names a checkpoint) is computed batch by batch beside the pass that uses
it, on the device, and only up to the block that is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from audit.bench.batching import batches, halving
from audit.bench.layout import Geometry, Targets, VirtualTokens
from audit.bench.parted_passes import PartedPass, parted
from audit.bench.places import Places, check_position, places, row_positions
from audit.bench.prefix_sharing import TokenPlan
from audit.bench.reads.readout import of_head
from audit.bench.reads.readouts import Readout, readouts
from audit.bench.start import Start
from audit.bench.writes.write import OtherState, Write
from audit.case import Rows
from audit.schema import AbsentPartError, AuditError, Checkpoint, ExitCode, Op, Read, Site, TowerName
from audit.wrappers import PIXELS, Resume, Stop, Tap, Wrapper


class LoadedModel(NamedTuple):
    """A wrapper and what its checkpoint's edits write on every run."""

    wrapper: Wrapper
    plays: tuple[Write, ...]


class Job(NamedTuple):
    """What a pass is asked to do. ``eager``: with attention that computes patterns, whatever the bench's is."""

    rows: Rows
    reads: tuple[Read, ...]
    writes: tuple[Write, ...]
    start: Start | None
    stop: int | None
    eager: bool = False


class Computed(NamedTuple):
    """One tensor a read, how often memory made a batch smaller, and how many states went forward: a token's, a
    patch's."""

    reads: dict[Read, Tensor]
    halvings: int
    states: int


Opener = Callable[[Checkpoint], LoadedModel]


def check_numbers(ckpt: Checkpoint, reads: Mapping[Read, Tensor]) -> None:
    """AuditError (code 3) where scores of a model's outputs are no numbers. Minus infinity is one: a filter may forbid
    a word."""
    for read, values in reads.items():
        if read.site.part == "logits" and read.reduce in ("logprob", "entropy", "varentropy"):
            wrong = int((values.isnan() | (values == torch.inf)).sum())
            if wrong:
                raise AuditError(
                    f"{ckpt.source}: its outputs on {wrong} of {values.numel()} tokens are no numbers (they overflow)",
                    "give a model that runs in this precision, or another --dtype",
                    ExitCode.INTEGRITY,
                )


def compute(opened: LoadedModel, opener: Opener, job: Job, budget: int) -> Computed:
    """Run the job in inference mode. Raises AuditError for sites that the model or the pass does not have."""
    wrapper, rows = opened.wrapper, job.rows
    prefix = virtual_tokens_of(job.writes)
    check_job(job, prefix is not None, wrapper)
    targets = Targets(rows)
    groups = readouts(rows, targets, job.reads, wrapper)
    stop = last_block(job, wrapper.head_tower)
    if (plan := _token_plan(opened, job)) is not None:
        with torch.inference_mode():
            halvings = PartedPass(wrapper, targets, plan, groups, stop).run(budget)
        return Computed(results(groups), halvings, plan.tokens)

    def run_batch(index: Tensor | None) -> None:
        where = Geometry(targets, index, prefix, wrapper.device)
        if where.n:
            _one_batch(opened, opener, job, where, groups, stop)

    halvings = 0
    with torch.inference_mode():
        lengths = row_positions(rows, wrapper)
        for index in batches(lengths, max(lengths.tolist(), default=0), budget, wrapper.device):
            halvings += halving(run_batch, index, len(rows))
    return Computed(results(groups), halvings, int(lengths.sum()))


def _token_plan(opened: LoadedModel, job: Job) -> TokenPlan | None:
    """Which tokens go forward; None for whole rows: of edits on the way places are those of whole rows."""
    if job.writes or opened.plays or job.start is not None:
        return None
    return parted(opened.wrapper, job.rows, job.reads)


def results(groups: Sequence[Readout]) -> dict[Read, Tensor]:
    """What was read, one tensor a read."""
    return {read: tensor for group in groups for read, tensor in zip(group.reads, group.results(), strict=True)}


def _one_batch(
    opened: LoadedModel, opener: Opener, job: Job, where: Geometry, groups: Sequence[Readout], stop: Stop | None
) -> None:
    read_batch(opened.wrapper, where, entering(opened, opener, job, where), groups, stop)


def read_batch(
    wrapper: Wrapper, where: Geometry, entered: "Entering", groups: Sequence[Readout], stop: Stop | None
) -> None:
    """Run one batch with what enters it, and read."""
    taps = [*entered.taps, *(tap for group in groups for tap in group.taps(wrapper, where, entered.bias))]
    wrapper.forward(where.batch(wrapper), taps, entered.resume, stop)
    for group in groups:
        group.close()


class Entering(NamedTuple):
    """What enters one batch: the writes' taps, the state to start from, the bias on the logits."""

    taps: list[Tap]
    resume: Resume | None
    bias: Tensor | None


def entering(
    opened: LoadedModel, opener: Opener, job: Job, where: Geometry, given: Mapping[int, Tensor] | None = None
) -> Entering:
    """Prepare the writes and the start of one batch; other models run here, unless what they give is ``given``."""
    wrapper = opened.wrapper
    if not (job.writes or opened.plays or job.start):
        return Entering([], None, None)
    writes = (*opened.plays, *job.writes)
    given = other_models(opener, [job], where) if given is None else given
    taps = [
        tap for w in writes for tap in w.taps(wrapper, where, given.get(id(w)))
        if w not in opened.plays or _reached(tap.site, job, wrapper.head_tower)
    ]  # fmt: skip
    resume = None
    if job.start is not None:
        state = given.get(id(job.start))
        if state is None:
            assert isinstance(job.start.source, Tensor), "a checkpoint's state is computed before its batch"
            rows = job.start.source if where.index is None else job.start.source[where.index]
            state = rows[:, : where.width] if wrapper.tower(job.start.site.tower).by_token else rows
        site = job.start.site
        tower = site.tower or wrapper.head_tower
        resume = Resume(site.block or 0, state.to(wrapper.device, wrapper.dtype), tower)
    return Entering(taps, resume, bias_of(writes, wrapper.device))


def _reached(site: Site, job: Job, head: TowerName) -> bool:
    """Whether a permanent edit's place is run at all in a pass with this start, and of rows that may bring no image."""
    if (site.tower or head) != head and PIXELS not in job.rows.extra:
        return False
    start = job.start
    return start is None or site.part != "embed" and _end(site, head).depth > _end(start.site, head).depth


def virtual_tokens_of(writes: Sequence[Write]) -> VirtualTokens | None:
    """The pass's virtual tokens. Raises AuditError where more than one write puts in some."""
    given = [tokens for tokens in (write.virtual_tokens() for write in writes) if tokens is not None]
    if len(given) > 1:
        raise AuditError("two prefixes in one pass", "join them into one Prefix")
    return given[0] if given else None


def bias_of(writes: Sequence[Write], device: torch.device) -> Tensor | None:
    """The sum of all that is added to the logits, in float32 on the device; None without any."""
    shifts = [shift for shift in (write.logit_shift() for write in writes) if shift is not None]
    return torch.stack([shift.to(device, torch.float32) for shift in shifts]).sum(0) if shifts else None


class _Request(NamedTuple):
    """The state of another model that a Start or a write needs, by the id of who asks."""

    asks: int
    state: OtherState


def other_models(opener: Opener, jobs: Sequence[Job], where: Geometry) -> dict[int, Tensor]:
    """States that other checkpoints give to this batch of all these jobs' rows, by the id of the Start or write that
    asks; each checkpoint runs once."""
    by_model: dict[str, list[_Request]] = {}
    for job in jobs:
        for asking in (*([job.start] if job.start is not None else []), *job.writes):
            state = asking.other_state()
            if state is not None:
                by_model.setdefault(state.source.key, []).append(_Request(id(asking), state))
    given: dict[int, Tensor] = {}
    for wanted in by_model.values():
        other = opener(wanted[0].state.source)
        plain = Geometry(where.targets, where.index, None, other.wrapper.device)
        taps = entering(other, opener, Job(where.rows, (), (), None, None), plain).taps
        taps += [_giving(request, places(plain, other.wrapper, request.state.site), given) for request in wanted]
        stop = _deepest([request.state.site for request in wanted], other.wrapper.head_tower)
        other.wrapper.forward(plain.batch(other.wrapper), taps, None, stop)
    return given


def _giving(request: _Request, plain: Places, given: dict[int, Tensor]) -> Tap:
    """A tap that takes the state which ``request`` asks of another model."""
    site, positions = request.state.site, request.state.positions

    def visit(state: Tensor) -> None:
        if positions is None:
            given[request.asks] = state
        else:
            given[request.asks] = plain.take(of_head(state, site), positions)

    return Tap(site if site.head is None else site.model_copy(update={"head": None}), visit)


def _end(site: Site, head: TowerName) -> Stop:
    """Where a pass may stop that needs this site: after its block, or after its tower's final norm. ``head``: the tower
    that the model's head reads."""
    return Stop(None if site.part in ("logits", "final_in") else site.block or 0, site.tower or head)


def _deepest(sites: Sequence[Site], head: TowerName) -> Stop | None:
    """Where a pass may stop that needs these sites; None when it must run to the end."""
    stop = max((_end(site, head) for site in sites), default=Stop(0, head), key=lambda stop: stop.depth)
    return None if stop == Stop(None, head) else stop


def last_block(job: Job, head: TowerName = "text") -> Stop | None:
    """Where the pass stops: as early as the reads and the job allow; None when the final norm must run too."""
    needed = _deepest([read.site for read in job.reads], head)
    limit = None if job.stop is None else Stop(job.stop, head)
    ends = [stop for stop in (needed, limit) if stop is not None]
    return min(ends, default=None, key=lambda stop: stop.depth)


def check_job(job: Job, prefix: bool, wrapper: Wrapper) -> None:
    """What a pass cannot do is said before a model runs."""
    start = job.start
    if start is not None:
        if start.site.part != "resid_out":
            raise AuditError(f"a pass cannot start at {start.site}", "start after a block, at its resid_out")
        if prefix:
            raise AuditError("a pass that starts from a state has no place for a Prefix", "run it without Prefix")
    wrapper.refuse_ignored(job.rows.extra)
    for write in (start, *job.writes):
        site = getattr(write, "site", None)
        if isinstance(site, Site):
            wrapper.tower(site.tower)
    for read in job.reads:
        _check_read(read, job.stop, wrapper)


def _check_read(read: Read, stop: int | None, wrapper: Wrapper) -> None:
    site, tower = read.site, wrapper.tower(read.site.tower)
    if site.part not in tower.parts:
        eager = site.part == "pattern" and wrapper.attention != "eager" and Op.PATTERN in type(wrapper).supports
        eager &= not wrapper.unseen
        reason = "attention patterns need eager attention" if eager else wrapper.unseen or "it was not found here"
        lacking = AuditError if eager or wrapper.unseen or wrapper.backend != "native" else AbsentPartError
        raise lacking(
            f"the {wrapper.backend} backend has no part {site.part!r} for this model: {reason}",
            "open the bench with attention='eager'" if eager else "choose another site",
        )
    check_position(site, tower, read.at)
    head = wrapper.head_tower
    if stop is not None and _end(site, head).depth > Stop(stop, head).depth:
        raise AuditError(f"{site} lies above the block {stop} after which the pass stops", "raise stop")
