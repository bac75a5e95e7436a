"""Which files of a hub repository an audit needs: those that are hashed and opened, by name, and no other.

Left where they are: the same weights once more (``original/``, ``consolidated*.safetensors``, half-precision variants,
exports to other tools), pickles, code, logs, what a trainer needs to go on.
"""

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from audit.checkpoints.folder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CHAT_TEMPLATES,
    OTHER_FILES,
    PICKLES,
    RARE_VOCABULARIES,
    TOKENIZER_FILES,
    named_weights,
    read_json,
)
from audit.schema import AuditError

CARD = "README.md"
"""What the publisher says of a repository; it is never opened by an audit and is no part of a fingerprint."""
_INDEX = ".index.json"
_QUANTISED = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
_EDITED = ("edit.json", "delta.safetensors")
OWN_MARKS = ("config.json", ADAPTER_CONFIG, _EDITED[0])
"""Files of which a folder has one if it holds a model, an adapter or an edit itself."""
_SETTINGS = (
    *OTHER_FILES, *TOKENIZER_FILES, CHAT_TEMPLATES, *RARE_VOCABULARIES, *_QUANTISED, ADAPTER_CONFIG,
    f"*/{ADAPTER_CONFIG}", f"*.safetensors{_INDEX}", _EDITED[0], CARD,
)  # fmt: skip


def settings_among(files: Collection[str], place: str) -> list[str]:
    """Those of a repository's files without which it cannot be said what its weights are, in the folder of ``place``:
    settings, tokenizer, indices of shards, and which adapters lie below."""
    folder = _folder(place)
    inside = {name: name[len(folder) + 1 :] if folder else name for name in files if _is_in(name, folder)}
    return sorted(n for n, rest in inside.items() if any(_matches(rest, pattern) for pattern in _SETTINGS))


def weights_among(files: Collection[str], place: str, folder: Path) -> list[str]:
    """The files of weights among a repository's ``files``, by the settings that were fetched into the
    repository's local ``folder``.

    AuditError (code 2): nothing but pickles there, or several .gguf files of which none is named.
    """
    if place.endswith(".gguf"):
        return [place]
    listed = [name[len(place) + 1 :] if place else name for name in files if _is_in(name, place)]
    at_level = [name for name in listed if "/" not in name]
    names = _weights(at_level, folder / place)
    if not names:
        _refuse(at_level, listed, place)
    return [_below(place, name) for name in names]


def _weights(at_level: Sequence[str], folder: Path) -> list[str]:
    """The files of weights of one folder by the rules of the library that opens it."""
    first = named_weights(folder, at_level)
    if first is not None:
        return _shards(folder / first) if first.endswith(_INDEX) else [first]
    if _EDITED[0] in at_level:
        return [name for name in _EDITED if name in at_level]
    if ADAPTER_CONFIG in at_level and ADAPTER_WEIGHTS in at_level:
        return [ADAPTER_WEIGHTS]
    gguf = sorted(name for name in at_level if name.endswith(".gguf"))
    if len(gguf) > 1:
        raise AuditError(
            f"the repository holds {len(gguf)} .gguf files ({', '.join(gguf[:4])}{', ...' if len(gguf) > 4 else ''})",
            f'say which: subfolder = "{gguf[0]}"',
        )
    return gguf


def _shards(index: Path) -> list[str]:
    table = read_json(index).get("weight_map")
    return sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []


def _refuse(at_level: Sequence[str], listed: Sequence[str], place: str) -> None:
    """AuditError (code 2) where it can be said already why nothing can be opened; else it is said of the folder."""
    below = folders_with_models(listed)
    if below and not any(name in at_level for name in OWN_MARKS):
        last = _below(place, below[-1])
        raise AuditError(
            f"no model in {place or 'the top folder'} of the repository, but in sub-folders ({', '.join(below[:6])})",
            f'say which: subfolder = "{last}" (of an adapter: adapter = "owner/name@commit/{last}")',
        )
    pickles = [name for name in at_level if any(PurePosixPath(name).match(pattern) for pattern in PICKLES)]
    if pickles:
        raise AuditError(
            f"the repository holds its weights only as pickle ({', '.join(sorted(pickles)[:3])}), which can run code "
            "when opened; nothing of it was fetched",
            "look for a commit or a conversion with safetensors; or convert it on a machine you can lose: load it "
            "there with from_pretrained; save_pretrained(new_folder) then writes safetensors; audit new_folder",
        )


def folders_with_models(names: Collection[str]) -> list[str]:
    """The folders in which a config.json or an adapter's lies, by names of files; steps in number order."""
    marks = ("config.json", ADAPTER_CONFIG)
    places = {str(PurePosixPath(name).parent) for name in names if PurePosixPath(name).name in marks and "/" in name}
    return sorted(places, key=lambda name: (len(name), name))


def _is_in(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


def _folder(place: str) -> str:
    """The folder of a place in a repository: itself, or that of a file of weights (.gguf)."""
    return place.rpartition("/")[0] if place.endswith(".gguf") else place


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and PurePosixPath(name).match(pattern)


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
