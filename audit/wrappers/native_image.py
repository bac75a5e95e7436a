"""The native backend for classifiers of images: vision transformers with a class token behind torch hooks.

States are [row pos d], the class token first and the patches after it, row by row of the image. The head reads the
class token alone; that it does, and that every block hands one state of one width on to the next, is checked when a
model is opened, so that windowed and pooled architectures are refused by name.
"""

from contextlib import ExitStack, suppress
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from audit.schema import AuditError, Op
from audit.wrappers.anatomy import dissect
from audit.wrappers.hooked import HookedWrapper
from audit.wrappers.hooks import PassEnd, shown_before
from audit.wrappers.image_inputs import (
    PIXELS,
    differing_images,
    has_stages,
    is_torch_module,
    patches,
    refuse_windows,
    trial_images,
)
from audit.wrappers.interface import Batch, Tower
from audit.wrappers.output_head import class_logits_of
from audit.wrappers.placement import home_of
from audit.wrappers.tracing import close, on_pixels


class ImageWrapper(HookedWrapper):
    """One classifier of images of transformers behind torch hooks. ``vocab_size`` is the number of its classes."""

    supports = frozenset(Op) - {Op.EMBEDS, Op.GENERATE}
    takes = frozenset({PIXELS})

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        self.model = model.eval()
        self.name, self.attention = type(model).__name__, attention
        self.device, self.dtype = home_of(model), model.dtype
        self.vocab_size = int(model.config.num_labels or 0)
        self.core = model.base_model

    def trial(self, n: int) -> Batch:
        """A batch of ``n`` made-up images, to see how the model is hooked."""
        return trial_images(self.model, n)

    def _run(self, batch: Batch, stack: ExitStack) -> None:
        if batch.embeds is not None:
            given = batch.embeds
            hook = shown_before(self._shown(lambda _: given))
            stack.callback(self.blocks[0].register_forward_pre_hook(hook, with_kwargs=True, prepend=True).remove)
        self.core(pixel_values=pixels_of(batch, self.name))

    def inputs(self, batch: Batch) -> Float[Tensor, "row pos d"]:
        """What enters the first block: of a transformer the class token and the embedded patches, with their places."""
        if batch.embeds is not None:
            return batch.embeds
        entered: list[Tensor] = []

        def enter(state: Tensor) -> None:
            entered.append(state)
            raise PassEnd

        hook = shown_before(self._shown(enter))
        handle = self.blocks[0].register_forward_pre_hook(hook, with_kwargs=True, prepend=True)
        try:
            with suppress(PassEnd):
                self.core(pixel_values=pixels_of(batch, self.name))
        finally:
            handle.remove()
        return entered[0]

    def embed(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        """Never: this model reads images."""
        raise AuditError(f"{self.name} reads images and has no embeddings of tokens", "give images")

    def head(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch label"]:
        """Logits of the classes, by the model's own code after its blocks, as if these were what its head reads."""
        return class_logits_of(self.model, states)


class NativeImageWrapper(ImageWrapper):
    """A vision transformer behind torch hooks."""

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        super().__init__(model, attention)
        refuse_windows(model)
        with torch.inference_mode():
            pixels = differing_images(model)
            self.anatomy = dissect(model, on_pixels(self.core, pixels), model.config)
            positions = check_class_token(model, pixels)
        parts = self.anatomy.parts(getattr(model.config, "_attn_implementation", attention))
        self.towers = {
            "vision": Tower(
                "vision", self.anatomy.d_model, len(self.blocks), parts, by_token=False, summary="class",
                positions=positions, leading=positions - patches(model),
            )
        }  # fmt: skip
        if "pattern" not in self.parts:
            self.supports = self.supports - {Op.PATTERN}

    @classmethod
    def behind(cls, model: PreTrainedModel, attention: str = "default") -> ImageWrapper:
        """The wrapper of a transformer, that of a residual network, or that of a module of torch."""
        from audit.wrappers.native_map import NativeMapWrapper
        from audit.wrappers.native_module import ModuleWrapper

        if is_torch_module(model):
            return ModuleWrapper.behind(model, attention)
        return NativeMapWrapper(model, attention) if has_stages(model) else cls(model, attention)


def pixels_of(batch: Batch, name: str) -> Float[Tensor, "row channel height width"]:
    """The pixels of a batch. AuditError (code 2) where its rows bring none."""
    if PIXELS not in batch.extra:
        raise AuditError(f"{name} reads images, and the rows bring no {PIXELS}", "give rows of an image case")
    return batch.extra[PIXELS]


def check_class_token(model: PreTrainedModel, pixels: Float[Tensor, "row channel height width"]) -> int:
    """How many positions there are. AuditError (code 2) by the model's name unless its logits follow from the first
    of them alone, as those of a plain vision transformer do."""
    states: Any = getattr(model.base_model(pixel_values=pixels), "last_hidden_state", None)
    own: Any = model(pixel_values=pixels).logits
    first = states[:, 0] if isinstance(states, Tensor) and states.ndim == 3 else None
    if first is None or not close(class_logits_of(model, first), own):
        raise AuditError(
            f"{type(model).__name__}: its head reads something else than a class token after the last block",
            "audit a plain ViT or DeiT classifier (without a distillation head), or a ResNet",
        )
    return int(states.shape[1])
