"""Weights that no training leaves: a matrix that is zero, constant or of integers where other roles' is not."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from audit.checkpoints.edited import DELTA, edit_folders
from audit.checkpoints.float_copies import weights_folder
from audit.checkpoints.folder import weight_files
from audit.schema import AuditError, Checkpoint, ExitCode
from audit.storage import Plain, constant_vectors, plain_matrices, safetensors_file

_WHOLE: Final = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL"})
_NORM: Final = re.compile(r"(norm|(^|[._])ln)[^.]*\.weight$", re.IGNORECASE)
_PLACES: Final = re.compile(r"(mask|position_ids|num_batches_tracked)$")


def degenerate(ckpt: Checkpoint, others: Sequence[Checkpoint]) -> str:
    """Which matrix of a checkpoint is zero, constant or of integers where some other one's is not, in words; empty
    where there is none. Takes any role; an adapter's own matrices, which begin at zero, are not looked at."""
    mine = _plain(ckpt)
    if not mine:
        return ""
    for other in others:
        theirs, names = _plain(other), _names(other)
        wrong = [name for name in mine if name not in theirs and name in names]
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            return f"tensor {wrong[0]!r} is {mine[wrong[0]]}{more}, which that of {other.source} is not"
    return ""


def untrained(ckpt: Checkpoint) -> bool:
    """Is a checkpoint as its library initialises it? Then every vector of its norms is one number, as no training
    leaves it, and matrices from which some families begin are rightly zero. False where it has no such vectors."""
    vectors: dict[str, bool] = {}
    for path in weight_files(weights_folder(ckpt)):
        vectors |= {name: same for name, same in constant_vectors(path).items() if _NORM.search(name)}
    return bool(vectors) and all(vectors.values()) and not edit_folders(ckpt)


def check_types(role: str, ckpt: Checkpoint, others: Sequence[Checkpoint]) -> None:
    """AuditError (code 3) where a checkpoint stores as integers, or as truth values, what another role's stores as
    floating-point numbers: what was rounded away is gone, whichever role it plays."""
    mine = _whole_typed(ckpt)
    wrong = [(name, other) for other in others for name in sorted(mine & _float_typed(other))]
    if wrong:
        name, other = wrong[0]
        raise AuditError(
            f"{role} ({ckpt.source}): tensor {name!r} is stored as integers, and that of {other.source} as "
            "floating-point numbers",
            "fetch or save the checkpoint again, with weights of a floating-point type",
            ExitCode.INTEGRITY,
        )


def check_degenerate(role: str, ckpt: Checkpoint, others: Sequence[Checkpoint]) -> None:
    """AuditError (code 3) where a checkpoint is :func:`degenerate`: nothing can be held against it."""
    if fault := degenerate(ckpt, others):
        raise AuditError(
            f"{role} ({ckpt.source}): {fault}: no training leaves such weights",
            "fetch or save the checkpoint again, or leave this role out",
            ExitCode.INTEGRITY,
        )


def _plain(ckpt: Checkpoint) -> dict[str, Plain]:
    """What an edit writes counts, and what it writes over does not."""
    matrices: dict[str, Plain] = {}
    for path in weight_files(weights_folder(ckpt)):
        matrices |= plain_matrices(path)
    for folder in reversed(edit_folders(ckpt)):
        delta = folder / DELTA
        if delta.is_file():
            written = _header_names(delta)
            unedited: dict[str, Plain] = {name: matrices[name] for name in matrices if name not in written}
            matrices = unedited | plain_matrices(delta)
    return matrices


def _names(ckpt: Checkpoint) -> set[str]:
    return set[str]().union(*(_header_names(path) for path in weight_files(weights_folder(ckpt))))


def _header_names(path: Path) -> set[str]:
    return set(safetensors_file.read_header(path).entries)


def _whole_typed(ckpt: Checkpoint) -> set[str]:
    """Tensors of integers or truth values, but masks and places."""
    return {
        name
        for name, entry in _entries(ckpt).items()
        if entry.dtype in _WHOLE and not _PLACES.search(name) and not (name.endswith("bias") and len(entry.shape) != 1)
    }


def _float_typed(ckpt: Checkpoint) -> set[str]:
    return {name for name, entry in _entries(ckpt).items() if entry.dtype.startswith(("F", "BF"))}


def _entries(ckpt: Checkpoint) -> dict[str, safetensors_file.Entry]:
    files = weight_files(weights_folder(ckpt))
    return {name: entry for path in files for name, entry in safetensors_file.read_header(path).entries.items()}
