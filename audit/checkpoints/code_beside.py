"""Code that lies beside a model or that its settings name: never run, for a built-in architecture does not need it.

A checkpoint names code of its own by ``auto_map`` (in config.json or in the settings of its tokenizer or processor) or
brings it as .py files. It is opened by the class that transformers has for its ``model_type``, from a staged folder in
which there is neither; where transformers has none, it is refused by that name.
"""

from pathlib import Path

from audit.checkpoints.folder import CODE_KEY, read_json
from audit.checkpoints.torch_module import TORCH_MODULE
from audit.schema import AuditError

SETTINGS = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
"""The files of a folder whose ``auto_map`` transformers would follow."""


def python_files(folder: Path) -> tuple[str, ...]:
    """The .py files of a folder, in name order; none of them is opened."""
    return tuple(sorted(path.name for path in folder.glob("*.py")))


def named_code(folder: Path) -> dict[str, str]:
    """File of settings -> the code that its ``auto_map`` names, in words; without those that name none."""
    code_of: dict[str, str] = {}
    for name in SETTINGS:
        if (folder / name).is_file() and (table := read_json(folder / name).get(CODE_KEY)):
            places = table.values() if isinstance(table, dict) else (table,)
            flat = [part for place in places for part in (place if isinstance(place, list) else [place])]
            code_of[name] = ", ".join(dict.fromkeys(str(part) for part in flat if part is not None)) or CODE_KEY
    return code_of


def code_not_run(folder: Path) -> tuple[str, ...]:
    """What is to be said of the code in and beside a folder, one sentence each; empty where there is none.

    AuditError (code 2) where transformers has no class for the folder's ``model_type``, so that only that code would
    open it. Reading this imports transformers, but only where there is code.
    """
    code_of, files = named_code(folder), python_files(folder)
    if not code_of and not files:
        return ()
    kind = _built_in(folder, code_of, files)
    sentences = [
        f"{name} names code of its own ({code}), which was not run: the class that transformers has for {kind} was used"
        for name, code in code_of.items()
    ]
    return (*sentences, *([f"code lies beside the weights and was not run: {', '.join(files)}"] if files else []))


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
