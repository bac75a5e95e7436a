"""One folder of weights as it lies on disk: which files count, what they hash to, and what is refused unopened.

Never pickle and never remote code: both are refused by looking, before anything is loaded.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from audit.schema import AuditError, ExitCode, Record
from audit.storage import safetensors_file

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_OTHER_FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# config entries that change neither a weight's shape nor what the blocks compute
_FREE_KEYS = re.compile(
    r"^_|dtype|dropout|pdrop|transformers_version|use_cache|tie_word_embeddings|(bos|eos|pad|sep|cls|unk)_token_id"
    r"|initializer_|pretraining_tp|architectures|max_position_embeddings|id2label|label2id|return_dict|output_"
    r"|summary_|task_specific_params|problem_type|classifier_|chunk_size_feed_forward"
)


class Fingerprint(Record):
    """What a checkpoint is: ``total`` over tensors, config, tokenizer and generation config; sha256 of each file."""

    total: str
    files: dict[str, str]
    size_bytes: int


def fingerprint_folder(folder: Path) -> Fingerprint:
    """The fingerprint of a folder of model weights, or of an adapter folder (one with no weights of its own)."""
    check_folder(folder)
    if is_adapter(folder):
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise _no_weights(folder, ADAPTER_WEIGHTS)
        return _hashed(folder, (folder / ADAPTER_WEIGHTS,), (ADAPTER_CONFIG,))
    read_config(folder)
    return _hashed(folder, weight_files(folder), (*_OTHER_FILES, *TOKENIZER_FILES))


def _hashed(folder: Path, weights: tuple[Path, ...], names: tuple[str, ...]) -> Fingerprint:
    tensors: dict[str, str] = {}
    files: dict[str, str] = {}
    size = 0
    for path in weights:
        digest = safetensors_file.digest(path)
        if twice := tensors.keys() & digest.tensors.keys():
            raise AuditError(f"{path}: tensor {min(twice)!r} is in two shards", "save the model again", 3)
        tensors |= digest.tensors
        files[path.name] = digest.sha256
        size += digest.size_bytes
    small = {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}
    total = joined(safetensors_file.combined(tensors), json.dumps(small, sort_keys=True))
    return Fingerprint(total=total, files=dict(sorted((files | small).items())), size_bytes=size)


def joined(*parts: str) -> str:
    """One sha256 for several, in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file. AuditError (code 3) if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})", "check the file", ExitCode.INTEGRITY) from None


def check_folder(folder: Path) -> None:
    """Is it a folder, free of code of its own? AuditError (code 2) if not."""
    if not folder.is_dir():
        problem = "is a file, not a model folder" if folder.exists() else "no such folder"
        raise AuditError(f"{folder}: {problem}", "give the folder of a checkpoint, or owner/name with its commit")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in read_json(folder / name):
            raise _remote_code(folder / name, "names code of its own (auto_map)")
    if scripts := sorted(path.name for path in folder.glob("*.py")):
        raise _remote_code(folder, f"brings code of its own ({', '.join(scripts[:3])})")


def _remote_code(path: Path, problem: str) -> AuditError:
    return AuditError(
        f"{path}: the checkpoint {problem}, which is never run here",
        "audit a copy in an architecture that transformers has built in, without auto_map and .py files",
    )


def is_adapter(folder: Path) -> bool:
    """Does the folder hold a PEFT adapter and no model weights?"""
    own = ("model.safetensors", "model.safetensors.index.json")
    return (folder / ADAPTER_CONFIG).is_file() and not any((folder / name).is_file() for name in own)


def read_json(path: Path) -> dict[str, JsonValue]:
    """A JSON object from a file of the checkpoint. AuditError: 2 if it is missing, 3 if it is broken."""
    try:
        document: JsonValue = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise AuditError(f"{path}: no such file", "give the whole folder that save_pretrained wrote") from None
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})", "check the file", ExitCode.INTEGRITY) from None
    except ValueError as error:
        raise AuditError(f"{path}: broken JSON ({error})", "fetch or copy it again", ExitCode.INTEGRITY) from None
    if not isinstance(document, dict):
        raise AuditError(f"{path}: no JSON object", "fetch or copy it again", ExitCode.INTEGRITY)
    return document


def read_config(folder: Path) -> dict[str, JsonValue]:
    """The model's config.json. AuditError (code 2) if it is missing, is no object, or wants remote code."""
    config = read_json(folder / "config.json")
    if "auto_map" in config:
        raise _remote_code(folder / "config.json", "names code of its own (auto_map)")
    return config


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors in the folder's weight files, by name."""
    return {n: e.shape for path in weight_files(folder) for n, e in safetensors_file.read_header(path).entries.items()}


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files that hold the model: those of the index, else model.safetensors.

    AuditError 2: no safetensors (pickle is refused); 3: a shard that the index names is missing or lacks its tensors.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = cast("dict[str, str]", read_json(index).get("weight_map", {}))
        paths = {name: folder / name for name in sorted(set(weight_map.values()))}
        for name, path in paths.items():
            wanted = {tensor for tensor, shard in weight_map.items() if shard == name}
            lost = wanted if not path.is_file() else wanted - safetensors_file.read_header(path).entries.keys()
            if lost or Path(name).name != name:
                problem = f"{path}: the shard is missing or lacks tensors that the index names ({min(wanted)!r}, ...)"
                raise AuditError(problem, "fetch or copy the checkpoint again", ExitCode.INTEGRITY)
        return tuple(paths.values())
    if (single := folder / "model.safetensors").is_file():
        return (single,)
    raise _no_weights(folder, "model.safetensors")


def _no_weights(folder: Path, wanted: str) -> AuditError:
    """Only pickle is there, or nothing at all."""
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if not pickles:
        return AuditError(f"{folder}: no {wanted} in it", "give the folder that save_pretrained wrote")
    return AuditError(
        f"{folder}: holds its weights only as pickle ({', '.join(pickles[:3])}), which can run code when opened",
        "convert it on a machine you can lose: load it there with from_pretrained; save_pretrained(new_folder) then "
        "writes safetensors; audit new_folder",
    )


def architecture_differences(ours: Path, theirs: Path) -> list[str]:
    """Where two model folders differ in what their blocks compute or in the shapes of tensors; empty if nowhere.

    Settings that only one of the two states are left to the shapes. Tied and untied heads may meet.
    """
    if differences := _differences(read_config(ours), read_config(theirs), ""):
        return differences
    a, b = tensor_shapes(ours), tensor_shapes(theirs)
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return ["not one tensor has the same name"]
    return [f"{name}: {list(a[name])} and {list(b[name])}" for name in shared if a[name] != b[name]]


def _differences(ours: Mapping[str, JsonValue], theirs: Mapping[str, JsonValue], prefix: str) -> list[str]:
    """Config entries that both state, that matter, and that differ."""
    differences: list[str] = []
    for key in sorted(ours.keys() & theirs.keys()):
        a, b = ours[key], theirs[key]
        if _FREE_KEYS.search(key) or a is None or b is None:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            differences += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            differences.append(f"{prefix}{key}: {a} and {b}")
    return differences
