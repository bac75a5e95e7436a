"""The data of a case, read, split, checked and tokenised once a process, however many suspects are audited on it."""

import hashlib
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from audit.case.items import read_items
from audit.case.partition import Split, check_disjoint, split
from audit.case.rows import Rows
from audit.case.template_notes import ItemNotice, sentences
from audit.case.tokenisation import tokenised
from audit.checkpoints import TokenizerFiles, load_tokenizer
from audit.schema import FORMS, AuditError, Cohort, DataFiles, Form, Item, Template, Texts

log = logging.getLogger(__name__)
Part = Literal["audit", "calibration", "all"]


class DataFile(NamedTuple):
    """One data file as it is now."""

    cohort: Cohort
    path: Path
    sha256: str


class CohortKey(NamedTuple):
    """All that tokenised cohorts depend on."""

    files: tuple[DataFile, ...]
    group: str
    split_seed: int
    template: Template
    tokenizer: TokenizerFiles
    max_length: int | None


class Cohorts:
    """Items by cohort, their parts, and their rows. Made by :func:`prepare`, which shares them within the process."""

    def __init__(self, recipe: CohortKey) -> None:
        self.recipe = recipe
        self.tokenizer: Any = load_tokenizer(recipe.tokenizer)
        self.by_cohort: dict[Cohort, tuple[Item, ...]] = {
            file.cohort: _read(file, recipe.group) for file in recipe.files
        }
        # nothing is ever fitted on holdout people, and tests that permute labels need all of them
        self.parts = {
            name: Split((), items) if name == "holdout" else split(items, recipe.split_seed)
            for name, items in self.by_cohort.items()
        }
        self._rows: dict[Texts, Rows] = {}
        self._noticed: list[ItemNotice] = []

    def template_notes(self, quoting: bool = False) -> tuple[str, ...]:
        """What there is to tell of the prompt template on the items that were tokenised; ``quoting`` shows words."""
        return sentences(self._noticed, quoting)

    @property
    def forms(self) -> tuple[Form, ...]:
        """The declared forms, then those that only the data name."""
        stated = {item.form for items in self.by_cohort.values() for item in items}
        return (*FORMS, *sorted(stated - FORMS.keys()))

    def items(self, texts: Texts, part: Part = "all") -> tuple[Item, ...]:
        """The items of a cohort, form and part that have the asked answer."""
        if texts.cohort not in self.by_cohort:
            return ()
        parts = self.parts[texts.cohort]
        chosen = {"all": self.by_cohort[texts.cohort], "audit": parts.audit, "calibration": parts.calibration}[part]
        return tuple(item for item in chosen if item.form == texts.form and answer_of(item, texts) is not None)

    def rows(self, texts: Texts) -> Rows:
        """The rows of all items of both parts, in file order."""
        if texts not in self._rows:
            items = self.items(texts)
            answers = [answer for item in items if (answer := answer_of(item, texts)) is not None]
            recipe = self.recipe
            result = tokenised(items, answers, self.tokenizer, recipe.template, recipe.max_length)
            self._rows[texts] = result.rows
            if texts.answer == "answer":
                self._noticed += [ItemNotice(item.id, row) for item, row in zip(items, result.noticed, strict=True)]
        return self._rows[texts]

    def every_texts(self) -> tuple[Texts, ...]:
        """All rows that the data hold: each cohort, form and kind of answer that at least one item has."""
        present: list[Texts] = []
        for cohort, items in self.by_cohort.items():
            for form in self.forms:
                mine = [item for item in items if item.form == form]
                candidates = [Texts(cohort=cohort, form=form), Texts(cohort=cohort, form=form, answer="paraphrased")]
                for n in range(max((len(item.perturbed_answers) for item in mine), default=0)):
                    candidates.append(Texts(cohort=cohort, form=form, answer="perturbed", index=n))
                for n in range(max((len(item.alternates) for item in mine), default=0)):
                    candidates.append(Texts(cohort=cohort, form=form, answer="alternate", index=n))
                present += [texts for texts in candidates if any(answer_of(item, texts) is not None for item in mine)]
        return tuple(present)


def answer_of(item: Item, texts: Texts) -> str | None:
    """The asked answer of an item, or None if it has none."""
    if texts.answer in ("answer", "paraphrased"):
        return item.answer if texts.answer == "answer" else item.paraphrased_answer
    several = item.perturbed_answers if texts.answer == "perturbed" else item.alternates
    return several[texts.index] if texts.index < len(several) else None


def data_files(data: DataFiles, root: Path) -> tuple[DataFile, ...]:
    """The data files that a case names. AuditError (code 2) if one cannot be read."""
    files: list[DataFile] = []
    for cohort in get_args(Cohort):
        name: str | None = getattr(data, cohort)
        if name is None:
            continue
        path = (root / Path(name).expanduser()).resolve()
        try:
            files.append(DataFile(cohort, path, hashlib.sha256(path.read_bytes()).hexdigest()))
        except OSError as error:
            raise AuditError(f"{path}: cannot be read ({error.strerror})", f"correct `{cohort}` in [data]") from None
    return tuple(files)


@lru_cache(maxsize=4)
def prepare(recipe: CohortKey) -> Cohorts:
    """Cohorts that passed every check of the data: none empty, disjoint, every text fits and every key has a token.

    AuditError (code 2) otherwise. All texts are tokenised here, so that none can fail later.
    """
    cohorts = Cohorts(recipe)
    check_disjoint(cohorts.by_cohort)
    for texts in cohorts.every_texts():
        cohorts.rows(texts)
    for note in cohorts.template_notes(quoting=True):
        log.warning("prompt template: %s", note)
    return cohorts


def _read(file: DataFile, group: str) -> tuple[Item, ...]:
    items = read_items(file.path, group, own_groups=file.cohort == "general")
    if not items:
        raise AuditError(f"{file.path}: the {file.cohort} set is empty", "put items into it, or name another file")
    if file.cohort in ("forget", "retain") and all(item.form != "trained" for item in items):
        do = "mark the items that the edit was given (form is 'trained' where it is not stated)"
        raise AuditError(f"{file.path}: no {file.cohort} item has form 'trained'", do)
    return items
