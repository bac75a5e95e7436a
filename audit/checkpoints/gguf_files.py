"""Which .gguf file of a folder is the model, and what it hashes to. Nothing of it is read here but its bytes."""

import json
import re
from functools import lru_cache
from pathlib import Path

from audit.checkpoints.folder import Fingerprint, file_sha256, joined, named_weights, tokenizer_names
from audit.schema import AuditError
from audit.storage import safetensors_file

SUFFIX = ".gguf"
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_NAMES = ("config.json", "generation_config.json")


def names_gguf(where: str) -> bool:
    """Does a source name a .gguf file itself, so that nothing beside it counts?"""
    return where.endswith(SUFFIX)


def gguf_in(path: Path) -> Path | None:
    """The .gguf file that ``path`` is, or that a folder without safetensors holds; None where there is none.

    AuditError (code 2): a folder with several, or a file that is one part of several.
    """
    collected = [path] if path.suffix == SUFFIX and path.is_file() else sorted(path.glob(f"*{SUFFIX}"))
    if not collected or (path.is_dir() and named_weights(path, [each.name for each in path.iterdir()]) is not None):
        return None
    if len(collected) > 1:
        names = ", ".join(file.name for file in collected[:6])
        raise AuditError(f"{path}: holds several models ({names})", f'say which: path = "{collected[0]}"')
    if _SPLIT.search(collected[0].name):
        raise AuditError(
            f"{collected[0]}: one part of a model that was split into several files",
            "put them together: llama-gguf-split --merge <first part> <one file>",
        )
    return collected[0]


def gguf_fingerprint(file: Path, beside: bool) -> Fingerprint:
    """What a .gguf file is: its bytes and, where its folder was given (``beside``), the config and tokenizer in it."""
    folder = file.parent
    names = (*_NAMES, *tokenizer_names(folder)) if beside else ()
    main = _sha256(file, safetensors_file.stamp(file))
    small = {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}
    total = joined(main, json.dumps(small, sort_keys=True))
    files = dict(sorted((small | {file.name: main}).items()))
    return Fingerprint(total=total, files=files, size_bytes=file.stat().st_size)


@lru_cache(maxsize=256)
def _sha256(file: Path, _stamp: tuple[int, ...]) -> str:
    return file_sha256(file, in_memory=False)
