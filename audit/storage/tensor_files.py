"""Safetensors files opened by the library: whatever it raises over one is an AuditError about the file (code 3)."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from audit.schema import ExitCode, as_audit_error

if TYPE_CHECKING:
    from torch import Tensor

_AGAIN = "fetch or copy the file again"


class TensorFile(NamedTuple):
    """An open file. Tensors are memory-mapped."""

    path: Path
    handle: Any

    def names(self) -> list[str]:
        """The names of its tensors, sorted."""
        return sorted(self.handle.keys())

    def read(self, name: str) -> "Tensor":
        """One tensor as it is stored. AuditError (code 3) if the library cannot read it."""
        with as_audit_error(f"{self.path}: tensor {name!r} cannot be read", _AGAIN, ExitCode.INTEGRITY):
            return self.handle.get_tensor(name)


@contextmanager
def opened_tensors(path: Path) -> Generator[TensorFile]:
    """A file as the library opens it. AuditError (code 3) if it does not."""
    from safetensors import safe_open

    handle: Any = safe_open
    with as_audit_error(f"{path}: not a whole safetensors file", _AGAIN, ExitCode.INTEGRITY):
        handle = handle(path, framework="pt")
    with handle as file:
        yield TensorFile(path, file)
