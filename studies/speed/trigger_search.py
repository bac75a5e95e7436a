"""Virtual tokens searched for: lengths and starts in one batch, against one at a time and against bare passes.

``python -m studies.speed.trigger_search --out studies/speed/trigger_search.json``. All ways climb the same rows of the
demo's world from the same starts with the same number of steps. One takes every length and start as rows of the same
batches; one, with the same code, a length and a start after another; one, as soft prompts are mostly written, does so
in transformers alone: logits of all positions, rows padded to the longest. Bare are as many forward and backward passes
of the same rows in the same batches, and as many forward passes of the rows that choose, with nothing around them.
Random weights, of which the speed does not depend on what they know. CPU-seconds of one thread.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from audit.bench import Arm, Bench, Candidates, Forward, SearchRows, Side, SoftBudget, SoftPrefix
from audit.case import row_mean
from audit.schema import Checkpoint, Record, Texts
from audit.storage import write_atomic
from studies.provenance import Stamp, stamp
from studies.speed.forms import case_of
from studies.speed.results import Ratio
from studies.speed.timing import interleaved, ratio

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIZES = ((64, 4), (192, 6))
"""Width and blocks: the demo's models, and some of fifteen times as many parameters."""
ROWS = (1, 4, 16)
LENGTHS, RESTARTS, STEPS, CHECKS, CHOOSING = (1, 2, 4, 8), 3, 4, 2, 4


class SearchRow(Record):
    """CPU-seconds for ``steps`` steps of all lengths and starts, median over repeats, on ``rows`` rows a prefix."""

    width: int
    blocks: int
    rows: int
    prefixes: int
    steps: int
    together_cpu_s: float
    single_cpu_s: float
    plain_cpu_s: float
    bare_cpu_s: float
    speedup: Ratio
    speedup_over_plain: Ratio
    overhead: Ratio
    largest_difference: float
    repeats: int


class Results(Record):
    """What was measured. ``load_after``: the machine's load when it was done."""

    stamp: Stamp
    command: str
    load_after: float
    rows: tuple[SearchRow, ...]


class Search(NamedTuple):
    """What is searched: a model, its rows, the lengths at one place, and how long."""

    bench: Bench
    ckpt: Checkpoint
    rows: SearchRows
    arms: tuple[Arm, ...]
    budget: SoftBudget


def content(forward: Forward) -> Tensor:
    """Mean log-probability (nats) of each row's content tokens."""
    return row_mean(forward.logprob, forward.row, int(forward.row.max()) + 1)


def search_of(folder: Path, width: int, blocks: int, rows: int, seed: int) -> Search:
    """A search on people of the demo's world; the last of them choose."""
    case, bench = case_of(folder, width, blocks, seed), Bench()
    forget = case.rows(Texts(cohort="forget"))
    order = torch.arange(len(forget))
    sides = SearchRows(forget.take(order[:rows]), forget.take(order[-CHOOSING:]))
    at = [torch.ones(len(side), dtype=torch.long) for side in sides]
    budget = SoftBudget(steps=STEPS, restarts=RESTARTS, checks=CHECKS)
    return Search(bench, case.base, sides, tuple(Arm(length, "prefix", *at) for length in LENGTHS), budget)


def together(search: Search, seed: int) -> tuple[SoftPrefix, ...]:
    """Every length and start in the same batches."""
    return search.bench.soft_prefixes(search.ckpt, search.rows, search.arms, content, search.budget, seed)


def one_by_one(search: Search, seed: int) -> None:
    """A length and a start after another."""
    single = search.budget._replace(restarts=1)
    for arm in search.arms:
        for start in range(search.budget.restarts):
            search.bench.soft_prefixes(search.ckpt, search.rows, [arm], content, single, seed + start)


def plain(search: Search) -> None:
    """The same in transformers alone."""
    model: PreTrainedModel = search.bench.open(search.ckpt).model  # type: ignore[attr-defined]
    table, every = model.get_input_embeddings(), STEPS // CHECKS
    own = [table(side.ids).detach() for side in search.rows]

    def value(side: int, prefix: Tensor) -> Tensor:
        rows, emb = search.rows[side], own[side]
        joined = torch.cat([emb[:, :1], prefix.expand(len(rows), -1, -1), emb[:, 1:]], 1)
        row, position = rows.targets("key")
        logits = model(inputs_embeds=joined, use_cache=False).logits
        return logits.log_softmax(-1)[row, position + len(prefix) - 1, rows.ids[row, position]].mean()

    for arm in search.arms:
        for _ in range(search.budget.restarts):
            prefix = table.weight[5 : 5 + arm.length].detach().clone().requires_grad_()
            optimiser = torch.optim.Adam([prefix], lr=1e-3)
            for step in range(STEPS):
                optimiser.zero_grad()
                (-value(0, prefix)).backward()
                optimiser.step()
                if (step + 1) % every == 0:
                    with torch.no_grad():
                        value(1, prefix)


def bare_of(search: Search) -> Callable[[], None]:
    """As many passes of the same rows in the same batches."""
    opened = search.bench.pool.loaded(search.ckpt)
    model: PreTrainedModel = opened.wrapper.model  # type: ignore[attr-defined]
    arms = [arm for arm in search.arms for _ in range(search.budget.restarts)]
    sides = [
        Side(search.rows.train, [arm.train_at for arm in arms]),
        Side(search.rows.validation, [arm.validation_at for arm in arms]),
    ]
    counts = [arm.length for arm in arms]
    climbing, choosing = (
        Candidates(opened, side, counts, range(len(arms)), search.budget.token_budget) for side in sides
    )
    for candidates in (climbing, choosing):
        candidates.values(torch.zeros(len(arms), max(LENGTHS), opened.wrapper.d_model), content)

    def passes(candidates: Candidates, gradient: bool) -> None:
        for batch in candidates.prepared:
            assert batch.batch.embeds is not None, "virtual tokens stand between embeddings"
            embeds = batch.batch.embeds.detach().requires_grad_(gradient)
            with torch.set_grad_enabled(gradient):
                states = model.base_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
                scored = model.get_output_embeddings()(states.flatten(0, 1)[batch.scored]).log_softmax(-1)
                total = scored.gather(-1, batch.targets.target[:, None]).sum()
            if gradient:
                torch.autograd.grad(total, embeds)

    def bare() -> None:
        for _ in range(STEPS):
            passes(climbing, gradient=True)
        for _ in range(CHECKS + 1):
            passes(choosing, gradient=False)

    return bare


def difference(search: Search, seed: int) -> float:
    """How far what each length finds alone is from what it finds among others."""
    gaps = [0.0]
    for arm, among in zip(search.arms, together(search, seed), strict=True):
        (only,) = search.bench.soft_prefixes(search.ckpt, search.rows, [arm], content, search.budget, seed)
        gaps += [float((only.prefix - among.prefix).abs().max()), abs(only.validation - among.validation)]
    return max(gaps)


def measured(width: int, blocks: int, rows: int, repeats: int, seed: int) -> SearchRow:
    """All ways in turn."""
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as folder:
        search = search_of(Path(folder), width, blocks, rows, seed)
        gap = difference(search, seed)
        for parameter in search.bench.open(search.ckpt).parameters().values():
            parameter.requires_grad_(False)
        calls: dict[str, Callable[[], object]] = {
            "together": lambda: together(search, seed), "single": lambda: one_by_one(search, seed),
            "plain": lambda: plain(search), "bare": bare_of(search),
        }  # fmt: skip
        timed = list(interleaved(calls, repeats, 1, seed))
    seconds = {name: np.array([t[name] for t in timed]) for name in calls}
    ours = seconds["together"]
    return SearchRow(
        width=width, blocks=blocks, rows=rows, prefixes=len(LENGTHS) * RESTARTS, steps=STEPS,
        together_cpu_s=float(np.median(ours)), single_cpu_s=float(np.median(seconds["single"])),
        plain_cpu_s=float(np.median(seconds["plain"])), bare_cpu_s=float(np.median(seconds["bare"])),
        speedup=ratio(seconds["single"], ours, "one length and start at a time", seed),
        speedup_over_plain=ratio(seconds["plain"], ours, "the same in transformers alone", seed),
        overhead=ratio(ours, seconds["bare"], "bare forward and backward passes", seed),
        largest_difference=gap, repeats=repeats,
    )  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = stamp(args.seed)
    rows = tuple(measured(*size, n, args.repeats, args.seed) for size in SIZES for n in ROWS)
    command = f"python -m studies.speed.trigger_search --out studies/speed/trigger_search.json --repeats {args.repeats}"
    results = Results(stamp=before, command=command, load_after=round(os.getloadavg()[0], 2), rows=rows)
    write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
