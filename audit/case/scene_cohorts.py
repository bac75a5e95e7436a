"""Items that are questions about pictures, with everything that items of texts have."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from numpy import ndarray
from torch import Tensor

from audit.case.cohorts import CohortKey, TextCohorts
from audit.case.pictures import decoded
from audit.case.rows import Rows
from audit.case.scene_rows import PictureText, picture_text, pixels_of, with_picture, without_picture
from audit.case.tokenisation import Tokenisation
from audit.schema import AuditError, Cohort, Item
from audit.wording import GROUP, IMAGE

_MOST_FAULTS = 5


class SceneCohorts(TextCohorts):
    """Items with a picture each, or of some cohorts without any. Made by :func:`audit.case.cohorts.prepare`."""

    def __init__(self, recipe: CohortKey) -> None:
        self._pictures: dict[str, ndarray] = {}
        self._pixels: dict[str, Mapping[str, Tensor]] = {}
        self._picture: PictureText | None = None
        super().__init__(recipe)
        if self.pictured:
            groups = [item.group for items in self.by_cohort.values() for item in items if item.image is not None]
            own = len(set(groups)) == len({self._content(name) for name in self._pictures})
            self.replicate = IMAGE if own else GROUP

    @property
    def pictured(self) -> bool:
        """Has any item a picture?"""
        return bool(self._pictures)

    @property
    def pictures(self) -> Mapping[str, ndarray]:
        return self._pictures

    def received(self, items: Mapping[Cohort, tuple[Item, ...]]) -> None:
        """Read the pictures of all items. AuditError (code 2) names those that cannot be read."""
        for file in self.recipe.files:
            listed = items[file.cohort]
            faults: list[str] = []
            with_one = [item for item in listed if item.image is not None]
            if with_one and len(with_one) < len(listed):
                bare = next(item.id for item in listed if item.image is None)
                raise AuditError(
                    f"{file.path}: item {bare!r} has no image, and others have",
                    "give every item of a file an image, or none: put texts alone into a file of another cohort",
                )
            seen: dict[str, ndarray] = {}
            for item in with_one:
                name = str(item.image)
                try:
                    seen[name] = seen[name] if name in seen else _read(file.path.parent, name)
                except AuditError as error:
                    faults.append(f"item {item.id!r}: {error.what}")
                else:
                    self._pictures[item.id] = seen[name]
            if faults:
                more = f" (and {len(faults) - _MOST_FAULTS} more)" if len(faults) > _MOST_FAULTS else ""
                raise AuditError(f"{file.path}: {'; '.join(faults[:_MOST_FAULTS])}{more}", "correct these images")

    def _content(self, name: str) -> str:
        pixels = self._pictures[name]
        return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()

    def _tokenised(self, items: Sequence[Item], answers: Sequence[str]) -> Tokenisation:
        """Tokenised rows, pictures among them. AuditError (code 2) for items with and without one together."""
        return self._pictured_rows(items, answers, {})

    def rows_with(self, items: Sequence[Item], answers: Sequence[str], pictures: Mapping[str, ndarray]) -> Rows:
        """Rows of these items with other pictures (by item) in place of their own; they are not kept."""
        return self._pictured_rows(items, answers, pictures).rows

    def _pictured_rows(
        self, items: Sequence[Item], answers: Sequence[str], pictures: Mapping[str, ndarray]
    ) -> Tokenisation:
        shown = [item for item in items if item.image is not None]
        if shown and len(shown) < len(items):
            raise AuditError("items with and without an image in one batch of rows", "ask for each of them by itself")
        if not shown:
            return self.worded(items, answers, without_picture(self.recipe.template))
        files = self.recipe.processor
        assert files is not None, "pictures are read by a processor"
        if self._picture is None:
            self._picture = picture_text(files, self._pictures[shown[0].id])
        done = self.worded(items, answers, with_picture(self.recipe.template, self._picture))
        new = [item.id for item in shown if item.id not in self._pixels and item.id not in pictures]
        if new:
            read = pixels_of(files, [self._pictures[name] for name in dict.fromkeys(new)])
            self._pixels |= {
                name: {key: value[n] for key, value in read.items()} for n, name in enumerate(dict.fromkeys(new))
            }
        others = list(pictures)
        read = pixels_of(files, [pictures[name] for name in others]) if others else {}
        given = {name: {key: value[n] for key, value in read.items()} for n, name in enumerate(others)}
        extra = _stacked([given.get(item.id, self._pixels.get(item.id, {})) for item in items])
        return done._replace(rows=replace(done.rows, extra=extra))


def _stacked(entries: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([entry[name] for entry in entries]) for name in entries[0]}


def _read(folder: Path, name: str) -> ndarray:
    """One picture of a data file's folder. AuditError (code 2) if it is not there or no image."""
    place = folder / name
    if not place.resolve().is_relative_to(folder.resolve()):
        raise AuditError(f"{name!r} is no file of the data's folder", "put the images beside the data")
    try:
        data = place.read_bytes()
    except OSError as error:
        raise AuditError(f"{name}: {error.strerror or error}", "correct the path") from None
    return decoded(name, data)
