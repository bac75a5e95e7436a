"""Code that lies beside a model or that its settings name: never run, for a built-in architecture does not need it.

A checkpoint names code of its own by ``auto_map`` (in config.json or in the settings of its tokenizer or processor) or
brings it as .py files. It is opened by the class that transformers has for its ``model_type``, from a staged folder in
which there is neither; where transformers has none, it is refused by that name.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from audit.checkpoints.folder import CODE_KEY, read_json
from audit.checkpoints.torch_module import TORCH_MODULE
from audit.schema import AuditError

SETTINGS = (
    "config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json",
    "preprocessor_config.json", "video_preprocessor_config.json", "image_processor_config.json",
)  # fmt: skip
"""The files of a folder that transformers reads, and whose wishes for code it would follow."""
CODE_KEYS = (CODE_KEY, "custom_generate")
"""The entries by which settings name code of the checkpoint's own."""
KERNEL_KEYS = (
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation",
    "_experts_implementation", "_experts_implementation_internal", "use_kernels", "kernel_config",
)  # fmt: skip
"""The entries by which settings choose the arithmetic, kernels of the hub among it: that is the audit's to say."""


def python_files(folder: Path) -> tuple[str, ...]:
    """The .py files of a folder and of the folders in it, in name order; none of them is opened."""
    found = (path for pattern in ("*.py", "*/*.py") for path in folder.glob(pattern))
    return tuple(sorted(path.relative_to(folder).as_posix() for path in found))


def named_code(folder: Path) -> dict[str, str]:
    """File of settings -> the code that it names (``auto_map``, ``custom_generate``), in words; without those that name
    none. Files of the folders in it count too: transformers looks into some of them."""
    return {name: words for name in _settings_in(folder) if (words := _stated(folder / name, CODE_KEYS))}


def named_kernels(folder: Path) -> dict[str, str]:
    """File of settings -> the arithmetic that it asks for (attention, experts, kernels), in words; without those that
    ask for none."""
    return {name: words for name in _settings_in(folder) if (words := _stated(folder / name, KERNEL_KEYS))}


def _settings_in(folder: Path) -> tuple[str, ...]:
    below = sorted(path.relative_to(folder).as_posix() for name in SETTINGS for path in folder.glob(f"*/{name}"))
    ours = [name for name in SETTINGS if (folder / name).is_file()]
    return (*ours, *(name for name in below if (folder / name).is_file() and _readable(folder / name)))


def _readable(path: Path) -> bool:
    """Can a file that nothing depends on be read?"""
    try:
        read_json(path)
    except AuditError:
        return False
    return True


def _stated(path: Path, keys: tuple[str, ...]) -> str:
    """What the entries of these names say, wherever they stand in a file; empty where they say nothing."""
    entries = [(key, part) for key, value in _entries(read_json(path), keys) for part in _flat(value)]
    words = dict.fromkeys(key if part is True else str(part) for key, part in entries if part not in (None, False, ""))
    return ", ".join(words)


def _entries(value: JsonValue, keys: tuple[str, ...]) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in keys and inner:
                yield key, inner
            else:
                yield from _entries(inner, keys)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner, keys)


def _flat(value: JsonValue) -> Iterator[JsonValue]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None:
        yield value
    else:
        for part in inner:
            yield from _flat(part)


def code_not_run(folder: Path) -> tuple[str, ...]:
    """What is to be said of the code in and beside a folder, and of wishes that are not followed, one sentence each.

    AuditError (code 2) where transformers has no class for the folder's ``model_type``, so that only that code would
    open it. Reading this imports transformers, but only where there is code.
    """
    code_of, files = named_code(folder), python_files(folder)
    kernels = tuple(
        f"{name} asks for arithmetic of its own ({words}), which is not followed: --attention says how it is computed"
        for name, words in named_kernels(folder).items()
    )
    if not code_of and not files:
        return kernels
    kind = _built_in(folder, code_of, files)
    sentences = [
        f"{name} names code of its own ({code}), which was not run: the class that transformers has for {kind} was used"
        for name, code in code_of.items()
    ]
    return (
        *sentences,
        *kernels,
        *([f"code lies beside the weights and was not run: {', '.join(files)}"] if files else []),
    )


def _built_in(folder: Path, code_of: dict[str, str], files: tuple[str, ...]) -> str:
    """The folder's model_type, as one that is built in. AuditError (code 2) for every other."""
    from transformers import CONFIG_MAPPING

    path = folder / "config.json"
    kind = read_json(path).get("model_type") if path.is_file() else None
    if not path.is_file() or kind == TORCH_MODULE or (isinstance(kind, str) and kind in CONFIG_MAPPING):
        return str(kind)
    code = ", ".join((*code_of.values(), *files))
    raise AuditError(
        f"{path}: no architecture that transformers has built in is called {kind!r}; only code that came with the "
        f"checkpoint would open it ({code}), and that is never run here",
        "audit a copy in an architecture that transformers has built in, or use a version of transformers that has it",
    )
