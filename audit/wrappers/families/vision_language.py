"""Open a vision-language model from a checkpoint: safetensors only, no remote code, the fingerprint checked first.

Its processor is no part of the model: what a row holds is preprocessed already (:mod:`audit.case.scene_rows`).
"""

from typing import ClassVar

import torch
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from audit import checkpoints
from audit.schema import Checkpoint, Modality, as_audit_error
from audit.wrappers import loading
from audit.wrappers.adapters import merged
from audit.wrappers.family import Family
from audit.wrappers.placement import Placement, home_of
from audit.wrappers.vision_kinds import refuse_kind

KIND = loading.Kind(
    AutoModelForImageTextToText,
    "a vision-language model",
    "a LLaVA-style, Gemma 3 or Llama 3.2 Vision model that transformers knows",
)


class VisionLanguage(Family):
    """Models that tell of an image in words."""

    modality: ClassVar[Modality] = "image+text"

    def open_model(self, ckpt: Checkpoint, placement: Placement, dtype: str, attention: str) -> PreTrainedModel:
        chosen = loading.dtype_of(dtype)
        loading.refuse_merging(ckpt, placement)
        loading.refuse_ranks(ckpt, placement)
        checkpoints.verify(ckpt)
        model = loading.load_folder(checkpoints.weights_folder(ckpt), chosen, attention, KIND, placement)
        adapter = checkpoints.adapter_folder_of(ckpt)
        if adapter is not None:
            model = merged(model, adapter)
        checkpoints.verify(ckpt)  # what was read is what was hashed: nothing was written in between
        model = loading.settled(model, placement)
        _check_runs(model, ckpt.source)
        return model

    def check_kind(self, model_type: str) -> None:
        refuse_kind(model_type)

    def fresh(self, config: PreTrainedConfig) -> PreTrainedModel:
        return loading.fresh(config, KIND)


def _check_runs(model: PreTrainedModel, source: str) -> None:
    """Does the model run on a token alone? Whatever its code raises is no fault of a probe. AuditError (code 2)."""
    do = "open it in transformers and run it on a text there; it may need a package or a device that is not here"
    with torch.inference_mode(), as_audit_error(f"{source}: the opened model does not run on a text", do):
        ids = torch.zeros((1, 1), dtype=torch.int64, device=home_of(model))
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
