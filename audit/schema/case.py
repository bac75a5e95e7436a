"""What is audited: roles, data, prompt template, and what is known of the suspect's edit set."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from audit.schema.record import Record

Role = Literal["base", "suspect", "reference", "ancestor"]
Cohort = Literal["forget", "retain", "holdout", "general", "neighbour", "forms"]
"""``neighbour``: people near the forgotten ones, whose damage is measured. ``forms``: items that restate facts of other
cohorts in other forms; no probe reads them as items of their own."""
Filled = Annotated[str, StringConstraints(min_length=1)]
"""A path or the name of a column: an empty one is that of no file, and of the column that pandas puts before others."""
_LONGEST_PATH, _LONGEST_NAME = 4095, 255


def _openable(path: str) -> str:
    """A path that a file system can be asked for. ValueError for one that none has: limits in bytes (POSIX)."""
    if "\0" in path:
        raise ValueError("holds a zero character, which no file name has")
    encoded = path.encode(errors="surrogatepass")
    if len(encoded) > _LONGEST_PATH or max(map(len, encoded.split(b"/"))) > _LONGEST_NAME:
        raise ValueError(f"is longer than any path ({_LONGEST_PATH} bytes, {_LONGEST_NAME} between two slashes)")
    return path


Openable = Annotated[str, AfterValidator(_openable)]
"""Where a file or folder is: no longer than a path can be, and without a zero character."""
FilledPath = Annotated[str, StringConstraints(min_length=1), AfterValidator(_openable)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""What draws start from: not negative, within 64 bits (with their sign)."""
Form = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
"""How an item asks for its fact, as one word: an open set, of which :data:`FORMS` declares the known ones."""
FormRole = Literal["fitted", "held_out"]
FORMS: Mapping[Form, FormRole] = MappingProxyType(
    {"trained": "fitted", "held_out_phrasing": "held_out", "held_out_attribute": "held_out"}
)
"""The declared forms, in the order in which they are shown, and whether an edit was fitted on rows of that form."""


def role_of_form(form: Form) -> FormRole:
    """Whether an edit was fitted on rows of a form. One that is not declared was held out."""
    return FORMS.get(form, "held_out")


class Item(Record):
    """One row of data: a question and its answer, or plain text (``question`` empty, ``answer`` the text).

    ``group`` is the unit of replication (person, author, document). ``key`` is the substring of ``answer`` that carries
    the fact; without it content tokens are chosen by rule (:mod:`audit.case.items`), never with a model's help.
    ``alternates`` are the same answer with another, never-trained value of the same attribute (matched alternates);
    ``alternates_from`` says by which rule they were found in other people's answers where the file brings none; it is
    no field of a file and is not written. ``of`` is the id of the trained item whose fact this item restates,
    ``subject`` the name by which the question calls its group, where the file says it; ``image`` the picture that the
    question is about: the name of its file, from the data file's folder, or what its bytes in the row hash to.
    """

    id: str
    group: str
    question: str
    answer: str
    key: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    alternates: tuple[str, ...] = ()
    alternate_keys: tuple[str, ...] = ()
    alternates_from: Literal["given", "question form", "attribute", "opening words"] = Field(
        default="given", exclude=True
    )
    attribute: str | None = None
    form: Form = "trained"
    frequency: int | None = None
    of: str | None = Field(default=None, exclude_if=lambda of: of is None)
    paraphrased_question: str | None = Field(default=None, exclude_if=lambda question: question is None)
    subject: str | None = Field(default=None, exclude_if=lambda subject: subject is None)
    image: str | None = Field(default=None, exclude_if=lambda image: image is None)


class Template(Record):
    """How a question and an answer become one prompt. Hashed into every cache key.

    With ``chat`` the tokenizer's chat template wraps ``system`` and the question; ``chat_template`` names one of
    several, ``variables`` sets what it reads (``strftime_now``, a date as in ISO 8601, stands for its clock).
    ``bos`` is ``always`` (prepend once), ``never``, or ``tokenizer`` (whatever its own rule adds). ``seam`` says
    whether prompt and answer are tokenised as one text (``joint``) or each for itself and then put together
    (``apart``).
    """

    prompt: str = "{question}"
    answer: str = " {answer}"
    chat: bool = False
    system: str = ""
    bos: Literal["always", "never", "tokenizer"] = "tokenizer"
    seam: Literal["joint", "apart"] = "joint"
    chat_template: str = ""
    variables: dict[str, str | int | float | bool] = {}

    def __hash__(self) -> int:
        return hash(self.canonical())  # variables have no hash of their own, and 1 is not true to a chat template


Lineage = Literal["same_ancestor", "other_initialisation"]


class Source(Record):
    """Where a checkpoint is and, where known, what it must hash to.

    ``subfolder``: the folder within ``path`` (a folder, or a repository of the hub) that holds it (checkpoint-60).
    ``allow_code``: the code, ``package.module:factory``, that a checkpoint of a torch module may run when it is opened.
    """

    path: Openable
    commit: str | None = None
    adapter: Openable | None = None
    fingerprint: str | None = None
    lineage: Lineage = "same_ancestor"
    data_order: int | None = None
    allow_code: Filled | None = Field(default=None, exclude_if=lambda code: code is None)
    subfolder: FilledPath | None = Field(default=None, exclude_if=lambda folder: folder is None)


class Roles(Record):
    """Who plays what. ``references`` never hold the audited model; the first is the null, the rest give the floor."""

    base: Source
    suspect: Source
    references: tuple[Source, ...] = ()
    ancestor: Source | None = None

    @property
    def never_trained(self) -> tuple[int, ...]:
        """The references that never knew and that base's blocks can read: those of the same ancestor, by number."""
        return tuple(n for n, source in enumerate(self.references) if source.lineage == "same_ancestor")

    @property
    def null(self) -> tuple[Role, int] | None:
        """Who stands for never having known: the first such reference, else the ancestor, else nobody."""
        if self.never_trained:
            return "reference", self.never_trained[0]
        return None if self.ancestor is None else ("ancestor", 0)

    @property
    def floors(self) -> tuple[int, ...]:
        """The references that give the floor: those that never knew, other than the null."""
        return self.never_trained[1:]


class Columns(Record):
    """Which column of a data file holds what; None: by its own name, or by the names of a known data set.

    ``text`` is plain text without a question; ``messages`` a chat of one question and one answer; ``choices`` the
    options of a multiple-choice question, of which the answer names one; ``input`` what stands below the question.
    """

    question: str | None = None
    answer: str | None = None
    text: str | None = None
    messages: str | None = None
    choices: str | None = None
    input: str | None = None
    id: str | None = None
    key: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answers: str | None = None
    alternates: str | None = None
    alternate_keys: str | None = None
    attribute: str | None = None
    form: str | None = None
    frequency: str | None = None
    subject: str | None = Field(default=None, exclude_if=lambda column: column is None)
    image: str | None = Field(default=None, exclude_if=lambda column: column is None)


_KIND_OF: Mapping[str, str] = MappingProxyType(
    {"question": "asked", "answer": "asked", "choices": "asked", "input": "asked", "text": "text", "messages": "chat"}
)


class Fields(Columns):
    """The columns of all data files, and of one cohort's where they differ there.

    A cohort whose items are of another kind (questions and answers, plain text, chats) shares none of them.
    """

    forget: Columns | None = None
    retain: Columns | None = None
    holdout: Columns | None = None
    general: Columns | None = None
    neighbour: Columns | None = Field(default=None, exclude_if=lambda columns: columns is None)
    forms: Columns | None = Field(default=None, exclude_if=lambda columns: columns is None)

    def of(self, cohort: Cohort) -> Columns:
        """The columns of one cohort's file: those of all, with its own in their places."""
        own: Columns | None = getattr(self, cohort)
        shared = {name: getattr(self, name) for name in Columns.model_fields}
        stated = {} if own is None else {name: column for name, column in own if column is not None}
        mine, everyone = (_kinds_of(columns) for columns in (stated, shared))
        return Columns.model_validate((shared if mine & everyone or not mine else {}) | stated)


def _kinds_of(columns: Mapping[str, str | None]) -> set[str]:
    """The kinds of items that columns are stated for."""
    return {_KIND_OF[name] for name, column in columns.items() if name in _KIND_OF and column is not None}


class DataFiles(Record):
    """Data files of the cohorts; paths are relative to the case file. ``group`` names the field to split by.

    ``forms`` restates facts of other cohorts in other forms, each row the trained item that it names in ``of``, or that
    has its group and attribute. ``neighbour`` are people near the forgotten ones.

    ``fields`` says which columns they are, where names do not. ``group_rows``: instead of a field, so many consecutive
    rows are a group.
    """

    forget: FilledPath
    retain: FilledPath
    holdout: FilledPath | None = None
    general: FilledPath | None = None
    neighbour: FilledPath | None = Field(default=None, exclude_if=lambda path: path is None)
    forms: FilledPath | None = Field(default=None, exclude_if=lambda path: path is None)
    group: Filled = "group"
    group_rows: Annotated[int, Field(ge=1)] | None = None
    fields: Fields = Fields()
    split_seed: Seed = 0

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if self.group_rows is not None and self.group != "group":
            raise ValueError("`group` and `group_rows` both say what a group is: leave one out")
        return self


class Case(Record):
    """*What* is audited: roles, data, prompt template, and what is known of the suspect's edit set.

    *How* (device, dtype, memory, workers) is a flag, recorded in provenance and outside the plan hash.
    ``edited`` is ``all`` or ``unknown``, or the ids of the forget items the suspect is known to have been edited on.
    ``published`` names a file of numbers that others published (``*_EVAL.json``), shown beside ours and never judged.
    """

    name: str
    roles: Roles
    data: DataFiles
    template: Template = Template()
    edited: Literal["all", "unknown"] | tuple[str, ...] = "unknown"
    probes: dict[str, dict[str, str | int | float | bool]] = {}
    seed: Seed = 0
    published: Openable | None = None
