"""What an edit is: it fits a delta on some data and leaves an EditRecord that the bench plays back."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from audit.bench import Bench
from audit.case import InsertablePrompts, Rows, SubjectPrompts
from audit.schema import Checkpoint, Record

Material = Literal["forget", "retain", "refusal", "relabelled", "subjects", "prompts", "concepts"]
"""What an edit may ask for, by the names of the fields of :class:`EditData`."""


class Concepts(NamedTuple):
    """The concept that each item to be forgotten is about, by its id, and the groups on which choices may be made: no
    number that is reported comes from them."""

    by_item: Mapping[str, str]
    selection: frozenset[str]


class EditData(NamedTuple):
    """What an edit may see: rows to forget and to keep, and the forget prompts with other answers.

    ``refusal`` carries refusing answers, ``relabelled`` other values of the same attribute; ``subjects`` says by which
    name each group is known, for edits of one concept; ``prompts`` are the forget items, in the order of ``forget``, as
    prompts that a string can be put into; ``concepts`` says what they are about.
    """

    forget: Rows
    retain: Rows
    refusal: Rows | None = None
    relabelled: Rows | None = None
    subjects: SubjectPrompts | None = None
    prompts: InsertablePrompts | None = None
    concepts: Concepts | None = None


class Edit(Record, ABC):
    """Base of every edit. Fields are its settings; the class docstring is its help text (claim, source, Cite:)."""

    plays: ClassVar[str]
    of_images: ClassVar[bool] = False
    """Whether it needs an input that has a gradient, as images have and tokens have not."""
    of_texts: ClassVar[bool] = False
    """Whether it is about answers in words or pairs of texts, which images have not."""
    needs: ClassVar[tuple[Material, ...]] = ("forget", "retain")
    """Which rows it reads with its default settings."""
    work: ClassVar[str] = "reads the rows once"
    """What it does where it takes no training steps."""

    @property
    def name(self) -> str:
        """The file's name, under which the edit is recorded."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def leaves(self) -> str:
        """What it leaves with these settings: as ``plays``, where no setting makes it another."""
        return self.plays

    @abstractmethod
    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Fit on ``data`` and write an edited checkpoint folder at ``out`` (parent, EditRecord, delta.safetensors).

        Raises AuditError if the edit changes no byte and sets no hook.
        """
