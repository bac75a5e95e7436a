"""In which floating type a model loses nothing of what its files hold."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from audit.checkpoints.adapters import adapter_weights
from audit.checkpoints.config_only import of_config_alone
from audit.checkpoints.edited import edit_folders
from audit.checkpoints.float_copies import weights_folder
from audit.checkpoints.folder import read_config, weight_files
from audit.checkpoints.location import adapter_folder_of, folder_of
from audit.schema import Checkpoint
from audit.storage import safetensors_file

WIDEST: Final = "float32"
_HALF: Final = {"BF16": "bfloat16", "F16": "float16"}


def exact_dtype(ckpts: Iterable[Checkpoint]) -> str:
    """The narrowest of bfloat16, float16 and float32 that holds every matrix of these checkpoints as it is stored.

    One type for all: models in different types would differ by their rounding. Adapters and edits count as well, since
    they are added in that type. Weights in float64 are rounded to float32, and so are codes of other formats.
    """
    types = {dtype for ckpt in ckpts for dtype in _types(ckpt)}
    only = next(iter(types)) if len(types) == 1 else ""
    return _HALF.get(only, WIDEST)


def _types(ckpt: Checkpoint) -> set[str]:
    """The types of a checkpoint's matrices; where no weights are there, what its config says of them."""
    if of_config_alone(ckpt):
        config = read_config(folder_of(ckpt))
        stated = config.get("dtype", config.get("torch_dtype"))
        return {name for name, dtype in _HALF.items() if dtype == stated} or {WIDEST}
    return {entry.dtype for path in _files(ckpt) for entry in _matrices(path)}


def _files(ckpt: Checkpoint) -> list[Path]:
    files = list(weight_files(weights_folder(ckpt)))
    if (adapter := adapter_folder_of(ckpt)) is not None:
        files.append(adapter_weights(adapter))
    played = zip(edit_folders(ckpt), reversed(ckpt.edits), strict=True)
    return files + [folder / record.delta_file for folder, record in played if not record.is_hook]


def _matrices(path: Path) -> list[safetensors_file.Entry]:
    """The tensors that are weights: no counts, and no vectors, which a family may keep wider than its matrices."""
    entries = safetensors_file.read_header(path).entries.values()
    return [entry for entry in entries if len(entry.shape) >= 2 and entry.dtype.startswith(("F", "BF"))]
