"""One adapter merged layer by layer: every layer before and after, LoRA against its closed form."""

import logging
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from audit.schema import AuditError, ExitCode, as_audit_error

log = logging.getLogger(__name__)
NAME = "default"
"""What the adapter is called while it is beside the model."""
DO_MERGE = "merge it where it was trained (merge_and_unload), save the merged model and audit that"
VARIANTS = (
    "use_dora", "use_qalora", "use_bdlora", "velora_config", "monteclora_config", "kasa_config", "arrow_config",
)  # fmt: skip
"""Entries of a LoRA whose update is more than scale * B @ A."""
_PAIRS = ((".lora_A.weight", ".lora_B.weight", False), (".lora_embedding_A", ".lora_embedding_B", True))
_PRODUCT_ERROR = 1e-5
_MUCH = 0.5


class _Pair(NamedTuple):
    """The two matrices of one layer as the file holds them, [rank, in] and [out, rank]; ``lookup``: of an embedding."""

    a: Tensor
    b: Tensor
    lookup: bool


class Rounded(NamedTuple):
    """Sums of squares over all layers: what should have been added, and how far off the merged weights are."""

    wanted: float = 0.0
    missed: float = 0.0

    def plus(self, other: "Rounded") -> "Rounded":
        """The sums of both."""
        return Rounded(self.wanted + other.wanted, self.missed + other.missed)

    @property
    def share(self) -> float:
        """Size of the error in the size of the update."""
        return math.sqrt(self.missed / self.wanted) if self.wanted else 0.0

    def warn(self, path: Path) -> None:
        """Say it where merging loses much of the update."""
        if self.share > _MUCH:
            log.warning("%s: merging rounds off as much as %.0f %% of the update: use float32", path, 100 * self.share)


def merge_layers(peft: Any, by_place: Mapping[str, Tensor], settings: Mapping[str, JsonValue], path: Path) -> bool:
    """Merge every layer of the adapter. Does any weight change?

    AuditError 2: PEFT refuses to merge a layer; 3: a layer's change is not the one that the file says.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    pairs = _pairs(by_place) if settings["peft_type"] == "LORA" and not any(map(settings.get, VARIANTS)) else {}
    shared, bites, rounded = _shared(peft), False, Rounded()
    for name, layer in list(peft.named_modules()):
        if not isinstance(layer, BaseTunerLayer):
            continue
        _untie(layer, shared)
        before = [parameter.detach().clone() for parameter in layer.get_base_layer().parameters()]
        with as_audit_error(f"{path}: {name} cannot be merged", DO_MERGE):
            layer.merge()
        after = [parameter.detach() for parameter in layer.get_base_layer().parameters()]
        bites |= any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        if not all(bool(tensor.isfinite().all()) for tensor in after):
            raise AuditError(f"{path}: {name} holds NaN or infinite values once merged", DO_MERGE, ExitCode.INTEGRITY)
        if (pair := pairs.pop(name, None)) is not None:
            rslora = bool(settings.get("use_rslora"))
            rounded = rounded.plus(_missed(layer, pair, before[0], rslora, f"{path}: {name}"))
    if pairs:
        problem = f"{path}: {len(pairs)} pairs of matrices reach no weight (first: {min(pairs)})"
        raise AuditError(problem, DO_MERGE, ExitCode.INTEGRITY)
    rounded.warn(path)
    return bites


def _pairs(by_place: Mapping[str, Tensor]) -> dict[str, _Pair]:
    """The pairs of the file by the layer that they name."""
    pairs: dict[str, _Pair] = {}
    for name, tensor in by_place.items():
        for first, second, lookup in _PAIRS:
            if name.endswith(first):
                layer = name.removesuffix(first)
                pairs[layer] = _Pair(tensor, by_place[layer + second], lookup)
    return pairs


def _shared(peft: Any) -> set[int]:
    """Parameters that stand in more than one place (an embedding tied to the head)."""
    times = Counter(id(parameter) for _, parameter in peft.named_parameters(remove_duplicate=False))
    return {parameter for parameter, count in times.items() if count > 1}


def _untie(layer: Any, shared: set[int]) -> None:
    """Give a layer weights of its own: beside the model its adapter acts in this place alone, and so it must inside."""
    base: nn.Module = layer.get_base_layer()
    for name, parameter in list(base.named_parameters(recurse=False)):
        if id(parameter) in shared:
            setattr(base, name, nn.Parameter(parameter.detach().clone(), parameter.requires_grad))


def _missed(layer: Any, pair: _Pair, before: Tensor, rslora: bool, where: str) -> Rounded:
    """Is merged - base = scale * B @ A, to the rounding of the weights? AuditError (code 3) if not."""
    after: Tensor = layer.get_base_layer().weight.detach()
    exact = torch.promote_types(after.dtype, torch.float32)
    rank = pair.a.shape[0]
    scale = float(layer.lora_alpha[NAME]) / (math.sqrt(rank) if rslora else rank)
    wanted = scale * (pair.b.to(exact) @ pair.a.to(exact))
    if pair.lookup or layer.fan_in_fan_out:  # both hold their weight as [in, out]
        wanted = wanted.T
    return held_against(wanted, before, after, where)


def held_against(wanted: Tensor, before: Tensor, after: Tensor, where: str) -> Rounded:
    """Is merged - base the update that is wanted (float32 or wider), to the rounding of the weights? AuditError
    (code 3) if not."""
    missed = (after.to(wanted.dtype) - before.to(wanted.dtype) - wanted).abs()
    steps = 2 * torch.finfo(after.dtype).eps * torch.maximum(before.abs(), after.abs()).to(wanted.dtype)
    if not bool((missed <= steps + _PRODUCT_ERROR * wanted.abs().max()).all()):
        problem = f"{where}: merged - base is not scale * B @ A (off by {float(missed.max()):.2g})"
        raise AuditError(problem, DO_MERGE, ExitCode.INTEGRITY)
    return Rounded(float(wanted.square().sum()), float(missed.square().sum()))
