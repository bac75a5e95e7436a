"""Open a causal language model from a checkpoint: safetensors only, no remote code, the fingerprint checked first."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from audit import checkpoints
from audit.schema import AuditError, Checkpoint, ExitCode, Modality, as_audit_error
from audit.wrappers.accounting import account
from audit.wrappers.adapters import merged
from audit.wrappers.family import Family

log = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


class CausalLM(Family):
    """Decoders that predict the next token of a text."""

    modality: ClassVar[Modality] = "text"

    def open_model(self, ckpt: Checkpoint, device: str, dtype: str, attention: str) -> PreTrainedModel:
        if dtype not in DTYPES:
            raise AuditError(f"unknown dtype {dtype!r}", f"use one of {', '.join(DTYPES)}")
        checkpoints.verify(ckpt)
        model = load_folder(checkpoints.folder_of(ckpt), DTYPES[dtype], attention)
        adapter = checkpoints.adapter_folder_of(ckpt)
        if adapter is not None:
            model = merged(model, adapter)
        checkpoints.verify(ckpt)  # what was read is what was hashed: nothing was written in between
        model = model.to(device).eval().requires_grad_(False)  # type: ignore[assignment]
        _check_runs(model, ckpt.source)
        return model

    def fresh(self, config: PreTrainedConfig) -> PreTrainedModel:
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def load_folder(folder: Path, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    """Load a folder of safetensors; every parameter must come from its files, and every tensor of these be used."""
    chosen = {} if attention == "default" else {"attn_implementation": attention}
    fault = f"{folder} could not be opened as a causal language model"
    do = "give a folder with config.json and whole model*.safetensors of a decoder that transformers knows"
    with checkpoints.staged_model(folder) as stage, checkpoints.opening(folder, stage, fault, do), _quiet():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                stage, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True,
                output_loading_info=True, ignore_mismatched_sizes=True, **chosen,
            )  # fmt: skip
        except (SafetensorError, RuntimeError) as error:
            raise AuditError(f"{fault}: {' '.join(str(error).split())}", do, ExitCode.INTEGRITY) from error
    model, info = loaded
    lacking = sorted(info["missing_keys"]) + sorted(name for name, *_ in info["mismatched_keys"])
    if lacking:
        raise AuditError(
            f"{folder} lacks {len(lacking)} tensors as its config asks for them (first: {lacking[0]})",
            "save the whole model again; tensors that are not in the file would be random",
            ExitCode.INTEGRITY,
        )
    model.config.name_or_path = model.name_or_path = str(folder)
    if unread := account(model, folder):
        log.warning("%s: %d tensors that the model does not compute with: %s", folder, len(unread), ", ".join(unread))
    return model


def _check_runs(model: PreTrainedModel, source: str) -> None:
    """Does the model run on a token alone? Whatever its code raises is no fault of a probe. AuditError (code 2)."""
    do = "open it in transformers and run it on a text there; it may need a package or a device that is not here"
    with torch.inference_mode(), as_audit_error(f"{source}: the opened model does not run on a text", do):
        ids = torch.zeros((1, 1), dtype=torch.int64, device=model.device)
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


@contextmanager
def _quiet() -> Generator[None]:
    """Loading bars belong to whoever asked for the audit, not to the library."""
    level, bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bar:
            hf_logging.enable_progress_bar()
