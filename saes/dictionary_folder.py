"""A dictionary on disk in sae_lens's own format: ``cfg.json`` and ``sae_weights.safetensors``, read and written here.

Beside them lie what we know of it (``residua.json``) and what it was measured by (``measured.safetensors``). A folder
that says too little of its activation, or more than is understood, is refused by name: opened all the same, a TopK
dictionary would be a dense one. Source: sae_lens 6.54, what its classes save and its loader from disk reads.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from audit.schema import AuditError, ExitCode
from audit.storage import read_tensors, safetensors_file, write_atomic, write_tensors
from saes.lens_config import CodeSettings, coder_from, read_settings
from saes.records import DictionaryRecord
from saes.sparse_coder import SparseCoder

CONFIG, WEIGHTS, RECORD, MEASURED = "cfg.json", "sae_weights.safetensors", "residua.json", "measured.safetensors"
_ARCHITECTURES = {"topk": "topk", "jumprelu": "jumprelu", "relu": "standard"}
_DAMAGED = "copy the folder again from where it was whole, or train it again"


class StoredDictionary(NamedTuple):
    """A dictionary of a folder. ``record`` is ours, None where another program wrote it; ``firing_rates`` are the
    shares of held-out rows at which each feature was active."""

    folder: Path
    coder: SparseCoder
    record: DictionaryRecord | None
    firing_rates: Float[Tensor, " feature"] | None


def dictionaries_in(folder: Path) -> tuple[Path, ...]:
    """The dictionary folders at or right below a folder. AuditError (code 2) if there are none."""
    if (folder / CONFIG).is_file():
        return (folder,)
    below = tuple(sorted(path.parent for path in folder.glob(f"*/{CONFIG}")))
    if not below:
        raise AuditError(
            f"{folder}: no dictionary, neither {CONFIG} nor a folder with one", "name a folder that `sae train` wrote"
        )
    return below


def read_dictionary(folder: Path) -> StoredDictionary:
    """Open a dictionary that we or sae_lens wrote, whole or in its training form.

    AuditError (code 3) says which file, which tensor or which setting is damaged, missing, of another shape or not
    understood; code 2 if there is no such folder.
    """
    if not folder.is_dir():
        raise AuditError(f"{folder}: no such folder", "name the folder of a dictionary")
    record = _record(folder)
    settings = read_settings(folder / CONFIG, folder)
    tensors = _whole_tensors(folder / WEIGHTS)
    coder = coder_from(settings, tensors, folder / WEIGHTS)
    rates = None
    if record is not None:
        _check_record(record, settings, folder)
        rates = _rates(folder, coder.features)
    return StoredDictionary(folder, coder, record, rates)


def write_dictionary(
    folder: Path,
    coder: SparseCoder,
    measured: Mapping[str, Tensor] | None = None,
    about: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write a dictionary for sae_lens and for us; returns the sha256 of every file written, by name.

    ``measured``: tensors to keep beside it; ``about``: further text for sae_lens's metadata. Every file is written
    whole or not at all.
    """
    settings: dict[str, object] = {
        "architecture": _ARCHITECTURES[coder.activation], "d_in": coder.width, "d_sae": coder.features,
        "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": coder.centred, "normalize_activations": "none",
        "reshape_activations": "none", "metadata": {"sae_lens_version": _lens_version(), **(about or {})},
    }  # fmt: skip
    if coder.k is not None:
        settings |= {"k": coder.k, "rescale_acts_by_decoder_norm": False}
    tensors = {name: tensor.float() for name, tensor in coder.tensors().items()}
    write_tensors(folder / WEIGHTS, tensors, {})
    if measured:
        write_tensors(folder / MEASURED, measured, {})
    # The configuration comes last: a folder without one is no dictionary.
    write_atomic(folder / CONFIG, json.dumps(settings, indent=1, sort_keys=True).encode())
    return {name: _sha256(folder / name) for name in (CONFIG, WEIGHTS, *([MEASURED] if measured else []))}


def write_record(folder: Path, record: DictionaryRecord) -> None:
    """Put our record beside a dictionary: from now on, its files are checked by their hashes."""
    write_atomic(folder / RECORD, record.model_dump_json(indent=1).encode())


def _lens_version() -> str:
    """The format's version: without one, sae_lens reads a configuration as one of before 6.0 and drops its metadata."""
    try:
        return version("sae-lens")
    except PackageNotFoundError:
        return "6.54.12"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(folder: Path) -> DictionaryRecord | None:
    """Our record, if the folder has one; its files are what it says."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = DictionaryRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AuditError(f"{path}: not our record: {where} {first['msg']}", _DAMAGED, ExitCode.INTEGRITY) from None
    for name, sha256 in record.sha256.items():
        if not (folder / name).is_file():
            raise AuditError(f"{folder / name} is missing", _DAMAGED, ExitCode.INTEGRITY)
        if _sha256(folder / name) != sha256:
            raise _changed(folder / name)
    return record


def _changed(path: Path) -> AuditError:
    return AuditError(f"{path}: its bytes are not those that were written", _DAMAGED, ExitCode.INTEGRITY)


def _check_record(record: DictionaryRecord, settings: CodeSettings, folder: Path) -> None:
    if record.settings.features != settings.features:
        problem = f"{record.settings.features} features by {RECORD}, {settings.features} by {CONFIG}"
        raise AuditError(f"{folder}: {problem}", _DAMAGED, ExitCode.INTEGRITY)


def _whole_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, held against the hash in it where there is one; none of them is NaN or infinite."""
    if not path.is_file():
        raise AuditError(f"{path} is missing", _DAMAGED, ExitCode.INTEGRITY)
    written = safetensors_file.read_header(path).metadata.get("sha256")
    if written is not None and safetensors_file.combined(safetensors_file.tensor_digests(path)) != written:
        raise _changed(path)
    broken = safetensors_file.first_not_finite(path)
    if broken is not None:
        raise AuditError(f"{path}: tensor {broken!r} holds a NaN or an infinity", _DAMAGED, ExitCode.INTEGRITY)
    # cloned: a file may be replaced while the tensors of the mapped one are in use
    return {name: tensor.clone() for name, tensor in read_tensors(path).items()}


def _rates(folder: Path, features: int) -> Float[Tensor, " feature"] | None:
    if not (folder / MEASURED).is_file():
        return None
    rates = _whole_tensors(folder / MEASURED).get("firing_rates")
    if rates is not None and rates.shape != (features,):
        problem = f"firing_rates are {list(rates.shape)} of {features} features"
        raise AuditError(f"{folder / MEASURED}: {problem}", _DAMAGED, ExitCode.INTEGRITY)
    return None if rates is None else rates.float()
