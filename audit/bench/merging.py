"""Edited weights written out as a plain folder, in the dtype in which the parent's lie."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from audit.bench import edit_playback
from audit.checkpoints import (
    TokenizerFiles,
    delta_of,
    folder_of,
    tokenizer_files,
    tokenizer_folder,
    weight_files,
    weights_folder,
)
from audit.schema import AuditError, Checkpoint, as_audit_error
from audit.storage import safetensors_file
from audit.wrappers import open_wrapper

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_BESIDE = ("preprocessor_config.json", "processor_config.json", "generation_config.json")


class Merged(NamedTuple):
    """The dtype of the written weights, and what rounding to it moved: its norm over that of the last edit's change."""

    dtype: str
    rounding: float


def stored_dtype(ckpt: Checkpoint) -> str:
    """The dtype in which most bytes of the parent's weights lie."""
    sizes = Counter[str]()
    for path in weight_files(weights_folder(ckpt)):
        for entry in safetensors_file.read_header(path).entries.values():
            sizes[entry.dtype] += entry.end - entry.start
    kinds = [kind for kind, _ in sizes.most_common() if kind in _DTYPES]
    return _DTYPES[kinds[0]] if kinds else "float32"


def check_folds(ckpt: Checkpoint) -> None:
    """AuditError (code 2) for a checkpoint that no plain folder of weights can hold."""
    do = "leave out --merge: `residua run` plays the edited folder back as it is"
    for record in ckpt.edits:
        if record.is_hook:
            problem = f"the edit {record.name!r} acts on states by a hook ({record.plays}), which no weight can hold"
            raise AuditError(problem, do)
    if ckpt.code is not None:
        raise AuditError(f"{ckpt.source}: its modules are made by code of your own, which no folder can hold", do)


def save_merged(ckpt: Checkpoint, out: Path) -> Merged:
    """Write the weights of an edited checkpoint at ``out`` with its config and tokenizer, as the library would.

    AuditError: code 2 where an edit cannot be folded (:func:`check_folds`) or rounding to the parent's dtype leaves
    nothing of it; code 3 if the disk refuses.
    """
    check_folds(ckpt)
    dtype, moved = stored_dtype(ckpt), list[float]()

    def play_and_save(model: "PreTrainedModel") -> None:
        live = dict(model.named_parameters(remove_duplicate=False))
        last = delta_of(ckpt, ckpt.edits[-1])
        before = {name: live[name].detach().clone() for name in last if name in live}
        edit_playback.opened(ckpt, model)
        moved.append(_rounding(dict(model.named_parameters(remove_duplicate=False)), before, last))
        _say_untied(model)
        do = "choose a folder on a disk with room"
        with as_audit_error(f"{out}: the merged model cannot be written", do, 3):
            _quietly(lambda: model.save_pretrained(out))

    open_wrapper(ckpt, dtype=dtype, prepare=play_and_save)
    _copy_beside(ckpt, out)
    return Merged(dtype, moved[0])


def _quietly(save: Callable[[], None]) -> None:
    """Progress is ours to show: the library's bar would break into it."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        save()
    finally:
        if shown:
            logging.enable_progress_bar()


def _rounding(after: dict[str, Tensor], before: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    lost = sum(float((after[name].double() - wanted[name].double()).square().sum()) for name in before)
    change = sum(float((wanted[name].double() - old.double()).square().sum()) for name, old in before.items())
    return (lost / change) ** 0.5 if change else 0.0


def _say_untied(model: "PreTrainedModel") -> None:
    """A head that an edit took from the embeddings is a weight of its own, and the config has to say so."""
    head, embedding = model.get_output_embeddings(), _input_of(model)
    if head is None or embedding is None or not getattr(model.config, "tie_word_embeddings", False):
        return
    if head.weight is not embedding.weight:
        model.config.tie_word_embeddings = False


def _input_of(model: "PreTrainedModel") -> torch.nn.Module | None:
    try:
        return model.get_input_embeddings()
    except RuntimeError:  # how the library says that there is none
        return None


def _copy_beside(ckpt: Checkpoint, out: Path) -> None:
    """Tokenizer and processors as they are, byte for byte."""
    source, tokenizer = folder_of(ckpt), tokenizer_folder(ckpt)
    files: TokenizerFiles | None = None if tokenizer is None else tokenizer_files(tokenizer)
    brought = [] if files is None else [(files.folder, name) for name, _ in files.hashes]
    for folder, name in (*brought, *((source, name) for name in _BESIDE if (source / name).is_file())):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, out / name)
