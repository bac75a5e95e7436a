"""The float copy of a quantised release: its codes turned into weights, once, kept in the user's cache by content.

What is fingerprinted, verified and handed in is the release as it was published; what is opened, compared and streamed
is this copy, so that a quantised suspect meets its base with equal names and shapes. A copy is a folder with config,
safetensors and a manifest, renamed into place when it is whole and held against its manifest before it is used.
"""

import json
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from audit.checkpoints.config_only import of_config_alone
from audit.checkpoints.conversion import RECIPE, convert, stated_dtype
from audit.checkpoints.folder import SETTINGS_FILES, file_sha256, read_config, read_json, tokenizer_names
from audit.checkpoints.gguf_files import names_gguf
from audit.checkpoints.gguf_release import convert_gguf, gguf_versions
from audit.checkpoints.location import folder_of, gguf_file_of
from audit.checkpoints.quantisation import dequantiser_of
from audit.checkpoints.released_files import parent_fingerprint
from audit.schema import AuditError, Checkpoint, ExitCode, Record
from audit.storage import TEMP, Store, cache_root, disk_error, exclusive, safetensors_file, write_atomic

log = logging.getLogger(__name__)
MANIFEST = "dequantised.json"
COPIES = "dequantised"


class FloatCopy(Record):
    """What a release was, and how its codes became weights. ``files``: sha256 of each file of the copy.

    ``called``: format and variant; ``dtype``: that of the values that codes stand for (what lay there in floating point
    is kept as it was); ``activations``: the rounding of activations that the release's own runtime does and the copy
    does not; ``notes``: what else a report should say.
    """

    source: str
    called: str
    versions: dict[str, str]
    dtype: str
    weights: int
    activations: str
    notes: tuple[str, ...]
    recipe: int
    files: dict[str, str]

    @property
    def summary(self) -> str:
        """The release and its copy in one clause, for a report."""
        by = ", ".join(f"{package} {version}" for package, version in sorted(self.versions.items()))
        more = [f"{self.activations} when it is deployed, which is not reproduced"] if self.activations else []
        return "; ".join([
            f"released as {self.called}, audited as its weights dequantised to {self.dtype} ({self.weights} tensors, "
            f"by {by})", *more, *self.notes,
        ])  # fmt: skip


def weights_folder(ckpt: Checkpoint) -> Path:
    """The folder with the parent's weights in floating point: its own, or the float copy, made if it is not there yet.

    AuditError: 2 where the codes cannot be turned into weights here (which package, which format); 3 where the disk
    refuses or the files are broken.
    """
    return folder_of(ckpt) if not _in_codes(ckpt) else _copy_folder(ckpt)


def float_copy_of(ckpt: Checkpoint) -> FloatCopy | None:
    """How a quantised release was turned into weights (the copy is made if it is not there); None for plain weights."""
    return _manifest(_copy_folder(ckpt)) if _in_codes(ckpt) else None


def tokenizer_folder(ckpt: Checkpoint) -> Path | None:
    """The folder that holds the checkpoint's tokenizer, or None if it came without one: settings and chat templates
    alone are none. A .gguf file without one beside it brings its own, which lies with the float copy."""
    file = gguf_file_of(ckpt)
    beside = None if file is not None and names_gguf(ckpt.source) else _with_tokenizer(folder_of(ckpt))
    return _with_tokenizer(weights_folder(ckpt)) if beside is None and file is not None else beside


def _with_tokenizer(folder: Path) -> Path | None:
    brought = [name for name in tokenizer_names(folder) if name not in SETTINGS_FILES and not name.endswith(".jinja")]
    return folder if brought else None


def _in_codes(ckpt: Checkpoint) -> bool:
    if gguf_file_of(ckpt) is not None:
        return True
    return not of_config_alone(ckpt) and dequantiser_of(folder_of(ckpt)) is not None


def _place(source: str) -> Path:
    return cache_root() / COPIES / source[:32]


def _copy_folder(ckpt: Checkpoint) -> Path:
    source = parent_fingerprint(ckpt).total
    place = _place(source)
    Store(cache_root() / "store").use(source)  # the store with which copies are pruned, wherever this run keeps its own
    if not _is_usable(place, source):
        with exclusive(place):
            if not _is_usable(place, source):  # who held the lock before may have made it
                log.warning("%s: turning its codes into weights, once; they are kept in %s", ckpt.source, place)
                _put_in_place(ckpt, source, place)
    return place


def _is_usable(place: Path, source: str) -> bool:
    if not place.is_dir() or _fault(place, source) is not None:
        return False
    with suppress(OSError):  # a read-only cache still serves; it only forgets what was used last
        os.utime(place)
    return True


def _put_in_place(ckpt: Checkpoint, source: str, place: Path) -> None:
    """Make the copy and rename it into place, over one that cannot be used. AuditError (code 3): the disk refuses."""
    temp = place.with_name(f".{place.name}.{os.getpid()}{TEMP}")
    try:
        temp.mkdir(parents=True, exist_ok=True)
        _make(ckpt, source, temp)
        if place.is_dir():
            log.warning("%s: %s; it was made again", place, _fault(place, source))
            shutil.rmtree(place)
        temp.rename(place)
    except OSError as error:
        if not _is_usable(place, source):  # where there are no locks another process may have been faster
            raise disk_error(place, error) from None
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _make(ckpt: Checkpoint, source: str, out: Path) -> None:
    """Write the copy's files at ``out``, the manifest last."""
    folder, gguf = folder_of(ckpt), gguf_file_of(ckpt)
    if gguf is not None:
        called, written = convert_gguf(gguf, out, beside=not names_gguf(ckpt.source))
        versions, activations = gguf_versions(), ""
    else:
        dequantiser = dequantiser_of(folder)
        assert dequantiser is not None
        written = convert(folder, dequantiser, out)
        called, versions, activations = dequantiser.called, dequantiser.versions, dequantiser.activations
        if (folder / "generation_config.json").is_file():
            shutil.copyfile(folder / "generation_config.json", out / "generation_config.json")
    files = {path.name: file_sha256(path, in_memory=False) for path in sorted(out.iterdir())}
    manifest = FloatCopy(
        source=source, called=called, versions=versions, dtype=stated_dtype(read_config(out)), weights=written.weights,
        activations=activations, notes=written.notes, recipe=RECIPE, files=files,
    )  # fmt: skip
    write_atomic(out / MANIFEST, json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True).encode())


def _manifest(folder: Path) -> FloatCopy:
    return FloatCopy.model_validate(read_json(folder / MANIFEST))


def _fault(folder: Path, source: str) -> str | None:
    """Why a copy cannot be used; None where it is the one that was made of ``source``, byte for byte."""
    try:
        manifest = _manifest(folder)
    except (AuditError, ValidationError) as error:
        return f"its manifest cannot be read ({error})"
    if manifest.recipe != RECIPE or manifest.source != source:
        return "it was made of something else, or by another recipe"
    for name, sha256 in manifest.files.items():
        try:
            weights = name.endswith(".safetensors")
            now = safetensors_file.digest(folder / name).sha256 if weights else file_sha256(folder / name)
        except AuditError as error:
            return error.what
        if now != sha256:
            return f"{name} is not what was written"
    return None


def verify_copy(ckpt: Checkpoint) -> None:
    """Is the float copy, where there is one, still what was written? AuditError (code 3) if not."""
    if _in_codes(ckpt):
        source = parent_fingerprint(ckpt).total
        place = _place(source)
        if place.is_dir() and (fault := _fault(place, source)) is not None:
            raise AuditError(f"{place}: {fault}", "run again: it is made again", ExitCode.INTEGRITY)


def copies() -> tuple[Path, ...]:
    """The float copies in the cache, and what a killed process left of them."""
    root = cache_root() / COPIES
    return tuple(sorted(root.iterdir())) if root.is_dir() else ()
