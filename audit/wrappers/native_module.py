"""The native backend for modules of torch whose config names their blocks.

States are [row pos d]; of a map, the places row by row of the image. The head reads one state a row, which is
``final_in`` with one position. What the config says is held against one pass when a model is opened: the blocks run
once and one after the other on what the one before handed on, the head reads what the config says it reads, and the
logits are what the head gives.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.checkpoints import ModuleSettings
from audit.schema import AuditError, Op
from audit.wrappers.anatomy import Anatomy
from audit.wrappers.hooks import Visit, shown_before
from audit.wrappers.image_inputs import made_up_images
from audit.wrappers.interface import Tower
from audit.wrappers.native_image import ImageWrapper
from audit.wrappers.native_map import MapStates
from audit.wrappers.torch_modules import TorchModuleForImageClassification
from audit.wrappers.tracing import close, state_in, state_out

_MOST_NAMES = 12


class ModuleWrapper(ImageWrapper):
    """A module of torch whose blocks hand on tokens. It is never in training mode: a batch would change the statistics
    that norms keep."""

    supports = ImageWrapper.supports - {Op.PATTERN}

    def __init__(self, model: TorchModuleForImageClassification, attention: str = "default") -> None:
        super().__init__(model, attention)
        settings = model.settings
        self.name = f"{type(model.module).__name__} ({settings.module})"
        blocks = nn.ModuleList(submodule(model, name, "blocks") for name in settings.blocks)
        self._homes = [model.get_submodule(name.rpartition(".")[0]) for name in settings.blocks]
        self._names = [name.rpartition(".")[2] for name in settings.blocks]
        self._head = submodule(model, settings.head, "head")
        norm = None if settings.norm is None else submodule(model, settings.norm, "norm")
        with torch.inference_mode():
            watched = _watched(model, settings, blocks, self._head)
            self.anatomy = Anatomy(model, blocks, norm, watched.read.shape[-1])
            self.towers = {"vision": self._tower(settings, watched)}
            self._check_head(watched)

    @classmethod
    def behind(cls, model: PreTrainedModel, attention: str = "default") -> ImageWrapper:
        """The wrapper of a module of tokens, or that of one of maps."""
        assert isinstance(model, TorchModuleForImageClassification)
        kind = ModuleMapWrapper if model.settings.stream == "map" else ModuleWrapper
        return kind(model, attention)

    def _tower(self, settings: ModuleSettings, watched: "_Watched") -> Tower:
        widths = tuple(state.shape[-1] for state in map(self._as_positions, watched.states))
        summary = "class" if settings.summary == 0 else "pooled"
        leading = settings.leading if settings.leading is not None else int(summary == "class")
        return Tower(
            "vision", self.anatomy.d_model, len(self.blocks), frozenset(self.anatomy.parts("none")), by_token=False,
            summary=summary, positions=max(self._as_positions(state).shape[1] for state in watched.states),
            leading=leading, widths=widths if len(set(widths)) > 1 else (),
        )  # fmt: skip

    def _check_head(self, watched: "_Watched") -> None:
        """AuditError (code 2) unless the head reads the summary of the last block's states, and gives the logits."""
        tower = self.tower()
        last = tower.summarised(self.norm(self._as_positions(watched.states[-1])))
        if not close(last, watched.read):
            summary = "the first position" if tower.summary == "class" else "the mean over all positions"
            where = self.model.config.name_or_path
            raise AuditError(
                f"{where}: its head reads something else than {summary} after the last of its `blocks`",
                "name the last module before the mean as the last block, and of tokens the norm after it as `norm`",
            )
        if not close(self.head(watched.read), watched.logits):
            raise AuditError(
                f"{self.model.config.name_or_path}: its logits are not what its `head` gives",
                "name the last linear module as `head`",
            )

    def _as_positions(self, state: Tensor) -> Float[Tensor, "row pos d"]:
        """What a block hands on as states."""
        return state

    def _put(self, number: int, block: nn.Module) -> None:
        setattr(self._homes[number], self._names[number], block)

    def _hook(self, part: str, block: int | None, visit: Visit) -> torch.utils.hooks.RemovableHandle:
        if part not in ("final_in", "logits"):
            return super()._hook(part, block, visit)
        final = visit if part == "final_in" else self._logits_for(visit)

        def seen(state: Float[Tensor, "row d"]) -> Tensor | None:
            new = final(state[:, None])
            return None if new is None else new[:, 0]

        return self._head.register_forward_pre_hook(shown_before(seen), prepend=part == "final_in", with_kwargs=True)

    def head(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch label"]:
        """Logits of the classes, as if these were what the head reads."""
        return self._head.forward(states.reshape(-1, states.shape[-1])).reshape(*states.shape[:-1], -1)


class ModuleMapWrapper(MapStates, ModuleWrapper):
    """A module of torch whose blocks hand on maps."""

    def _as_positions(self, state: Tensor) -> Float[Tensor, "row pos d"]:
        return state.flatten(2).mT


class _Watched(NamedTuple):
    """One pass of made-up images: what the blocks handed on, what the head read, the logits."""

    states: list[Tensor]
    read: Tensor
    logits: Tensor


def submodule(model: TorchModuleForImageClassification, name: str, entry: str) -> nn.Module:
    """A submodule by its name. AuditError (code 2) names those that there are where this one is not."""
    names = [known for known, _ in model.named_modules() if known]
    if name not in names:
        near = [known for known in names if known.count(".") == name.count(".")] or names
        shown = ", ".join(near[:_MOST_NAMES]) + (", ..." if len(near) > _MOST_NAMES else "")
        raise AuditError(
            f"{model.config.name_or_path}: `{entry}` names {name!r}, and the module has no such submodule",
            f"it has {shown}",
        )
    return model.get_submodule(name)


def _watched(
    model: TorchModuleForImageClassification, settings: ModuleSettings, blocks: nn.ModuleList, head: nn.Module
) -> _Watched:
    """The states of one pass. AuditError (code 2) names the block that does not run as one block after another."""
    read: list[Tensor | None] = [None] * len(blocks)
    given: list[list[Tensor]] = [[] for _ in blocks]
    live: list[Tensor] = []
    at_head: list[Tensor] = []
    where = f"{model.config.name_or_path}: `blocks`"

    def enter(n: int, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        state = state_in(args, kwargs)
        read[n] = None if state is None else state.clone()

    def leave(n: int, output: object) -> None:
        state = state_out(output)
        if state is not None:
            given[n].append(state.clone())
            live.append(state)

    with ExitStack() as stack:
        for n, block in enumerate(blocks):
            before = block.register_forward_pre_hook(lambda _, a, k, n=n: enter(n, a, k), with_kwargs=True)
            after = block.register_forward_hook(lambda _, a, out, n=n: leave(n, out))
            stack.callback(before.remove)
            stack.callback(after.remove)
        reading = head.register_forward_pre_hook(lambda _, args: at_head.append(args[0]) if args else None)
        stack.callback(reading.remove)
        logits = model(made_up_images(model, 2)).logits
    _check_chain(where, settings, read, given)
    if changed := [n for n, states in enumerate(given) if not torch.equal(states[0], live[n])]:
        raise AuditError(
            f"{where}: what {settings.blocks[changed[0]]!r} hands on is written into afterwards",
            "let the module compute without in-place operations on what its blocks hand on",
        )
    if len(at_head) != 1 or at_head[0].ndim != 2:
        shapes = [list(state.shape) for state in at_head]
        raise AuditError(
            f"{model.config.name_or_path}: `head` {settings.head!r} does not read one state an image once (it was "
            f"given {shapes or 'nothing'})",
            "name the last linear module, which reads [row d]",
        )
    return _Watched([states[0] for states in given], at_head[0], logits)


def _check_chain(
    where: str, settings: ModuleSettings, read: Sequence[Tensor | None], given: Sequence[Sequence[Tensor]]
) -> None:
    """AuditError (code 2) unless each block ran once, gave states, and read what the one before it gave."""
    dims = {"map": 4, "tokens": 3}[settings.stream]
    for n, (name, states) in enumerate(zip(settings.blocks, given, strict=True)):
        if len(states) != 1:
            ran = f"gave states {len(states)} times" if states else "gave no state"
            raise AuditError(f"{where}: {name!r} {ran} in a pass", "name modules that run once and return the stream")
        if states[0].ndim != dims:
            shape = list(states[0].shape)
            raise AuditError(
                f"{where}: {name!r} gives {shape}, and a stream of {settings.stream} has {dims} dimensions",
                "correct `stream`, or name the modules that hand it on",
            )
        before = given[n - 1][0] if n else None
        entered = read[n]
        if before is not None and (entered is None or not torch.equal(entered, before)):
            raise AuditError(
                f"{where}: {name!r} does not read what {settings.blocks[n - 1]!r} gives",
                "name the blocks in the order in which they run, and what lies between two of them as a block too",
            )
