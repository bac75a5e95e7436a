"""GPTQ: groups of rows of an [in, out] matrix as integers of 2, 3, 4 or 8 bits, by the arithmetic of the paper's code.

The value of a code is (code - zero) * scale of its group. The first layout of checkpoints stores each zero less one;
the second (``checkpoint_format`` gptq_v2) as it is. Its libraries need a graphics card, so the arithmetic is here
(https://arxiv.org/abs/2210.17323).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from audit.checkpoints.dequantiser import Dequantiser
from audit.checkpoints.dequantisers._packed_integers import unpacked
from audit.schema import AuditError, ExitCode

if TYPE_CHECKING:
    from torch import Tensor

_BITS = (2, 3, 4, 8)
_FORMATS = (None, "gptq", "gptq_v2")


class Gptq(Dequantiser):
    """Codes, zero points and scales of groups; ``g_idx`` says which group a row belongs to."""

    suffixes: ClassVar[Mapping[str, str]] = {f".{part}": part for part in ("qweight", "qzeros", "scales", "g_idx")}
    marks: ClassVar[frozenset[str]] = frozenset({"qweight"})
    needed: ClassVar[frozenset[str]] = frozenset({"qzeros", "scales"})

    @classmethod
    def claims(cls, settings: Mapping[str, JsonValue]) -> bool:
        return settings.get("quant_method") == "gptq"

    @property
    def called(self) -> str:
        ordered = ", ordered by activation" if self.settings.get("desc_act") else ""
        return f"GPTQ {self.settings.get('bits')} bits, groups of {self.settings.get('group_size')}{ordered}"

    def check(self) -> None:
        stated, bits = self.settings.get("checkpoint_format"), self.settings.get("bits")
        if stated not in _FORMATS or bits not in _BITS or self.settings.get("is_marlin_format"):
            raise AuditError(
                f"GPTQ weights in {bits!r} bits and the layout {stated or 'marlin'!r} are not turned into weights here",
                "repack them as gptq in 2, 3, 4 or 8 bits (gptqmodel, on a graphics card), or audit the weights before "
                "they were quantised",
            )

    def values(self, stem: str, parts: "Mapping[str, Tensor]") -> "Tensor":
        import torch

        scales = parts["scales"].float()
        bits = self._bits(stem, 32 * parts["qzeros"].shape[1], scales.shape[1])
        codes = unpacked(parts["qweight"], bits, 0)
        zeros = unpacked(parts["qzeros"], bits, 1)[:, : scales.shape[1]]
        if self.settings.get("checkpoint_format") != "gptq_v2":
            zeros = (zeros + 1) & ((1 << bits) - 1)
        rows, groups = codes.shape[0], scales.shape[0]
        group = parts["g_idx"].long() if "g_idx" in parts else torch.arange(rows) // -(-rows // groups)
        values = (codes - zeros[group]).float() * scales[group]
        return values if self.input_first else values.T.contiguous()

    def _bits(self, stem: str, packed: int, outputs: int) -> int:
        """How many bits a code has, by the zero points; ``dynamic`` settings give some modules other than the rest."""
        bits = packed // outputs
        other = bits != self.settings["bits"] and not self.settings.get("dynamic")
        if bits not in _BITS or packed % outputs or other:
            raise AuditError(
                f"{stem}: its zero points are packed in {packed / outputs:g} bits, and the settings say "
                f"{self.settings['bits']}",
                "check quantization_config",
                ExitCode.INTEGRITY,
            )
        return bits
