"""Where a model's weights lie: whole on one device, spread over devices and disk, or over ranks.

accelerate spreads (a device map; what does not fit is read from the checkpoint's own files, module by module, when it
is computed), transformers shards over the ranks of torchrun by a family's own tensor-parallel plan.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.schema import AuditError, Op

NAMED: Final = ("auto", "balanced", "balanced_low_0", "sequential")
AWAY: Final = frozenset({"cpu", "disk", "meta"})
"""Places from which weights are fetched when a module runs; the CPU only where another device computes."""
_OFFLOADED = frozenset({Op.TRAIN, Op.CHANGE})
_SHARDED = _OFFLOADED | {Op.GRADIENT, Op.PATTERN}


class Placement(NamedTuple):
    """``device_map``: one of :data:`NAMED` or the path of a JSON file (module name -> device); None: whole on
    ``device``. ``memory``: bytes by device ("cpu", "0", ...) that weights may take. ``folder``: for weights that must
    be written anew to be read from disk (fused ones). ``ranks``: processes of torchrun that share every matrix.
    ``away``: which modules do not lie on a device that computes (:func:`audit.wrappers.settled_placement`)."""

    device: str = "cpu"
    device_map: str | None = None
    memory: tuple[tuple[str, int], ...] = ()
    folder: Path | None = None
    ranks: int = 1
    away: str = ""

    @property
    def whole(self) -> bool:
        """Whether each model lies on one device as one."""
        return self.device_map is None and self.ranks == 1

    @property
    def reason(self) -> str:
        """Why weights cannot be changed here; empty where they can."""
        if self.ranks > 1:
            return f"weights are spread over {self.ranks} ranks"
        return f"weights are offloaded: {self.away}" if self.away else ""

    @property
    def lacking(self) -> Mapping[Op, str]:
        """What no backend can do with weights that lie like this, and why."""
        lost = _SHARDED if self.ranks > 1 else _OFFLOADED if self.away else frozenset[Op]()
        return dict.fromkeys(sorted(lost), self.reason)

    def bytes_of(self, device: str) -> int | None:
        """How many bytes of weights a device may take, where that was said."""
        return dict(self.memory).get(device)


def library_settings(placement: Placement, skeleton: PreTrainedModel, dtype: torch.dtype) -> dict[str, object]:
    """What ``from_pretrained`` is told. ``skeleton``: the same model without values (on meta).

    AuditError (code 2): a device map that is none, a family without a plan for ranks.
    """
    if placement.ranks > 1:
        from transformers.distributed.configuration_utils import DistributedConfig

        _check_plan(skeleton, placement.ranks)
        return {"distributed_config": DistributedConfig(tp_plan="auto")}
    if placement.device_map is None:
        return {}
    more = {} if placement.folder is None else {"offload_folder": str(placement.folder)}
    return {"device_map": device_map_of(placement, skeleton, dtype), **more}


def device_map_of(placement: Placement, skeleton: PreTrainedModel, dtype: torch.dtype) -> dict[str, int | str]:
    """Module name -> the device that holds it, "cpu" or "disk". AuditError (code 2) for a file that is no such map."""
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory, get_max_memory

    name = placement.device_map or "auto"
    if name not in NAMED:
        return _read_map(Path(name))
    given: Any = {int(key) if key.isdigit() else key: size for key, size in placement.memory} or None
    classes: Any = sorted(skeleton._no_split_modules or ())  # pyright: ignore[reportPrivateUsage]
    if name == "sequential":
        memory = get_max_memory(given)
    else:
        low = name == "balanced_low_0"
        memory = get_balanced_memory(skeleton, given, no_split_module_classes=classes, dtype=dtype, low_zero=low)
    inferred: Any = infer_auto_device_map(skeleton, memory, no_split_module_classes=classes, dtype=dtype)
    return dict(inferred)


def away(device_map: Mapping[str, int | str]) -> str:
    """Which modules are not where they are computed, in words; empty where all are."""
    computing = any(str(device) not in AWAY for device in device_map.values())
    lying = [str(d) for d in device_map.values() if str(d) in AWAY and (computing or d != "cpu")]
    which = "all modules" if len(lying) == len(device_map) else f"{len(lying)} of {len(device_map)} modules"
    return f"{which} lie on {' and '.join(sorted(set(lying)))}" if lying else ""


def _read_map(path: Path) -> dict[str, int | str]:
    do = f'give one of {", ".join(NAMED)}, or a JSON file: module name -> device number, "cpu" or "disk"'
    try:
        stated: object = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise AuditError(f"--device-map {path}: cannot be read as JSON ({error})", do) from None
    if not isinstance(stated, dict) or not all(isinstance(v, int | str) for v in stated.values()):
        raise AuditError(f"--device-map {path}: is no table of module names and devices", do)
    return {str(key): value for key, value in stated.items()}


def _check_plan(skeleton: PreTrainedModel, ranks: int) -> None:
    kind = skeleton.config.model_type
    do = f"run it in one process, with --device-map where it does not fit on one device; or on other than {ranks} ranks"
    if not getattr(skeleton.config.get_text_config(), "base_model_tp_plan", None):
        raise AuditError(f"transformers has no tensor-parallel plan for {kind} models", do)
    config: Any = skeleton.config.get_text_config()
    for size in ("num_attention_heads", "num_key_value_heads"):
        n = getattr(config, size, None)
        if isinstance(n, int) and n % ranks:
            raise AuditError(f"{n} {size} cannot be shared by {ranks} ranks", do)


# ---- of an open model -------------------------------------------------------------------------------------------
def gathered(model: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """A parameter or buffer with its values, wherever they lie: read from disk, or gathered from all ranks, which must
    all ask. To be read: writing into it changes no model that is spread."""
    if tensor.is_meta:
        from transformers.integrations.accelerate import load_offloaded_parameter

        return load_offloaded_parameter(model, name)  # type: ignore[arg-type]
    whole = getattr(tensor, "full_tensor", None)
    return tensor if whole is None else whole()


def resident_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of tensors that lie in this process's memory, each once: none of those on disk, a rank's own share."""
    local = [getattr(tensor, "to_local", lambda tensor=tensor: tensor)() for tensor in tensors.values()]
    return sum({each.data_ptr(): each.nbytes for each in local if not each.is_meta}.values())


def home_of(model: PreTrainedModel) -> torch.device:
    """Where a model takes its inputs: its first computing device."""
    placed: Mapping[str, int | str] = getattr(model, "hf_device_map", {})
    computing = [device for device in placed.values() if str(device) not in AWAY]
    if computing:
        return torch.device(computing[0])
    return torch.device("cpu") if placed else model.device


def is_sharded(model: nn.Module) -> bool:
    """Whether some parameter is one of several ranks' shares: heads and hidden units are then this rank's alone."""
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters())


def is_spread(model: nn.Module) -> bool:
    """Whether the library has put the model where it is, so that it must not be moved as a whole."""
    return getattr(model, "hf_device_map", None) is not None or is_sharded(model)
