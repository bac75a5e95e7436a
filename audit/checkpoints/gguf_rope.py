"""Scaled rotary positions of a .gguf file: a table of frequencies, from which the config's words are found again.

A file made of Llama 3.1 or later holds the divisor of each rotary frequency as a tensor, which transformers passes over
(5.23.0). The releases of that family share all of their settings but the factor, so that a table says which they are.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue

from audit.schema import AuditError

FREQUENCIES: Final = "rope_freqs.weight"
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192


def rope_of(reader: Any, config: Any, file: Path, do: str) -> dict[str, JsonValue]:
    """The entry of a config that the file's table of frequencies stands for; empty where there is none, or where all
    frequencies are as they are without it.

    AuditError (code 2) for a table that no setting of Llama 3 gives.
    """
    table = next((tensor for tensor in reader.tensors if tensor.name == FREQUENCIES), None)
    if table is None:
        return {}
    found = [float(value) for value in table.data]
    if all(value == 1.0 for value in found):
        return {}
    theta = float((getattr(config, "rope_parameters", None) or {}).get("rope_theta") or 10000.0)
    for factor in sorted({max(found), float(round(max(found)))}):
        table_of = [_divisor(n, len(found), theta, factor) for n in range(len(found))]
        if all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(found, table_of, strict=True)):
            settings: dict[str, JsonValue] = {
                "rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": _LOW,
                "high_freq_factor": _HIGH, "original_max_position_embeddings": _ORIGINAL,
            }  # fmt: skip
            return {"rope_parameters": settings}
    raise AuditError(
        f"{file}: its rotary positions are scaled by a table ({FREQUENCIES}) that is none of Llama 3.1 to 3.3, and the "
        "config that transformers reads from the file leaves it out",
        do,
    )


def check_stated(reader: Any, config: Mapping[str, JsonValue], file: Path) -> None:
    """AuditError (code 2) where a file's table scales its rotary positions and the config beside it does not."""
    table = next((tensor for tensor in reader.tensors if tensor.name == FREQUENCIES), None)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = (rope.get("rope_type") or rope.get("type") or "default") if isinstance(rope, dict) else "default"
    if table is not None and any(float(value) != 1.0 for value in table.data) and kind == "default":
        raise AuditError(
            f"{file}: its rotary positions are scaled by a table ({FREQUENCIES}), and {file.parent / 'config.json'} "
            "says that they are not",
            "restore the config.json that the model was made from",
        )


def _divisor(n: int, count: int, theta: float, factor: float) -> float:
    """By what Llama 3 divides its n-th rotary frequency of ``count``: long waves by the factor, short ones by one, and
    those between by a mixture of both (https://arxiv.org/abs/2407.21783; transformers' ``llama3`` scaling)."""
    wave = 2 * math.pi * theta ** (n / count)
    if wave < _ORIGINAL / _HIGH:
        return 1.0
    if wave > _ORIGINAL / _LOW:
        return factor
    smooth = (_ORIGINAL / wave - _LOW) / (_HIGH - _LOW)
    return 1 / ((1 - smooth) / factor + smooth)
