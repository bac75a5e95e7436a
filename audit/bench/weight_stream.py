"""The tensors of several checkpoints side by side, edits applied, without building a model.

Names are those of the model's parameters. A tied name that a checkpoint does not keep apart is served from the tensor
that it is tied to, so that tied and untied checkpoints can be compared. Hook edits change no weight and are not seen.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, rename_source_key

from audit.bench.results import WeightStream
from audit.bench.weight_journal import same_bytes
from audit.checkpoints import delta_of, folder_of, weight_files
from audit.schema import AuditError, Checkpoint
from audit.storage import safetensors_file
from audit.wrappers import fresh_model


class Stored:
    """One checkpoint's tensors by parameter name, read when they are asked for; ``order`` is the model's."""

    def __init__(self, ckpt: Checkpoint) -> None:
        if ckpt.adapter is not None:
            raise AuditError(
                f"{ckpt.source}: weights with an adapter exist only once a model is built",
                "merge the adapter and save the merged model",
            )
        folder = folder_of(ckpt)
        skeleton = _skeleton(ckpt)
        self.order = tuple(name for name, _ in skeleton.named_parameters(remove_duplicate=False))
        self._files = _files(folder, skeleton)
        self._ties: dict[str, str] = {a: b for a, b in skeleton.all_tied_weights_keys.items() if a not in self._files}
        self._rows: dict[str, int] = {} if ckpt.vocabulary is None else _rows(skeleton, ckpt.vocabulary)
        self._edited: dict[str, Tensor] = {}
        for record in ckpt.edits:
            if not record.is_hook:
                self._apply(delta_of(ckpt, record))

    def _apply(self, delta: dict[str, Tensor]) -> None:
        """Lay one edit over what is there; a tied name that it gives another value is tied no longer."""
        for alias, first in list(self._ties.items()):
            if alias not in delta:
                continue
            if same_bytes(delta[alias], delta[first] if first in delta else self[first]):
                delta = {name: value for name, value in delta.items() if name != alias}
            else:
                del self._ties[alias]
        self._edited |= delta

    @property
    def names(self) -> set[str]:
        """The names with a tensor of their own."""
        return set(self._files) | set(self._edited)

    def __contains__(self, name: str) -> bool:
        return name in self._edited or name in self._files or name in self._ties

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._whole(name)
        return tensor[: self._rows[name]] if name in self._rows else tensor

    def _whole(self, name: str) -> Tensor:
        if name in self._edited:
            return self._edited[name]
        if name in self._files:
            path, stored = self._files[name]
            with safe_open(path, framework="pt") as file:  # pyright: ignore[reportUnknownVariableType]
                return file.get_tensor(stored)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        return self._whole(self._ties[name])


def weights(*ckpts: Checkpoint) -> WeightStream:
    """The checkpoints' tensors name by name (sorted), as stored, one tensor a checkpoint.

    AuditError (code 2) where one checkpoint has a tensor that another lacks, and for a checkpoint with an adapter.
    """
    stored = [Stored(ckpt) for ckpt in ckpts]
    names = sorted(set[str]().union(*(tensors.names for tensors in stored)))
    for ckpt, tensors in zip(ckpts, stored, strict=True):
        lacking = [name for name in names if name not in tensors]
        if lacking:
            raise AuditError(
                f"{ckpt.source}: has no tensor {lacking[0]!r}, which another checkpoint has",
                "compare checkpoints of the same architecture",
            )
    return ((name, tuple(tensors[name] for tensors in stored)) for name in names)


def _skeleton(ckpt: Checkpoint) -> Any:
    """The model's modules without any weights: names, ties and old names come from it."""
    with torch.device("meta"):
        return fresh_model(ckpt)


def _rows(skeleton: Any, rows: int) -> dict[str, int]:
    """The parameters of embeddings and head, by name, and how many of their rows count."""
    parts = (skeleton.get_input_embeddings(), skeleton.get_output_embeddings())
    ours = {id(parameter) for part in parts if part is not None for parameter in part.parameters()}
    return {name: rows for name, p in skeleton.named_parameters(remove_duplicate=False) if id(p) in ours}


def _files(folder: Path, skeleton: Any) -> dict[str, tuple[Path, str]]:
    """Parameter name -> the file and the name under which it is stored. What is no parameter is left out."""
    expected = dict(skeleton.named_parameters(remove_duplicate=False))
    transforms = get_model_conversion_mapping(skeleton)
    fused = [t for t in transforms if isinstance(t, WeightConverter)]
    renamed: Any = [t for t in transforms if not isinstance(t, WeightConverter)]
    locations: dict[str, tuple[Path, str]] = {}
    for path in weight_files(folder):
        for stored in safetensors_file.read_header(path).entries:
            name, converted = rename_source_key(stored, renamed, fused, skeleton.base_model_prefix, expected)
            if converted is not None:
                raise AuditError(
                    f"{folder}: {stored!r} becomes a part of {name!r} only when the model is built",
                    "compare the parameters of opened models instead",
                )
            if name in expected:
                locations[name] = (path, stored)
    return locations
