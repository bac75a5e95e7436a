"""MXFP4: experts of gpt-oss as 4-bit floats, 32 of them times one power of two, by transformers' own arithmetic.

Blocks and scales are [experts, outputs, groups, 16] and [experts, outputs, groups] of bytes; the model's own parameter
is [experts, inputs, outputs]. The values fit bfloat16 without rounding.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from audit.checkpoints.dequantiser import Dequantiser

if TYPE_CHECKING:
    from torch import Tensor


class Mxfp4(Dequantiser):
    """``<name>_blocks`` and ``<name>_scales`` for the parameter ``<name>``."""

    package: ClassVar[str | None] = "transformers"
    suffixes: ClassVar[Mapping[str, str]] = {"_blocks": "blocks", "_scales": "scales"}
    marks: ClassVar[frozenset[str]] = frozenset({"blocks"})
    needed: ClassVar[frozenset[str]] = frozenset({"scales"})
    weight: ClassVar[str] = ""

    @classmethod
    def claims(cls, settings: Mapping[str, JsonValue]) -> bool:
        return settings.get("quant_method") == "mxfp4"

    @property
    def called(self) -> str:
        return "MXFP4, groups of 32"

    def values(self, stem: str, parts: "Mapping[str, Tensor]") -> "Tensor":
        convert = self.library("transformers.integrations.mxfp4").convert_moe_packed_tensors
        return convert(parts["blocks"], parts["scales"])
