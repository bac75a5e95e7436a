"""The native backend for vision-language models: a vision tower, a projector, and a language model that reads both.

The towers are run one after the other: images by the model's own code as far as the features that its projector gives,
then the language model on token embeddings in which these features stand at the image tokens. So a pass can stop in the
vision tower, start after one of its blocks, and start in the language model without any image. Which blocks of the
tower are consumed is asked of the model and not of its config alone (:func:`consumed_blocks`): what lies above them
reaches nothing.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from audit.schema import AuditError, Op, TowerName
from audit.wrappers.anatomy import Anatomy, dissect
from audit.wrappers.hooks import PassEnd
from audit.wrappers.image_inputs import PIXELS, check_size, made_up_images
from audit.wrappers.interface import Batch, Resume, Stop, Tap, Tower, text_tower
from audit.wrappers.native import NativeWrapper
from audit.wrappers.placement import home_of
from audit.wrappers.tracing import on_embeddings, tiny_ids
from audit.wrappers.vision_kinds import CROSSING, read_layers, refuse_kind
from audit.wrappers.vision_tower import Projector, VisionHooks, consumed_blocks

_CHECK_ROW = "the processor of base's folder expands each image to as many tokens as the model has features"


class VisionLanguageWrapper(NativeWrapper):
    """One vision-language model of transformers behind torch hooks. Rows bring an image each, or none of them any."""

    takes = frozenset({PIXELS})
    looks_again = False
    """Whether a start in the language model needs the images too."""

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        self.model = model.eval()
        self.name, self.attention = type(model).__name__, attention
        weight: Tensor = model.get_input_embeddings().get_parameter("weight")
        unembedding: Any = model.get_output_embeddings()
        self.device, self.dtype, self.vocab_size = home_of(model), weight.dtype, int(unembedding.weight.shape[0])
        self.base: Any = model.base_model
        self.core = self.base.language_model
        self.image_token = self.image_id = int(model.config.image_token_id)
        with torch.inference_mode():
            self.anatomy = self._dissected()
            self.vision = self._vision_hooks()
            self.projector = Projector(self.base.multi_modal_projector)
            self.towers = {**self._vision_towers(), **self._text_tower()}
        if "pattern" not in self.parts:
            self.supports = self.supports - {Op.PATTERN}

    @classmethod
    def behind(cls, model: PreTrainedModel, attention: str = "default") -> "VisionLanguageWrapper":
        """The wrapper of the model's kind. AuditError (code 2) by name for a kind that is not opened."""
        return kind_of(model)(model, attention)

    def _dissected(self) -> Anatomy:
        """The parts of the language model's blocks."""
        embeds = self.embed(tiny_ids(self.vocab_size).to(self.device))
        return dissect(self.core, on_embeddings(self.core, embeds), self.model.config.get_text_config())

    def _vision_hooks(self) -> VisionHooks:
        return VisionHooks(self.model, self.attention)

    def _text_tower(self) -> Mapping[TowerName, Tower]:
        used = str(getattr(self.model.config.get_text_config(), "_attn_implementation", self.attention))
        return text_tower(self.anatomy.d_model, len(self.blocks), self.anatomy.parts(used))

    def _vision_towers(self) -> dict[TowerName, Tower]:
        """The tower of images and the projector, as one pass of made-up images shows them."""
        images = self.made_up(2)
        seen = self.vision.seen(lambda: self.features(images))
        given = self.features(images)
        return {
            "vision": self.vision.tower(seen, consumed_blocks(self.vision, lambda: self.features(images))),
            "projector": Tower(
                "projector", given.shape[-1], 0, frozenset({"embed", "final_in"}), by_token=False,
                positions=given.shape[1],
            ),
        }  # fmt: skip

    @property
    def image_tokens(self) -> int:
        """How many of a row's tokens are its image's."""
        return self.towers["projector"].positions

    # ---- the forward ---------------------------------------------------------------------------------------------
    def run_blocks(self, batch: Batch, taps: Sequence[Tap], resume: Resume | None, stop: Stop | None) -> None:
        """Tower by tower; a start in the language model runs no image, an end before it runs no word."""
        by_tower: dict[str, list[Tap]] = {"vision": [], "projector": [], "text": []}
        for tap in taps:
            by_tower[tap.site.tower or "text"].append(tap)
        started = resume if resume is not None and resume.tower == "text" else None
        self.check_seen(batch, by_tower, resume, started is None)
        with ExitStack() as stack, suppress(PassEnd):
            batch = batch._replace(embeds=self.embed(batch.ids) if batch.embeds is None else batch.embeds)
            if PIXELS in batch.extra and (started is None or self.looks_again):
                if started is None:
                    end = None if stop is None or stop.tower != "vision" else stop.block
                    self.vision.install(stack, by_tower["vision"], resume, end)
                    self.projector.install(stack, by_tower["projector"], stop)
                batch = self.seen(batch, self.features(batch.extra))
            if stop is not None and stop.tower != "text":
                return
            self._unseen(batch, stack)
            if started is not None:
                stack.enter_context(self._resumed(started.block, self._handed(started, batch)))
            self._install(
                stack, by_tower["text"], -1 if started is None else started.block, None if stop is None else stop.block
            )
            self._run(batch, stack)

    def _unseen(self, batch: Batch, stack: ExitStack) -> None:
        """What a pass without an image leaves out is made ready here: nothing."""

    def check_seen(
        self, batch: Batch, by_tower: Mapping[str, Sequence[Tap]], resume: Resume | None, sees: bool
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
        if sees and PIXELS not in batch.extra and bool((batch.ids == self.image_id).any()):
            raise AuditError(f"{self.name}: image tokens without an image", "give the rows their pixel_values")

    def _run(self, batch: Batch, stack: ExitStack) -> None:
        self.base(**self.language_inputs(batch))

    def language_inputs(self, batch: Batch) -> dict[str, object]:
        """What the model without its head is called with once a batch's images have been seen."""
        return {"inputs_embeds": batch.embeds, "use_cache": False}

    def embed(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        """Embeddings of tokens; that of an image token, which the image's features replace, may be any."""
        known = len(self.model.get_input_embeddings().get_parameter("weight"))
        return super().embed(ids if self.image_id < known else torch.where(ids == self.image_id, 0, ids))

    def features(self, images: Mapping[str, Tensor]) -> Float[Tensor, "row image_token d"]:
        """What the projector gives of each image, by the model's own code. ``images``: the rows' ``extra``."""
        pixels = images[PIXELS].to(self.dtype)
        check_size(self.model, pixels)
        given: Any = self.base.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
        return given if isinstance(given, Tensor) else torch.stack(list(given))

    def seen(self, batch: Batch, features: Float[Tensor, "row image_token d"]) -> Batch:
        """The batch with an image's features at its tokens."""
        places = self.places_of(batch)
        assert batch.embeds is not None, "a batch is embedded before its images are seen"
        return batch._replace(embeds=batch.embeds.masked_scatter(places[..., None], features.to(batch.embeds.dtype)))

    def places_of(self, batch: Batch) -> Bool[Tensor, "row pos"]:
        """Where a batch's image tokens stand. AuditError (code 2) names the first row that has more or fewer of them
        than its image takes."""
        places: Bool[Tensor, "row pos"] = (batch.ids == self.image_id) & batch.mask
        count = places.sum(1)
        if bool((count != self.image_tokens).any()):
            row = int((count != self.image_tokens).nonzero()[0])
            raise AuditError(
                f"{self.name}: row {row} of a batch has {int(count[row])} image tokens, and its image takes "
                f"{self.image_tokens}",
                f"prepare rows as a case does: {_CHECK_ROW}",
            )
        return places

    # ---- made-up rows ----------------------------------------------------------------------------------------------
    def made_up(self, n: int) -> Mapping[str, Tensor]:
        """What ``n`` different made-up images bring beside their tokens."""
        return {PIXELS: made_up_images(self.model, n)}

    def trial(self, n: int) -> Batch:
        """A batch of ``n`` made-up texts without an image."""
        batch = super().trial(n)
        return batch._replace(ids=torch.where(batch.ids == self.image_id, 0, batch.ids))

    def trial_seen(self, n: int) -> Batch:
        """A batch of made-up images, each with some words before and after it."""
        ids = self.trial(n).ids
        image: Int[Tensor, "row image_token"] = ids.new_full((n, self.image_tokens), self.image_id)
        ids = torch.cat([ids[:, :1], image, ids[:, 1:]], 1)
        return Batch(ids, torch.ones_like(ids, dtype=torch.bool), None, self.made_up(n))

    def own_inputs(self, batch: Batch) -> Mapping[str, object]:
        """What the model's own forward is called with for a batch of whole rows."""
        return {"input_ids": batch.ids, "use_cache": False, **batch.extra}


def kind_of(model: PreTrainedModel) -> type[VisionLanguageWrapper]:
    """The wrapper class of a model's kind. AuditError (code 2) by name for a kind that is not opened."""
    refuse_kind(model.config.model_type)
    if model.config.model_type == "gemma3":
        from audit.wrappers.image_types import ImageTypesWrapper

        return ImageTypesWrapper
    if model.config.model_type in CROSSING:
        from audit.wrappers.cross_attention import CrossAttentionWrapper

        return CrossAttentionWrapper
    read_layers(model.config, int(model.config.vision_config.num_hidden_layers))
    return VisionLanguageWrapper
