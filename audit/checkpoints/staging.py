"""What a library is given to open: a folder of links to the files that were hashed, and nothing beside them.

transformers looks round in the folder that it opens: an adapter beside the model is put onto it, an index or another
config is followed wherever it leads. From a staged folder it can only take what the fingerprint is of.
"""

import json
import tempfile
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from audit.checkpoints.code_beside import CODE_KEYS, KERNEL_KEYS, SETTINGS
from audit.checkpoints.folder import WEIGHTS_KEY, read_config, read_json, weight_files
from audit.checkpoints.torch_module import TORCH_MODULE, module_config_class, module_settings
from audit.schema import AuditError, ExitCode, as_audit_error
from audit.storage import safetensors_file

# the code that settings name is never run; with which kernels a model is computed is the audit's to say
_WISHES = (*CODE_KEYS, *KERNEL_KEYS)
_LEFT_OUT = (WEIGHTS_KEY, "configuration_files", *_WISHES)


@contextmanager
def staged_model(folder: Path) -> Generator[Path]:
    """A folder with the model's config, generation config and :func:`weight_files` alone, as long as the block runs.

    AuditError where :func:`weight_files` raises one, and for a config that hands over to another (code 2).
    """
    weights = weight_files(folder)
    with _staged_config(folder) as stage:
        shards = [f"model-{n:05d}-of-{len(weights):05d}.safetensors" for n in range(1, len(weights) + 1)]
        for path, name in zip(weights, ("model.safetensors",) if len(weights) == 1 else shards, strict=True):
            (stage / name).symlink_to(path.absolute())
        if len(weights) > 1:
            pairs = zip(weights, shards, strict=True)
            places = {tensor: name for path, name in pairs for tensor in safetensors_file.read_header(path).entries}
            index = {"metadata": dict[str, str](), "weight_map": places}
            (stage / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        yield stage


@contextmanager
def staged_links(folder: Path, names: Iterable[str]) -> Generator[Path]:
    """A folder with links to those of ``names`` that are files of ``folder``, as long as the block runs; settings that
    name code of the checkpoint's own, or kernels, are copied without those entries."""
    with tempfile.TemporaryDirectory(prefix="residua-stage-") as temp:
        for name in names:
            if not (folder / name).is_file():
                continue
            staged = Path(temp) / name
            staged.parent.mkdir(parents=True, exist_ok=True)
            settings = read_json(folder / name) if name in SETTINGS else {}
            if (plain := _without(settings, _WISHES)) != settings:
                staged.write_text(json.dumps(plain), encoding="utf-8")
            else:
                staged.symlink_to((folder / name).absolute())
        yield Path(temp)


@contextmanager
def _staged_config(folder: Path) -> Generator[Path]:
    """A folder with the model's config, freed of what leads to other files, and its generation config."""
    config = read_config(folder)
    versions = config.get("configuration_files")
    if isinstance(versions, list) and any(name != "config.json" for name in versions):
        raise AuditError(
            f"{folder / 'config.json'}: hands over to another config by the library's version (configuration_files)",
            "open it in transformers and save_pretrained(new_folder) with the config that is meant; audit new_folder",
        )
    with staged_links(folder, ("generation_config.json",)) as stage:
        (stage / "config.json").write_text(json.dumps(_without(config, _LEFT_OUT)), encoding="utf-8")
        yield stage


def _without(settings: Mapping[str, JsonValue], keys: Collection[str]) -> dict[str, JsonValue]:
    """Settings without entries (of a config: those that name other files or kernels), wherever they stand in them."""

    def plain(value: JsonValue) -> JsonValue:
        if isinstance(value, list):
            return [plain(each) for each in value]
        return _without(value, keys) if isinstance(value, dict) else value

    return {key: plain(value) for key, value in settings.items() if key not in keys}


@contextmanager
def opening(folder: Path, stage: Path, fault: str, do: str, code: int = ExitCode.INPUT) -> Generator[None]:
    """Whatever a library raises over a staged folder, as an AuditError about the folder that it stands for."""
    try:
        with as_audit_error(fault, do, code):
            yield
    except AuditError as error:
        raise AuditError(error.what.replace(str(stage), str(folder)), error.do, error.code) from error.__cause__


def library_config(folder: Path) -> Any:
    """The folder's config as transformers reads it: one spelling for each setting, and defaults filled in.

    AuditError (code 2) for a config that transformers cannot read.
    """
    from transformers import AutoConfig

    stated = read_config(folder)
    reader: Any = AutoConfig
    if stated.get("model_type") == TORCH_MODULE:
        module_settings(stated, folder / "config.json")
        reader = module_config_class()
    do = "check config.json; it must be that of an architecture that transformers has built in"
    with _staged_config(folder) as stage, opening(folder, stage, f"{folder / 'config.json'} cannot be read", do):
        config: Any = reader.from_pretrained(stage, local_files_only=True, trust_remote_code=False)
    config.name_or_path = str(folder)
    return config
