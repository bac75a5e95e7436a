"""The native backend for residual networks: the map that a block hands on is shown as [row pos channel].

Positions are the places of the map, row by row of the image; how many there are, and how wide they are, differs from
stage to stage. The head reads the mean of the last map, which is ``final_in`` with one position.
"""

from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.schema import AuditError, Op
from audit.wrappers.anatomy import Anatomy
from audit.wrappers.hooks import Visit
from audit.wrappers.image_inputs import image_shape, made_up_images
from audit.wrappers.interface import Batch, Resume, Tower
from audit.wrappers.native_image import ImageWrapper, pixels_of
from audit.wrappers.output_head import class_logits_of
from audit.wrappers.tracing import close


class MapStates(ImageWrapper):
    """Blocks that hand on maps [row channel height width], shown as [row pos channel]."""

    def _shown(self, visit: Visit) -> Visit:
        def seen(state: Tensor) -> Tensor | None:
            new = visit(state.flatten(2).mT)
            # laid out in memory as the map was: a convolution of another layout rounds its sums in another order
            return None if new is None else torch.empty_like(state).copy_(new.mT.reshape(state.shape))

        return seen

    def _handed(self, resume: Resume, batch: Batch) -> Float[Tensor, "row channel height width"]:
        """The state as a map of the shape of the image. AuditError (code 2) where its positions are none."""
        height, width = pixels_of(batch, self.name).shape[2:]
        positions = resume.state.shape[1]
        rows = round((positions * height / width) ** 0.5)
        if rows < 1 or positions % rows:
            raise AuditError(
                f"a state of {positions} positions is no map of an image of {height} x {width}", "give a whole map"
            )
        return resume.state.mT.unflatten(2, (rows, positions // rows))


class NativeMapWrapper(MapStates):
    """One residual network of transformers behind torch hooks. It is never in training mode: a batch would change the
    statistics that its norms keep."""

    supports = ImageWrapper.supports - {Op.PATTERN}

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        super().__init__(model, attention)
        core: Any = model.base_model
        self._homes: list[nn.Module] = [stage.layers for stage in core.encoder.stages for _ in stage.layers]
        self._names = [str(n) for stage in core.encoder.stages for n in range(len(stage.layers))]
        self._pooler: nn.Module = core.pooler
        blocks = nn.ModuleList(home.get_submodule(name) for home, name in zip(self._homes, self._names, strict=True))
        with torch.inference_mode():
            maps = _maps(model, blocks)
        widths = tuple(shape[1] for shape in maps)
        self.anatomy = Anatomy(model.base_model, blocks, None, widths[-1])
        parts = frozenset(self.anatomy.parts("none"))
        self.towers = {
            "vision": Tower(
                "vision", widths[-1], len(blocks), parts, by_token=False, summary="pooled",
                positions=max(prod(shape[2:]) for shape in maps), counted_on=prod(image_shape(model.config)[1:]),
                widths=widths,
            )
        }  # fmt: skip

    @property
    def _last(self) -> nn.Module:
        return self._pooler

    def _put(self, number: int, block: nn.Module) -> None:
        setattr(self._homes[number], self._names[number], block)


def _maps(model: PreTrainedModel, blocks: nn.ModuleList) -> list[torch.Size]:
    """The shape of every block's map. AuditError (code 2) by the model's name unless each block reads what the one
    before it gave, and the logits follow from the mean of the last map."""
    read: list[Tensor] = []
    given: list[Tensor] = []

    def watching(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        read.append(inputs[0])
        given.append(output)

    handles = [block.register_forward_hook(watching) for block in blocks]
    try:
        own: Any = model(pixel_values=made_up_images(model, 2)).logits
    finally:
        for handle in handles:
            handle.remove()
    handed_on = len(given) == len(blocks) and all(a is b for a, b in zip(given, read[1:], strict=False))
    if not handed_on or not close(class_logits_of(model, given[-1].flatten(2).mean(2)), own):
        raise AuditError(
            f"{type(model).__name__}: its head reads something else than the mean of its last block's map",
            "audit a ResNet classifier, or a plain ViT or DeiT",
        )
    return [state.shape for state in given]
