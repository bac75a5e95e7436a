"""Open a classifier of images from a checkpoint: safetensors only, no remote code, the fingerprint checked first.

Its image processor is no part of the model: what a row holds is preprocessed already (:mod:`audit.case.images`).
"""

from typing import ClassVar

import torch
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from audit import checkpoints
from audit.schema import AuditError, Checkpoint, Modality, as_audit_error
from audit.wrappers import loading
from audit.wrappers.family import Family
from audit.wrappers.image_inputs import made_up_images, refuse_windows
from audit.wrappers.placement import Placement

KIND = loading.Kind(
    AutoModelForImageClassification,
    "a classifier of images",
    "a ViT, DeiT or ResNet classifier that transformers knows",
)


class ImageClassifier(Family):
    """Models that tell the class of an image."""

    modality: ClassVar[Modality] = "image"

    def open_model(self, ckpt: Checkpoint, placement: Placement, dtype: str, attention: str) -> PreTrainedModel:
        chosen = loading.dtype_of(dtype)
        if ckpt.adapter is not None:
            raise AuditError(
                f"{ckpt.source}: adapters of image classifiers are not merged", "merge it and save the model"
            )
        loading.refuse_ranks(ckpt, placement)
        loading.refuse_merging(ckpt, placement)
        checkpoints.verify(ckpt)
        model = loading.load_folder(checkpoints.weights_folder(ckpt), chosen, attention, KIND, placement)
        checkpoints.verify(ckpt)  # what was read is what was hashed: nothing was written in between
        model = loading.settled(model, placement)
        refuse_windows(model)
        _check_runs(model, ckpt.source)
        return model

    def fresh(self, config: PreTrainedConfig) -> PreTrainedModel:
        return loading.fresh(config, KIND)


def _check_runs(model: PreTrainedModel, source: str) -> None:
    """Does the model run on an image alone? Whatever its code raises is no fault of a probe. AuditError (code 2)."""
    do = "open it in transformers and run it on an image there; it may need a package or a device that is not here"
    with torch.inference_mode(), as_audit_error(f"{source}: the opened model does not run on an image", do):
        model(pixel_values=made_up_images(model, 1))
