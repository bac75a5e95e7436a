"""A run signed with a key of the user's, in the format of minisign: what hashes alone cannot show, who wrote them.

Signed is ``manifest.sha256``; the trusted comment, which the signature covers too, names the report and the hash of the
line of custody that says ``issued``, so that the whole chain before it is covered. Anybody can check it by
``minisign -Vm manifest.sha256 -p KEY.pub`` without our tool. Format: jedisct1.github.io/minisign (Ed25519, RFC 8032).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

from audit.runs import custody, manifest, read_issued
from audit.schema import AuditError, ExitCode
from audit.storage import write_atomic

NAME: Final = manifest.SIGNATURE
_ISSUED: Final = "custody line"


def sign_run(folder: Path, key: Path, password: Callable[[], str]) -> str:
    """Sign a finished run; the id of the key. ``password`` is asked for only where the key is encrypted.

    AuditError: code 2 for a key that cannot be read or a wrong password, 3 where the run is not as it was issued.
    """
    library, report = _library(), read_issued(folder).report
    line = custody.read(folder).last("issued")
    if line is None:
        raise AuditError(f"{folder} was made before runs had a custody log", "make the audit again",
                         ExitCode.INTEGRITY)  # fmt: skip
    try:
        secret = library.SecretKey.from_file(key)
        if secret.is_encrypted():
            secret.decrypt(password())
    except (OSError, ValueError) as error:
        raise AuditError(f"{key} gives no secret key of minisign: {error}", "name the file that `minisign -G` wrote, "
                         "and its own password") from None  # fmt: skip
    with secret:
        signature = secret.sign(
            (folder / manifest.NAME).read_bytes(),
            untrusted_comment="signature of a Residua run",
            trusted_comment=f"{report.report_id}, {_ISSUED} {line.sha256}",
        )
    write_atomic(folder / NAME, bytes(signature) + b"\n")
    return str(signature._key_id[::-1].hex().upper())


def signature_problems(folder: Path, key: Path) -> Iterator[str]:
    """Everything that speaks against this run having been signed with the secret half of ``key``, as it lies here.

    AuditError (code 2) if ``key`` is no public key.
    """
    library = _library()
    try:
        public = library.PublicKey.from_file(key)
    except (OSError, ValueError) as error:
        raise AuditError(f"{key} is no public key of minisign: {error}", "name the .pub file of who should have signed "
                         "it") from None  # fmt: skip
    if not (folder / NAME).is_file():
        yield f"{NAME} is missing: nobody signed this run"
        return
    try:
        signature = library.Signature.from_file(folder / NAME)
    except (OSError, ValueError) as error:
        yield f"{NAME} is no signature of minisign: {error}"
        return
    try:
        public.verify((folder / manifest.NAME).read_bytes(), signature)
    except library.VerifyError as error:
        other = "key identifiers" in str(error)
        yield f"{NAME}: {'is by another key' if other else f'does not fit {manifest.NAME}, which was changed'}"
        return
    issued = custody.read(folder).last("issued")
    stated = signature.trusted_comment.rpartition(f"{_ISSUED} ")[2]
    if issued is None or issued.sha256 != stated:
        yield f"{NAME}: was made of another custody log, whose issued line hashes to {stated[:12]}"


def _library() -> ModuleType:
    try:
        import minisign
    except ImportError:
        raise AuditError("signatures need the package py-minisign", "pip install 'residua[sign]'") from None
    return minisign
