"""Gemma 3 behind torch hooks: image tokens see one another in both directions, which the model must be told.

Without the types of its tokens the model is causal over the image, silently and in every way to call it. They follow
from the ids, so they are made of them in every pass, one from input embeddings or from a state included.
"""

from collections.abc import Mapping

from jaxtyping import Int
from torch import Tensor

from audit.wrappers.image_inputs import PIXELS
from audit.wrappers.interface import Batch
from audit.wrappers.native_vlm import VisionLanguageWrapper


class ImageTypesWrapper(VisionLanguageWrapper):
    """A model whose forward takes ``token_type_ids``: 1 at the tokens of an image, 0 elsewhere."""

    def types_of(self, batch: Batch) -> Int[Tensor, "row pos"]:
        """The types of a batch's tokens."""
        return ((batch.ids == self.image_id) & batch.mask).long()

    def language_inputs(self, batch: Batch) -> dict[str, object]:
        """What the model without its head is called with: types of tokens where there is an image."""
        types = {"token_type_ids": self.types_of(batch)} if PIXELS in batch.extra else {}
        return {**super().language_inputs(batch), **types}

    def own_inputs(self, batch: Batch) -> Mapping[str, object]:
        types = {"token_type_ids": self.types_of(batch)} if PIXELS in batch.extra else {}
        return {**super().own_inputs(batch), **types}
