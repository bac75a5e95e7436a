"""Models and data files that are named elsewhere, looked for where people keep them: beside a release, on the hub."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from audit.case.releases.hub_snapshots import cached_dataset, fetched_dataset, hub_place
from audit.case.releases.release import Place, is_release

_MODELS: Final = ("", "models", "finetune", "unlearn", "checkpoints")
_DATA: Final = ("", "data", "datasets")
_SUFFIXES: Final = (".json", ".jsonl", ".parquet", ".csv")


class Surroundings(NamedTuple):
    """Where is looked: around the folder of the release, in the folders that a user named for data, on the hub."""

    folder: Path | None
    data: tuple[Path, ...] = ()
    online: bool = False

    def above(self) -> tuple[Path, ...]:
        """The folder itself, the one that holds it, and the one above that."""
        if self.folder is None:
            return ()
        return (self.folder, *list(self.folder.parents)[:2])


def find_model(name: str, around: Surroundings) -> Place | None:
    """The model of this name: a folder as it is written, one of that name beside the release, or one of the hub."""
    for folder in _model_folders(name, around):
        if is_release(folder):
            return Place(folder.resolve())
    return hub_place(name, around.online) if name.count("/") == 1 else None


def _model_folders(name: str, around: Surroundings) -> Iterator[Path]:
    path = Path(os.path.expanduser(name))
    if path.is_absolute():
        yield path
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    forms = dict.fromkeys((name, name.replace("/", "--"), name.replace("/", "__"), name.replace("/", "_"), last))
    for root in around.above():
        for place in _MODELS:
            yield from (root / place / form for form in forms if not Path(form).is_absolute())


def beside(pattern: str, around: Surroundings) -> tuple[Place, ...]:
    """The models beside the release whose folder's name matches a pattern of the shell, by name."""
    if around.folder is None:
        return ()
    recognised = {
        folder.resolve()
        for place in _MODELS
        for folder in (around.folder.parent / place).glob(pattern)
        if is_release(folder)
    }
    return tuple(Place(folder) for folder in sorted(recognised))


# ---- data -------------------------------------------------------------------------------------------------------
class DataSet(NamedTuple):
    """A data set of the hub: its id, the folders that copies of it are kept in, and the files of it that are wanted."""

    repository: str
    folders: tuple[str, ...]
    patterns: tuple[str, ...]


def data_roots(of: DataSet, around: Surroundings) -> tuple[Path, ...]:
    """The folders in which the files of a data set may lie, the nearest first; fetched where that is allowed."""
    names = (of.repository, of.repository.replace("/", "--"), of.repository.replace("/", "__"), *of.folders)
    roots = [
        root / place / name
        for root in (*around.data, *around.above())
        for place in _DATA
        for name in ("", *names)
        if (root / place / name).is_dir()
    ]
    if not around.online and (cached := cached_dataset(of.repository)) is not None:
        roots.append(cached)
    if around.online:
        roots.append(fetched_dataset(of.repository, of.patterns))
    return tuple(dict.fromkeys(root.resolve() for root in roots))


def find_data(stems: Sequence[str], roots: Sequence[Path]) -> Path | None:
    """The first file, or saved folder, of one of these names (``split``, ``config/split``), without its ending.

    The hub's way of naming shards is known: a split of one shard is its file, of several the folder they have alone.
    """
    for stem in stems:
        for root in roots:
            for path in _forms(root, stem):
                return path
    return None


def _forms(root: Path, stem: str) -> Iterator[Path]:
    yield from (path for suffix in _SUFFIXES if (path := root / f"{stem}{suffix}").is_file())
    yield from sorted(root.glob(f"{stem}-00000-of-00001.*"))
    folder = root / stem
    if folder.is_dir() and (list(folder.glob("state.json")) or _shards_alone(folder)):
        yield folder


def _shards_alone(folder: Path) -> bool:
    """Does a folder hold data files of one split and nothing else of that kind?"""
    splits = {re.sub(r"-\d{5}-of-\d{5}$", "", file.stem) for file in folder.iterdir() if file.suffix in _SUFFIXES}
    return len(splits) == 1
