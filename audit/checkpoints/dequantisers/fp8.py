"""FP8: 8-bit floats times the scale of their tile, row or matrix, as DeepSeek, Qwen and fbgemm release them.

Tiles need not divide a matrix: the last of a side is cut off where the matrix ends (transformers 5.23.0 cannot open
such a matrix dequantised). A scale may be stored as a power of two: E8M0, or its exponent as a byte.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Final

from pydantic import JsonValue

from audit.checkpoints.dequantiser import Dequantiser, Parts
from audit.schema import AuditError, ExitCode

if TYPE_CHECKING:
    from torch import Tensor

_SCALES: Final = ("_scale_inv", "_scale")
_OF_ACTIVATIONS: Final = (".input_scale", ".activation_scale", ".input_activation_scale")
_E8M0_BIAS: Final = 127


class Fp8(Dequantiser):
    """``<weight>_scale_inv`` and ``<weight>_scale`` are both what a code is multiplied by; experts may be fused."""

    suffixes: ClassVar[Mapping[str, str]] = {}
    marks: ClassVar[frozenset[str]] = frozenset()
    needed: ClassVar[frozenset[str]] = frozenset()
    unused: ClassVar[frozenset[str]] = frozenset({"activation_scale"})
    left_out: ClassVar[str] = r"\.[qkv]_(scale|zero_point)$"
    weight: ClassVar[str] = ""

    @classmethod
    def claims(cls, settings: Mapping[str, JsonValue]) -> bool:
        return settings.get("quant_method") in ("fp8", "fbgemm_fp8", "mxfp8")

    @property
    def called(self) -> str:
        tile = self._tile
        return f"FP8, {'a scale a row or matrix' if tile is None else f'tiles of {tile[0]} x {tile[1]}'}"

    @property
    def _tile(self) -> tuple[int, int] | None:
        stated = self.settings.get("weight_block_size")
        sides = [side for side in stated if isinstance(side, int) and side > 0] if isinstance(stated, list) else []
        return (sides[0], sides[1]) if len(sides) == 2 else None

    @property
    def activations(self) -> str:
        return "activations are rounded to 8-bit floats"

    def groups(self, names: Iterable[str]) -> dict[str, Parts]:
        stored, collected = set(names), dict[str, dict[str, str]]()
        for name in sorted(stored):
            codes = next((name.removesuffix(ending) for ending in _SCALES if name.endswith(ending)), None)
            if codes is not None and codes in stored:
                collected[codes] = {"codes": codes, "scale": name}
        for name in sorted(stored):
            ending = next((ending for ending in _OF_ACTIVATIONS if name.endswith(ending)), None)
            if ending is not None and (codes := f"{name.removesuffix(ending)}.weight") in collected:
                collected[codes]["activation_scale"] = name
        return dict(collected)

    def values(self, stem: str, parts: "Mapping[str, Tensor]") -> "Tensor":
        import torch

        if "float8" not in str(parts["codes"].dtype):
            raise AuditError(
                f"{stem} is stored as {parts['codes'].dtype} beside a scale, which is no code of {self.called}",
                "dequantise the model with the package that made it and audit the weights",
            )
        codes, stored = parts["codes"].float(), parts["scale"]
        scale = (stored.float() - _E8M0_BIAS).exp2() if stored.dtype == torch.uint8 else stored.float()
        if self._tile is not None and scale.ndim >= 2:
            scale = self._tiled(stem, scale, tuple(codes.shape), self._tile)
        elif scale.ndim == 1 and scale.numel() > 1:
            scale = scale.unsqueeze(-1)
        return codes * scale

    def _tiled(self, stem: str, scale: "Tensor", shape: tuple[int, ...], tile: tuple[int, int]) -> "Tensor":
        """The scale of every code. AuditError (code 3) where the scales are not one a tile."""
        wanted = [-(-side // part) for side, part in zip(shape[-2:], tile, strict=True)]
        if list(scale.shape[-2:]) != wanted:
            raise AuditError(
                f"{stem}: {list(shape)} in tiles of {list(tile)} needs scales of {wanted}, and has {list(scale.shape)}",
                "check weight_block_size in quantization_config",
                ExitCode.INTEGRITY,
            )
        spread = scale.repeat_interleave(tile[0], -2).repeat_interleave(tile[1], -1)
        return spread[..., : shape[-2], : shape[-1]]
