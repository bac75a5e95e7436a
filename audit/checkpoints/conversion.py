"""A folder of codes turned into a folder of weights, tensor by tensor: no more than a shard is ever in memory."""

import json
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from pydantic import JsonValue

from audit.checkpoints.dequantiser import Dequantiser, Parts
from audit.checkpoints.folder import CODE_KEY, WEIGHTS_KEY, read_config, weight_files
from audit.checkpoints.quantisation import BESIDE_CODES, QUANTISATION_KEYS, is_code
from audit.schema import AuditError, as_audit_error
from audit.storage import opened_tensors, safetensors_file, write_atomic, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

RECIPE: Final = 1
"""Counts the changes to how codes become weights: a copy of another recipe is made again."""
_SHARD_BYTES: Final = 1 << 30
_DTYPE_KEYS = ("dtype", "torch_dtype")
_FLOATS = ("float64", "float32", "float16", "bfloat16")
UNSTATED: Final = "bfloat16"
_AGAIN: Final = "fetch the checkpoint again; if it opens in transformers, dequantise it there and audit what it saves"
Named = tuple[str, "Tensor"]


class Written(NamedTuple):
    """What a conversion leaves beside its files: how many weights came from codes, and what a report should say."""

    weights: int
    notes: tuple[str, ...]


def stated_dtype(config: Mapping[str, JsonValue]) -> str:
    """The dtype that the values of codes are rounded to: the config's own, that of a config within it, or bfloat16."""
    for key in _DTYPE_KEYS:
        if isinstance(name := config.get(key), str) and name.removeprefix("torch.") in _FLOATS:
            return name.removeprefix("torch.")
    inner = (value for key, value in config.items() if isinstance(value, dict) and key not in QUANTISATION_KEYS)
    return next((collected for table in inner if (collected := stated_dtype(table)) != UNSTATED), UNSTATED)


def plain_config(config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A config that says nothing of quantisation, of files, or of code, in whichever config within it that stands."""
    left_out = (*QUANTISATION_KEYS, WEIGHTS_KEY, CODE_KEY, "torch_dtype")
    return {k: plain_config(v) if isinstance(v, dict) else v for k, v in config.items() if k not in left_out}


def convert(folder: Path, dequantiser: Dequantiser, out: Path) -> Written:
    """Write the weights that the codes in ``folder`` stand for to ``out``, with the config of a plain model.

    AuditError: 2 where a tensor belongs to quantised weights by its name and the format has no use for it, or where no
    weight is stored in codes; 3 where parts are missing.
    """
    config = read_config(folder)
    conversion = _Conversion(folder, dequantiser)
    write_folder(out, plain_config(config) | {"dtype": stated_dtype(config)}, conversion.tensors(stated_dtype(config)))
    return Written(len(conversion.groups), tuple(sorted(conversion.notes)))


class _Conversion:
    """The stored tensors of a folder, sorted into weights in codes and what is plain."""

    def __init__(self, folder: Path, dequantiser: Dequantiser) -> None:
        self.folder, self.dequantiser = folder, dequantiser
        self.places: dict[str, Path] = {}
        self.dtypes: dict[str, str] = {}
        for path in weight_files(folder):
            header = safetensors_file.read_header(path)
            dequantiser.headed(header.metadata)
            self.places |= dict.fromkeys(header.entries, path)
            self.dtypes |= {name: entry.dtype for name, entry in header.entries.items()}
        self.groups = dequantiser.groups(self.places)
        self.notes: set[str] = set()
        coded = {name for parts in self.groups.values() for name in parts.values()}
        dropped = {name for name in self.places if re.search(dequantiser.left_out, name)}
        unused = {part for parts in self.groups.values() for part in dequantiser.unused & parts.keys()}
        if dropped or any(part.startswith(("input", "output", "activation")) for part in unused):
            self.notes.add("scales of activations are in the files and play no part")
        self.plain = sorted(self.places.keys() - coded - dropped)
        self._check()

    def _check(self) -> None:
        if not self.groups:
            raise AuditError(
                f"{self.folder}: config.json says that its weights are in {self.dequantiser.called}; none is",
                "if they are plain weights already, take quantization_config out of config.json",
            )
        weights = {self.dequantiser.name_of(stem) for stem in self.groups}
        modules = {weight.removesuffix(".weight") for weight in weights if weight.endswith(".weight")}
        for name in self.plain:
            module, _, own = name.rpartition(".")
            stem = BESIDE_CODES.sub("", name).rstrip("._")
            beside = stem != name and bool({stem, f"{stem}.weight"} & (weights | set(self.plain)))
            within = own != "bias" and module.removesuffix(".weight") in modules
            if is_code(name, self.dtypes[name]) or beside or within:
                raise AuditError(
                    f"{self.places[name]}: tensor {name!r} ({self.dtypes[name]}) belongs to quantised weights, and "
                    f"{self.dequantiser.called} has no use for it: it would be left out",
                    "check quantization_config: it may be that of another format; or dequantise the model with the "
                    "package that made it and audit the weights",
                )

    def tensors(self, dtype: str) -> Generator[Named]:
        """Name and values of every tensor of the plain model, in order."""
        import torch

        wanted = cast("torch.dtype", getattr(torch, dtype))
        with ExitStack() as stack:
            files = {path: stack.enter_context(opened_tensors(path)) for path in sorted(set(self.places.values()))}
            read = lambda name: files[self.places[name]].read(name)  # noqa: E731
            for stem, parts in self.groups.items():
                values = self._values(stem, parts, read)
                yield self.dequantiser.name_of(stem), values.to(wanted)
            for name in self.plain:
                yield name, read(name)

    def _values(self, stem: str, parts: Parts, read: Any) -> "Tensor":
        import torch

        fault = f"{self.folder}: the weight {stem!r} cannot be read as {self.dequantiser.called}"
        with as_audit_error(fault, _AGAIN), torch.no_grad():
            tensors = {part: read(name) for part, name in parts.items() if part not in self.dequantiser.unused}
            if note := self.dequantiser.note(tensors):
                self.notes.add(note)
            return self.dequantiser.values(stem, tensors)


def write_folder(out: Path, config: Mapping[str, JsonValue], tensors: Iterable[Named]) -> None:
    """A folder of a plain model at ``out``: config.json, and safetensors of at most a gigabyte (or one tensor) each."""
    shards: dict[str, list[str]] = {}
    held: dict[str, Tensor] = {}
    total = size = 0

    def flush() -> None:
        name = f"model-{len(shards) + 1:05d}.safetensors"
        write_tensors(out / name, held, {"format": "pt"})
        shards[name] = list(held)
        held.clear()

    for name, tensor in tensors:
        more = tensor.numel() * tensor.element_size()
        if held and size + more > _SHARD_BYTES:
            flush()
            size = 0
        held[name] = tensor
        size, total = size + more, total + more
    flush()
    places = {name: shard for shard, names in shards.items() for name in names}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    write_atomic(out / "model.safetensors.index.json", json.dumps(index, sort_keys=True).encode())
    write_atomic(out / "config.json", json.dumps(dict(config), indent=1, sort_keys=True).encode())
