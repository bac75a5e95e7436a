"""Where and with what the numbers were made: code version, packages, platform, and the exhibits as received."""

import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from audit.checkpoints import (
    fingerprint_of,
    float_copy_of,
    folder_of,
    named_code,
    named_kernels,
    unopened_files,
    verify,
)
from audit.schema import Checkpoint, Environment, Exhibit
from audit.version import __version__

PACKAGES = (
    "torch", "transformers", "safetensors", "tokenizers", "numpy", "scipy", "pydantic", "pyarrow", "regex", "icu4py",
)  # fmt: skip
HASHED_PACKAGES = ("audit", "probes", "saes")
NOT_OPENED = "not opened, not hashed"
"""What stands for the hash of a file that lay beside the weights and is no part of what was audited."""
NOT_RUN = "names code of its own, not run"
"""What stands for the hash of an entry by which settings name code."""
NOT_FOLLOWED = "not followed, computed as --attention says"
"""What stands for the hash of an entry by which settings ask for arithmetic of their own."""
NOT_USED = "hashed with its file, not used by the model"
"""What stands for the hash of a tensor that the opened model does not compute with."""


ATTENTION_USED = "attention_used"
"""The flag of a report that says what ``attention`` stood for; reports of earlier versions have none."""


class Received(NamedTuple):
    """A checkpoint in one of the case's roles, before the audit touched it."""

    role: str
    checkpoint: Checkpoint


@cache
def code_version() -> str:
    """Package version and the first 12 hex digits of the sha256 over the source files that make the numbers."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in HASHED_PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in (".py", ".json", ".toml", ".j2", ".css") and "__pycache__" not in path.parts:
                digest.update(path.relative_to(root).as_posix().encode() + b"\0")
                digest.update(path.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:12]}"


def versions() -> dict[str, str]:
    """Installed versions of the packages that the numbers depend on."""
    installed: dict[str, str] = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return installed


def environment(bench: dict[str, str], flags: dict[str, str]) -> Environment:
    """The environment block of a report, from the bench's own provenance and the flags that were given."""
    import torch

    return Environment(
        python=sys.version.split()[0],
        platform=platform.platform(),
        packages=versions(),
        device=bench["device"],
        dtype=bench["dtype"],
        backend=bench["backend"],
        threads=torch.get_num_threads(),
        flags={**{key: value for key, value in bench.items() if key not in ("device", "dtype", "backend")}, **flags},
    )


def arithmetic_used(received: Iterable[Received], of: Callable[[Checkpoint], str]) -> str:
    """How the roles' models compute attention, in words: one name, or each with its roles where they differ."""
    roles: dict[str, list[str]] = {}
    for role, checkpoint in received:
        roles.setdefault(of(checkpoint), []).append(role)
    if len(roles) == 1:
        return next(iter(roles))
    return "; ".join(f"{used}: {', '.join(who)}" for used, who in roles.items())


def name_of(checkpoint: Checkpoint) -> str:
    """The hash that names a checkpoint to its user: what ``residua fingerprint`` prints for its folder."""
    return checkpoint.model_copy(update={"vocabulary": None}).key if checkpoint.edits else checkpoint.fingerprint


def exhibits(
    received: tuple[Received, ...], root: Path, unused: Callable[[Checkpoint], tuple[str, ...]]
) -> tuple[Exhibit, ...]:
    """The items received, verified once more after the audit; folders are named from ``root``, the case file's folder.

    ``unused`` names the tensors of a checkpoint that its model does not compute with: they are listed by name.
    AuditError (code 3) if a checkpoint no longer hashes to what it hashed to when it was opened.
    """
    listed: list[Exhibit] = []
    for role, checkpoint in received:
        verify(checkpoint)
        now = fingerprint_of(checkpoint)
        beside = {name: NOT_OPENED for name in unopened_files(folder_of(checkpoint))}
        beside |= {f"auto_map of {name}": NOT_RUN for name in named_code(folder_of(checkpoint))}
        beside |= {
            f"{wish} asked for by {name}": NOT_FOLLOWED for name, wish in named_kernels(folder_of(checkpoint)).items()
        }
        beside |= {f"tensor {name}": NOT_USED for name in unused(checkpoint)}
        listed.append(
            Exhibit(
                role=role,
                path=as_given(checkpoint, root),
                family=checkpoint.family,
                fingerprint=name_of(checkpoint),
                size_bytes=now.size_bytes,
                files=now.files | beside,
                verified_after=True,
                released="" if (copy := float_copy_of(checkpoint)) is None else copy.summary,
                code="" if (own := checkpoint.code) is None else f"{own.name} (sha256 {own.sha256[:16]})",
            )  # fmt: skip
        )
    return tuple(listed)


def as_given(checkpoint: Checkpoint, root: Path) -> str:
    """A folder relative to the case file: a report leaves the house and need not tell where its author's home is."""
    source = checkpoint.edits_from or checkpoint.source
    return os.path.relpath(source, root.resolve()) if os.path.isabs(source) else source
