"""The vision tower and the projector of a vision-language model behind hooks.

A model may read its tower's states from what the library's own hooks recorded, which are older than ours and see a
block's output before any later hook changes it. Therefore an edit wraps a block's ``forward``, and a start puts the
given state there: the blocks before it hand on what they are given, and nothing is taken out of its list.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.schema import AuditError, Part
from audit.wrappers.anatomy import dissect
from audit.wrappers.hooks import Visit, end_pass, merged_visits, shown_after, shown_before, shown_first
from audit.wrappers.image_inputs import differing_images, patches
from audit.wrappers.interface import Resume, Stop, Tap, Tower
from audit.wrappers.part_hooks import PartHooks
from audit.wrappers.tracing import Subject, state_in


class Seen(NamedTuple):
    """What one pass shows of a tower: how many states an image has, and how many stand before its patches."""

    positions: int
    leading: int


class VisionHooks(PartHooks):
    """The blocks of a vision-language model's tower."""

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        self.model = model
        core = tower_of(model)
        pixels = differing_images(model)

        def run() -> object:
            return core(pixel_values=pixels, return_dict=True)

        self.anatomy = dissect(core, Subject(core, run, causal=False), model.config.vision_config)
        used = str(getattr(model.config.vision_config, "_attn_implementation", attention))
        self.read: tuple[int, ...] = ()
        self._parts: frozenset[Part] = self.anatomy.parts(used) - {"final_in", "logits"}

    @property
    def parts(self) -> frozenset[Part]:
        return self._parts

    def head(self, states: Tensor) -> Tensor:
        """Never: what follows the tower is a projector."""
        raise AuditError("a vision tower has no head", "read the projector, or the tower of text")

    def seen(self, run: Callable[[], object]) -> Seen:
        """How many states an image has in this tower."""
        shapes: list[torch.Size] = []
        with ExitStack() as stack:
            shown_first(stack, self.blocks[0], lambda state: shapes.append(state.shape))
            run()
        return Seen(shapes[0][1], max(shapes[0][1] - patches(self.model), 0))

    def tower(self, seen: Seen, read: tuple[int, ...]) -> Tower:
        """The tower as the bench knows it; from now on blocks that reach nothing are run only where they are tapped."""
        self.read = read
        return Tower(
            "vision", self.anatomy.d_model, len(self.blocks), self.parts, by_token=False, positions=seen.positions,
            leading=seen.leading, read=read,
        )  # fmt: skip

    def install(self, stack: ExitStack, taps: Sequence[Tap], resume: Resume | None, stop: int | None) -> None:
        """The taps of one pass, where it starts, and after which block it ends."""
        if resume is not None:
            for number in range(resume.block + 1):
                hand_on(stack, self.blocks[number], resume.state if number == resume.block else None)
        self._install(stack, taps, -1 if resume is None else resume.block, stop)
        last = max([*self.read, *(tap.site.block or 0 for tap in taps), 0 if stop is None else stop])
        for number in range(last + 1, len(self.blocks)) if self.read else ():
            hand_on(stack, self.blocks[number], None)  # nobody reads what it would compute


class Projector:
    """What stands between the towers: one module, of which the input and the output can be shown."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def install(self, stack: ExitStack, taps: Sequence[Tap], stop: Stop | None) -> None:
        """The taps of one pass. AuditError for another part than ``embed`` and ``final_in``."""
        visits: dict[str, list[Visit]] = {"embed": [], "final_in": []}
        for tap in taps:
            if tap.site.part not in visits:
                raise AuditError(f"the projector has no part {tap.site.part!r}", "name embed or final_in")
            visits[tap.site.part].append(_by_position(tap.visit))
        if stop is not None and stop.tower == "projector":
            visits["final_in"].append(end_pass)
        if visits["embed"]:
            hook = shown_before(merged_visits(visits["embed"]))
            stack.callback(self.module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        if visits["final_in"]:
            hook = shown_after(merged_visits(visits["final_in"]))
            stack.callback(self.module.register_forward_hook(hook, prepend=True).remove)


def _by_position(visit: Visit) -> Visit:
    """A visit of [row pos d] states as one of states that lie by tile and patch, or by position already."""

    def seen(state: Tensor) -> Tensor | None:
        new = visit(state.flatten(1, -2))
        return None if new is None else new.reshape(state.shape)

    return seen


def tower_of(model: PreTrainedModel) -> nn.Module:
    """The vision tower, by the names that the library's vision-language models give it. AuditError (code 2) if there
    is none."""
    base: Any = model.base_model
    for name in ("vision_tower", "vision_model"):
        if isinstance(tower := getattr(base, name, None), nn.Module):
            return tower
    raise AuditError(
        f"{type(model).__name__}: no vision tower with a projector was found in it",
        "audit a LLaVA-style, Gemma 3 or Llama 3.2 Vision model",
    )


def hand_on(stack: ExitStack, block: nn.Module, state: Tensor | None) -> None:
    """Let a block hand on a state in place of what it would compute; None: what it was given."""
    before = block.__dict__.get("forward")

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        given = state_in(args, kwargs) if state is None else state
        assert given is not None, "a block is given a state"
        return given

    def restore() -> None:
        if before is None:
            del block.__dict__["forward"]
        else:
            block.__dict__["forward"] = before

    block.__dict__["forward"] = forward
    stack.callback(restore)


def consumed_blocks(hooks: VisionHooks, features: Callable[[], Tensor]) -> tuple[int, ...]:
    """The blocks whose own output the next tower reads, whatever other blocks make of it: where it is changed and every
    block above hands on what it would have without the change, the features move.

    ``features`` gives those of the same images every time. No block is computed more than once.
    """
    states: dict[int, Tensor] = {}
    blocks = hooks.blocks
    with ExitStack() as stack:
        for number in range(len(blocks)):
            shown_first(stack, blocks[number], lambda state, number=number: states.update({number: state.clone()}))
        plain = features()
    read: list[int] = []
    for number in range(len(blocks)):
        with ExitStack() as stack:
            for other in range(len(blocks)):
                hand_on(stack, blocks[other], states[other].roll(1, -1) * 1.5 if other == number else states[other])
            if not torch.equal(features(), plain):
                read.append(number)
    if not read:
        raise AuditError(
            f"{type(hooks.model).__name__}: no block of its vision tower reaches the language model",
            "check vision_feature_layer in config.json; 0 names the embeddings, which no block makes",
        )
    return tuple(read)
