"""The tensors of several checkpoints side by side, edits applied, without building a model.

Names are those of the model's parameters: where a file holds one tensor an expert and the model all of them in one, it
is put together by the library's own rule, so that files of either form, and of older releases, stand beside one another
under the same names and in the same shapes. A tied name that a checkpoint does not keep apart is served from the tensor
that it is tied to, so that tied and untied checkpoints can be compared. Hook edits change no weight and are not seen.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audit.bench.results import WeightStream
from audit.bench.weight_journal import same_bytes
from audit.checkpoints import delta_of, weight_files, weights_folder
from audit.schema import AuditError, Checkpoint, as_audit_error
from audit.storage import opened_tensors, safetensors_file
from audit.wrappers import ReadingRules, fresh_model


class Stored:
    """One checkpoint's tensors by parameter name, read when they are asked for; ``order`` is the model's."""

    def __init__(self, ckpt: Checkpoint) -> None:
        if ckpt.adapter is not None:
            raise AuditError(
                f"{ckpt.source}: weights with an adapter exist only once a model is built",
                "merge the adapter and save the merged model",
            )
        folder = weights_folder(ckpt)
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
            return self._files[name].read()
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


class _Whole(NamedTuple):
    """A tensor that lies in a file as the model has it."""

    path: Path
    stored: str

    def read(self) -> Tensor:
        """The tensor as stored."""
        with opened_tensors(self.path) as file:
            return file.read(self.stored)


class _Put(NamedTuple):
    """A parameter that the library puts together from several stored tensors (one an expert), or takes from one."""

    rules: ReadingRules
    target: str
    pieces: dict[str, _Whole]

    def built(self, read: Callable[[_Whole], Tensor]) -> dict[str, Tensor]:
        """The parameters of the pieces by name, as the library's own rule makes them of what is read."""
        return self.rules.built(self.target, {name: partial(read, piece) for name, piece in self.pieces.items()})


class _PartOf(NamedTuple):
    """One of the parameters that are put together at once."""

    joined: _Put
    name: str

    def read(self) -> Tensor:
        """The tensor as the model has it."""
        return self.joined.built(_Whole.read)[self.name]


_Place = _Whole | _PartOf


def _files(folder: Path, skeleton: Any) -> dict[str, _Place]:
    """Parameter name -> where it lies, or what it is put together from. What is no parameter is left out.

    AuditError (code 2) where the library's own rule cannot be followed without building the model.
    """
    rules, places, parts = ReadingRules(skeleton), dict[str, _Place](), dict[str, _Put]()
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        for stored, entry in safetensors_file.read_header(path).entries.items():
            shapes[stored] = entry.shape
            name, rule = rules.destination(stored)
            if rule is not None:
                parts.setdefault(name, _Put(rules, name, {})).pieces[stored] = _Whole(path, stored)
            elif name in rules.parameters:
                places[name] = _Whole(path, stored)
    for part in parts.values():
        names = _names_of(folder, part, shapes)
        places |= {name: _PartOf(part, name) for name in names if name in rules.parameters}
    return places


def _names_of(folder: Path, part: _Put, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The parameters that a rule gives, found on tensors without values, and their shapes held against the model's."""
    problem = f"{folder}: {next(iter(part.pieces))!r} becomes a part of {part.target!r} only when the model is built"
    do = "compare the parameters of opened models instead"
    with as_audit_error(problem, do):
        built = part.built(lambda piece: torch.empty(shapes[piece.stored], device="meta"))
    expected = part.rules.parameters
    if any(name in expected and tensor.shape != expected[name].shape for name, tensor in built.items()):
        raise AuditError(problem, do)
    return list(built)
