"""What the header of a GGUF file says of a model: its name, those it came from, and its chat template."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from audit.schema import AuditError, ExitCode, as_audit_error

CHAT_TEMPLATE: Final = "tokenizer.chat_template"
_REPOSITORY = "https://huggingface.co/"


def gguf_files(folder: Path) -> tuple[Path, ...]:
    """The GGUF files of a folder, by name."""
    return tuple(sorted(folder.glob("*.gguf")))


def metadata(path: Path) -> Mapping[str, str]:
    """The texts in the header of a GGUF file, by key. AuditError: 2 where the package that reads it is not installed,
    3 if the file is broken."""
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise AuditError(f"{path}: is read by the package gguf", "pip install 'residua[gguf]'") from None
    with as_audit_error(f"{path}: its header cannot be read", "fetch or copy it again", ExitCode.INTEGRITY):
        fields: Mapping[str, Any] = GGUFReader(path).fields
        return {name: value for name, field in fields.items() if isinstance(value := field.contents(), str)}


def base_models_of(header: Mapping[str, str]) -> tuple[str, ...]:
    """The hub ids of the models that a header names as those it came from."""
    candidates = [value for key, value in sorted(header.items()) if key.startswith("general.base_model.")]
    return tuple(value.removeprefix(_REPOSITORY) for value in candidates if value.startswith(_REPOSITORY))
