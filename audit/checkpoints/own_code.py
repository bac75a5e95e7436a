"""Code that a checkpoint of a torch module names: refused unless the case names it too, and then part of its key.

Nothing is imported here. The files are found where Python would find them, and hashed: all modules of the package that
the name starts with, for what runs is not one file.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from audit.checkpoints.folder import file_sha256, joined
from audit.checkpoints.torch_module import ModuleSettings, settings_in
from audit.schema import AuditError, ExitCode, OwnCode, Source, as_audit_error


def permitted_code(folder: Path, source: Source) -> OwnCode | None:
    """The code that opening this folder would run, by content; None where it is none.

    AuditError (code 2): code that ``source.allow_code`` does not name, or that cannot be found.
    """
    settings = settings_in(folder)
    if settings is None or not settings.names_code:
        if source.allow_code is not None:
            raise AuditError(
                f"{folder}: `allow_code` names {source.allow_code!r}, and this checkpoint names no code", "take it out"
            )
        return None
    if source.allow_code != settings.module:
        given = "" if source.allow_code is None else f"; the case allows {source.allow_code!r}"
        raise AuditError(
            f"{folder / 'config.json'}: the checkpoint names code of its own ({settings.module}), which is never run "
            f"unless the case allows it by name{given}",
            f'if you wrote or read that code, say allow_code = "{settings.module}" in the role of the case file; or '
            "name an architecture that ships with the workbench",
        )
    return OwnCode(name=settings.module, sha256=_total(code_files(settings.module)))


def check_permitted(folder: Path, code: OwnCode | None) -> ModuleSettings:
    """The settings of a folder whose module is about to be built. AuditError: code that was not allowed (2), or that is
    no longer what it was when the checkpoint was named (3)."""
    settings = settings_in(folder)
    if settings is None:
        raise AuditError(f"{folder}: no torch module", "give a folder whose model_type is torch_module")
    if settings.names_code and (code is None or code.name != settings.module):
        raise AuditError(f"{folder}: code of its own ({settings.module}) was not allowed", "name it as `allow_code`")
    if code is not None:
        check_unchanged(code)
    return settings


def check_unchanged(code: OwnCode) -> None:
    """AuditError (code 3) where the files of the code are not those that were hashed."""
    if _total(code_files(code.name)) != code.sha256:
        raise AuditError(
            f"{code.name}: its code has changed since the checkpoint was opened", "run again", ExitCode.INTEGRITY
        )


def code_files(name: str) -> dict[str, Path]:
    """The Python files of the package or module that ``package.module:factory`` starts with, by their names from there.

    AuditError (code 2) where it is no such name, or cannot be found; nothing is imported.
    """
    module, _, factory = name.partition(":")
    steps = module.split(".")
    if not factory.isidentifier() or not all(step.isidentifier() for step in steps):
        raise AuditError(f"{name!r} names no code", "write package.module:factory")
    where = f"the code {name}"
    with as_audit_error(f"{where} cannot be looked for", "check the name"):
        spec = importlib.util.find_spec(steps[0])
    if spec is not None and spec.submodule_search_locations is not None:
        roots = [Path(root) for root in spec.submodule_search_locations]
        files = {
            f"{root.name}/{p.relative_to(root).as_posix()}": p for root in roots for p in sorted(root.rglob("*.py"))
        }
    else:
        origin = None if spec is None or not spec.has_location else spec.origin
        files = {Path(origin).name: Path(origin)} if origin else {}
    if not files:
        raise AuditError(
            f"{where} is nowhere on Python's path", "install its package, or put its folder into PYTHONPATH"
        )
    return files


def code_hashes(code: OwnCode) -> Mapping[str, str]:
    """sha256 of each file of the code, as it is now."""
    return {f"code/{name}": file_sha256(path) for name, path in code_files(code.name).items()}


def _total(files: Mapping[str, Path]) -> str:
    return joined(*(f"{name} {file_sha256(path)}" for name, path in sorted(files.items())))
