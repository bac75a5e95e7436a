"""Does a folder hold weights, or codes that stand for weights? Read from the config and the headers; nothing is opened.

A library that does not know a method of quantisation takes its codes for weights and says so in one line of its log.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from audit.checkpoints.folder import read_config, read_json, weight_files
from audit.schema import AuditError
from audit.storage import safetensors_file

_CONFIG_KEYS = ("quantization_config", "compression_config", "quantization")
_METHOD_KEYS = ("quant_method", "quant_algo", "quant_type", "format")
_SIDE_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
# what stands beside codes: their scales, zero points, tables and shapes
_BESIDE_CODES = re.compile(
    r"(qweight|qzeros|g_idx|absmax|quant_map|quant_state\.\w+|SCB|weight_format|weight_packed|weight_shape|zero_point"
    r"|zeros|scales?|scale_inv|_blocks)$"
)
_MASKS = re.compile(r"(bias|mask|position_ids)$")


def check_unquantised(folder: Path) -> None:
    """AuditError (code 2) names the method by which a folder's weights are stored as codes, and says what to do."""
    config = read_config(folder)
    method = _method(config)
    if method is None and (codes := _codes(folder)) is not None:
        beside = (_method(read_json(folder / name)) for name in _SIDE_FILES if (folder / name).is_file())
        method = f"{next(filter(None, beside), 'an unnamed method')}; tensor {codes!r} holds codes"
    if method is not None:
        raise AuditError(
            f"{folder}: its weights are quantised ({method}), and quantised checkpoints are not opened yet",
            "audit the weights before they were quantised; or dequantise them and save the model without "
            "quantization_config; where they are plain weights already, take that entry out of config.json",
        )


def _method(config: Mapping[str, JsonValue]) -> str | None:
    """The method of quantisation that a config, or one within it, states."""
    for key, value in config.items():
        if not isinstance(value, dict) or not value:
            continue
        if key in _CONFIG_KEYS:
            return _stated(value)
        if (inner := _method(value)) is not None:
            return inner
    return None


def _stated(settings: Mapping[str, JsonValue]) -> str:
    """The method's name in its settings."""
    if settings.get("load_in_8bit") or settings.get("load_in_4bit"):
        return f"bitsandbytes, {'4' if settings.get('load_in_4bit') else '8'} bits"
    names = [value for key in _METHOD_KEYS if isinstance(value := settings.get(key), str)]
    return names[0] if names else "an unnamed method"


def _codes(folder: Path) -> str | None:
    """A tensor that is no plain weight: eight-bit floats, integer matrices, or integers named as codes are."""
    for path in weight_files(folder):
        for name, entry in sorted(safetensors_file.read_header(path).entries.items()):
            small = entry.dtype in ("I8", "U8") and not _MASKS.search(name)
            packed = entry.dtype in ("I16", "I32", "U32") and _BESIDE_CODES.search(name) is not None
            if entry.dtype.startswith("F8") or small or packed:
                return name
    return None
