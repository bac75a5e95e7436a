"""What an audit counts, in words: people, or where its items are images, the images or the groups that they come in.

Items that ask about a picture count the pictures, each of which several questions may ask about, or groups of them.

Sentences about the audited units ask here for their nouns. What a probe says of a measurement is written of people,
their facts and their tokens, once and for all kinds of cases; :meth:`Replicate.rephrased` says it of another unit. It
is for sentences of ours alone, never for one that may quote the data: a name is not to be reworded.
"""

import re
from typing import Final, NamedTuple

from audit.schema import Measurement, Missing, Modality, Null, Number


class Replicate(NamedTuple):
    """One kind of unit over which tests replicate: its name in a measurement, and its nouns.

    ``none`` and ``every`` are said of one that stands alone: nobody, every image.
    """

    unit: str
    singular: str
    plural: str
    none: str
    every: str
    relative: str
    """The pronoun that goes on about it: people who, images that."""
    modality: Modality = "text"
    """What the items are that come in these units."""

    @property
    def of_images(self) -> bool:
        """Are the items images alone, whose answers are classes?"""
        return self.modality == "image"

    @property
    def impersonal(self) -> bool:
        """Is it asked after by which, not by who?"""
        return self.modality != "text"

    def amount(self, n: int) -> str:
        """``16 people``, ``1 image``."""
        return f"{n} {self.singular if n == 1 else self.plural}"

    def rephrased(self, sentence: str) -> str:
        """A sentence of ours that is written of people and what is known of them, said of these."""
        if not self.impersonal:
            return sentence
        for pattern, words in _OF_CLASSES if self.of_images else ():
            sentence = pattern.sub(words, sentence)
        return _OF_PEOPLE.sub(self._noun, sentence)

    def _noun(self, match: "re.Match[str]") -> str:
        word, capital = match[0].lower(), match[0][0].isupper()
        single = f"{'an' if self.singular[0] in 'aeiou' else 'a'} {self.singular}"
        nouns = {
            "people who": f"{self.plural} {self.relative}", "people whom": f"{self.plural} {self.relative}",
            "people": self.plural, "people's": f"{self.plural}'", "person": self.singular,
            "person's": f"{self.singular}'s", "a person": single, "a person's": f"{single}'s",
            "everybody": self.every, "everybody's": f"{self.every}'s",
        }  # fmt: skip
        return nouns[word].capitalize() if capital else nouns[word]


PERSON: Final = Replicate("person", "person", "people", "nobody", "everybody", "who")
IMAGE: Final = Replicate("image", "image", "images", "no image", "every image", "that", "image")
GROUP: Final = Replicate("group of images", "group", "groups", "no group", "every group", "that", "image")
PICTURE: Final = Replicate("picture", "picture", "pictures", "no picture", "every picture", "that", "image+text")
PICTURES: Final = Replicate("group of pictures", "group", "groups", "no group", "every group", "that", "image+text")
REPLICATES: Final = {replicate.unit: replicate for replicate in (PERSON, IMAGE, GROUP, PICTURE, PICTURES)}

_OF_PEOPLE: Final = re.compile(
    r"(?<![\w/\\.'\"‹-])(?:a person(?:'s)?|people whom?|people(?:'s)?|person(?:'s)?|everybody(?:'s)?)(?![\w/\\'\"›-])",
    re.IGNORECASE,
)
"""Whole words of a sentence; none in a path, in quotation marks or joined to others by a hyphen."""
_OF_CLASSES: Final = tuple(
    (re.compile(rf"(?<![\w/\\.'\"‹-]){pattern}(?![\w/\\'\"›-])"), words)
    for pattern, words in (
        (r"the content tokens \(geometric mean over tokens\)", "the class"),
        (r"the content tokens", "the class"),
        (r"content tokens", "the class"),
        (r"all answer tokens", "the class"),
        (r"out-of-person", "held-out"),
        (r"facts", "classes"),
    )
)
"""What is known of an image is its class, which is one target."""


def replicate_of(measurement: Measurement) -> Replicate:
    """The unit of one measurement; a unit of its own has its own name."""
    unit = measurement.unit_of_replication
    return REPLICATES.get(unit, PERSON._replace(unit=unit, singular=unit, plural=_PLURAL.get(unit, unit)))


_PLURAL: Final = {"world": "worlds", "model": "models", "author": "authors", "document": "documents"}


def counted(measurement: Measurement, over: Replicate) -> Measurement:
    """A probe's measurement with its units and its sentences in the words of this unit; of people as it is."""
    m = measurement
    if over == PERSON:
        return m
    reasons = {name: _said(value, over) for name, value in m if isinstance(value, Missing)}
    null = m.null
    if isinstance(null, Null):
        null = null.model_copy(update={"kind": over.rephrased(null.kind), "least_p": _said(null.least_p, over)})
        reasons = {**reasons, "null": null}
    return m.model_copy(
        update={
            **reasons,
            "unit_of_replication": over.unit if m.unit_of_replication == PERSON.unit else m.unit_of_replication,
            "statistic": over.rephrased(m.statistic), "unit": over.rephrased(m.unit),
            "notes": tuple(map(over.rephrased, m.notes)),
        }
    )  # fmt: skip


def _said(value: Number, over: Replicate) -> Number:
    return Missing(missing=over.rephrased(value.missing)) if isinstance(value, Missing) else value
