"""Open a causal language model from a checkpoint: safetensors only, no remote code, the fingerprint checked first."""

from pathlib import Path
from typing import ClassVar

import torch
import transformers
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from audit import checkpoints
from audit.schema import AuditError, Checkpoint, Modality, as_audit_error
from audit.wrappers import loading
from audit.wrappers.adapters import merged
from audit.wrappers.family import Family
from audit.wrappers.placement import Placement, home_of
from audit.wrappers.tracing import close, overflown

KIND = loading.Kind(AutoModelForCausalLM, "a causal language model", "a decoder that transformers knows")


def _kind_of(config: PreTrainedConfig) -> loading.Kind:
    """By which class a model of this config is opened: the library's door to language models has no entry for the
    config that some of them are saved with (the text part of another config), and then by the class that it names."""
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return KIND
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    class_name = next((name for name in config.architectures or () if name in known), None)
    own = None if class_name is None else getattr(transformers, class_name, None)
    return KIND if own is None or own.config_class is not type(config) else KIND._replace(library_class=own)


class CausalLM(Family):
    """Decoders that predict the next token of a text."""

    modality: ClassVar[Modality] = "text"

    def open_model(self, ckpt: Checkpoint, placement: Placement, dtype: str, attention: str) -> PreTrainedModel:
        chosen = loading.dtype_of(dtype)
        loading.refuse_merging(ckpt, placement)
        checkpoints.verify(ckpt)
        model = load_folder(checkpoints.weights_folder(ckpt), chosen, attention, placement)
        adapter = checkpoints.adapter_folder_of(ckpt)
        if adapter is not None:
            model = merged(model, adapter)
        checkpoints.verify(ckpt)  # what was read is what was hashed: nothing was written in between
        model = loading.settled(model, placement)
        _check_runs(model, ckpt.source)
        return model

    def fresh(self, config: PreTrainedConfig) -> PreTrainedModel:
        return loading.fresh(config, _kind_of(config))


def load_folder(
    folder: Path, dtype: torch.dtype, attention: str, placement: Placement | None = None
) -> PreTrainedModel:
    """Load a folder of safetensors; every parameter must come from its files, and every tensor of these be used."""
    kind = _kind_of(checkpoints.library_config(folder))
    return loading.load_folder(folder, dtype, attention, kind, placement or Placement())


def _check_runs(model: PreTrainedModel, source: str) -> None:
    """Does the model run on tokens alone, and say the same of one whatever follows it? Whatever its code raises is no
    fault of a probe. AuditError (code 2). Outputs that overflow say neither: load checks refuse them."""
    do = "open it in transformers and run it on a text there; it may need a package or a device that is not here"
    with torch.inference_mode(), as_audit_error(f"{source}: the opened model does not run on a text", do):
        words = len(model.get_input_embeddings().get_parameter("weight"))
        ids = torch.tensor([[0, 1, 2], [0, 1, 3]], device=home_of(model)) % words
        logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    if logits.ndim == 3 and not overflown(logits) and not close(logits[0, 0], logits[1, 0]):
        stated = " (is_decoder is false in its config)" if getattr(model.config, "is_decoder", None) is False else ""
        raise AuditError(
            f"{source}: {type(model).__name__} is no decoder{stated}: tokens see those that follow them, as in an "
            "encoder or a masked diffusion model",
            "audit a model that predicts a text from left to right",
        )
