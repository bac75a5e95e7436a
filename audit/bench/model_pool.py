"""Open models: each checkpoint opened once, its edits played back, closed when memory is wanted for another."""

import gc
import os
from collections import Counter, OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from math import prod

import torch

from audit.bench.cache_keys import Settings
from audit.bench.passes import LoadedModel
from audit.bench.weight_journal import WeightJournal
from audit.bench.writes.write import Write
from audit.checkpoints import tensor_shapes, weights_folder
from audit.schema import AuditError, Checkpoint
from audit.wrappers import Placement, Wrapper, dtype_of, open_wrapper

_SHARE_OF_MEMORY = 0.4
_SPARE_BYTES = 32 << 20
"""A copy that is trained is kept for the next lesson if it is no larger than this."""
_HALF = ("bfloat16", "float16")


class ModelPool:
    """Opens models as its settings say and holds them, the least recently used of them only as long as memory lasts."""

    def __init__(self, settings: Settings, placement: Placement | None = None) -> None:
        self.settings = settings
        self.placement = (placement or Placement())._replace(device=settings.device)
        self.processes = 1
        """How many processes hold models in the same memory: more than two take smaller shares."""
        self.opened: Counter[str] = Counter()
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        self._held: list[str] = []
        self._altered: set[str] = set()
        self._keys: dict[int, tuple[Checkpoint, str]] = {}
        self._spare: tuple[str, Wrapper | None] = ("", None)

    def open(self, ckpt: Checkpoint) -> Wrapper:
        """The checkpoint's model, opened once and held until memory is wanted for another."""
        return self.loaded(ckpt).wrapper

    def loaded(self, ckpt: Checkpoint, eager: bool = False) -> LoadedModel:
        """The same with what its edits write on every run. AuditError while its weights are lent to be changed.

        ``eager``: with eager attention, as a model of its own where the settings ask for another.
        """
        if self.key(ckpt) in self._altered:
            raise AuditError(f"{ckpt.source}: its weights are being changed", "run it before or after that")
        settings = self.settings_of(eager)
        key = self.key(ckpt) if settings == self.settings else f"{self.key(ckpt)} {settings.attention}"
        model = self._models.get(key)
        if model is None:
            self._evict(key, weight_bytes(ckpt, settings.dtype, self.placement))
            model = self._models[key] = self._load(ckpt, settings)
            self.opened[key] += 1
            self._evict(key)
        self._models.move_to_end(key)
        return model

    def settings_of(self, eager: bool) -> Settings:
        """How a pass is run: as the settings say, or with eager attention."""
        return self.settings._replace(attention="eager") if eager else self.settings

    def fresh(self, ckpt: Checkpoint) -> Wrapper:
        """A second live model of this checkpoint, shared with nobody, to be trained: in float32 where the settings
        say half precision, which loses small steps. AuditError if a hook edits it."""
        refuse_hooks(ckpt)
        self._refuse_spread(ckpt)
        half = self.settings.dtype in _HALF
        return self._played(ckpt, self.settings._replace(dtype="float32") if half else self.settings).wrapper

    @contextmanager
    def to_train(self, ckpt: Checkpoint) -> Generator[Wrapper]:
        """A second live model as :meth:`fresh` opens it, for whoever changes its weights and nothing else of it, for
        the length of a block. A small one is put back as it was and lent again: to open it takes longer than a step."""
        key, (spare_key, wrapper) = self.key(ckpt), self._spare
        self._spare = ("", None)
        if wrapper is None or spare_key != key:
            wrapper = self.fresh(ckpt)
        if wrapper.size_bytes() > _SPARE_BYTES:
            yield wrapper
            return
        with WeightJournal() as journal:
            journal.remember(wrapper.parameters().values())
            yield wrapper
        self._spare = (key, wrapper)

    def key(self, ckpt: Checkpoint) -> str:
        """The checkpoint's content key, computed once an object."""
        known = self._keys.get(id(ckpt))
        if known is None or known[0] is not ckpt:
            known = self._keys[id(ckpt)] = (ckpt, ckpt.key)
        return known[1]

    @contextmanager
    def hold(self, *ckpts: Checkpoint) -> Generator[tuple[Wrapper, ...]]:
        """Pin models for the length of a block: none of them is closed for another."""
        keys = [self.key(c) for c in ckpts]
        self._held += keys
        try:
            yield tuple(self.open(c) for c in ckpts)
        finally:
            for key in keys:
                self._held.remove(key)
            if self._models:
                self._evict(next(reversed(self._models)))

    @contextmanager
    def altered(self, ckpt: Checkpoint) -> Generator[Wrapper]:
        """Lend a model whose weights may be changed for the length of a block; then every byte is as before.

        Meanwhile nobody else can run it: what came out would be kept under the name of the unchanged weights. Memory is
        that of one more copy of the parameters. AuditError for a checkpoint that is edited by a hook.
        """
        refuse_hooks(ckpt)
        self._refuse_spread(ckpt)
        with self.hold(ckpt) as (wrapper,), WeightJournal() as journal:
            journal.remember(wrapper.parameters().values())
            self._altered.add(self.key(ckpt))
            try:
                yield wrapper
            finally:
                self._altered.remove(self.key(ckpt))

    def _load(self, ckpt: Checkpoint, settings: Settings) -> LoadedModel:
        """Open a checkpoint and check that hooks see what the model computes."""
        from audit.wrappers import load_checks

        model = self._played(ckpt, settings)
        load_checks.check(model.wrapper)
        return model

    def _played(self, ckpt: Checkpoint, settings: Settings) -> LoadedModel:
        """Open a checkpoint and play its edits back."""
        from audit.bench import edit_playback

        plays: list[Write] = []
        with torch.inference_mode(False):  # a pass may open a second model, whose weights others train or change later
            wrapper = open_wrapper(
                ckpt, settings.backend, self.placement, settings.dtype, settings.attention,
                prepare=lambda model: plays.extend(edit_playback.opened(ckpt, model)),
            )  # fmt: skip
        return LoadedModel(wrapper, tuple(plays))

    def _refuse_spread(self, ckpt: Checkpoint) -> None:
        """AuditError where its weights do not lie whole on devices that compute: what is written there is lost."""
        if self.placement.reason:
            raise AuditError(
                f"{ckpt.source}: {self.placement.reason}: they cannot be trained or changed",
                "open it whole: leave out --device-map, give it more --max-memory, or run it in one process",
            )

    def _evict(self, newest: str, wanted: int = 0) -> None:
        """Close the least recently used models that nobody holds, until all and ``wanted`` bytes more find room."""
        limit = room(self.placement) * 2 // max(self.processes, 2)
        sizes = {key: model.wrapper.size_bytes() for key, model in self._models.items()}
        closed = False
        for key in list(self._models):
            if sum(sizes.values()) + wanted <= limit:
                break
            if key != newest and key not in self._held:
                del self._models[key], sizes[key]
                closed = True
        if closed:
            gc.collect()  # hooks that fetch weights point back at their modules


def refuse_hooks(ckpt: Checkpoint) -> None:
    """AuditError for a checkpoint that is edited by a hook: whoever changes its weights leaves the hook away."""
    if any(edit.is_hook for edit in ckpt.edits):
        raise AuditError("a checkpoint edited by a hook cannot be trained", "train its parent, or merge the edit")


def weight_bytes(ckpt: Checkpoint, dtype: str, placement: Placement) -> int:
    """How much memory a checkpoint's weights take once it is open: a rank's share, no more than they may."""
    return model_bytes(sum(prod(shape) for shape in tensor_shapes(weights_folder(ckpt)).values()), dtype, placement)


def model_bytes(parameters: int, dtype: str, placement: Placement) -> int:
    """The same of so many parameters: all of them, a rank's share, or no more than weights may take."""
    size = parameters * dtype_of(dtype).itemsize // placement.ranks
    return min(size, room(placement)) if placement.away else size


def room(placement: Placement) -> int:
    """How many bytes of weights may be in memory at once: as much as was said, else a share of what there is."""
    if placement.memory:
        return sum(size for _, size in placement.memory)
    devices = range(torch.cuda.device_count()) if placement.device_map and placement.device.startswith("cuda") else ()
    total = sum(device_bytes(f"cuda:{n}") for n in devices) or device_bytes(placement.device)
    return int(_SHARE_OF_MEMORY * total)


def device_bytes(device: str) -> int:
    """Memory of the device; of the machine for the CPU and for devices that do not tell."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
