"""A trained low-rank adapter written as PEFT writes one: the two files of its folder, whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import JsonValue

from audit.checkpoints.edited import refuse_taken, whole_folder
from audit.checkpoints.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from audit.checkpoints.resolution import resolve
from audit.schema import AuditError, Checkpoint, Source
from audit.storage import write_atomic, write_tensors

if TYPE_CHECKING:
    from torch import Tensor


class AdapterShape(NamedTuple):
    """What PEFT must know of a LoRA beside its tensors: rank, alpha, the maps it stands beside by their names in the
    model, and whether these keep their matrices as [in, out]."""

    rank: int
    alpha: float
    maps: tuple[str, ...]
    transposed: bool = False


def on_base(base: Checkpoint, folder: Path) -> Source:
    """Base with the adapter in ``folder``. AuditError (code 2) for a base that has an adapter or edits of its own, or
    runs code of its own."""
    if base.adapter is not None or base.edits or base.code is not None:
        held = "an adapter" if base.adapter is not None else "edits" if base.edits else "code"
        raise AuditError(f"{base.source}: has {held} of its own, and takes no adapter", "save it as whole weights")
    return Source(path=base.source, adapter=str(folder))


def write_adapter(out: Path, base: Checkpoint, shape: AdapterShape, tensors: "Mapping[str, Tensor]") -> Checkpoint:
    """Write a PEFT folder at ``out`` and name base with it. ``tensors`` by their names in the file.

    AuditError (code 2): see :func:`on_base`, ``out`` holds something already, or the adapter changes nothing; code 3 if
    the disk refuses.
    """
    out = refuse_taken(out)
    source = on_base(base, out)
    if not any(bool((value != 0).any()) for name, value in tensors.items() if ".lora_B" in name):
        raise AuditError(f"{out}: the adapter changes nothing: its second matrices are zero", "train it first")
    settings: dict[str, JsonValue] = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base.source, "r": shape.rank,
        "lora_alpha": shape.alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": shape.transposed,
        "target_modules": list[JsonValue](shape.maps), "inference_mode": True, "init_lora_weights": True,
    }  # fmt: skip
    with whole_folder(out) as temp:
        write_tensors(temp / ADAPTER_WEIGHTS, tensors, {"format": "pt"})
        write_atomic(temp / ADAPTER_CONFIG, json.dumps(settings, indent=1, sort_keys=True).encode())
    return resolve(source, out)
