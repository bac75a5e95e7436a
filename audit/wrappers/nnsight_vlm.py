"""Vision-language models through nnsight, as an independent cross-check of the native hooks: both towers are traced.

The tower of images is traced by itself, because a model reads what the library's own hooks recorded of it, which are
older than nnsight's; the states that are read go on through the model's own code to the language model, whose trace is
that of any other. The projector has no sites here.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from audit.schema import AuditError, Site
from audit.wrappers.image_inputs import PIXELS, check_size, differing_images
from audit.wrappers.interface import Batch, Resume, Stop, Tap
from audit.wrappers.native_vlm import VisionLanguageWrapper, kind_of
from audit.wrappers.nnsight_trace import NNsightWrapper
from audit.wrappers.tracing import Subject
from audit.wrappers.vision_kinds import CROSSING
from audit.wrappers.vision_tower import hand_on, tower_of


class TracedVision(NNsightWrapper):
    """The tower of images of a model that was opened natively."""

    def __init__(self, native: VisionLanguageWrapper) -> None:
        self._native, tower = native, cast(Any, tower_of(native.model))
        with torch.inference_mode():
            pixels = differing_images(native.model)
        subject = Subject(tower, lambda: tower(pixel_values=pixels, return_dict=True), causal=False)
        parts = self._open(tower, native.attention, subject, native.model.config.vision_config)
        own = native.tower("vision")
        self.towers = {"vision": own._replace(parts=parts - {"final_in", "logits"})}

    def head(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
        """Never: what follows the tower is a projector."""
        raise AuditError("a vision tower has no head", "read the tower of text")

    def _settings(self, batch: Batch) -> dict[str, Any]:
        check_size(self._native.model, batch.extra[PIXELS])
        return {PIXELS: batch.extra[PIXELS].to(self.dtype)}

    def states(
        self, batch: Batch, taps: Sequence[Tap], resume: Resume | None, stop: Stop | None
    ) -> dict[int, Float[Tensor, "row pos d"]]:
        """The states that are read, by block, from a pass with these taps; ``stop`` ends it before any is."""
        states: dict[int, Tensor] = {}
        if stop is not None:
            self.run_blocks(batch, taps, resume, stop)
            return states
        read = self.tower("vision").read
        last = Stop(max(read[-1], *(tap.site.block or 0 for tap in taps), 0), "vision")

        def keeping(block: int) -> Tap:
            return Tap(Site(part="resid_out", block=block), lambda state: states.update({block: state}))

        self.run_blocks(batch, [*taps, *map(keeping, read)], resume, last)
        return states


class NNsightVisionLanguageWrapper(NNsightWrapper):
    """One vision-language model behind nnsight. Cross-attention models are refused by name."""

    takes = frozenset({PIXELS})

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        kind = kind_of(model)
        if model.config.model_type in CROSSING:
            raise AuditError(
                f"the nnsight backend opens no {type(model).__name__}: its text tower has blocks of two kinds, "
                "of which one is not run without an image",
                "use the native backend",
            )
        self._native = kind(model, attention)
        super().__init__(model, attention)
        self.vocab_size, self.image_token = self._native.vocab_size, self._native.image_token
        self._vision = TracedVision(self._native)
        self.towers = {**self._vision.towers, **self.towers}

    def run_blocks(self, batch: Batch, taps: Sequence[Tap], resume: Resume | None, stop: Stop | None) -> None:
        """Tower by tower, as the native backend does. Raises AuditError for a part that was not states."""
        native = self._native
        seeing, words = ([tap for tap in taps if (tap.site.tower == "vision") == is_seen] for is_seen in (True, False))
        started = resume if resume is not None and resume.tower == "text" else None
        native.check_seen(batch, {"vision": seeing, "projector": []}, resume, started is None)
        batch = batch._replace(embeds=self.embed(batch.ids) if batch.embeds is None else batch.embeds)
        if PIXELS in batch.extra and started is None:
            ended = stop if stop is not None and stop.tower == "vision" else None
            states = self._vision.states(batch, seeing, resume, ended)
            if ended is not None:
                return
            batch = native.seen(batch, self._features(batch, states))
        super().run_blocks(batch, words, started, stop)

    def _features(self, batch: Batch, states: dict[int, Tensor]) -> Float[Tensor, "row image_token d"]:
        """What the projector gives of the states that are read, by the model's own code; no block is computed."""
        with ExitStack() as stack:
            for number, block in enumerate(self._native.vision.blocks):
                hand_on(stack, block, states.get(number))
            return self._native.features(batch.extra)

    def _settings(self, batch: Batch) -> dict[str, Any]:
        return {**self._native.language_inputs(batch), "attention_mask": batch.mask.long()}

    def embed(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        """Embeddings of tokens, as ``Batch.embeds`` takes them."""
        return self._native.embed(ids)

    def trial(self, n: int) -> Batch:
        return self._native.trial(n)

    def trial_seen(self, n: int) -> Batch:
        return self._native.trial_seen(n)
