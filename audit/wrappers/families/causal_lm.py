"""Open a causal language model from a checkpoint: safetensors only, no remote code, the fingerprint checked first."""

from pathlib import Path
from typing import ClassVar

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from audit import checkpoints
from audit.schema import Checkpoint, Modality, as_audit_error
from audit.wrappers import loading
from audit.wrappers.adapters import merged
from audit.wrappers.family import Family
from audit.wrappers.placement import Placement, home_of

KIND = loading.Kind(AutoModelForCausalLM, "a causal language model", "a decoder that transformers knows")


class CausalLM(Family):
    """Decoders that predict the next token of a text."""

    modality: ClassVar[Modality] = "text"

    def open_model(self, ckpt: Checkpoint, placement: Placement, dtype: str, attention: str) -> PreTrainedModel:
        chosen = loading.dtype_of(dtype)
        loading.refuse_merging(ckpt, placement)
        checkpoints.verify(ckpt)
        model = load_folder(checkpoints.folder_of(ckpt), chosen, attention, placement)
        adapter = checkpoints.adapter_folder_of(ckpt)
        if adapter is not None:
            model = merged(model, adapter)
        checkpoints.verify(ckpt)  # what was read is what was hashed: nothing was written in between
        model = loading.settled(model, placement)
        _check_runs(model, ckpt.source)
        return model

    def fresh(self, config: PreTrainedConfig) -> PreTrainedModel:
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def load_folder(
    folder: Path, dtype: torch.dtype, attention: str, placement: Placement | None = None
) -> PreTrainedModel:
    """Load a folder of safetensors; every parameter must come from its files, and every tensor of these be used."""
    return loading.load_folder(folder, dtype, attention, KIND, placement or Placement())


def _check_runs(model: PreTrainedModel, source: str) -> None:
    """Does the model run on a token alone? Whatever its code raises is no fault of a probe. AuditError (code 2)."""
    do = "open it in transformers and run it on a text there; it may need a package or a device that is not here"
    with torch.inference_mode(), as_audit_error(f"{source}: the opened model does not run on a text", do):
        ids = torch.zeros((1, 1), dtype=torch.int64, device=home_of(model))
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
