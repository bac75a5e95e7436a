"""The one door to the accelerator: models opened and held, passes run, named by content and kept.

``run`` without a store adds almost nothing to the bare forward; with one, every read of a pass is looked up by a key
over checkpoint, rows, read, writes, start, dtype, attention, backend and bench version, and only the missing are run.
"""

import importlib
import os
import time
from collections import OrderedDict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from audit.bench import cache_keys, passes
from audit.bench.passes import Job, LoadedModel
from audit.bench.results import Grads, Optimised, Pass, RowObjective, WeightStream
from audit.bench.training.recipe import TrainingRecipe
from audit.bench.writes.prefix import Prefix
from audit.bench.writes.start import Start
from audit.bench.writes.write import Write
from audit.case import Rows
from audit.schema import AuditError, Checkpoint, EditRecord, Op, Read, Site
from audit.storage import Store
from audit.wrappers import BACKENDS, Wrapper, open_wrapper

if TYPE_CHECKING:
    from audit.bench.edges.attribution import Attribution, EdgeScores, Means
    from audit.bench.prefix_search import Budget
    from audit.bench.training.learners import TrainData

_SHARE_OF_MEMORY = 0.4
_TIMED_ROWS = 32


class Bench:
    """Runs models. Settings say *how* and never *what*: they are recorded in provenance.

    ``token_budget``: padded tokens a batch. ``store``: where reads are kept; None computes every time. ``fwd_tokens``
    counts the real tokens of every pass that was run and not found in the store.
    """

    def __init__(
        self, *, backend: str = "native", device: str = "cpu", dtype: str = "float32", attention: str = "default",
        token_budget: int = 16384, store: Store | None = None,
    ) -> None:  # fmt: skip
        self.settings = cache_keys.Settings(backend, device, dtype, attention)
        self.backend, self.device, self.dtype, self.attention = self.settings
        self.token_budget, self.store = token_budget, store
        self.halvings, self.fwd_tokens = 0, 0
        self._open: OrderedDict[str, LoadedModel] = OrderedDict()
        self._pinned: list[str] = []
        self._keys: dict[int, tuple[Checkpoint, str]] = {}

    # ---- models --------------------------------------------------------------------------------------------------
    def open(self, ckpt: Checkpoint) -> Wrapper:
        """The checkpoint's model, opened once and held until memory is wanted for another."""
        return self._opened(ckpt).wrapper

    def _opened(self, ckpt: Checkpoint) -> LoadedModel:
        key = self._key(ckpt)
        opened = self._open.get(key)
        if opened is None:
            opened = self._open[key] = self._load(ckpt)
            self._evict(key)
        self._open.move_to_end(key)
        return opened

    def _load(self, ckpt: Checkpoint) -> LoadedModel:
        """Open a checkpoint, play its edits back, and check that hooks see what the model computes."""
        from audit.bench import edit_playback
        from audit.wrappers import load_checks

        plays: list[Write] = []
        wrapper = open_wrapper(
            ckpt, *self.settings, prepare=lambda model: plays.extend(edit_playback.opened(ckpt, model))
        )
        load_checks.check(wrapper)
        return LoadedModel(wrapper, tuple(plays))

    def _key(self, ckpt: Checkpoint) -> str:
        known = self._keys.get(id(ckpt))
        if known is None or known[0] is not ckpt:
            known = self._keys[id(ckpt)] = (ckpt, ckpt.key)
        return known[1]

    def _evict(self, newest: str) -> None:
        """Close the least recently used models that nobody holds, down to a share of the device's memory."""
        limit = _SHARE_OF_MEMORY * device_bytes(self.device)
        sizes = {key: opened.wrapper.size_bytes() for key, opened in self._open.items()}
        for key in list(self._open):
            if sum(sizes.values()) <= limit:
                return
            if key != newest and key not in self._pinned:
                del self._open[key], sizes[key]

    @contextmanager
    def hold(self, *ckpts: Checkpoint) -> Generator[tuple[Wrapper, ...]]:
        """Pin models for the length of a block: none of them is closed for another."""
        keys = [self._key(c) for c in ckpts]
        self._pinned += keys
        try:
            yield tuple(self.open(c) for c in ckpts)
        finally:
            for key in keys:
                self._pinned.remove(key)
            if self._open:
                self._evict(next(reversed(self._open)))

    def weights(self, *ckpts: Checkpoint) -> WeightStream:
        """The checkpoints' tensors name by name, edits applied, without building a model."""
        from audit.bench import edit_playback

        return edit_playback.weights(*ckpts)

    # ---- passes --------------------------------------------------------------------------------------------------
    def run(
        self, ckpt: Checkpoint, rows: Rows, reads: Sequence[Read], writes: Sequence[Write] = (),
        start: Start | None = None, stop: int | None = None,
    ) -> Pass:  # fmt: skip
        """Run rows through a model: writes on the way, reads out. No block after the last that a read needs is run."""
        job = Job(rows, tuple(reads), tuple(writes), start, stop)
        if self.store is None:
            return self._compute(ckpt, job)
        identity = cache_keys.PassNames(self._key(ckpt), rows, job.writes, start)
        names = cache_keys.read_names(self.settings, identity, job.reads)
        if names is None:
            return self._compute(ckpt, job)
        cached = cache_keys.kept(self.store, names)
        missing = tuple(read for read in job.reads if read not in cached)
        if missing:
            computed = self._compute(ckpt, job._replace(reads=missing)).reads
            cache_keys.keep(self.store, names, computed)
            cached.update(computed)
        return Pass(rows, {read: cached[read] for read in job.reads})

    def _compute(self, ckpt: Checkpoint, job: Job) -> Pass:
        done = passes.compute(self._opened(ckpt), self._opened, job, self.token_budget)
        self.halvings += done.halvings
        self.fwd_tokens += int(job.rows.mask.sum())
        return Pass(job.rows, done.reads)

    def seconds_per_token(self, ckpt: Checkpoint, rows: Rows) -> float:
        """How long a forward pass takes per real token: the faster of two small ones, of which nothing is kept.

        CPU-seconds where one thread computes, which other processes hardly change; else seconds by the clock.
        """
        single_threaded = self.device == "cpu" and torch.get_num_threads() == 1
        clock = time.process_time if single_threaded else time.perf_counter
        few = rows.take(torch.arange(min(len(rows), _TIMED_ROWS)))
        job = Job(few, (Read(site=Site(part="logits"), at="key", reduce="logprob"),), (), None, None)
        timings: list[float] = []
        for _ in range(2):
            started = clock()
            passes.compute(self._opened(ckpt), self._opened, job, self.token_budget)
            timings.append(clock() - started)
        return min(timings) / max(int(few.mask.sum()), 1)

    def gradients(
        self, ckpt: Checkpoint, rows: Rows, at: Sequence[Site] | Literal["inputs", "params"], objective: RowObjective,
        writes: Sequence[Write] = (),
    ) -> Grads:  # fmt: skip
        """Gradients of the summed objective at sites, at the input embeddings, or at the parameters."""
        from audit.bench import gradients

        self._require(Op.GRADIENT)
        job = Job(rows, (), tuple(writes), None, None)
        return gradients.gradients(self._opened(ckpt), self._opened, job, at, objective, self.token_budget)

    def edge_scores(
        self, ckpt: Checkpoint, rows: Rows, other: "Rows | Means", objective: RowObjective, method: "Attribution"
    ) -> "EdgeScores":
        """Scores of every edge of every row against another run; see :mod:`audit.bench.edges.attribution`."""
        from audit.bench.edges import attribution

        self._require(Op.GRADIENT)
        settings = (objective, method, self.token_budget)
        return attribution.edge_scores(self._opened(ckpt), self._opened, rows, other, settings)

    def mean_states(self, ckpt: Checkpoint, rows: Rows) -> "Means":
        """Mean states of every writer over the rows, as the other run of :meth:`edge_scores`."""
        from audit.bench.edges import attribution

        return attribution.mean_states(self._opened(ckpt), self._opened, rows, self.token_budget)

    def optimise(
        self, ckpt: Checkpoint, rows: Rows, free: Prefix, objective: RowObjective, budget: "Budget", seed: int
    ) -> Optimised:
        """Maximise the objective over one prefix shared by all rows; see :mod:`audit.bench.prefix_search`."""
        from audit.bench import prefix_search

        self._require(Op.GRADIENT)
        self._require(Op.EMBEDS)
        return prefix_search.optimise(self._opened(ckpt), rows, free, objective, budget, seed)

    def generate(self, ckpt: Checkpoint, rows: Rows, max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of each row's real tokens, in input order; see :mod:`audit.bench.generation`."""
        from audit.bench import generation

        self._require(Op.GENERATE)
        return generation.greedy(self._opened(ckpt), rows, max_new_tokens, self.token_budget)

    def train(
        self, ckpts: Sequence[Checkpoint], recipes: Sequence[TrainingRecipe], data: "TrainData", at_steps:
        Sequence[int], out: Path,
    ) -> list[EditRecord]:  # fmt: skip
        """Train copies of checkpoints by recipes and write the results to ``out``; see :mod:`audit.bench.training`."""
        from audit.bench.training import checkpoints

        self._require(Op.TRAIN)
        return checkpoints.train(self, ckpts, recipes, data, at_steps, out)

    # ---- about itself --------------------------------------------------------------------------------------------
    @property
    def supports(self) -> frozenset[Op]:
        """What the chosen backend can do; attention patterns need eager attention."""
        if self.backend not in BACKENDS:
            raise AuditError(f"there is no backend {self.backend!r}", f"choose one of: {', '.join(BACKENDS)}")
        module, name = BACKENDS[self.backend]
        ops: frozenset[Op] = getattr(importlib.import_module(f"audit.wrappers.{module}"), name).supports
        return ops if self.attention == "eager" else ops - {Op.PATTERN}

    def _require(self, op: Op) -> None:
        if op not in self.supports:
            raise AuditError(f"the {self.backend} backend cannot do {op.value!r}", "use the native backend")

    def provenance(self) -> dict[str, str]:
        """How the numbers were made: outside the plan hash, inside the report."""
        return {
            **self.settings._asdict(), "token_budget": str(self.token_budget), "halvings": str(self.halvings),
            "bench_version": cache_keys.BENCH_VERSION, "torch": torch.__version__,
        }  # fmt: skip


def device_bytes(device: str) -> int:
    """Memory of the device; of the machine for the CPU and for devices that do not tell."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
