"""torchao: tensors of its own kinds, taken apart for the file, put together by it from the file's header."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from audit.checkpoints.dequantiser import Dequantiser, Parts

if TYPE_CHECKING:
    from torch import Tensor

_PLAIN = "Tensor"


class TorchAo(Dequantiser):
    """``<module>._weight_<part>`` for ``<module>.weight``; what they are is in the file's metadata."""

    package: ClassVar[str | None] = "torchao"
    suffixes: ClassVar[Mapping[str, str]] = {}
    marks: ClassVar[frozenset[str]] = frozenset()
    needed: ClassVar[frozenset[str]] = frozenset()
    weight: ClassVar[str] = ""

    def __init__(self, settings: Mapping[str, JsonValue], config: Mapping[str, JsonValue]) -> None:
        super().__init__(settings, config)
        self.metadata: dict[str, str] = {}

    @classmethod
    def claims(cls, settings: Mapping[str, JsonValue]) -> bool:
        return settings.get("quant_method") == "torchao"

    @property
    def _kind(self) -> str:
        """The library's config for the weights, by its class's name."""
        stated = self.settings.get("quant_type")
        inner = stated.get("default", stated) if isinstance(stated, dict) else stated
        return str(inner.get("_type", "")) if isinstance(inner, dict) else str(inner or "")

    @property
    def called(self) -> str:
        return f"torchao {self._kind}".strip()

    @property
    def activations(self) -> str:
        return "activations are rounded as the model runs" if "Activation" in self._kind else ""

    def headed(self, metadata: Mapping[str, str]) -> None:
        self.metadata |= {key: value for key, value in metadata.items() if key != "tensor_names"}

    def groups(self, names: Iterable[str]) -> dict[str, Parts]:
        stored, found = set(names), dict[str, Parts]()
        for weight, described in sorted(self.metadata.items()):
            if not described.startswith("{") or (table := json.loads(described)).get("_type") == _PLAIN:
                continue
            module, _, own = weight.rpartition(".")
            start = f"{module}._{own}_"
            parts = {name.removeprefix(start): name for name in stored if name.startswith(start)}
            self._check_whole(weight, parts, table.get("_tensor_data_names", []))
            found[weight] = parts
        return found

    def _check_whole(self, weight: str, parts: Parts, wanted: list[str]) -> None:
        if lacking := sorted(set(wanted) - parts.keys()):
            raise self.lacking(weight, lacking[0])

    def values(self, stem: str, parts: "Mapping[str, Tensor]") -> "Tensor":
        unflatten = self.library("torchao.prototype.safetensors.safetensors_support").unflatten_tensor_state_dict
        module, _, own = stem.rpartition(".")
        data = {f"{module}._{own}_{part}": tensor for part, tensor in parts.items()}
        whole, _ = unflatten(data, {stem: self.metadata[stem], "tensor_names": json.dumps([stem])})
        values: Tensor = whole[stem].dequantize()
        return values.T.contiguous() if self.input_first else values
