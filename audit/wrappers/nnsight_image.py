"""Vision transformers through nnsight, as an independent cross-check of the native hooks."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from audit.schema import AuditError, Op, Site
from audit.wrappers.image_inputs import (
    PIXELS,
    differing_images,
    has_stages,
    is_torch_module,
    patches,
    refuse_windows,
    trial_images,
)
from audit.wrappers.interface import Batch, Tap, Tower
from audit.wrappers.native_image import check_class_token, pixels_of
from audit.wrappers.nnsight_trace import NNsightWrapper
from audit.wrappers.output_head import class_logits_of
from audit.wrappers.tracing import on_pixels


class NNsightImageWrapper(NNsightWrapper):
    """One vision transformer behind nnsight. Residual networks are refused by name."""

    supports = NNsightWrapper.supports - {Op.EMBEDS}
    takes = frozenset({PIXELS})

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        refuse_windows(model)
        if is_torch_module(model):
            problem = f"the nnsight backend opens no module of torch ({model.config.module})"
            raise AuditError(problem, "use the native backend")
        if has_stages(model):
            raise AuditError(f"the nnsight backend opens no {type(model).__name__}", "use the native backend")
        self.vocab_size = int(model.config.num_labels or 0)
        with torch.inference_mode():
            pixels = differing_images(model.eval())
            positions = check_class_token(model, pixels)
        parts = self._open(model, attention, on_pixels(model.base_model, pixels), model.config)
        self.towers = {
            "vision": Tower(
                "vision", self._anatomy.d_model, len(self._blocks), parts, by_token=False, summary="class",
                positions=positions, leading=positions - patches(model),
            )
        }  # fmt: skip

    def trial(self, n: int) -> Batch:
        """A batch of ``n`` made-up images, to see how the model is hooked."""
        return trial_images(self._model, n)

    def _settings(self, batch: Batch) -> dict[str, Any]:
        return {PIXELS: pixels_of(batch, self.name)}

    def _entering(self, batch: Batch) -> list[Tap]:
        given = batch.embeds
        return [] if given is None else [Tap(Site(part="embed"), lambda _: given)]

    def inputs(self, batch: Batch) -> Float[Tensor, "row pos d"]:
        """What enters the first block: the class token and the embedded patches, with their places."""
        if batch.embeds is not None:
            return batch.embeds
        entered: list[Tensor] = []
        self.forward(batch, [Tap(Site(part="embed"), entered.append)])
        return entered[0]

    def embed(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        """Never: this model reads images."""
        raise AuditError(f"{self.name} reads images and has no embeddings of tokens", "give images")

    def head(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch label"]:
        """Logits of the classes, by the model's own code after its blocks, as if these were class tokens."""
        return class_logits_of(self._model, states)
