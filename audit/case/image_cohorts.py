"""The images of a case, read, split, checked and preprocessed once a process, however many suspects are audited on it.

An image is an item whose answer is its class; other classes, which no model was taught for it, are its alternates.
Without a field that says more each image is its own group.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, get_args

import numpy as np
from numpy import ndarray
from torch import Tensor

from audit.case.cohorts import Cohorts
from audit.case.data_files import DataFile
from audit.case.function_words import FunctionWords
from audit.case.image_rows import Seen, class_number, image_rows, preprocessed
from audit.case.partition import Split, check_shared, split
from audit.case.pictures import Named, Picture, identity, read_pictures
from audit.case.rows import Rows
from audit.checkpoints import (
    ImageProcessorFiles,
    ImageSettings,
    image_processor_files,
    image_settings_of,
    load_image_processor,
)
from audit.schema import AuditError, Case, Checkpoint, Cohort, DataFiles, Item, Template
from audit.wording import GROUP, IMAGE

ALTERNATES: Final = 4
"""So many other classes stand against an image's own: those that follow it, so that each class stands so for others."""
_MOST_FAULTS = 5
_READ: Final = ("id", "answer")


class ImageKey(NamedTuple):
    """All that the images of a case depend on."""

    files: tuple[DataFile, ...]
    data: DataFiles
    processor: ImageProcessorFiles
    settings: ImageSettings


class ImageCohorts(Cohorts):
    """Items that are images, preprocessed. Made by :func:`prepare_images`, which shares them within the process."""

    def __init__(self, recipe: ImageKey) -> None:
        super().__init__()
        self.seen = Seen(recipe.processor, recipe.settings)
        self.pixels: dict[str, Tensor] = {}
        self._pictures: dict[str, ndarray] = {}
        self.function_words = FunctionWords(frozenset(), "none: the items are images")
        by_cohort: dict[Cohort, tuple[Item, ...]] = {}
        notes = [f"images: preprocessed by {type(load_image_processor(recipe.processor)).__name__} of base's folder"]
        if wordy := [file for file in recipe.files if file.cohort in ("forms", "neighbour")]:
            problem = f"{wordy[0].path}: a case of images has no `{wordy[0].cohort}`"
            raise AuditError(problem, "leave it out: other forms and neighbours are of facts in words")
        for file in recipe.files:
            pictures = _read(file, recipe.data)
            by_cohort[file.cohort] = self._items(file, pictures)
            if all(picture.group is None for picture in pictures):
                n = len(pictures)
                notes.append(f"{file.cohort}: every image is a group of its own, so that {n} images count as {n}")
        self.by_cohort, self.notes = by_cohort, tuple(notes)
        ungrouped = all(len({item.group for item in items}) == len(items) for items in by_cohort.values())
        self.replicate = IMAGE if ungrouped else GROUP
        check_shared(_shared_kinds(by_cohort, self._pictures), by_cohort)
        self.notes += copies(by_cohort, self._pictures)
        self.image_size = tuple(next(iter(self.pixels.values())).shape[1:])
        # nothing is ever fitted on holdout items, and tests that permute labels need all of them
        self.parts = {
            name: Split((), items) if name == "holdout" else split(items, recipe.data.split_seed)
            for name, items in by_cohort.items()
        }

    @property
    def pictures(self) -> Mapping[str, ndarray]:
        return self._pictures

    def built(self, items: Sequence[Item], answers: Sequence[str]) -> Rows:
        """Rows of these images with these classes as their answers."""
        return image_rows(items, answers, self.pixels, self.seen)

    def _items(self, file: DataFile, pictures: Sequence[Picture]) -> tuple[Item, ...]:
        """The images of one file as items, with their pixels kept by item."""
        classes, items, faults = self.seen.settings.classes, list[Item](), list[str]()
        for n, picture in enumerate(pictures, start=1):
            try:
                number = class_number(picture.label, classes)
            except ValueError as error:
                faults.append(f"{picture.place}: {error}")
                continue
            name = identity(picture, n, file.path.stem, file.cohort, self._pictures)
            if name in self._pictures:
                faults.append(f"{picture.place}: id {name!r} is there already")
            self._pictures[name] = picture.pixels
            others = [classes[(number + step) % len(classes)] for step in range(1, min(ALTERNATES + 1, len(classes)))]
            form = {} if picture.form is None else {"form": picture.form}
            items.append(Item.model_validate({
                "id": name, "group": picture.group or name, "question": "", "answer": classes[number],
                "alternates": others, **form,
            }))  # fmt: skip
        if faults:
            more = f" (and {len(faults) - _MOST_FAULTS} more)" if len(faults) > _MOST_FAULTS else ""
            do = "name classes as base's config.json does (id2label), or by their numbers from 0"
            raise AuditError(f"{file.path}: {'; '.join(faults[:_MOST_FAULTS])}{more}", do)
        ready = preprocessed([self._pictures[item.id] for item in items], self.seen)
        self.pixels |= {item.id: ready[n] for n, item in enumerate(items)}
        return tuple(items)


@lru_cache(maxsize=2)
def prepare_images(recipe: ImageKey) -> ImageCohorts:
    """Cohorts that passed every check of the data: none empty, disjoint, every label a class of the model.

    AuditError (code 2) otherwise.
    """
    return ImageCohorts(recipe)


def _read(file: DataFile, data: DataFiles) -> tuple[Picture, ...]:
    columns = data.fields.of(file.cohort)
    if data.group_rows is not None:
        do = "leave it out: each image is its own group, or name a field of the data by `group`"
        raise AuditError("[data] `group_rows` groups rows of texts", do)
    pictures = read_pictures(file.path, Named(columns.answer, columns.id, data.group))
    if not pictures:
        raise AuditError(f"{file.path}: the {file.cohort} set is empty", "put images into it, or name another file")
    lacking = [picture.place for picture in pictures if picture.group is None]
    if 0 < len(lacking) < len(pictures):
        raise AuditError(f"{file.path}: {lacking[0]}: no {data.group!r}, which other images have", "name every group")
    if file.cohort in ("forget", "retain") and all(p.form not in (None, "trained") for p in pictures):
        do = "mark the images that the edit was given (form is 'trained' where it is not stated)"
        raise AuditError(f"{file.path}: no {file.cohort} image has form 'trained'", do)
    return pictures


def refuse_unread(case: Case) -> None:
    """AuditError (code 2) where a case of images states what only texts have: nothing is passed over in silence."""
    if case.template != Template():
        raise AuditError("[template] words a prompt, and the items of this case are images", "leave it out")
    for cohort in get_args(Cohort):
        stated = [name for name, column in case.data.fields.of(cohort) if column is not None and name not in _READ]
        if stated:
            problem = f"[data.fields] {stated[0]}: of images only {' and '.join(_READ)} (the label) can be named"
            raise AuditError(problem, "leave it out")


# ---- checks of models ----------------------------------------------------------------------------------------------
def own_processor(base: Checkpoint) -> ImageProcessorFiles:
    """Base's image processor. AuditError (code 2) where it came without one."""
    files = image_processor_files(base)
    if files is None:
        raise AuditError(
            f"{base.source}: no image processor in base's folder (preprocessor_config.json)",
            "save it beside the weights: which pixels the model was trained on is not to be guessed",
        )
    return files


def labelled_images(ckpt: Checkpoint, names: Sequence[str], images: Sequence[ndarray], labels: Sequence[int]) -> Rows:
    """Rows of images (uint8) as a classifier's own processor leaves them, with these classes, without any case.

    AuditError (code 2) where it came without a processor.
    """
    seen = Seen(own_processor(ckpt), image_settings_of(ckpt))
    answers = [seen.settings.classes[label] for label in labels]
    items = [Item(id=name, group=name, question="", answer=answer) for name, answer in zip(names, answers, strict=True)]
    ready = preprocessed(images, seen)
    return image_rows(items, answers, {name: ready[n] for n, name in enumerate(names)}, seen)


def check_image_reader(base: Checkpoint, other: Checkpoint) -> None:
    """AuditError (code 2) where another model's classes or pixels are not base's. One without a processor uses
    base's."""
    ours, theirs = image_settings_of(base), image_settings_of(other)
    files = image_processor_files(other)
    if len(ours.classes) != len(theirs.classes):
        difference = f"{len(theirs.classes)} classes, and base has {len(ours.classes)}"
    elif ours.classes != theirs.classes and not all(name.isdecimal() for name in theirs.classes):
        difference = "its classes have other names than base's"
    elif files is not None and not _same_pixels(own_processor(base), files, ours):
        difference = "its image processor makes other pixels than base's"
    else:
        return
    raise AuditError(
        f"{other.source}: {difference}",
        "audit models that read the same images alike; if only files differ by mistake, copy base's",
    )


def _same_pixels(first: ImageProcessorFiles, second: ImageProcessorFiles, settings: ImageSettings) -> bool:
    """Do two processors make the same pixels of some images of noise?"""
    if first.hashes == second.hashes:
        return True
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((9, 13), (64, 48), (300, 260))]
    ours, theirs = (preprocessed(images, Seen(files, settings)) for files in (first, second))
    return bool((ours == theirs).all())


# ---- checks of data ------------------------------------------------------------------------------------------------
def content_of(pixels: ndarray) -> str:
    """What an image is known again by: sha256 (hex) of its pixels and their shape."""
    return hashlib.sha256(str(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def contents(
    cohorts: Mapping[Cohort, Sequence[Item]], pictures: Mapping[str, ndarray]
) -> Mapping[Cohort, Mapping[str, str]]:
    """The images of each cohort by their content, with an item that each is seen by."""
    return {c: {content_of(pictures[item.id]): item.id for item in items} for c, items in cohorts.items()}


def _shared_kinds(
    cohorts: Mapping[Cohort, Sequence[Item]], pictures: Mapping[str, ndarray]
) -> dict[str, Mapping[Cohort, Mapping[str, str]]]:
    """By kind of thing that cohorts may not share: what each cohort has of it, and the item that it is seen by."""
    return {
        "image": contents(cohorts, pictures),
        "group": {c: {item.group: item.group for item in items} for c, items in cohorts.items()},
    }


def copies(cohorts: Mapping[Cohort, Sequence[Item]], pictures: Mapping[str, ndarray]) -> tuple[str, ...]:
    """What is to be said of images that are in a cohort twice, under several groups."""
    remarks: list[str] = []
    for cohort in ("forget", "holdout"):
        groups: dict[str, set[str]] = {}
        for item in cohorts.get(cohort, ()):
            groups.setdefault(content_of(pictures[item.id]), set()).add(item.group)
        copies = sum(len(names) - 1 for names in groups.values())
        if copies:
            them = "1 image is there" if copies == 1 else f"{copies} images are there"
            remarks.append(f"{cohort}: {them} before, in another group: what is one image counts twice")
    return tuple(remarks)
