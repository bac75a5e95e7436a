"""One folder of weights as it lies on disk: which files count, what they hash to, and what is refused unopened.

Never pickle: it is refused by looking, before anything is loaded. Code is no part of a folder: it is neither hashed nor
opened (:mod:`audit.checkpoints.code_beside`).
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from audit.schema import AuditError, ExitCode, Record
from audit.storage import refuse_special, safetensors_file, too_deep

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
SETTINGS_FILES = frozenset({
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "chat_template.json",
})  # fmt: skip
"""Those of them that say how a vocabulary is used and bring none, as chat templates (``*.jinja``) do."""
CHAT_TEMPLATES = "additional_chat_templates/*.jinja"
RARE_VOCABULARIES = ("tekken.json", "*.tiktoken", "tiktoken.model", "tokenizer.model.*", "*.bpe.model", "*.spm")
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OTHER_FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json")
WEIGHTS_KEY = "transformers_weights"
"""The entry of config.json by which a folder names its file of weights, or the index of several."""
CODE_KEY = "auto_map"
"""The entry by which a checkpoint names code of its own; null or empty, it names none."""
_INDEX = ".safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_BESIDE = ("*.safetensors", ADAPTER_CONFIG, "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.py", *PICKLES)
_WHOLE, _AGAIN = "give the whole folder that save_pretrained wrote", "fetch or copy the checkpoint again"


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
    return _hashed(folder, weight_files(folder), (*OTHER_FILES, *tokenizer_names(folder)))


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


def tokenizer_names(folder: Path) -> tuple[str, ...]:
    """The files of a folder that make its tokenizer: the usual ones, its named chat templates and, where no
    tokenizer.json says all of it, the vocabularies of rarer kinds."""
    names = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    patterns = [CHAT_TEMPLATES, *(() if "tokenizer.json" in names else RARE_VOCABULARIES)]
    rare = {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}
    return (*names, *sorted(rare - set(names)))


def joined(*parts: str) -> str:
    """One sha256 for several, in order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def file_sha256(path: Path, in_memory: bool = True) -> str:
    """sha256 (hex) of a file, read at once elsewhere if ``in_memory``. AuditError (code 3) if it cannot be read."""
    refuse_special(path, in_memory)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})", "check the file", ExitCode.INTEGRITY) from None


def check_folder(folder: Path) -> None:
    """Is it a folder whose tokenizer is the one that it shows? AuditError (code 2) if not."""
    if not folder.is_dir():
        problem = "is a file, not a model folder" if folder.exists() else "no such folder"
        raise AuditError(f"{folder}: {problem}", "give the folder of a checkpoint, or owner/name with its commit")
    path = folder / "tokenizer_config.json"
    versions = read_json(path).get("fast_tokenizer_files") if path.is_file() else []
    if isinstance(versions, list) and any(name != "tokenizer.json" for name in versions):
        raise AuditError(
            f"{path}: hands over to another tokenizer by the library's version (fast_tokenizer_files)",
            "open it in transformers and save_pretrained(new_folder) with the tokenizer that is meant",
        )


def is_adapter(folder: Path) -> bool:
    """Does the folder hold a PEFT adapter and no model weights?"""
    return (folder / ADAPTER_CONFIG).is_file() and _named_weights(folder) is None


def read_json(path: Path) -> dict[str, JsonValue]:
    """A JSON object from a file of the checkpoint. AuditError: 2 if it is missing, 3 if it is broken."""
    refuse_special(path, in_memory=True)
    try:
        document: JsonValue = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise AuditError(f"{path}: no such file", _WHOLE) from None
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})", "check the file", ExitCode.INTEGRITY) from None
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{path}: broken JSON ({error})", "fetch or copy it again", ExitCode.INTEGRITY) from None
    if too_deep(document):
        raise AuditError(f"{path}: broken JSON (nested too deep)", "fetch or copy it again", ExitCode.INTEGRITY)
    if not isinstance(document, dict):
        raise AuditError(f"{path}: no JSON object", "fetch or copy it again", ExitCode.INTEGRITY)
    return document


def read_config(folder: Path) -> dict[str, JsonValue]:
    """The model's config.json. AuditError (code 2) if it is missing or is no object."""
    return read_json(folder / "config.json")


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors in the folder's weight files, by name."""
    return {n: e.shape for path in weight_files(folder) for n, e in safetensors_file.read_header(path).entries.items()}


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files that hold the model, by the rules of the library that opens it: those that config.json
    names, else model.safetensors, else those of the index.

    AuditError 2: no safetensors (pickle is refused), or a name that leads out of the folder; 3: a shard that the index
    names is missing or lacks its tensors.
    """
    first = _named_weights(folder)
    if first is None:
        raise _no_weights(folder, "model.safetensors")
    return _shards(folder, first) if first.name.endswith(_INDEX) else (first,)


def _named_weights(folder: Path) -> Path | None:
    """The file, or the index of files, that is opened; None where there is none."""
    present = {path.name for path in folder.glob("*.safetensors*") if path.is_file()}
    name = named_weights(folder, present)
    return None if name is None else folder / name


def named_weights(folder: Path, present: Collection[str]) -> str | None:
    """The name of the file of weights, or of their index, among the files ``present`` are: by the folder's config.json,
    else by the library's order. AuditError (code 2) for a name that leads elsewhere or to nothing."""
    if WEIGHTS_KEY in (config := read_json(folder / "config.json") if (folder / "config.json").is_file() else {}):
        name = config[WEIGHTS_KEY]
        if name is not None:
            if not isinstance(name, str) or Path(name).name != name or not name.endswith((".safetensors", _INDEX)):
                raise AuditError(
                    f"{folder / 'config.json'}: {WEIGHTS_KEY} is {name!r}, no safetensors file of the folder itself",
                    f"put the weights into the folder and take {WEIGHTS_KEY} out of config.json",
                )
            if name not in present:
                raise AuditError(f"{folder / name}: no such file, and config.json names it as the weights", _WHOLE)
            return name
    return next((name for name in ("model.safetensors", f"model{_INDEX}") if name in present), None)


def _shards(folder: Path, index: Path) -> tuple[Path, ...]:
    """The files of an index, each with all the tensors that it should hold."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise AuditError(f"{index}: no table of tensors (weight_map) in it", _AGAIN, ExitCode.INTEGRITY)
    places = cast("dict[str, str]", weight_map)
    names = sorted(set(places.values()))
    if outside := [name for name in names if Path(name).name != name]:
        problem = f"{index}: names {outside[0]!r}, which is not a file of the folder itself"
        raise AuditError(problem, "put all shards into one folder and correct the index", ExitCode.INTEGRITY)
    present = {path.name for path in folder.iterdir() if path.is_file()}
    for name in names:
        path, wanted = folder / name, {tensor for tensor, shard in places.items() if shard == name}
        lost = wanted if name not in present else wanted - safetensors_file.read_header(path).entries.keys()
        if lost:
            problem = f"{path}: the shard is missing or lacks tensors that the index names ({min(wanted)!r}, ...)"
            raise AuditError(problem, _AGAIN, ExitCode.INTEGRITY)
    if not names:
        raise AuditError(f"{index}: names no file", _AGAIN, ExitCode.INTEGRITY)
    return tuple(folder / name for name in names)


def unopened_files(folder: Path) -> tuple[str, ...]:
    """The names of files in a model folder that could hold weights or code and are not opened: other safetensors, an
    adapter beside the model, pickles, Python. None of them is hashed and none is read."""
    if not folder.is_dir() or _named_weights(folder) is None:
        return ()
    opened = {path.name for path in weight_files(folder)}
    beside = {path.name for pattern in _BESIDE for path in folder.glob(pattern) if path.is_file()}
    return tuple(sorted(beside - opened))


def _no_weights(folder: Path, wanted: str) -> AuditError:
    """Only pickle is there, or nothing at all."""
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if not pickles:
        return AuditError(f"{folder}: no {wanted} in it", "give the folder that save_pretrained wrote")
    return AuditError(
        f"{folder}: holds its weights only as pickle ({', '.join(pickles[:3])}), which can run code when opened",
        "convert it on a machine you can lose: load it there with from_pretrained; save_pretrained(new_folder) then "
        "writes safetensors; audit new_folder",
    )
