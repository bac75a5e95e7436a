"""HQQ: packed integers with a scale and a zero point a group, by the library's own dequantiser."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import JsonValue

from audit.checkpoints.dequantiser import Dequantiser

if TYPE_CHECKING:
    from torch import Tensor

_READ: Final = {
    "shape": "Size", "packing": "str", "axis": "int", "group_size": "int", "nbits": "int", "view_as_float": "bool",
    "unpack_view_dtype": "dtype",
}  # fmt: skip
_UNREAD: Final = (
    "quant_scale", "quant_zero", "compute_dtype", "offload_meta", "encoded_state_dict", "stores_quant_config",
    "channel_wise", "optimize", "round_zero",
)  # fmt: skip


class Hqq(Dequantiser):
    """A linear layer's whole state: its codes, and what the library needs to read them."""

    package: ClassVar[str | None] = "hqq"
    suffixes: ClassVar[Mapping[str, str]] = {f".{part}": part for part in ("W_q", "scale", "zero", *_READ, *_UNREAD)}
    marks: ClassVar[frozenset[str]] = frozenset({"W_q"})
    needed: ClassVar[frozenset[str]] = frozenset({"scale", "zero", *_READ} - {"unpack_view_dtype", "view_as_float"})
    unused: ClassVar[frozenset[str]] = frozenset(_UNREAD)

    @classmethod
    def claims(cls, settings: Mapping[str, JsonValue]) -> bool:
        return settings.get("quant_method") == "hqq"

    @property
    def called(self) -> str:
        table = self.settings.get("quant_config")
        inner = table.get("weight_quant_params", table) if isinstance(table, dict) else {}
        bits, group = (inner.get("nbits"), inner.get("group_size")) if isinstance(inner, dict) else (None, None)
        return f"HQQ {bits} bits, groups of {group}" if bits else "HQQ, by module"

    def values(self, stem: str, parts: "Mapping[str, Tensor]") -> "Tensor":
        import torch

        core = self.library("hqq.core.quantize")
        kinds: dict[str, Any] = {"Size": torch.Size, "dtype": torch.dtype, "str": str, "int": int, "bool": bool}
        meta: dict[str, Any] = {
            name: core.decode_safetensor_type(parts[name], kinds[kind]) for name, kind in _READ.items() if name in parts
        }
        meta |= {"scale": parts["scale"].float(), "zero": parts["zero"].float(), "compute_dtype": torch.float32}
        meta.setdefault("view_as_float", False)
        meta.setdefault("unpack_view_dtype", core.Quantizer.unpack_view_dtype[meta["packing"]])
        values: Tensor = core.Quantizer.dequantize(parts["W_q"], meta)
        return values.T.contiguous() if self.input_first else values
