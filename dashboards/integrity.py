"""Every file of a run hashed again and held against its manifest."""

from typing import NamedTuple

from audit.runs import manifest
from dashboards.runs import MANIFEST_CAP
from dashboards.vault import Refused, Vault, shown


class Checked(NamedTuple):
    """One file: its path, whether it is as the manifest lists it, and what it hashes to."""

    path: str
    state: str
    sha256: str


def check(vault: Vault, run: str) -> list[Checked]:
    """All listed files, and those that are there without being listed. AuditError where the manifest cannot be read."""
    text = vault.read(f"{run}/{manifest.NAME}", MANIFEST_CAP).decode("utf-8", "surrogateescape")
    listed = manifest.listed(text, shown(f"{run}/{manifest.NAME}"))
    hashed = [_held(vault, run, path, digest) for path, digest in sorted(listed.items())]
    left = [p for p in vault.files(run) if p not in listed and p not in manifest.LEFT_OUT]
    extra = [p for p in left if not p.endswith(manifest.LEFT_OUT_ENDINGS)]
    return [*hashed, *(Checked(shown(path), "not listed", "") for path in extra)]


def _held(vault: Vault, run: str, path: str, digest: str) -> Checked:
    try:
        now = vault.sha256(f"{run}/{path}")
    except Refused as error:
        return Checked(shown(path), f"cannot be read: {error.what}", "")
    return Checked(shown(path), "as listed" if now == digest else "changed", now)
