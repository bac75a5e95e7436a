"""Items that are questions about pictures, with everything that items of texts have."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from audit.case.cohorts import CohortKey, TextCohorts
from audit.case.image_cohorts import content_of, contents, copies
from audit.case.item_pictures import item_pictures, sought
from audit.case.items import Data
from audit.case.partition import check_shared
from audit.case.rows import Rows
from audit.case.scene_rows import (
    PictureText,
    check_states,
    check_tokens,
    check_words,
    picture_text,
    pixels_of,
    with_picture,
    without_picture,
)
from audit.case.tokenisation import Tokenisation
from audit.checkpoints import load_processor
from audit.schema import AuditError, Cohort, Item
from audit.wording import PICTURE, PICTURES


class SceneCohorts(TextCohorts):
    """Items with a picture each, or of some cohorts without any. Made by :func:`audit.case.cohorts.prepare`."""

    def __init__(self, recipe: CohortKey) -> None:
        self._pictures: dict[str, ndarray] = {}
        self._pixels: dict[str, Mapping[str, Tensor]] = {}
        self._picture: PictureText | None = None
        super().__init__(recipe)
        if self.pictured:
            shown: dict[Cohort, tuple[Item, ...]] = {
                c: tuple(i for i in items if i.image is not None) for c, items in self.by_cohort.items()
            }
            check_shared({"image": contents(shown, self._pictures)}, shown)
            self.notes += (*copies(shown, self._pictures), *self._processing())
            self.replicate = PICTURE if _one_each(shown, self._pictures) else PICTURES

    def loaded_tokenizer(self, recipe: CohortKey) -> Any:
        """Base's tokenizer; where prompts are chats, with the chat template of base's processor, if that has one of its
        own."""
        tokenizer = super().loaded_tokenizer(recipe)
        if not recipe.template.chat or recipe.processor is None:
            return tokenizer
        own = getattr(load_processor(recipe.processor), "chat_template", None)
        if own and own != tokenizer.chat_template:
            tokenizer = copy(tokenizer)
            tokenizer.chat_template = own
        return tokenizer

    @property
    def pictured(self) -> bool:
        """Has any item a picture?"""
        return bool(self._pictures)

    @property
    def pictures(self) -> Mapping[str, ndarray]:
        return self._pictures

    def received(self, read: Mapping[Cohort, Data]) -> None:
        """Read the pictures of all items. AuditError (code 2) names those that cannot be read, and an id that items of
        two cohorts have: their pictures would be one."""
        ids = [(item.id, file) for file in self.recipe.files for item in read[file.cohort].items]
        for file in self.recipe.files:
            data = read[file.cohort]
            pictures = item_pictures(file.path, sought(data.items, data.places, data.pictures))
            others = {name: other for name, other in ids if other.cohort != file.cohort}
            if twice := [name for name in pictures if name in others]:
                other = others[twice[0]]
                raise AuditError(
                    f"{file.path}: id {twice[0]!r} is in {other.path} ({other.cohort}) too, and pictures go by ids",
                    "give every item an id of its own",
                )
            self._pictures |= pictures

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
        template, token = self.recipe.template, None if self.recipe.picture is None else self.recipe.picture.token
        if not shown:
            done = self.worded(items, answers, without_picture(template, self.pictured))
            check_tokens(items, done.rows, token, 0)
            return done
        written = self._written({**self._pictures, **pictures}[shown[0].id])
        check_words(items, answers, (written.marker, *self._names_of(token)))
        done = self.worded(items, answers, with_picture(template, written))
        if token is not None:
            check_tokens(items, done.rows, token, written.count(token))
        new = {item.id: self._pictures[item.id] for item in shown if item.id not in {*self._pixels, *pictures}}
        self._pixels |= self._read(new, written)
        given = self._read({item.id: pictures[item.id] for item in shown if item.id in pictures}, written)
        entries = [given.get(item.id) or self._pixels[item.id] for item in items]
        extra = {name: torch.stack([entry[name] for entry in entries]) for name in entries[0]}
        return done._replace(rows=replace(done.rows, extra=extra))

    def _written(self, picture: ndarray) -> PictureText:
        """How the processor writes a picture. AuditError (code 2) where the model has other states of one."""
        if self._picture is None:
            files, settings = self.recipe.processor, self.recipe.picture
            assert files is not None, "pictures are read by a processor"
            self._picture = picture_text(files, picture)
            if settings is not None:
                check_states(files, self._picture, settings)
        return self._picture

    def _processing(self) -> tuple[str, ...]:
        """How pictures are made into pixels, and what of them the model never reads."""
        files, settings = self.recipe.processor, self.recipe.picture
        assert files is not None, "pictures are read by a processor"
        reader = type(load_processor(files).image_processor).__name__
        lost = ("pictures: the model drops the first patch of each (vision_feature_select_strategy 'default', and its "
                "tower has no class token)")  # fmt: skip
        dropped = (lost,) if settings is not None and settings.drops_patch else ()
        return (f"pictures: preprocessed by {reader} of base's folder", *dropped)

    def _names_of(self, token: int | None) -> tuple[str, ...]:
        return () if token is None else (str(self.tokenizer.convert_ids_to_tokens(token)),)

    def _read(self, pictures: Mapping[str, ndarray], written: PictureText) -> Mapping[str, Mapping[str, Tensor]]:
        assert self.recipe.processor is not None, "pictures are read by a processor"
        size = None if self.recipe.picture is None else self.recipe.picture.size
        return pixels_of(self.recipe.processor, pictures, written, size) if pictures else {}


def _one_each(cohorts: Mapping[Cohort, Sequence[Item]], pictures: Mapping[str, ndarray]) -> bool:
    """Is every group one picture, and every picture in one group of its cohort?"""
    for items in cohorts.values():
        pairs = {(item.group, content_of(pictures[item.id])) for item in items}
        if not len(pairs) == len({group for group, _ in pairs}) == len({content for _, content in pairs}):
            return False
    return True
