"""AWQ: groups of rows of an [in, out] matrix as 4-bit integers, eight to a word in an order of their own.

The value of a code is (code - zero) * scale of its group (https://arxiv.org/abs/2306.00978). The kernels' library needs
a graphics card, so the arithmetic is here; the layouts for other kernels (gemv, llm-awq) are refused.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import JsonValue

from audit.checkpoints.dequantiser import Dequantiser
from audit.checkpoints.dequantisers._packed_integers import unpacked
from audit.schema import AuditError

if TYPE_CHECKING:
    from torch import Tensor

_PLACES: Final = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in its word the n-th column of eight lies."""


class Awq(Dequantiser):
    """Codes, zero points and scales of groups, packed along the outputs."""

    suffixes: ClassVar[Mapping[str, str]] = {f".{part}": part for part in ("qweight", "qzeros", "scales")}
    marks: ClassVar[frozenset[str]] = frozenset({"qweight"})
    needed: ClassVar[frozenset[str]] = frozenset({"qzeros", "scales"})

    @classmethod
    def claims(cls, settings: Mapping[str, JsonValue]) -> bool:
        return settings.get("quant_method") == "awq"

    @property
    def called(self) -> str:
        return f"AWQ {self._stated('bits', 'w_bit')} bits, groups of {self._stated('group_size', 'q_group_size')}"

    def _stated(self, *keys: str) -> JsonValue:
        return next((self.settings[key] for key in keys if key in self.settings), None)

    def check(self) -> None:
        layout, bits = str(self.settings.get("version") or "gemm").lower(), self._stated("bits", "w_bit")
        if layout != "gemm" or bits != 4:
            raise AuditError(
                f"AWQ weights in {bits!r} bits and the layout {layout!r} are not turned into weights here",
                "repack them as gemm in 4 bits (autoawq or gptqmodel, on a graphics card), or audit the weights before "
                "they were quantised",
            )

    def values(self, stem: str, parts: "Mapping[str, Tensor]") -> "Tensor":
        import torch

        codes, zeros = (_columns(parts[name]) for name in ("qweight", "qzeros"))
        scales = parts["scales"].float()
        group = torch.arange(codes.shape[0]) // -(-codes.shape[0] // scales.shape[0])
        values = (codes - zeros[group]).float() * scales[group]
        return values if self.input_first else values.T.contiguous()


def _columns(words: "Tensor") -> "Tensor":
    """The integers of packed columns, in the columns' order."""
    stored = unpacked(words, 4, 1)
    return stored.reshape(stored.shape[0], -1, 8)[:, :, list(_PLACES)].reshape(stored.shape)
