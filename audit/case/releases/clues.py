"""What one parser of releases has found out: who plays which role, how models are asked, which data belong to it."""

from collections.abc import Mapping
from typing import NamedTuple

from audit.case.releases.nearby import DataSet
from audit.schema import Cohort, Template


class Named(NamedTuple):
    """A model by name (a path, a hub id, or the name of a folder), and where it is named."""

    name: str
    reason: str


class Prompting(NamedTuple):
    """How the models of a pool are asked. ``date``: the date that their chat template printed in training, where it
    prints one."""

    template: Template
    reason: str
    date: str = ""


class Wanted(NamedTuple):
    """A data file of a benchmark: the names it may have, best first, and what it is."""

    cohort: Cohort
    names: tuple[str, ...]
    description: str


class Benchmark(NamedTuple):
    """The data of a benchmark: where they come from, which file is which cohort, and what a group is.

    ``group_rows`` holds where no file has a column of ``groups``. ``taught``: models were fine-tuned on it, so that the
    model before that never knew it. ``absent`` says of a cohort why the benchmark has none.
    Known by its files alone, ``asked`` is how its own evaluation asks, and ``also`` what else lies there.
    """

    name: str
    data: DataSet
    files: tuple[Wanted, ...]
    group_rows: int
    group_why: str
    groups: tuple[str, ...] = ("author_id", "group")
    taught: bool = True
    absent: Mapping[Cohort, str] = {}
    asked: Prompting | None = None
    also: str = ""


class Clues(NamedTuple):
    """``found``: what was recognised, by what; empty where nothing was. ``copy_of``: the model whose weights are stored
    here in fewer bits. ``null`` are models that never saw the forget data, of which one is enough; ``floors`` patterns
    of more of them beside the release. ``edited_on_all``: why the suspect is known to be edited on every forget row.
    """

    recognised: str = ""
    base: tuple[Named, ...] = ()
    copy_of: tuple[Named, ...] = ()
    null: tuple[Named, ...] = ()
    floors: tuple[str, ...] = ()
    ancestor: tuple[Named, ...] = ()
    prompting: Prompting | None = None
    benchmark: Benchmark | None = None
    edited_on_all: str = ""
