"""A model from a folder of safetensors by one of the library's doors, and its weights held against the files."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging as hf_logging

from audit import checkpoints
from audit.schema import AuditError, ExitCode
from audit.wrappers.accounting import account

log = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


class Kind(NamedTuple):
    """By which class of the library a kind of model is opened, and what messages call it and ask for."""

    library_class: Any
    called: str
    wanted: str


def dtype_of(name: str) -> torch.dtype:
    """A dtype by its name. AuditError (code 2) for one that models are not opened in."""
    if name not in DTYPES:
        raise AuditError(f"unknown dtype {name!r}", f"use one of {', '.join(DTYPES)}")
    return DTYPES[name]


def load_folder(folder: Path, dtype: torch.dtype, attention: str, kind: Kind) -> PreTrainedModel:
    """Load a folder of safetensors; every parameter must come from its files, and every tensor of these be used."""
    chosen = {} if attention == "default" else {"attn_implementation": attention}
    fault = f"{folder} could not be opened as {kind.called}"
    do = f"give a folder with config.json and whole model*.safetensors of {kind.wanted}"
    with checkpoints.staged_model(folder) as stage, checkpoints.opening(folder, stage, fault, do), _quiet():
        try:
            loaded: Any = kind.library_class.from_pretrained(
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
