"""compressed-tensors: packed integers, plain integers, 8-bit floats and their kin, by the library's own decompressors.

A release may hold several schemes, each for the modules that its targets name. Schemes for activations and caches are
the runtime's, and are not weights.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import JsonValue

from audit.checkpoints.dequantiser import Dequantiser
from audit.schema import AuditError

if TYPE_CHECKING:
    from torch import Tensor

_PARTS = ("weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape", "weight_global_scale")
_OF_ACTIVATIONS = tuple(
    f"{side}_{part}" for side in ("input", "output") for part in ("scale", "zero_point", "global_scale")
)


_WIDE = ("torch.float32", "torch.float16", "torch.bfloat16")


class CompressedTensors(Dequantiser):
    """Each module's tensors given to the decompressor of its scheme."""

    package: ClassVar[str | None] = "compressed-tensors"
    suffixes: ClassVar[Mapping[str, str]] = {
        ".weight": "weight", **{f".{part}": part for part in (*_PARTS, *_OF_ACTIVATIONS)},
    }  # fmt: skip
    marks: ClassVar[frozenset[str]] = frozenset({"weight_packed", "weight_scale"})
    needed: ClassVar[frozenset[str]] = frozenset({"weight_scale"})
    unused: ClassVar[frozenset[str]] = frozenset(_OF_ACTIVATIONS)
    left_out: ClassVar[str] = r"\.[qkv]_(scale|zero_point)$"

    @classmethod
    def claims(cls, settings: Mapping[str, JsonValue]) -> bool:
        return settings.get("quant_method") == "compressed-tensors" or "config_groups" in settings

    @property
    def called(self) -> str:
        formats = sorted({str(scheme.get("format") or self.settings.get("format")) for scheme in self._schemes})
        sizes = sorted({f"{w.get('num_bits')} bits" for s in self._schemes if (w := _table(s.get("weights")))})
        return f"compressed-tensors {', '.join(formats)} ({', '.join(sizes)})"

    @property
    def activations(self) -> str:
        inputs = [table for scheme in self._schemes if (table := _table(scheme.get("input_activations")))]
        rounding = [f"activations are rounded to {table.get('num_bits')} bits" for table in inputs[:1]]
        return "; ".join(
            [*rounding, *(["keys and values are rounded"] if self.settings.get("kv_cache_scheme") else [])]
        )

    @property
    def _schemes(self) -> list[dict[str, JsonValue]]:
        return [_table(scheme) for scheme in _table(self.settings.get("config_groups")).values()]

    def check(self) -> None:
        sparse = _table(self.settings.get("sparsity_config")).get("format", "dense")
        formats = [str(scheme.get("format") or self.settings.get("format")) for scheme in self._schemes]
        old = [name for name in [str(sparse), *formats] if re.search("24|sparse", name)]
        if old:
            raise self._refused(f"their zeros are left out ({old[0]})")
        if self.settings.get("transform_config"):
            raise self._refused("they are rotated, and the model turns states to match (transform_config)")
        if self.settings.get("quantization_status") not in (None, "compressed"):
            status = self.settings["quantization_status"]
            raise self._refused(f"they are not compressed yet (quantization_status {status!r})")
        if not self._schemes:
            raise self._refused("config_groups names no scheme")

    def _refused(self, reason: str) -> AuditError:
        return AuditError(
            f"weights in compressed-tensors of which {reason} are not turned into weights here",
            "open the model with CompressedTensorsConfig(dequantize=True), save it, and audit what it saves",
        )

    def values(self, stem: str, parts: "Mapping[str, Tensor]") -> "Tensor":
        scheme = self._scheme(stem)
        if "weight" in parts and str(parts["weight"].dtype) in _WIDE:
            raise self._refused(f"{stem} is stored in floating point beside a scale")
        registry = self.library("compressed_tensors.compressors").BaseCompressor
        built: Any = self.library("compressed_tensors.quantization").QuantizationScheme.model_validate(scheme)
        stated = str(scheme.get("format") or self.settings.get("format"))
        values: Tensor = registry.get_value_from_registry(stated).decompress(dict(parts), built)["weight"]
        return values.T.contiguous() if self.input_first else values

    def _scheme(self, stem: str) -> dict[str, JsonValue]:
        """The scheme whose targets name a module: itself or a pattern before its class."""
        ofs_class: list[dict[str, JsonValue]] = []
        for scheme in self._schemes:
            targets = [str(target) for target in cast("list[JsonValue]", scheme.get("targets") or [])]
            if any(stem == t or (t.startswith("re:") and re.match(t[3:], stem)) for t in targets):
                return scheme
            wanted = "Embedding" if re.search(r"(embed_tokens|wte)$", stem) else "Linear"
            if wanted in targets:
                ofs_class.append(scheme)
        if len(ofs_class) == 1 or (ofs_class and len(self._schemes) == 1):
            return ofs_class[0]
        if len(self._schemes) == 1:
            return self._schemes[0]
        raise self._refused(f"no target or several name {stem!r}")


def _table(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}
