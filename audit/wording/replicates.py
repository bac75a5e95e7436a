"""What an audit counts, in words: people, or where its items are images, the images or the groups that they come in.

Sentences about the audited units ask here for their nouns. What a probe says of a measurement is written of people,
their facts and their tokens, once and for all kinds of cases; :meth:`Replicate.said` says it of another unit. It is for
sentences of ours alone, never for one that may quote the data: a name is not to be reworded.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from audit.schema import Evidence, Measurement, Missing, Null, Number


class Replicate(NamedTuple):
    """One kind of unit over which tests replicate: its name in a measurement, and its nouns.

    ``none`` and ``every`` are said of one that stands alone: nobody, every image.
    """

    unit: str
    one: str
    many: str
    none: str
    every: str
    relative: str
    """The pronoun that goes on about it: people who, images that."""
    of_images: bool = False

    def amount(self, n: int) -> str:
        """``16 people``, ``1 image``."""
        return f"{n} {self.one if n == 1 else self.many}"

    def said(self, sentence: str) -> str:
        """A sentence of ours that is written of people and what is known of them, said of these."""
        if not self.of_images:
            return sentence
        for pattern, words in _OF_CLASSES:
            sentence = pattern.sub(words, sentence)
        return _OF_PEOPLE.sub(lambda found: self._noun(found), sentence)

    def _noun(self, found: "re.Match[str]") -> str:
        word, capital = found[0].lower(), found[0][0].isupper()
        if word in ("who", "whom"):
            return found[0]
        article = "an" if self.one[0] in "aeiou" else "a"
        nouns = {
            "people who": f"{self.many} {self.relative}", "people whom": f"{self.many} {self.relative}",
            "people": self.many, "people's": f"{self.many}'", "person": self.one, "person's": f"{self.one}'s",
            "a person": f"{article} {self.one}", "a person's": f"{article} {self.one}'s", "everybody": self.every,
            "everybody's": f"{self.every}'s",
        }  # fmt: skip
        return nouns[word].capitalize() if capital else nouns[word]


PERSON: Final = Replicate("person", "person", "people", "nobody", "everybody", "who")
IMAGE: Final = Replicate("image", "image", "images", "no image", "every image", "that", of_images=True)
GROUP: Final = Replicate("group of images", "group", "groups", "no group", "every group", "that", of_images=True)
REPLICATES: Final = {replicate.unit: replicate for replicate in (PERSON, IMAGE, GROUP)}

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
    return REPLICATES.get(unit, PERSON._replace(unit=unit, one=unit, many=_PLURAL.get(unit, unit)))


_PLURAL: Final = {"world": "worlds", "model": "models", "author": "authors", "document": "documents"}


def replicates_of(evidence: Iterable[Evidence]) -> Replicate:
    """The unit of an audit: that of the first measurement that replicates over people, images or groups."""
    units = (e.measurement.unit_of_replication for e in evidence)
    return next((REPLICATES[unit] for unit in units if unit in REPLICATES), PERSON)


def counted(measurement: Measurement, over: Replicate) -> Measurement:
    """A probe's measurement with its units and its sentences in the words of this unit; of people as it is."""
    m = measurement
    if over == PERSON:
        return m
    reasons = {name: _said(value, over) for name, value in m if isinstance(value, Missing)}
    null = m.null
    if isinstance(null, Null):
        null = null.model_copy(update={"kind": over.said(null.kind), "least_p": _said(null.least_p, over)})
        reasons = {**reasons, "null": null}
    return m.model_copy(
        update={
            **reasons,
            "unit_of_replication": over.unit if m.unit_of_replication == PERSON.unit else m.unit_of_replication,
            "statistic": over.said(m.statistic), "unit": over.said(m.unit), "notes": tuple(map(over.said, m.notes)),
        }
    )  # fmt: skip


def _said(value: Number, over: Replicate) -> Number:
    return Missing(missing=over.said(value.missing)) if isinstance(value, Missing) else value
