"""How long passes of a model take on this machine: two small ones, and its head, of which nothing is kept.

CPU-seconds where one thread computes, which other processes hardly change; else seconds by the clock.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from audit.bench.passes import Job, LoadedModel, Opener, compute
from audit.case import Rows
from audit.schema import Read, Site

_FEW, _MOST_TOKENS, _MOST_S, _POSITIONS = 4, 4096, 1.0, 64


class PassTimes(NamedTuple):
    """Seconds of a pass beside its tokens, of a token through all blocks, and of a position through the head."""

    per_pass: float
    per_token: float
    per_position: float


def measured(opened: LoadedModel, opener: Opener, rows: Rows, budget: int) -> PassTimes:
    """Times of passes over a few of the rows, and over as many as make some thousand tokens or take a second."""
    wrapper = opened.wrapper
    single_threaded = wrapper.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if single_threaded else time.perf_counter
    score = Read(site=Site(part="logits"), at="key", reduce="logprob")

    def fastest(times: int, call: Callable[[], float]) -> tuple[float, float]:
        taken, states = list[float](), 0.0
        for _ in range(times):
            begin = clock()
            states = call()
            taken.append(clock() - begin)
        return min(taken), states

    def passing(n: int) -> Callable[[], float]:
        job = Job(rows.take(torch.arange(n) % len(rows)), (score,), (), None, None)
        return lambda: float(compute(opened, opener, job, budget).states)

    few = fastest(8, passing(min(_FEW, len(rows))))
    each = few[1] / min(_FEW, len(rows))
    most = int(min(_MOST_TOKENS / max(each, 1), _MOST_S * len(rows) / max(few[0], 1e-6)))
    many = fastest(4, passing(max(most, 2 * _FEW)))
    more = max(many[1] - few[1], 1)

    def heading() -> float:
        states = torch.zeros(_POSITIONS, wrapper.d_model, dtype=wrapper.dtype)
        with torch.inference_mode():
            return float(wrapper.head(states.to(wrapper.device)).flatten()[0])

    head = fastest(8, heading)[0] / _POSITIONS
    scored = float(rows.key.sum()) / max(float(rows.lengths.sum()), 1)
    both = max(many[0] - few[0], 0.1 * many[0]) / more
    return PassTimes(max(few[0] - both * few[1], 0.0), max(both - head * scored, 0.1 * both), head)
