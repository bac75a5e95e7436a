"""The native backend for vision-language models: a vision tower, a projector, and a language model that reads both.

The towers are run one after the other: images by the model's own code as far as the features that its projector gives,
then the language model on token embeddings in which these features stand at the image tokens. So a pass can stop in the
vision tower, start after one of its blocks, and start in the language model without any image. Which blocks of the
tower are consumed is asked of the model and not of its config alone (:func:`consumed_blocks`): what lies above them
reaches nothing.
"""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from audit.schema import AuditError, Op
from audit.wrappers.anatomy import dissect, on_embeddings, tiny_ids
from audit.wrappers.hooks import PassEnd
from audit.wrappers.image_inputs import PIXELS, differing_images, made_up_images
from audit.wrappers.interface import Batch, Resume, Stop, Tap, Tower, text_tower
from audit.wrappers.native import NativeWrapper
from audit.wrappers.vision_tower import Projector, VisionHooks, consumed_blocks

_CHECK_ROW = "the processor of base's folder expands each image to as many tokens as the model has features"


class VisionLanguageWrapper(NativeWrapper):
    """One vision-language model of transformers behind torch hooks. Rows bring an image each, or none of them any."""

    takes = frozenset({PIXELS})

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        self.model = model.eval()
        self.name, self.attention = type(model).__name__, attention
        weight: Tensor = model.get_input_embeddings().get_parameter("weight")
        self.device, self.dtype, self.vocab_size = weight.device, weight.dtype, weight.shape[0]
        self.base: Any = model.base_model
        self.core = self.base.language_model
        self.image_token = int(getattr(model.config, "image_token_id", None) or model.config.image_token_index)
        with torch.inference_mode():
            embeds = self.embed(tiny_ids(self.vocab_size).to(self.device))
            self.anatomy = dissect(self.core, on_embeddings(self.core, embeds), model.config.get_text_config())
            self.vision = VisionHooks(model, attention)
            self.projector = Projector(self.base.multi_modal_projector)
            self.towers = {
                **self._vision_towers(),
                **text_tower(self.anatomy.d_model, len(self.blocks), self.anatomy.parts(self._attention_of(attention))),
            }
        if "pattern" not in self.parts:
            self.supports = self.supports - {Op.PATTERN}

    def _attention_of(self, attention: str) -> str:
        return str(getattr(self.model.config.get_text_config(), "_attn_implementation", attention))

    def _vision_towers(self) -> dict[Any, Tower]:
        """The tower of images and the projector, as one pass of made-up images shows them."""
        pixels = differing_images(self.model)
        seen = self.vision.seen(lambda: self.features(pixels))
        given = self.features(pixels)
        return {
            "vision": self.vision.tower(seen, consumed_blocks(self.model, self.vision, pixels, self.features)),
            "projector": Tower(
                "projector", given.shape[-1], 0, frozenset({"embed", "final_in"}), by_token=False,
                positions=given.shape[1],
            ),
        }  # fmt: skip

    # ---- the forward ---------------------------------------------------------------------------------------------
    def run_blocks(self, batch: Batch, taps: Sequence[Tap], resume: Resume | None, stop: Stop | None) -> None:
        """Tower by tower; a start in the language model runs no image, an end before it runs no word."""
        by_tower: dict[str, list[Tap]] = {"vision": [], "projector": [], "text": []}
        for tap in taps:
            by_tower[tap.site.tower or "text"].append(tap)
        sees = resume is None or (resume.tower or "text") != "text"
        self._check_seen(batch, by_tower, resume, stop, sees)
        with ExitStack() as stack, suppress(PassEnd):
            embeds = self.embed(batch.ids) if batch.embeds is None else batch.embeds
            if PIXELS in batch.extra and sees:
                end = None if stop is None or stop.tower != "vision" else stop.block
                self.vision.install(stack, by_tower["vision"], resume, end)
                self.projector.install(stack, by_tower["projector"], stop)
                embeds = self.merged(batch, embeds, self.features(batch.extra[PIXELS]))
            if stop is not None and stop.tower != "text":
                return
            started = resume if resume is not None and resume.tower == "text" else None
            if started is not None:
                stack.enter_context(self._resumed(started.block, self._handed(started, batch)))
            self._install(
                stack, by_tower["text"], -1 if started is None else started.block, None if stop is None else stop.block
            )
            self._run(batch._replace(embeds=embeds), stack)

    def _check_seen(
        self, batch: Batch, by_tower: dict[str, list[Tap]], resume: Resume | None, stop: Stop | None, sees: bool
    ) -> None:
        """AuditError for a site of a tower that does not run, and for image tokens that no image stands behind."""
        wanted = [str(tap.site) for name in ("vision", "projector") for tap in by_tower[name]]
        if wanted and not (PIXELS in batch.extra and sees):
            reason = "the rows bring no image" if sees else "the pass starts after it"
            raise AuditError(
                f"{wanted[0]} is not computed in this pass: {reason}", "give rows with images, from their start"
            )
        lost = [] if resume is None or not sees else [n for n in self.towers["vision"].read if n < resume.block]
        if resume is not None and lost:
            raise AuditError(
                f"{self.name}: a pass cannot start after vision block {resume.block}: block {lost[0]} before it is "
                "read too",
                f"start after block {self.towers['vision'].read[0]} at the latest",
            )
        if sees and PIXELS not in batch.extra and bool((batch.ids == self.image_token).any()):
            raise AuditError(f"{self.name}: image tokens without an image", "give the rows their pixel_values")

    def _run(self, batch: Batch, stack: ExitStack) -> None:
        self.core(inputs_embeds=batch.embeds, use_cache=False)

    def features(self, pixels: Float[Tensor, "row channel height width"]) -> Float[Tensor, "row image_token d"]:
        """What the projector gives of each image, by the model's own code."""
        given: Any = self.base.get_image_features(pixel_values=pixels.to(self.dtype), return_dict=True).pooler_output
        return given if isinstance(given, Tensor) else torch.stack(list(given))

    def merged(
        self, batch: Batch, embeds: Float[Tensor, "row pos d"], features: Float[Tensor, "row image_token d"]
    ) -> Float[Tensor, "row pos d"]:
        """Token embeddings with an image's features at its tokens. AuditError (code 2) names the first row where there
        are not as many of the one as of the other."""
        places: Bool[Tensor, "row pos"] = batch.ids == self.image_token
        count = places.sum(1)
        if bool((count != features.shape[1]).any()):
            row = int((count != features.shape[1]).nonzero()[0])
            raise AuditError(
                f"{self.name}: row {row} of a batch has {int(count[row])} image tokens, and its image has "
                f"{features.shape[1]} features",
                f"prepare rows as a case does: {_CHECK_ROW}",
            )
        return embeds.masked_scatter(places[..., None], features.to(embeds.dtype))

    def trial(self, n: int) -> Batch:
        """A batch of made-up images, each with some words after it."""
        ids = super().trial(n).ids
        ids = torch.where(ids == self.image_token, ids - 1, ids)
        image: Int[Tensor, "row image_token"] = ids.new_full((n, self.towers["projector"].positions), self.image_token)
        ids = torch.cat([ids[:, :1], image, ids[:, 1:]], 1)
        pixels = made_up_images(self.model, n)
        return Batch(ids, torch.ones_like(ids, dtype=torch.bool), None, {PIXELS: pixels})
