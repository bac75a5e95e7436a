"""What a run costs before it is made: passes, memory and a time range, unit by unit, and what a limit leaves out.

Passes are exact where reads are declared (from an empty store) and an upper bound where something is optimised or
trained. Times come from units of the same kind that this machine finished before, scaled by work, else from a short
benchmark of base, or, where its weights are not there, from how fast this device multiplies two matrices; memory is
what the process holds now plus models, batches and what training adds.
"""

import time
from collections.abc import Iterable
from math import prod
from typing import Literal, NamedTuple

from audit.bench import Bench, device_bytes, model_bytes, room
from audit.case import OpenCase
from audit.checkpoints import model_config, of_config_alone, tensor_shapes, weights_folder
from audit.planning import timings
from audit.planning.plan_inputs import received
from audit.planning.planner import Fetch, Planned, Planner, in_states, states_of
from audit.planning.settings import RunSettings
from audit.planning.timings import Spent
from audit.probing import SCORE, roles_cost, roles_passes
from audit.schema import Checkpoint, Cost, Interval, Texts
from audit.wording import told_bytes
from audit.wrappers import fresh_model

ENOUGH_RUN = 0.5
"""A unit that ran less than this share of what it ran at most found the rest in a store: its time says little."""
WIDENED = {"recorded": 1.4, "benchmark": 2.5, "arithmetic": 4.0}
"""By how much the time range reaches beyond the estimates, either way."""
LAST = 5
UNIT_S, REPORT_S, STEP_S = 0.25, 1.0, 0.004
"""What a unit, the report and an optimiser step cost beside their passes on one core, roughly."""
TRAINED_COPIES = 4
"""A copy of the weights, its gradients and two moments."""
STATES = 24
"""How many vectors of the model's width a token holds at once, roughly."""
_SIDE = 1024
"""The matrices that are multiplied to see how fast this device is, square."""
Source = Literal["recorded", "benchmark", "arithmetic"]
Kind = Literal["exact", "upper"]
Pass = tuple[Checkpoint, Texts]


class Price(NamedTuple):
    """One unit of work: its passes, its peak memory, and how long it takes."""

    unit: str
    cost: Cost
    peak_bytes: int
    seconds: Interval
    source: Source


class Prices(NamedTuple):
    """All units in their order: the audit of roles, recall, the merged reads, every test that will run, the report;
    and what is to be said of the models beside: what does not fit, what was assumed."""

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
        self._benchmarked: float | None = None
        self._held = _process_bytes()

    def prices(self, planner: Planner) -> Prices:
        """What this plan costs, from an empty store."""
        running = planner.running
        audited = roles_passes(self.case)
        units = [("roles", in_states(roles_cost(self.case), self.case)), ("recall", self._recall(audited))]
        units += [("reads", self._reads(planner, running, audited))]
        units += [(planned.name, planned.own) for planned in running]
        priced = tuple(self._price(*unit) for unit in (*units, ("report", Cost())))
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
        return Cost(fwd_tokens=sum(self._tokens(texts) for _, texts in again))

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
        for fetch in fetches:
            known = seen.setdefault(self._place(fetch), set())
            missing = [read for read in fetch.reads if read not in known]
            if missing:
                passes = self.bench.passes_of(missing)
                tokens, models = tokens + passes * self._tokens(fetch.texts), max(models, passes)
            known.update(fetch.reads)
        return Cost(fwd_tokens=tokens, resident=models)

    def _place(self, fetch: Fetch) -> tuple[str, str]:
        return self.case.checkpoint(fetch.role, fetch.reference).key, self.case.rows(fetch.texts).hash

    def _tokens(self, texts: Texts) -> int:
        return states_of(self.case, texts)

    # ---- time and memory -----------------------------------------------------------------------------------------
    def _price(self, unit: str, cost: Cost) -> Price:
        spent = [earlier for earlier in self._recorded if earlier.unit == unit]
        most = max((_share(earlier) for earlier in spent), default=0.0)
        scaled = [self._scaled(cost, earlier) for earlier in spent if _share(earlier) >= ENOUGH_RUN * most][-LAST:]
        source: Source = "recorded" if scaled else "arithmetic" if self._sketched else "benchmark"
        estimates = scaled or [self._from_benchmark(unit, cost)]
        wider = WIDENED[source]
        seconds = Interval(lo=min(estimates) / wider, hi=max(estimates) * wider)
        return Price(unit, cost, self._peak(cost), seconds, source)

    def _scaled(self, cost: Cost, spent: Spent) -> float:
        """Seconds of an earlier unit, scaled to this work."""
        before, now = spent.fwd_tokens + 2 * spent.bwd_tokens, cost.fwd_tokens + 2 * cost.bwd_tokens
        scale = self.parameters * now / (spent.parameters * before) if before and now else 1.0
        return seconds_of(spent, self.settings) * scale

    def _from_benchmark(self, unit: str, cost: Cost) -> float:
        if self._benchmarked is None and self._sketched:
            self._benchmarked = 2 * self.parameters / multiplied_per_second(self.settings)
        if self._benchmarked is None:
            self._benchmarked = self.bench.seconds_per_token(self.case.base, self.case.rows(Texts(cohort="forget")))
        passes = (cost.fwd_tokens + 2 * cost.bwd_tokens) * self._benchmarked
        return passes + cost.steps * STEP_S + (REPORT_S if unit == "report" else UNIT_S)

    def _peak(self, cost: Cost) -> int:
        """The process as it is, the models that have to be held, the largest batch, and what training adds."""
        model = self._model
        token = 4 * (STATES * (self._sizes.width or 0) + (self._sizes.vocabulary or 0))
        batch = min(self.settings.token_budget, cost.fwd_tokens) * token
        return self._held + cost.resident * model + batch + (TRAINED_COPIES * model if cost.bwd_tokens else 0)


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
