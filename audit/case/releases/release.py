"""A release as it lies in a folder: its settings, its model card, and every name by which it is known.

Only small files are read here, never weights.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from audit.case.releases.gguf_metadata import base_models_of, gguf_files, metadata
from audit.case.releases.model_card import ModelCard, read_card
from audit.checkpoints import read_edit, read_json

CONFIG, ADAPTER, EDIT = "config.json", "adapter_config.json", "edit.json"
_COPY = re.compile(
    r"[-_.](?:bnb[-_]?)?(?:4bit|8bit|int4|int8|nf4|fp8|fp4|gguf|gptq|awq|hqq|quantized"
    r"|q\d(?:_[0-9a-z]+)*|i?q\d_[a-z0-9_]+|bf16|f16|f32)$",
    re.IGNORECASE,
)


class Place(NamedTuple):
    """Where a checkpoint lies: its folder here and, where it is a copy of the hub's, owner/name, the commit and the
    sub-folder of the repository. ``file``: the one .gguf file of the folder that is meant, where it was named."""

    folder: Path
    hub: str = ""
    commit: str = ""
    subfolder: str = ""
    file: str = ""


class Release(NamedTuple):
    """What a release says of itself. ``place`` is None where no more than its name is known.

    ``kin``: names of models that it came from, as others than itself say.
    """

    name: str
    place: Place | None = None
    card: ModelCard = ModelCard()
    config: Mapping[str, JsonValue] = {}
    adapter: Mapping[str, JsonValue] = {}
    gguf: Mapping[str, str] = {}
    parent: str = ""
    kin: tuple[str, ...] = ()

    @property
    def is_adapter(self) -> bool:
        """Does it hold an adapter and no model of its own?"""
        return bool(self.adapter)

    @property
    def is_copy(self) -> bool:
        """Is it another model's weights in fewer bits?"""
        return bool(self.gguf) or self.card.relation == "quantized"

    @property
    def names(self) -> tuple[str, ...]:
        """Its own name and those of its kin, the last part of each, without what says how many bits it has."""
        candidates = (self.name, *self.kin, *self.card.base_models, *base_models_of(self.gguf))
        return tuple(dict.fromkeys(bare_name(name) for name in candidates if name))


def bare_name(name: str) -> str:
    """The last part of a path or hub id, without endings that say how its weights are stored."""
    bare = re.split(r"[/\\]", name.rstrip("/\\"))[-1].removesuffix(".gguf")
    while (shorter := _COPY.sub("", bare)) != bare and shorter:
        bare = shorter
    return bare


def is_release(folder: Path) -> bool:
    """Does a model, an adapter or an edit lie in this folder?"""
    marks = any(os.path.isfile(folder / name) for name in (CONFIG, ADAPTER, EDIT))  # names may be no paths at all
    return marks or (os.path.isdir(folder) and bool(gguf_files(folder)))


def releases_in(folder: Path) -> tuple[str, ...]:
    """The sub-folders in which releases lie, at most two levels down, from this folder."""
    inside = (path for pattern in ("*", "*/*") for path in folder.glob(pattern) if is_release(path))
    return tuple(sorted(path.relative_to(folder).as_posix() for path in inside))


def read_release(place: Place) -> Release:
    """Read what a release says of itself. AuditError (code 3) where one of its files is broken."""
    folder = place.folder
    files = tuple(path for path in gguf_files(folder) if place.file in ("", path.name))
    config, adapter = (read_json(path) if (path := folder / name).is_file() else {} for name in (CONFIG, ADAPTER))
    bare, codes = not (folder / CONFIG).is_file(), not list(folder.glob("*.safetensors"))
    return Release(
        name=place.subfolder or place.hub or folder.name, place=place, card=read_card(folder), config=config,
        adapter=adapter if bare else {}, gguf=metadata(files[0]) if files and codes else {}, parent=_parent(folder),
    )  # fmt: skip


def _parent(folder: Path) -> str:
    """Whose child an edited folder is."""
    if not (folder / EDIT).is_file():
        return ""
    source, _ = read_edit(folder)
    return source.path


def text_of(settings: Mapping[str, JsonValue], key: str) -> str:
    """A setting that is a text; empty if it is none."""
    value = settings.get(key)
    return value if isinstance(value, str) else ""
