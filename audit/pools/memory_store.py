"""A store of activations and scores that is never written."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from audit.storage import Store


class MemoryStore(Store):
    """A store that lives as long as its process: nothing is hashed or written. :meth:`forget` drops the newest."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._before = 0

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors kept under ``key``, or None."""
        return self._kept.get(key)

    def put(self, key: str, tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> None:
        """Keep tensors under ``key``."""
        self._kept[key] = dict(tensors)

    def keep(self) -> None:
        """Everything that is here stays: :meth:`forget` drops what comes later."""
        self._before = len(self._kept)

    def forget(self) -> None:
        """Drop what came after :meth:`keep`."""
        for key in list(self._kept)[self._before :]:
            del self._kept[key]
