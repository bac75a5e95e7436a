"""A model from a folder of safetensors by one of the library's doors, and its weights held against the files."""

import logging
import weakref
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from audit import checkpoints
from audit.schema import AuditError, Checkpoint, ExitCode
from audit.wrappers.accounting import account
from audit.wrappers.placement import Placement, is_spread, library_settings

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


def load_folder(folder: Path, dtype: torch.dtype, attention: str, kind: Kind, placement: Placement) -> PreTrainedModel:
    """Load a folder of safetensors; every parameter must come from its files, and every tensor of these be used.

    Weights that keep their type are mapped from the files, not copied. The files of a model that is spread are read
    as long as it lives.
    """
    with ExitStack() as reading:
        stage = reading.enter_context(checkpoints.staged_model(folder))
        model = _from_stage(folder, stage, kind, _library_settings(folder, dtype, attention, kind, placement))
        if is_spread(model):
            weakref.finalize(model, reading.pop_all().close)
    if unread := account(model, folder):
        log.warning("%s: %d tensors that the model does not compute with: %s", folder, len(unread), ", ".join(unread))
    return model


def _library_settings(
    folder: Path, dtype: torch.dtype, attention: str, kind: Kind, placement: Placement
) -> dict[str, object]:
    """What the library is told beside the folder. AuditError (code 2) where the model cannot be placed as asked."""
    chosen: dict[str, object] = {} if attention == "default" else {"attn_implementation": attention}
    if not placement.whole:
        with torch.device("meta"):
            skeleton = fresh(checkpoints.library_config(folder), kind)
        chosen |= library_settings(placement, skeleton, dtype)
    return {"dtype": dtype, **chosen}


def fresh(config: PreTrainedConfig, kind: Kind) -> PreTrainedModel:
    """A model of this config with random weights, by the library's door or by a class of its own."""
    door = kind.library_class
    if issubclass(door, PreTrainedModel):  # what the library's doors make of it too
        return door._from_config(config)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
    return door.from_config(config, trust_remote_code=False)


def _from_stage(folder: Path, stage: Path, kind: Kind, chosen: dict[str, object]) -> PreTrainedModel:
    """The model of a staged folder, no tensor of which is missing."""
    fault = f"{folder} could not be opened as {kind.called}"
    do = f"give a folder with config.json and whole model*.safetensors of {kind.wanted}"
    with checkpoints.opening(folder, stage, fault, do), _quiet():
        try:
            loaded: Any = kind.library_class.from_pretrained(
                stage, use_safetensors=True, trust_remote_code=False, local_files_only=True,
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
    return model


def refuse_merging(ckpt: Checkpoint, placement: Placement) -> None:
    """AuditError (code 2) where weights would have to be changed that a model which is spread reads from its files."""
    changed = ckpt.adapter is not None or any(not edit.is_hook for edit in ckpt.edits)
    if placement.reason and changed:
        change = "its adapter" if ckpt.adapter is not None else "its edit"
        raise AuditError(
            f"{ckpt.edits_from or ckpt.source}: {placement.reason}, and {change} would be lost on them",
            "merge it on a machine that holds the whole model (peft's merge_and_unload and save_pretrained; "
            "`residua edit --merge`), and audit the merged folder",
        )


def refuse_ranks(ckpt: Checkpoint, placement: Placement) -> None:
    """AuditError (code 2) for a kind of model that is not spread over ranks."""
    if placement.ranks > 1:
        raise AuditError(
            f"{ckpt.source}: only models of texts are spread over ranks", "run it in one process, with --device-map"
        )


def settled(model: PreTrainedModel, placement: Placement) -> PreTrainedModel:
    """The model in eval mode without gradients, moved to its device where the library has not placed it."""
    placed: Any = model if is_spread(model) else model.to(placement.device)  # type: ignore[arg-type]
    return placed.eval().requires_grad_(False)


@contextmanager
def _quiet() -> Generator[None]:
    """Loading bars belong to whoever asked for the audit, not to the library."""
    level, bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    dispatch = logging.getLogger("accelerate.big_modeling")
    spoken = dispatch.level
    dispatch.setLevel(logging.ERROR)  # that weights lie on disk is what was asked for
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        dispatch.setLevel(spoken)
        if bar:
            hf_logging.enable_progress_bar()
