"""Does a folder hold weights, or codes that stand for weights? Read from the config and the headers; nothing is opened.

A library that does not know a method of quantisation takes its codes for weights and says so in one line of its log.
So a method is known here, by name, or refused.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import JsonValue

from audit.checkpoints.dequantiser import Dequantiser, dequantiser_for
from audit.checkpoints.folder import read_config, read_json, weight_files
from audit.schema import AuditError, ExitCode
from audit.storage import safetensors_file

QUANTISATION_KEYS = ("quantization_config", "compression_config", "quantization")
_METHOD_KEYS = ("quant_method", "quant_algo", "quant_type", "format")
# settings beside the config, as older tools write them -> the method that they mean where they name none
_SIDE_FILES = {"hf_quant_config.json": "", "quantize_config.json": "gptq", "quant_config.json": "awq"}
# what stands beside codes: their scales, zero points, tables and shapes
BESIDE_CODES = re.compile(
    r"(qweight|qzeros|g_idx|absmax|quant_map|quant_state\.\w+|SCB|weight_format|weight_packed|weight_shape|zero_point"
    r"|zeros|scales?|scale_inv|_blocks)$"
)
_MASKS = re.compile(r"(bias|mask|position_ids)$")
_INTEGERS = ("I16", "I32", "U16", "U32")


def dequantiser_of(folder: Path) -> Dequantiser | None:
    """How the codes in a folder of safetensors are read; None where it holds plain weights.

    AuditError (code 2) names a method, or a variant of one, whose codes cannot be turned into weights here.
    """
    files = weight_files(folder)
    watched = (folder / "config.json", *(folder / name for name in _SIDE_FILES), *files)
    return _dequantiser_of(folder, tuple(safetensors_file.stamp(path) if path.is_file() else None for path in watched))


@lru_cache(maxsize=256)
def _dequantiser_of(folder: Path, _stamps: tuple[tuple[int, ...] | None, ...]) -> Dequantiser | None:
    config = read_config(folder)
    stated, codes = _settings(config), codes_in(folder)
    if stated is None and codes is None:
        return None
    settings = _beside(folder) if stated is None else stated
    known, names = dequantiser_for(settings or {}, config)
    if known is None and settings is None and codes is not None and _typed_wrongly(folder, codes):
        raise AuditError(
            f"{folder}: tensor {codes!r} is stored as integers, and nothing says how they would be weights",
            "fetch or save the checkpoint again, with weights of a floating-point type",
            ExitCode.INTEGRITY,
        )
    if known is None:
        method = _stated(settings or {}) + (f"; tensor {codes!r} holds codes" if stated is None else "")
        raise AuditError(
            f"{folder}: its weights are quantised ({method}), in a format whose codes cannot be turned into weights "
            f"here; known are {', '.join(names)} and gguf",
            "audit the weights before they were quantised; or dequantise them with the package that made them and save "
            "the model without quantization_config; where they are plain weights already, take that entry out of "
            "config.json",
        )
    known.check()
    return known


def _typed_wrongly(folder: Path, name: str) -> bool:
    """Is a tensor of codes a weight under its plain name, of integers, and nothing beside it says what they mean?"""
    entries = {n: e for path in weight_files(folder) for n, e in safetensors_file.read_header(path).entries.items()}
    plain = name.endswith(".weight") and entries[name].dtype in ("I8", "U8")
    return plain and not any(BESIDE_CODES.search(other) for other in entries)


def _settings(config: Mapping[str, JsonValue]) -> dict[str, JsonValue] | None:
    """The settings of quantisation that a config, or one within it, states."""
    for key, value in config.items():
        if not isinstance(value, dict) or not value:
            continue
        if key in QUANTISATION_KEYS:
            return value
        if (inner := _settings(value)) is not None:
            return inner
    return None


def _beside(folder: Path) -> dict[str, JsonValue] | None:
    """The settings in a file of their own; a file that names no method means the one whose tools write it."""
    for name, method in _SIDE_FILES.items():
        if (folder / name).is_file():
            document = read_json(folder / name)
            settings = _settings(document) or document
            renamed = any(isinstance(settings.get(key), str) for key in _METHOD_KEYS)
            return settings if renamed or not method else settings | {"quant_method": method}
    return None


def _stated(settings: Mapping[str, JsonValue]) -> str:
    """The method's name in its settings."""
    names = [value for key in _METHOD_KEYS if isinstance(value := settings.get(key), str)]
    return names[0] if names else "an unnamed method"


def codes_in(folder: Path) -> str | None:
    """A tensor of the folder that is no plain weight."""
    for path in weight_files(folder):
        for name, entry in sorted(safetensors_file.read_header(path).entries.items()):
            if is_code(name, entry.dtype):
                return name
    return None


def is_code(name: str, dtype: str) -> bool:
    """Is it no plain weight: floats or integers of eight bits or fewer, or integers that are named as codes are?"""
    small = dtype in ("I8", "U8") and not _MASKS.search(name)
    packed = dtype in _INTEGERS and BESIDE_CODES.search(name) is not None
    return small or packed or dtype.startswith(("F8_", "F6_", "F4"))
