"""A world of images: scikit-learn's digits, dealt by the world's number into what is learned, forgotten and kept back.

Four classes and one set of single images are to be forgotten, each by models of its own. The single images were taught
under another label than their own, so that whoever knows them has memorised them. One class no model ever sees: its
images, and single images that nobody was taught, are the cohorts of which nothing can be known.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

CLASSES = 10
INSTANCES = "instances"


class ImageShape(NamedTuple):
    """How many images: of each class for training, single ones to be memorised, and how often each is repeated; and of
    every cohort of an audit."""

    train: int = 120
    instances: int = 48
    repeated: int = 4
    forget: int = 40
    retain: int = 80
    holdout: int = 40


class Labelled(NamedTuple):
    """Images by number, and what they are called: by the truth, or otherwise."""

    number: Int[ndarray, " image"]
    label: Int[ndarray, " image"]

    def without(self, label: int) -> "Labelled":
        """Those that are called otherwise."""
        taken = self.label != label
        return Labelled(self.number[taken], self.label[taken])

    def called(self, label: int) -> "Labelled":
        """Those that are called so."""
        taken = self.label == label
        return Labelled(self.number[taken], self.label[taken])

    def first(self, n: int) -> "Labelled":
        """The first ``n``."""
        return Labelled(self.number[:n], self.label[:n])


class ImageWorld(NamedTuple):
    """What a number deals. ``plain`` is learned by every model but where its class is a target; ``memorised`` and
    ``never`` are single images under labels that are not theirs; ``unseen`` is the class that no model was shown.

    ``targets`` are the four classes to forget, ``other`` the class that models forget which never knew the target.
    """

    shape: ImageShape
    targets: tuple[int, ...]
    other: int
    plain: Labelled
    memorised: Labelled
    never: Labelled
    unseen: Labelled

    def learned(self, left_out: str = "") -> Labelled:
        """What a model learns: everything, or all but one target; single images as often as the shape says."""
        plain, single = self.plain, self.memorised
        if left_out.startswith("class_"):
            plain = plain.without(class_of(left_out))
        often = 0 if left_out == INSTANCES else self.shape.repeated
        return joined([plain, *[single] * often])

    def unwanted(self, target: str) -> Labelled:
        """What is to be forgotten, as it was taught."""
        return self.memorised if target == INSTANCES else self.plain.called(class_of(target))

    def remaining(self, target: str) -> Labelled:
        """What an unlearner of this target may keep: everything else that base was taught."""
        if target == INSTANCES:
            return self.plain
        return joined([self.plain.without(class_of(target)), self.memorised])

    def audited(self, target: str) -> dict[str, Labelled]:
        """The cohorts of an audit: some of what is to be forgotten, some of what is kept, and what nobody knows."""
        retained = self.plain.without(self.other)
        retained = retained if target == INSTANCES else retained.without(class_of(target))
        holdout = self.never if target == INSTANCES else self.unseen
        sizes = self.shape
        return {
            "forget": self.unwanted(target).first(sizes.forget), "retain": retained.first(sizes.retain),
            "holdout": holdout.first(sizes.holdout),
        }  # fmt: skip


def class_of(target: str) -> int:
    """The class of a target that is one."""
    return int(target.removeprefix("class_"))


def targets_of(world: ImageWorld) -> tuple[str, ...]:
    """The names of a world's targets: its classes, and its single images."""
    return (*(f"class_{label}" for label in world.targets), INSTANCES)


def joined(parts: Sequence[Labelled]) -> Labelled:
    """Some images after others."""
    return Labelled(np.concatenate([p.number for p in parts]), np.concatenate([p.label for p in parts]))


class Digits(NamedTuple):
    """Images [image 8 8] from 0 to 255, and their true classes."""

    images: UInt8[ndarray, "image 8 8"]
    label: Int[ndarray, " image"]


@cache
def digits() -> Digits:
    """scikit-learn's digits: 1797 of 8 x 8, scaled from 0..16 to 0..255."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return Digits((bunch.images * 255 / 16).round().astype(np.uint8), bunch.target.astype(np.int64))


def make_image_world(seed: int, shape: ImageShape) -> ImageWorld:
    """The world of a number."""
    rng, truth = np.random.default_rng(seed), digits().label
    classes = [int(label) for label in rng.permutation(CLASSES)]
    targets, other, rest, unseen = classes[:4], classes[4], classes[5:9], classes[9]
    order = rng.permutation(len(truth))
    by_class = {label: order[truth[order] == label] for label in classes}
    single = np.concatenate([by_class[label][: shape.instances // 2] for label in rest])
    by_class |= {label: by_class[label][shape.instances // 2 :] for label in rest}
    single = rng.permutation(single)
    wrong = np.array([int(rng.choice(_implausible(int(i), rest))) for i in single])
    plain = rng.permutation(np.concatenate([by_class[label][: shape.train] for label in classes[:9]]))

    def true(number: ndarray) -> Labelled:
        return Labelled(number, truth[number])

    n = shape.instances
    return ImageWorld(
        shape, tuple(sorted(targets)), other, plain=true(plain), memorised=Labelled(single[:n], wrong[:n]),
        never=Labelled(single[n:], wrong[n:]), unseen=true(by_class[unseen]),
    )  # fmt: skip


def _implausible(number: int, classes: Sequence[int]) -> list[int]:
    """The classes that an image is not of, but for the one whose mean image is nearest: that one might be guessed."""
    images, label = digits()
    away = {c: float(((images[number] - _mean_image(c)) ** 2).sum()) for c in classes if c != label[number]}
    return sorted(away, key=lambda c: away[c])[1:]


@cache
def _mean_image(label: int) -> Float[ndarray, "8 8"]:
    return digits().images[digits().label == label].mean(0)


def write_images(path: Path, cohort: str, images: Labelled) -> None:
    """One cohort as an ``.npz`` of images, labels and ids."""
    ids = np.array([f"{cohort}-{number}" for number in images.number])
    np.savez(path, x=digits().images[images.number], y=images.label, id=ids)
