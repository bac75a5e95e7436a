"""The data of a case, read, split, checked and tokenised once a process, however many suspects are audited on it."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from numpy import ndarray

from audit.case.alternates import LEAST
from audit.case.counterfactuals import with_counterfactuals
from audit.case.data_files import DataFile, layout_of
from audit.case.form_links import linked
from audit.case.function_words import FunctionWords, function_words
from audit.case.items import Data, read_data
from audit.case.partition import Split, check_disjoint, split
from audit.case.replication import check_identical, remarks
from audit.case.rows import Rows
from audit.case.template_notes import ItemNotice, sentences
from audit.case.tokenisation import Tokenisation, tokenised
from audit.checkpoints import PictureSettings, ProcessorFiles, TokenizerFiles, load_tokenizer
from audit.schema import FORMS, AuditError, Cohort, DataFiles, Form, Item, Template, Texts
from audit.wording import PERSON, Replicate

log = logging.getLogger(__name__)

Part = Literal["audit", "calibration", "all"]


class CohortKey(NamedTuple):
    """All that tokenised cohorts depend on. ``vocabulary``: how many tokens every model of the case knows;
    ``processor``: what reads pictures, of a base that reads them, and ``picture`` what its model makes of one."""

    files: tuple[DataFile, ...]
    data: DataFiles
    template: Template
    tokenizer: TokenizerFiles
    max_length: int | None
    vocabulary: int | None = None
    processor: ProcessorFiles | None = None
    picture: PictureSettings | None = None


class Cohorts(ABC):
    """Items by cohort, their parts, and their rows, whatever the items are.

    ``notes``: how the files were read, and what is to be said of their groups. They quote nothing of the data.
    ``replicate``: what tests replicate over. ``image_size``: height and width where the items are images, as
    the model reads them; empty where they are texts.
    """

    by_cohort: Mapping[Cohort, tuple[Item, ...]]
    parts: Mapping[Cohort, Split]
    notes: tuple[str, ...]
    function_words: FunctionWords
    tokenizer: Any = None
    replicate: Replicate = PERSON
    image_size: tuple[int, ...] = ()

    def __init__(self) -> None:
        self._rows: dict[Texts, Rows] = {}
        self._others: dict[tuple[tuple[tuple[str, str, str], ...], tuple[str, ...]], Rows] = {}
        self._unfit: dict[tuple[tuple[Item, ...], tuple[str, ...]], AuditError] = {}

    @abstractmethod
    def built(self, items: Sequence[Item], answers: Sequence[str]) -> Rows:
        """Rows of these items with these answers."""

    @property
    def pictured(self) -> bool:
        """Are items questions about pictures?"""
        return False

    @property
    def pictures(self) -> Mapping[str, ndarray]:
        """The images by item, as they are in the files; none where the items are texts."""
        return {}

    @property
    def forms(self) -> tuple[Form, ...]:
        """The declared forms, then those that only the data name; those of the cohort ``forms`` are its own."""
        stated = {item.form for cohort, items in self.by_cohort.items() if cohort != "forms" for item in items}
        return (*FORMS, *sorted(stated - FORMS.keys()))

    def forms_in(self, cohort: Cohort) -> tuple[Form, ...]:
        """The forms that items of a cohort may have."""
        if cohort != "forms":
            return self.forms
        return tuple(sorted({item.form for item in self.by_cohort.get(cohort, ())}))

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
            self._rows[texts] = self.built(
                items, [answer for item in items if (answer := answer_of(item, texts)) is not None]
            )
        return self._rows[texts]

    def rows_of(self, items: Sequence[Item], answers: Sequence[str]) -> Rows:
        """These items, some perhaps asked otherwise than in the data, with other answers than their own: made, or found
        not to fit (AuditError, code 2), once for all suspects of the same data."""
        key = (tuple((item.id, item.question, str(item.image)) for item in items), tuple(answers))
        if key not in self._others:
            if (known := self._unfit.get((tuple(items), key[1]))) is not None:
                raise type(known)(known.what, known.do, known.code)
            try:
                self._others[key] = self.built(items, answers)
            except AuditError as fault:
                self._unfit[tuple(items), key[1]] = type(fault)(fault.what, fault.do, fault.code)  # without its frames
                raise
        return self._others[key]

    def rows_with(self, items: Sequence[Item], answers: Sequence[str], pictures: Mapping[str, ndarray]) -> Rows:
        """Rows of these items with other pictures (uint8, by item) than their own. AuditError (code 2) where no item
        has one."""
        raise AuditError("the items of this case have no pictures beside their texts", "ask it of such a case")

    def every_texts(self) -> tuple[Texts, ...]:
        """All rows that the data hold: each cohort, form and kind of answer that at least one item has."""
        present: list[Texts] = []
        for cohort, items in self.by_cohort.items():
            for form in self.forms_in(cohort):
                mine = [item for item in items if item.form == form]
                candidates = [Texts(cohort=cohort, form=form), Texts(cohort=cohort, form=form, answer="paraphrased")]
                for n in range(max((len(item.perturbed_answers) for item in mine), default=0)):
                    candidates.append(Texts(cohort=cohort, form=form, answer="perturbed", index=n))
                for n in range(max((len(item.alternates) for item in mine), default=0)):
                    candidates.append(Texts(cohort=cohort, form=form, answer="alternate", index=n))
                present += [texts for texts in candidates if any(answer_of(item, texts) is not None for item in mine)]
        return tuple(present)


class TextCohorts(Cohorts):
    """Items that are texts, tokenised. Made by :func:`prepare`, which shares them within the process.

    ``notes``: also what is to be said of the prompt template.
    """

    def __init__(self, recipe: CohortKey) -> None:
        super().__init__()
        self.recipe = recipe
        self.tokenizer: Any = self.loaded_tokenizer(recipe)
        read: dict[Cohort, Data] = {file.cohort: _read(file, recipe) for file in recipe.files}
        self.notes = tuple(f"{cohort}: {note}" for cohort, data in read.items() for note in data.notes)
        self.function_words: FunctionWords = function_words(read["retain"].items)
        check_disjoint({cohort: data.items for cohort, data in read.items() if cohort != "forms"})
        self.received(read)
        received = linked(read, {file.cohort: file.path for file in recipe.files})
        restated = received.pop("forms", None)
        by_cohort: dict[Cohort, tuple[Item, ...]] = {
            cohort: tuple(map(self._fitting, items))
            for cohort, items in with_counterfactuals(received, recipe.data.split_seed).items()
        }
        if restated is not None:
            by_cohort["forms"] = restated
        self.by_cohort = by_cohort
        # nothing is ever fitted on holdout people, and tests that permute labels need all of them
        self.parts = {
            name: Split((), items) if name in ("holdout", "forms") else split(items, recipe.data.split_seed)
            for name, items in self.by_cohort.items()
        }
        self._noticed: list[ItemNotice] = []

    def loaded_tokenizer(self, recipe: CohortKey) -> Any:
        """The tokenizer that words the prompts."""
        return load_tokenizer(recipe.tokenizer)

    def received(self, read: Mapping[Cohort, Data]) -> None:
        """What items bring beside their texts is read here; texts bring nothing."""

    def template_notes(self, quoting: bool = False) -> tuple[str, ...]:
        """What there is to tell of the prompt template on the items that were tokenised; ``quoting`` shows words."""
        return sentences(self._noticed, quoting)

    def _fitting(self, item: Item) -> Item:
        """The item without the alternates by rule that cannot be rows: none of them may fail a case whose data fit."""
        if item.alternates_from == "given":
            return item
        if self._are_rows(item, item.alternates):
            return item
        fit = [n for n, text in enumerate(item.alternates) if self._are_rows(item, [text])]
        if len(fit) < LEAST:
            return item.model_copy(update={"alternates": (), "alternate_keys": (), "alternates_from": "given"})
        keys = tuple(item.alternate_keys[n] for n in fit) if item.alternate_keys else ()
        return item.model_copy(update={"alternates": tuple(item.alternates[n] for n in fit), "alternate_keys": keys})

    def _are_rows(self, item: Item, answers: Sequence[str]) -> bool:
        try:
            self._tokenised([item] * len(answers), answers)
        except AuditError:
            return False
        return True

    def rows(self, texts: Texts) -> Rows:
        """The rows of all items of both parts, in file order."""
        if texts not in self._rows:
            items = self.items(texts)
            answers = [answer for item in items if (answer := answer_of(item, texts)) is not None]
            result = self._tokenised(items, answers)
            self._rows[texts] = result.rows
            if texts.answer == "answer":
                self._noticed += [ItemNotice(item.id, row) for item, row in zip(items, result.noticed, strict=True)]
        return self._rows[texts]

    def built(self, items: Sequence[Item], answers: Sequence[str]) -> Rows:
        """Tokenised rows."""
        return self._tokenised(items, answers).rows

    def _tokenised(self, items: Sequence[Item], answers: Sequence[str]) -> Tokenisation:
        return self.worded(items, answers, self.recipe.template)

    def worded(self, items: Sequence[Item], answers: Sequence[str], template: Template) -> Tokenisation:
        """Rows worded by a template. AuditError (code 2) for tokens that not every model of the case knows."""
        recipe, words = self.recipe, self.function_words.words
        result = tokenised(items, answers, self.tokenizer, template, recipe.max_length, words)
        of_picture = None if recipe.picture is None else recipe.picture.token
        _check_known(result.rows, self.tokenizer, recipe.vocabulary, of_picture)
        return result


def _check_known(rows: Rows, tokenizer: Any, vocabulary: int | None, of_picture: int | None) -> None:
    """Has every token of the rows an embedding in each model? AuditError (code 2) names the first that has none. The
    one that stands for a picture may lie behind the vocabulary, as in Llama 3.2 Vision."""
    read = rows.mask if of_picture is None else rows.mask & (rows.ids != of_picture)
    beyond = [] if vocabulary is None else ((rows.ids >= vocabulary) & read).nonzero().tolist()
    if beyond:
        row, at = beyond[0]
        token = int(rows.ids[row, at])
        shown = tokenizer.convert_ids_to_tokens(token)
        raise AuditError(
            f"item {rows.item_ids[row]!r}: token {shown!r} has number {token}, and the embeddings have {vocabulary} "
            "rows: it was added to the tokenizer and not to every model",
            "leave such items out or word them without this token; or resize the embeddings as in training",
        )


def answer_of(item: Item, texts: Texts) -> str | None:
    """The asked answer of an item, or None if it has none."""
    if texts.answer in ("answer", "paraphrased"):
        return item.answer if texts.answer == "answer" else item.paraphrased_answer
    several = item.perturbed_answers if texts.answer == "perturbed" else item.alternates
    return several[texts.index] if texts.index < len(several) else None


@lru_cache(maxsize=4)
def prepare(recipe: CohortKey) -> TextCohorts:
    """Cohorts that passed every check of the data: none empty, disjoint, every text fits and every key has a token.

    AuditError (code 2) otherwise. All texts are tokenised here, so that none can fail later.
    """
    if recipe.processor is None:
        cohorts = TextCohorts(recipe)
    else:
        from audit.case.scene_cohorts import SceneCohorts

        cohorts = SceneCohorts(recipe)
    check_disjoint(cohorts.by_cohort)
    check_identical(cohorts.by_cohort)
    if not cohorts.pictured:  # questions about pictures are the same words again and again
        cohorts.notes += remarks(cohorts.by_cohort, recipe.data.group_rows)
    if cohorts.function_words.words is not None:
        cohorts.notes += (f"function words: {cohorts.function_words.rule}",)
    for texts in cohorts.every_texts():
        cohorts.rows(texts)
    for note in cohorts.template_notes(quoting=True):
        log.warning("prompt template: %s", note)
    cohorts.notes += tuple(f"prompt template: {note}" for note in cohorts.template_notes())
    return cohorts


def _read(file: DataFile, recipe: CohortKey) -> Data:
    path = file.path
    layout = layout_of(file, recipe.files, recipe.data, recipe.template, images=recipe.processor is not None)
    read = read_data(path, layout)
    if not read.items:
        raise AuditError(f"{path}: the {file.cohort} set is empty", "put items into it, or name another file")
    if file.cohort in ("forget", "retain") and all(item.form != "trained" for item in read.items):
        do = "mark the items that the edit was given (form is 'trained' where it is not stated)"
        raise AuditError(f"{path}: no {file.cohort} item has form 'trained'", do)
    return read
