"""bitsandbytes: LLM.int8, NF4 and FP4, with and without quantised scales.

A 4-bit model that is saved after a forward pass on a CPU with AVX512-BF16 holds its scales transposed and rounded to
bfloat16 (bitsandbytes 0.50.2); their two dimensions give that away, and they are turned back. What was rounded stays
rounded: such a save and one from before the pass are two checkpoints of slightly different weights.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from audit.checkpoints.dequantiser import Dequantiser
from audit.schema import AuditError, ExitCode

if TYPE_CHECKING:
    from torch import Tensor

_KINDS = ("nf4", "fp4")
_TABLES = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_STATE = "quant_state.bitsandbytes__"


class BitsAndBytes(Dequantiser):
    """Codes of a table of 16 values, or of 8-bit integers, times the scale of their block or row."""

    package: ClassVar[str | None] = "bitsandbytes"
    suffixes: ClassVar[Mapping[str, str]] = {
        ".weight": "codes", ".SCB": "SCB", ".weight_format": "weight_format",
        **{f".weight.{table}": table for table in _TABLES}, **{f".weight.{_STATE}{kind}": kind for kind in _KINDS},
    }  # fmt: skip
    marks: ClassVar[frozenset[str]] = frozenset({"SCB", "absmax", *_KINDS})
    needed: ClassVar[frozenset[str]] = frozenset({"codes"})
    unused: ClassVar[frozenset[str]] = frozenset({"weight_format"})

    @classmethod
    def claims(cls, settings: Mapping[str, JsonValue]) -> bool:
        method = str(settings.get("quant_method") or "")
        loaded = bool(settings.get("load_in_8bit") or settings.get("load_in_4bit"))
        return method.startswith("bitsandbytes") or (not method and loaded)

    @property
    def called(self) -> str:
        if self.settings.get("load_in_8bit"):
            return "bitsandbytes LLM.int8"
        kind = str(self.settings.get("bnb_4bit_quant_type", "fp4")).upper()
        return f"bitsandbytes {kind}{', double-quantised' if self.settings.get('bnb_4bit_use_double_quant') else ''}"

    @property
    def activations(self) -> str:
        return "activations are rounded to 8 bits" if self.settings.get("load_in_8bit") else ""

    def values(self, stem: str, parts: "Mapping[str, Tensor]") -> "Tensor":
        functional = self.library("bitsandbytes.functional")
        if "SCB" in parts:
            values: Tensor = functional.int8_vectorwise_dequant(parts["codes"], parts["SCB"].float())
        else:
            state = functional.QuantState.from_dict(self._state(stem, parts), device=parts["codes"].device)
            values = functional.dequantize_4bit(parts["codes"], state)
        return values.T.contiguous() if self.input_first else values

    def _state(self, stem: str, parts: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """The tables of 4-bit codes under the names that the library saves them by."""
        kind = next((kind for kind in _KINDS if kind in parts), None)
        if kind is None or not {"absmax", "quant_map"} <= parts.keys():
            raise AuditError(
                f"{stem}.weight: the tables of its 4-bit codes are not all in the files",
                "fetch the checkpoint again, or save it again with bitsandbytes 0.42 or later",
                ExitCode.INTEGRITY,
            )
        tables = {table: parts[table] for table in _TABLES if table in parts}
        if tables["absmax"].ndim == 2:
            tables["absmax"] = tables["absmax"].T.reshape(-1).float()
        return tables | {f"{_STATE}{kind}": parts[kind]}

    def note(self, parts: "Mapping[str, Tensor]") -> str:
        rounded = "absmax" in parts and parts["absmax"].ndim == 2
        return "scales rounded to bfloat16 by a forward pass before saving" if rounded else ""
