"""The one door to the accelerator: models opened and held, passes run, named by content and kept.

``run`` without a store adds almost nothing to the bare forward; with one, every read of a pass is looked up by a key
over checkpoint, rows, read, writes, start, dtype, attention, backend and bench version, and only the missing are run.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from audit.bench import cache_keys, passes
from audit.bench.model_pool import ModelPool
from audit.bench.passes import Job
from audit.bench.results import Grads, Pass, RowObjective, WeightStream
from audit.bench.start import Start
from audit.bench.training.recipe import TrainingRecipe
from audit.bench.writes.write import Write
from audit.case import Rows
from audit.schema import AuditError, Checkpoint, EditRecord, Op, Read, Site
from audit.storage import Store
from audit.wrappers import Placement, Wrapper, backend_class

if TYPE_CHECKING:
    from audit.bench.edges.attribution import Attribution, EdgeScores, Means
    from audit.bench.guided_decoding import Guidance
    from audit.bench.integrated_gradients import Effort, Integrated
    from audit.bench.inversion.climb import SearchRows, SoftBudget
    from audit.bench.inversion.hard_string import HardBudget, HardString, PlacedTokens
    from audit.bench.inversion.soft_prefix import Arm, SoftPrefix
    from audit.bench.inversion.soft_shift import ShiftPlace, SoftShift
    from audit.bench.pass_times import PassTimes
    from audit.bench.sampling import Draw
    from audit.bench.training.learners import TrainData
    from audit.bench.weight_differences import Difference, Unpaired


class Bench:
    """Runs models. Settings say *how* and never *what*: they are recorded in provenance.

    ``device``: where models lie whole, or how they are spread. ``token_budget``: padded tokens a batch. ``store``:
    where reads are kept; None computes every time. ``fwd_tokens`` counts the real tokens of every pass that was run and
    not found in the store. ``pool`` holds the open models.
    """

    def __init__(
        self, *, backend: str = "native", device: str | Placement = "cpu", dtype: str = "float32",
        attention: str = "default", token_budget: int = 16384, store: Store | None = None,
    ) -> None:  # fmt: skip
        placement = device if isinstance(device, Placement) else Placement(device)
        self.settings = cache_keys.Settings(backend, placement.device, dtype, attention)
        self.backend, self.device, self.dtype, self.attention = self.settings
        self.token_budget, self.store = token_budget, store
        self.halvings, self.fwd_tokens = 0, 0
        self.pool = ModelPool(self.settings, placement)

    # ---- models --------------------------------------------------------------------------------------------------
    def open(self, ckpt: Checkpoint) -> Wrapper:
        """The checkpoint's model, opened once and held until memory is wanted for another."""
        return self.pool.open(ckpt)

    def hold(self, *ckpts: Checkpoint) -> AbstractContextManager[tuple[Wrapper, ...]]:
        """Pin models for the length of a block: none of them is closed for another."""
        return self.pool.hold(*ckpts)

    def weights(self, *ckpts: Checkpoint) -> WeightStream:
        """The checkpoints' tensors name by name, edits applied, without building a model."""
        from audit.bench import weight_stream

        return weight_stream.weights(*ckpts)

    def weight_differences(self, base: Checkpoint, suspect: Checkpoint) -> "Iterator[Difference | Unpaired]":
        """What one checkpoint's parameters differ from another's by, one after another; see
        :mod:`audit.bench.weight_differences`."""
        from audit.bench import weight_differences

        return weight_differences.differences(base, suspect, self.open)

    def displacements(self, *ckpts: Checkpoint) -> Float[ndarray, "model model"]:
        """Inner products of what each checkpoint's weights differ from the first one's by; see
        :mod:`audit.bench.displacements`."""
        from audit.bench import displacements

        keys = ("displacements", *(ckpt.key for ckpt in ckpts))
        return self.cached(keys, lambda: {"gram": displacements.displacements(ckpts, self.open)})["gram"]

    # ---- passes --------------------------------------------------------------------------------------------------
    def run(
        self, ckpt: Checkpoint, rows: Rows, reads: Sequence[Read], writes: Sequence[Write] = (),
        start: Start | None = None, stop: int | None = None,
    ) -> Pass:  # fmt: skip
        """Run rows through a model: writes on the way, reads out. No block after the last that a read needs is run.

        Attention patterns exist in eager attention only: where the bench is set to another, they are read in a pass of
        their own, of a model opened for it, and a pass that writes a pattern is such a pass as a whole.
        """
        job = Job(rows, tuple(reads), tuple(writes), start, stop)
        patterns = self._read_eagerly(job)
        if not patterns:
            return self._run(ckpt, job)
        outputs = {**self._run(ckpt, job._replace(reads=patterns, eager=True)).reads}
        others = tuple(read for read in job.reads if read not in patterns)
        if others:
            outputs |= self._run(ckpt, job._replace(reads=others)).reads
        return Pass(rows, {read: outputs[read] for read in job.reads})

    def run_together(self, ckpt: Checkpoint, requests: "Sequence[tuple[Rows, Sequence[Read]]]") -> list[Pass]:
        """Several sets of rows, each with its reads, as :meth:`run` gives them one by one; scores of targets in one
        pass. See :mod:`audit.bench.packed_rows`."""
        from audit.bench import packed_rows

        return packed_rows.run_together(self, ckpt, [packed_rows.Asked(rows, tuple(reads)) for rows, reads in requests])

    def run_variants(
        self, ckpt: Checkpoint, rows: Rows, reads: Sequence[Read],
        variants: "Sequence[tuple[Sequence[Write], Start | None]]",
    ) -> list[Pass]:  # fmt: skip
        """The same rows and reads under several writes and starts, as :meth:`run` gives them one by one; what they have
        in common runs once. See :mod:`audit.bench.edited_variants`."""
        from audit.bench import edited_variants

        jobs = [Job(rows, tuple(reads), tuple(writes), start, None) for writes, start in variants]
        return edited_variants.run_variants(self, ckpt, jobs)

    def runs_apart(self, job: Job) -> bool:
        """Whether some of a job's reads need attention of another kind than the bench's."""
        return bool(self._read_eagerly(job))

    def compute_jobs(self, ckpt: Checkpoint, jobs: Sequence[Job]) -> list[Mapping[Read, Tensor]]:
        """Jobs on the same rows, past the store."""
        from audit.bench import edited_variants

        if not jobs:
            return []
        opener = partial(self.pool.loaded, eager=False)
        done = edited_variants.compute_variants(opener(ckpt), opener, jobs, self.token_budget)
        self.halvings += sum(each.halvings for each in done)
        self.fwd_tokens += sum(each.states for each in done)
        return [each.reads for each in done]

    def tokens_of(
        self, ckpt: Checkpoint, requests: "Sequence[tuple[Rows, Sequence[Read]]]", like: Checkpoint
    ) -> int:  # fmt: skip
        """How many tokens go forward in :meth:`run_together`, from an empty store; ``like``, a model of the same
        architecture, is opened for that, and not ``ckpt``."""
        from audit.bench import packed_rows

        every = [packed_rows.Asked(rows, tuple(reads)) for rows, reads in requests]
        edited = any(record.is_hook for record in ckpt.edits)
        return packed_rows.tokens(self, self.pool.loaded(like).wrapper, every, edited)

    def passes_of(self, reads: Sequence[Read]) -> int:
        """How many passes :meth:`run` makes for these reads: patterns may need one of their own."""
        eager = {read.site.part == "pattern" for read in reads}
        return max(len(eager), 1) if self._eager_on_demand else 1

    @property
    def _eager_on_demand(self) -> bool:
        """Whether patterns need another attention than the bench's, and the backend can open it."""
        eager = "eager" in (self.attention, getattr(backend_class(self.backend), "attention", ""))
        return not eager and Op.PATTERN in self.supports

    def _read_eagerly(self, job: Job) -> tuple[Read, ...]:
        """The reads of a job that need eager attention on demand."""
        written = any(isinstance(s := getattr(w, "site", None), Site) and s.part == "pattern" for w in job.writes)
        needing = tuple(read for read in job.reads if written or read.site.part == "pattern")
        return needing if needing and self._eager_on_demand else ()

    def _run(self, ckpt: Checkpoint, job: Job) -> Pass:
        """One pass, whose scores are numbers: what the store has of it is not computed."""
        done = self._found(ckpt, job)
        if not job.writes and job.start is None:
            passes.check_numbers(ckpt, done.reads)
        return done

    def _found(self, ckpt: Checkpoint, job: Job) -> Pass:
        if self.store is None:
            return self._compute(ckpt, job)
        identity = cache_keys.PassNames(self.pool.key(ckpt), job.rows, job.writes, job.start)
        names = cache_keys.read_names(self.pool.settings_of(job.eager), identity, job.reads)
        if names is None:
            return self._compute(ckpt, job)
        cached = cache_keys.stored(self.store, names)
        if len(cached) < len(names):
            waits, settings = self.store.waits, self.pool.settings_of(job.eager)
            with self.store.exclusively(cache_keys.pass_name(settings, identity)) if waits else nullcontext():
                cached |= self._missing(ckpt, job, {read: names[read] for read in job.reads if read not in cached})
        return Pass(job.rows, {read: cached[read] for read in job.reads})

    def _missing(self, ckpt: Checkpoint, job: Job, names: Mapping[Read, str]) -> dict[Read, Tensor]:
        """The reads of these names, put into the store: computed unless another process did so in the meantime."""
        assert self.store is not None
        cached = cache_keys.stored(self.store, names) if self.store.waits else {}
        missing = tuple(read for read in names if read not in cached)
        if missing:
            computed = self._compute(ckpt, job._replace(reads=missing)).reads
            cache_keys.keep(self.store, names, computed)
            cached.update(computed)
        return cached

    def key(self, *parts: object) -> str:
        """A content key over ``parts`` (JSON: keys, hashes, settings) and over all of this bench that moves numbers."""
        return cache_keys.key_of(self.settings, *parts)

    def cached(self, parts: Sequence[object], compute: Callable[[], Mapping[str, ndarray]]) -> dict[str, ndarray]:
        """The arrays that ``parts`` decide (see :meth:`key`): from the store, else computed and put there.

        So what costs more than a pass, such as an attack on a model, is done once, whichever suspect asks for it.
        """
        key = self.key(*parts)
        cached = None if self.store is None else self.store.get(key)
        if cached is None:
            with self.exclusively(key):
                cached = self._kept(key, compute)
        return {name: tensor.numpy() for name, tensor in cached.items()}

    def _kept(self, key: str, compute: Callable[[], Mapping[str, ndarray]]) -> dict[str, Tensor]:
        """Arrays computed and put into the store, unless another process did so in the meantime."""
        if self.store is not None and self.store.waits and (cached := self.store.get(key)) is not None:
            return cached
        computed = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in compute().items()}
        if self.store is not None:
            self.store.put(key, computed, {"arrays": ", ".join(computed)})
        return computed

    def exclusively(self, key: str) -> AbstractContextManager[None]:
        """Look for what ``key`` names and make it in here; see :meth:`audit.storage.Store.exclusively`."""
        return nullcontext() if self.store is None else self.store.exclusively(key)

    @contextmanager
    def without_store(self) -> Generator[None]:
        """For the length of a block passes are computed and not put into the store: for who needs a part of them."""
        store, self.store = self.store, None
        try:
            yield
        finally:
            self.store = store

    def _compute(self, ckpt: Checkpoint, job: Job) -> Pass:
        opener = partial(self.pool.loaded, eager=job.eager)
        done = passes.compute(opener(ckpt), opener, job, self.token_budget)
        self.halvings += done.halvings
        self.fwd_tokens += done.states
        return Pass(job.rows, done.reads)

    def pass_times(self, ckpt: Checkpoint, rows: Rows) -> "PassTimes":
        """How long small passes of these rows take; see :mod:`audit.bench.pass_times`. Nothing is kept of them."""
        from audit.bench import pass_times

        return pass_times.measured(self.pool.loaded(ckpt), self.pool.loaded, rows, self.token_budget)

    def gradients(
        self, ckpt: Checkpoint, rows: Rows, at: Sequence[Site] | Literal["inputs", "pixels", "params"],
        objective: RowObjective, writes: Sequence[Write] = (),
    ) -> Grads:  # fmt: skip
        """Gradients of the summed objective at sites, at the input embeddings, the pixels, or the parameters."""
        from audit.bench import gradients

        self._require(ckpt, Op.GRADIENT)
        job = Job(rows, (), tuple(writes), None, None)
        return gradients.gradients(self.pool.loaded(ckpt), self.pool.loaded, job, at, objective, self.token_budget)

    def integrated(
        self, ckpt: Checkpoint, rows: Rows, moved: Bool[Tensor, "row pos"], effort: "Effort"
    ) -> "Integrated":  # fmt: skip
        """Integrated gradients of each row's content tokens over the embeddings of the tokens that ``moved`` marks; see
        :mod:`audit.bench.integrated_gradients`."""
        from audit.bench import integrated_gradients

        self._require(ckpt, Op.GRADIENT)
        self._require(ckpt, Op.EMBEDS)
        opened = self.pool.loaded(ckpt)
        return integrated_gradients.integrated(opened, self.pool.loaded, rows, moved, effort, self.token_budget)

    def edge_scores(
        self, ckpt: Checkpoint, rows: Rows, other: "Rows | Means", objective: RowObjective, method: "Attribution"
    ) -> "EdgeScores":
        """Scores of every edge of every row against another run; see :mod:`audit.bench.edges.attribution`."""
        from audit.bench.edges import attribution

        self._require(ckpt, Op.GRADIENT)
        settings = (objective, method, self.token_budget)
        return attribution.edge_scores(self.pool.loaded(ckpt), self.pool.loaded, rows, other, settings)

    def mean_states(self, ckpt: Checkpoint, rows: Rows) -> "Means":
        """Mean states of every writer over the rows, as the other run of :meth:`edge_scores`."""
        from audit.bench.edges import attribution

        return attribution.mean_states(self.pool.loaded(ckpt), self.pool.loaded, rows, self.token_budget)

    def soft_prefixes(
        self, ckpt: Checkpoint, rows: "SearchRows", arms: "Sequence[Arm]", objective: RowObjective,
        budget: "SoftBudget", seed: int,
    ) -> "tuple[SoftPrefix, ...]":  # fmt: skip
        """The best virtual tokens of every length and place; see :mod:`audit.bench.inversion.soft_prefix`."""
        from audit.bench.inversion import soft_prefix

        return soft_prefix.soft_prefixes(self._climbed(ckpt), ckpt, rows, arms, objective, (budget, seed))

    def soft_shift(
        self, ckpt: Checkpoint, rows: "SearchRows", place: "ShiftPlace", objective: RowObjective,
        budget: "SoftBudget", seed: int,
    ) -> "SoftShift":  # fmt: skip
        """The best vectors added to the first states of a block; see :mod:`audit.bench.inversion.soft_shift`."""
        from audit.bench.inversion import soft_shift

        self._require(ckpt, Op.GRADIENT)
        return soft_shift.soft_shift(self.pool.loaded(ckpt), rows, place, objective, budget, seed)

    def hard_string(
        self, ckpt: Checkpoint, rows: "SearchRows", start: "PlacedTokens", objective: RowObjective,
        budget: "HardBudget", seed: int,
    ) -> "HardString":  # fmt: skip
        """The best string of tokens from a given one; see :mod:`audit.bench.inversion.hard_string`."""
        from audit.bench.inversion import hard_string

        return hard_string.hard_string(self._climbed(ckpt), ckpt, rows, start, objective, (budget, seed))

    def nearest_tokens(
        self, ckpt: Checkpoint, prefix: Float[Tensor, "n d"], banned: Int[Tensor, " token"] | None = None
    ) -> Int[Tensor, " n"]:
        """The token of the largest cosine with each virtual token; never a special or a banned one."""
        from audit.bench.inversion import vocabulary

        self._require(ckpt, Op.EMBEDS)
        return vocabulary.nearest_tokens(vocabulary.vocabulary_of(self.open(ckpt), ckpt, banned), prefix)

    def _climbed(self, ckpt: Checkpoint) -> passes.LoadedModel:
        """A model whose embedded inputs are searched."""
        self._require(ckpt, Op.GRADIENT)
        self._require(ckpt, Op.EMBEDS)
        return self.pool.loaded(ckpt)

    def insertions(
        self, ckpt: Checkpoint, rows: Rows, strings: Sequence[Tensor], at: Tensor
    ) -> Float[ndarray, "string row"]:
        """Mean log-probability of every row's content tokens with every string of tokens in it, before position ``at``
        of the row; kept in the store. See :mod:`audit.bench.insertions`."""
        from audit.bench import insertions

        parts = ("insertions", self.pool.key(ckpt), rows.hash, [ids.tolist() for ids in strings], at.tolist())
        return self.cached(parts, lambda: {"mean": insertions.means(self, ckpt, rows, strings, at)})["mean"]

    def token_logits(
        self, ckpt: Checkpoint, states: Float[Tensor, "state d"], tokens: Int[Tensor, " token"]
    ) -> Float[Tensor, "state token"]:
        """Logits of some tokens alone after states read at ``final_in``; see :mod:`audit.bench.given_tokens`."""
        from audit.bench import given_tokens

        return given_tokens.logits(self.pool.loaded(ckpt), states, tokens)

    def token_logprobs(
        self, ckpt: Checkpoint, states: Float[Tensor, "state d"], entry: Int[Tensor, " pair"],
        token: Int[Tensor, " pair"],
    ) -> Float[Tensor, " pair"]:  # fmt: skip
        """Log-probability (nats) of each ``token`` after the state number ``entry`` of those read at ``final_in``."""
        from audit.bench import given_tokens

        return given_tokens.logprobs(self.pool.loaded(ckpt), states, entry, token)

    def generate(self, ckpt: Checkpoint, rows: Rows, max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of each row's real tokens, in input order; see :mod:`audit.bench.generation`."""
        from audit.bench import generation

        self._require(ckpt, Op.GENERATE)
        return generation.greedy(self.pool.loaded(ckpt), rows, max_new_tokens, self.token_budget)

    def generate_guided(
        self, pre: Checkpoint, post: Checkpoint, rows: Rows, limits: Int[Tensor, " row"], guidance: "Guidance"
    ) -> list[list[int]]:
        """Greedy continuations by an earlier checkpoint told from a later one, at most ``limits`` tokens each; see
        :mod:`audit.bench.guided_decoding`."""
        from audit.bench import guided_decoding

        for ckpt in (pre, post):
            self._require(ckpt, Op.GENERATE)
        with self.hold(pre, post):
            pair = self.pool.loaded(pre), self.pool.loaded(post)
            return guided_decoding.guided(*pair, rows, limits, guidance, self.token_budget)

    def sample(self, ckpt: Checkpoint, rows: Rows, draw: "Draw") -> list[list[list[int]]]:
        """Continuations of each row's prompt drawn by a seed, ``draw.n`` of each; see :mod:`audit.bench.sampling`."""
        from audit.bench import sampling

        self._require(ckpt, Op.GENERATE)
        return sampling.sample(self.pool.loaded(ckpt), rows, draw, self.token_budget)

    def train(
        self, ckpts: Sequence[Checkpoint], recipes: Sequence[TrainingRecipe], data: "TrainData", at_steps:
        Sequence[int], out: Path,
    ) -> list[EditRecord]:  # fmt: skip
        """Train copies of checkpoints by recipes and write the results to ``out``; see :mod:`audit.bench.training`."""
        from audit.bench.training import checkpoints

        for ckpt in ckpts:
            self._require(ckpt, Op.TRAIN)
        return checkpoints.train(self.pool, ckpts, recipes, data, at_steps, out)

    # ---- about itself --------------------------------------------------------------------------------------------
    @property
    def supports(self) -> frozenset[Op]:
        """What the chosen backend can do; a pass that reads patterns asks for eager attention by itself."""
        return backend_class(self.backend).supports.difference(self.lacking)

    @property
    def lacking(self) -> Mapping[Op, str]:
        """What the backend could do, and cannot do with weights that lie as they do, and why."""
        return self.pool.placement.lacking

    def _require(self, ckpt: Checkpoint, op: Op) -> None:
        if op in self.lacking:
            raise AuditError(f"{self.lacking[op]}: cannot do {op.value!r}", "open the models whole, in one process")
        if op not in self.supports:
            raise AuditError(f"the {self.backend} backend cannot do {op.value!r}", "use the native backend")
        if op not in backend_class(self.backend, ckpt.modality).supports:
            raise AuditError(f"a model of {ckpt.modality} cannot do {op.value!r}", "use a language model")

    def provenance(self) -> dict[str, str]:
        """How the numbers were made: outside the plan hash, inside the report."""
        placement = self.pool.placement
        spread = {"device_map": placement.device_map} if placement.device_map is not None else {}
        if placement.memory:
            spread["max_memory"] = ",".join(f"{device}={size}" for device, size in placement.memory)
        if placement.ranks > 1:
            spread["ranks"] = str(placement.ranks)
        again = sum(self.pool.opened.values()) - len(self.pool.opened)
        return {
            **spread, **({"opened_again": str(again)} if again else {}),
            **self.settings._asdict(), "token_budget": str(self.token_budget), "halvings": str(self.halvings),
            "bench_version": cache_keys.BENCH_VERSION, "torch": torch.__version__,
        }  # fmt: skip
