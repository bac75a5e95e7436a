"""What a run costs before it is made: passes, memory and time ranges, unit by unit, and what a limit leaves out.

Passes are exact where reads are declared (from an empty store) and an upper bound where something is optimised or
trained. A unit's time follows from its tokens and steps, from small passes of base that are timed here, and from what
units of its kind take beside (:mod:`audit.planning.unit_costs`), corrected by what this machine's last units of the
kind took. Without weights the device is asked how fast it multiplies two matrices. Memory is what the process holds now
plus libraries, models, batches and what training adds.
"""

import time
from collections.abc import Iterable, Sequence
from math import prod
from statistics import median
from typing import Literal, NamedTuple

from audit.bench import Bench, PassTimes, device_bytes, model_bytes, padded_tokens, room
from audit.case import OpenCase, Rows
from audit.checkpoints import model_config, of_config_alone, tensor_shapes, weights_folder
from audit.planning import timings
from audit.planning.machine_speed import small_seconds
from audit.planning.plan_inputs import received
from audit.planning.planner import Fetch, Planned, Planner, by_model, in_states, states_of
from audit.planning.settings import RunSettings
from audit.planning.timings import Spent
from audit.planning.unit_costs import USUAL, Workload, fitted
from audit.probing import SCORE, roles_cost, roles_passes
from audit.schema import Checkpoint, Cost, Interval, Read, Texts
from audit.wording import told_bytes
from audit.wrappers import fresh_model

ENOUGH_RUN = 0.5
"""A unit that ran less than this share of what it ran at most found the rest in a store: its time says little."""
WIDENED = {"recorded": 1.4, "benchmark": 1.7, "arithmetic": 4.0}
"""By how much the time range reaches beyond the estimates, either way."""
WIDEST = 3.0
"""How many times its lower end the upper end of a range is at most, where weights were there to be timed."""
LAST = 5
START_UNIT, REPORT = "start", "report"
FRESH_S, START_TIMES = 60.0, 1.4
"""A process that has taken more is none that was started for this run; what a run's start takes over a plan's."""
START_S, USUAL_SMALL_S = 8.0, 1e-5
"""What a start takes on a machine that makes a small step in so many seconds."""
STEPS_A_BLOCK = 60
"""Small steps of the machine in which a block runs, roughly."""
LIBRARIES = 150_000_000
"""Bytes of what a run imports after it was planned."""
LOGITS_AT_ONCE = 1 << 24
"""Numbers; three arrays of them are there at a time."""
MEMORY_TIMES = 1.6
"""By how much the memory range reaches beyond the estimate, either way."""
TRAINED_COPIES = 4
"""A copy of the weights, its gradients and two moments."""
STATES = 24
"""How many vectors of the model's width a token holds at once, roughly."""
KEPT = 12
"""How many of them a block keeps of a token until its gradient is taken."""
_SIDE = 1024
"""The matrices that are multiplied to see how fast this device is, square."""
Source = Literal["recorded", "benchmark", "arithmetic"]
Kind = Literal["exact", "upper"]
Pass = tuple[Checkpoint, Texts]


class Price(NamedTuple):
    """One unit of work: its passes, its peak memory (at most, and at least), and how long it takes. ``expected_s``:
    what the range lies around, before anything that this machine learnt from earlier units."""

    unit: str
    cost: Cost
    peak_bytes: int
    seconds: Interval
    source: Source
    least_bytes: int = 0
    expected_s: float = 0.0


class Prices(NamedTuple):
    """All units in their order: what starts the run (imports, opening), the audit of roles, recall, the merged reads,
    every test that will run, the report; and what is to be said of the models beside: what does not fit, what was
    assumed."""

    units: tuple[Price, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> Interval:
        """Of the whole run."""
        return total(self.units)

    @property
    def peak_bytes(self) -> int:
        """Of the whole run."""
        return max(price.peak_bytes for price in self.units)

    @property
    def least_bytes(self) -> int:
        """Of the whole run, at least."""
        return max(price.least_bytes for price in self.units)

    def of(self, unit: str) -> Price:
        """The price of one unit."""
        return next(price for price in self.units if price.unit == unit)

    def left(self, units: Iterable[str]) -> Interval:
        """How long these units take."""
        priced = set(units)
        return total([price for price in self.units if price.unit in priced])


def total(prices: Iterable[Price]) -> Interval:
    """The sum of some units' times."""
    spans = [price.seconds for price in prices]
    return Interval(lo=sum(span.lo for span in spans), hi=sum(span.hi for span in spans))


def conditions(settings: RunSettings) -> str:
    """What a time depends on beside the work."""
    model = settings.backend, settings.device, settings.dtype, settings.attention
    return "|".join(str(part) for part in (*model, settings.threads, settings.package))


class Pricer:
    """Prices the plans of one opened case under one set of conditions."""

    def __init__(self, case: OpenCase, bench: Bench, settings: RunSettings) -> None:
        self.case, self.bench, self.settings = case, bench, settings
        self._sketched = of_config_alone(case.base)
        self.parameters = parameters_of(case.base)
        self._model = model_bytes(self.parameters, settings.dtype, bench.pool.placement)
        self._sizes = model_config(case.base).read_by_head
        # every rank must time the same passes, whatever has been recorded meanwhile
        again = bench.pool.placement.ranks > 1 or self._sketched
        self._recorded = () if again else timings.recorded(conditions(settings))
        self._times: PassTimes | None = None
        self._held = _process_bytes()

    def prices(self, planner: Planner) -> Prices:
        """What this plan costs, from an empty store."""
        running = planner.running
        audited = roles_passes(self.case)
        units = [("roles", in_states(roles_cost(self.case), self.case)), ("recall", self._recall(audited))]
        units += [("reads", self._reads(planner, running, audited))]
        units += [(planned.name, planned.own) for planned in running]
        priced = (self._start(), *(self.price(*unit) for unit in (*units, (REPORT, Cost()))))
        return Prices(priced, (*self._assumed(), *self._fitting(priced)))

    def _assumed(self) -> Iterable[str]:
        """What was taken for granted where nothing but configs was there."""
        if self._sketched:
            yield (
                f"priced from configs alone: {self.parameters:,} parameters in {self.settings.dtype}, as many in every "
                "role; two operations a parameter and token; no weights were looked at, nothing was checked, reading "
                "them from disk is not counted"
            )

    def _fitting(self, priced: Iterable[Price]) -> Iterable[str]:
        """Which models are not open together, and what does not fit at all."""
        models = {(checkpoint.source, checkpoint.key) for _, checkpoint in received(self.case)}
        placement, size = self.bench.pool.placement, self._model
        limit = room(placement)
        has = device_bytes(placement.device)
        if size > has and not placement.away:
            yield (
                f"ONE MODEL takes {told_bytes(size)}, and {placement.device} has {told_bytes(has)}: add --device-map "
                "auto, which reads what does not fit from disk, or a narrower --dtype"
            )
        if placement.away:
            yield f"{placement.reason}: {told_bytes(size)} of each model are held, the rest is read at every pass"
        if len(models) > 1 and len(models) * size > limit:
            times = sum(1 for price in priced if price.cost.fwd_tokens or price.cost.bwd_tokens)
            yield (
                f"{len(models)} models of {told_bytes(size)} do not fit into {told_bytes(limit)} together: roles are "
                f"opened one after the other, each up to {times} times"
            )

    # ---- passes --------------------------------------------------------------------------------------------------
    def _recall(self, audited: Iterable[Pass]) -> Cost:
        """What the audit of roles has read is not run again, where there is a store."""
        read = [] if self.settings.store is None else audited
        again = [pair for pair in self._recalled() if pair not in read]
        return Cost(fwd_tokens=sum(self._forward(model, [(self.case.rows(texts), (SCORE,))]) for model, texts in again))

    def _recalled(self) -> list[Pass]:
        """The passes of :func:`audit.probing.recollection.recall`."""
        case, texts = self.case, Texts(cohort="forget")
        passes = [(case.base, texts)]
        if case.null is not None:
            return [*passes, (case.checkpoint(*case.null), texts)]
        alternates = Texts(cohort="forget", answer="alternate")
        return [*passes, (case.base, alternates)] if case.has(alternates) else passes

    def _reads(self, planner: Planner, running: Iterable[Planned], audited: Iterable[Pass]) -> Cost:
        """The merged passes; what the audit of roles or the recall check has read of a model is not run again."""
        fetches = planner.fetches(running)
        if self.settings.store is None:
            return Cost(fwd_tokens=sum(len(f.reads) * self._tokens(f.texts) for f in fetches), kind="upper")
        before = (*audited, *self._recalled())
        seen = {(model.key, self.case.rows(texts).hash): set((SCORE,)) for model, texts in before}
        tokens, models = 0, 1
        for (role, reference), fetched in by_model(fetches).items():
            requests: list[tuple[Rows, list[Read]]] = []
            for fetch in fetched:
                known = seen.setdefault(self._place(fetch), set())
                missing = [read for read in fetch.reads if read not in known]
                if missing:
                    requests.append((self.case.rows(fetch.texts), missing))
                    models = max(models, self.bench.passes_of(missing))
                known.update(fetch.reads)
            tokens += self._forward(self.case.checkpoint(role, reference), requests)
        return Cost(fwd_tokens=tokens, resident=models)

    def _forward(self, model: Checkpoint, requests: Sequence[tuple[Rows, Sequence[Read]]]) -> int:
        """Tokens that go forward for these reads; without weights, which say whether beginnings are shared, all."""
        if self._sketched:
            tokens = sum(self.bench.passes_of(reads) * int(rows.mask.sum()) for rows, reads in requests)
            return round(self.case.states_per_token * tokens)
        return self.bench.tokens_of(model, requests, like=self.case.base)

    def _place(self, fetch: Fetch) -> tuple[str, str]:
        return self.case.checkpoint(fetch.role, fetch.reference).key, self.case.rows(fetch.texts).hash

    def _tokens(self, texts: Texts) -> int:
        return states_of(self.case, texts)

    # ---- time and memory -----------------------------------------------------------------------------------------
    def price(self, unit: str, cost: Cost) -> Price:
        """What a unit of this name with this cost takes."""
        known = fitted().of(unit)
        expected = (known or USUAL).seconds(Workload.of(cost, self.times, small_seconds()))
        spent = [earlier for earlier in self._recorded if earlier.unit == unit and earlier.said_s > 0]
        most = max((_share(earlier) for earlier in spent), default=0.0)
        learnt = [seconds_of(earlier, self.settings) / earlier.said_s for earlier in spent
                  if _share(earlier) >= ENOUGH_RUN * most][-LAST:]  # fmt: skip
        source: Source = "recorded" if learnt else "arithmetic" if self._sketched else "benchmark"
        seconds = _around([expected * times for times in learnt] or [expected], source)
        peak = self._peak(cost)
        return Price(unit, cost, round(peak * MEMORY_TIMES), seconds, source, round(peak / MEMORY_TIMES), expected)

    def _start(self) -> Price:
        """What has been done when a run is priced: it was done to price it."""
        so_far, fresh = time.process_time(), START_S * small_seconds() / USUAL_SMALL_S
        expected = so_far * START_TIMES if so_far < FRESH_S else fresh
        peak = self._held + LIBRARIES
        source: Source = "arithmetic" if self._sketched else "benchmark"
        return Price(START_UNIT, Cost(), round(peak * MEMORY_TIMES), _around([expected], "recorded"), source,
                     round(peak / MEMORY_TIMES), expected)  # fmt: skip

    @property
    def times(self) -> PassTimes:
        """How long passes of base take, found once: small ones are run, or counted where there are no weights."""
        if self._times is None and self._sketched:
            rate, width = multiplied_per_second(self.settings), self._sizes.width or 0
            head = 2 * width * (self._sizes.vocabulary or 0) / rate
            beside = small_seconds() * STEPS_A_BLOCK * (self._sizes.blocks or 1)
            self._times = PassTimes(beside, 2 * self.parameters / rate, head)
        if self._times is None:
            self._times = self.bench.pass_times(self.case.base, self.case.rows(Texts(cohort="forget")))
        return self._times

    def _peak(self, cost: Cost) -> int:
        """The process as it is and what it still imports, the models that have to be held, the largest batch (with a
        gradient the states of all blocks are kept; what does not fit is run in halves), and what training adds."""
        width, vocabulary = self._sizes.width or 0, self._sizes.vocabulary or 0
        at_once = min(padded_tokens(self.settings.token_budget, self.settings.device), cost.fwd_tokens)
        backward_rows = min(at_once, cost.bwd_tokens // max(cost.steps, 1)) * (self._sizes.blocks or 1)
        states = min(4 * width * (STATES * at_once + KEPT * backward_rows), device_bytes(self.settings.device))
        logits = 3 * 4 * min(LOGITS_AT_ONCE, at_once * vocabulary)
        trained = TRAINED_COPIES * self._model if cost.bwd_tokens else 0
        return self._held + LIBRARIES + cost.resident * self._model + states + logits + trained


def _around(estimates: Sequence[float], source: Source) -> Interval:
    """A range around some estimates, no wider than :data:`WIDEST` where something was timed."""
    wider = WIDENED[source]
    lo, hi = min(estimates) / wider, max(estimates) * wider
    if source != "arithmetic" and hi > WIDEST * lo:
        middle = median(estimates)
        lo, hi = middle / WIDEST**0.5, middle * WIDEST**0.5
    return Interval(lo=lo, hi=hi)


def parameters_of(ckpt: Checkpoint) -> int:
    """How many parameters a checkpoint has: by the headers of its files; without files, of the model that its config
    describes, built without values."""
    if not of_config_alone(ckpt):
        return sum(prod(shape) for shape in tensor_shapes(weights_folder(ckpt)).values())
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in fresh_model(ckpt).parameters())


def multiplied_per_second(settings: RunSettings) -> float:
    """Operations a second of a matrix product on this device, in this dtype: the fastest of three."""
    import torch

    from audit.wrappers import dtype_of

    pair = [torch.ones(_SIDE, _SIDE, dtype=dtype_of(settings.dtype), device=settings.device) for _ in range(2)]
    times: list[float] = []
    for _ in range(4):
        started = time.perf_counter()
        float((pair[0] @ pair[1])[0, 0])  # waits for the device
        times.append(time.perf_counter() - started)
    return 2 * _SIDE**3 / min(times[1:])


def seconds_of(spent: Spent, settings: RunSettings) -> float:
    """CPU-seconds where one thread computes, which other processes do not change; else seconds by the clock."""
    return spent.cpu_s if settings.device == "cpu" and settings.threads == 1 else spent.wall_s


def _share(spent: Spent) -> float:
    return spent.run_tokens / max(spent.fwd_tokens, 1)


def _process_bytes() -> int:
    import psutil

    return psutil.Process().memory_info().rss
