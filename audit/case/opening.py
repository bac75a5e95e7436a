"""An opened case: roles as checkpoints, cohorts as rows, and every check of the input done before a model is built.

Who is the null and who gives the floor is a matter of the roles alone (:class:`audit.schema.Roles`); the suspect can be
neither. A reference from another initialisation is opened and flagged: base's blocks cannot read it.
"""

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import torch
from numpy import ndarray

from audit.case.cohorts import CohortKey, Cohorts, Part, prepare
from audit.case.data_files import DataFile, data_files, sha256_as_read_by
from audit.case.image_cohorts import (
    ImageCohorts,
    ImageKey,
    check_image_reader,
    own_processor,
    prepare_images,
    refuse_unread,
)
from audit.case.image_rows import IMAGE_TOKENS
from audit.case.inserted_text import InsertablePrompts
from audit.case.partition import deal
from audit.case.pictures import TEXTS
from audit.case.role_checkpoints import CaseCheckpoints, resolved_roles
from audit.case.rows import Rows
from audit.case.scene_rows import check_picture_reader
from audit.case.tokenisation import check_words_alone
from audit.checkpoints import (
    TokenizerFiles,
    check_compatible,
    check_degenerate,
    check_finite,
    check_types,
    cut_to,
    degenerate,
    image_settings_of,
    model_config,
    picture_settings,
    processor_files,
    resolve_config,
    shared_vocabulary,
    states_per_image,
    tokenizer_files,
    tokenizer_folder,
    tokenizers_agree,
    untrained,
)
from audit.schema import (
    AuditError,
    Case,
    Checkpoint,
    Cohort,
    DataFiles,
    Form,
    FormRole,
    Item,
    Modality,
    Role,
    Table,
    Texts,
    role_of_form,
)
from audit.storage import arrow_table, write_atomic
from audit.wording import Replicate


class OpenCase:
    """A case whose inputs were found, hashed and checked. Made by :func:`open_case`.

    ``cohorts`` holds all items by cohort, ``max_length`` the context in tokens, ``data_sha256`` the data files' hashes,
    ``notes`` how they were read, and what is to be said of their groups and of the prompt template on them,
    ``function_words`` the words that carry no fact, and by which rule.
    """

    def __init__(self, case: Case, root: Path, out: Path, opened: CaseCheckpoints) -> None:
        self.case, self.root, self.out = case, Path(root), Path(out)
        self.base, self.suspect, self.references, self.ancestor = opened
        images = self.base.modality == "image"
        processor = processor_files(self.base) if self.base.modality == "image+text" else None
        files = data_files(case.data, self.root, sha256_as_read_by(self.base))
        self.data_sha256: dict[Cohort, str] = {file.cohort: file.sha256 for file in files}
        sizes = [model_config(ckpt) for ckpt in _others(opened, with_base=True)]
        self.max_length = min(filter(None, (size.context for size in sizes)), default=None)
        vocabulary = min(filter(None, (size.vocabulary for size in sizes)), default=None)
        self._data: Cohorts = _images(self.base, files, case.data) if images else prepare(
            CohortKey(
                files, case.data, case.template, _own_tokenizer(self.base), self.max_length, vocabulary,
                processor, None if processor is None else picture_settings(self.base),
            )
        )  # fmt: skip
        self.cohorts: Mapping[Cohort, tuple[Item, ...]] = self._data.by_cohort
        self.notes = self._data.notes
        self.function_words = self._data.function_words
        self._edited = frozenset(case.edited) if isinstance(case.edited, tuple) else None
        self._left_out: frozenset[str] = frozenset()
        self._rows: dict[tuple[Texts, Part], Rows] = {}

    @property
    def modality(self) -> Modality:
        """What the items of this case are, whatever else its models read: texts, images, or questions about images."""
        if self.base.modality == "image":
            return "image"
        return "image+text" if self._data.pictured else "text"

    @property
    def tokenizer(self) -> Any:
        """Base's tokenizer. AuditError (code 2) where the items are images."""
        if self._data.tokenizer is None:
            raise AuditError("the items of this case are images, which no tokenizer reads", "ask it of a case of texts")
        return self._data.tokenizer

    @property
    def replicate(self) -> Replicate:
        """What the tests of this case replicate over: people, or images where each is its own group, else groups."""
        return self._data.replicate

    @property
    def pictures(self) -> Mapping[str, ndarray]:
        """The images of the case by item, as they are in its files (uint8); none where its items are texts."""
        return self._data.pictures

    @property
    def states_per_token(self) -> float:
        """How many states a model has for each token of the rows: 1, but for images, which have patches."""
        size = self._data.image_size
        return states_per_image(self.base, size[0], size[1]) / IMAGE_TOKENS if size else 1.0

    def without(
        self, references: Collection[int] = (), ancestor: bool = False, groups: Collection[str] = ()
    ) -> "OpenCase":
        """The same case without some references (by number), its ancestor, or some forget groups; itself, if without
        none of them."""
        if not references and not ancestor and not groups:
            return self
        numbers = [n for n in range(len(self.references)) if n not in references]
        roles = self.case.roles
        remaining = roles.model_copy(
            update={
                "references": tuple(roles.references[n] for n in numbers),
                "ancestor": None if ancestor else roles.ancestor,
            }
        )
        other = copy(self)
        other.case = self.case.model_copy(update={"roles": remaining})
        other.references = tuple(self.references[n] for n in numbers)
        other.ancestor = None if ancestor else self.ancestor
        other._left_out, other._rows = self._left_out | frozenset(groups), {}
        return other

    def checkpoint(self, role: Role, reference: int = 0) -> Checkpoint:
        """The checkpoint that plays ``role``. AuditError (code 2) if the case does not give it."""
        checkpoint: Checkpoint | None
        if role == "reference":
            checkpoint = self.references[reference] if reference < len(self.references) else None
        else:
            checkpoint = {"base": self.base, "suspect": self.suspect, "ancestor": self.ancestor}[role]
        if checkpoint is None:
            raise AuditError(f"the case names no {role} {reference or ''}".rstrip(), f"add it under [roles.{role}]")
        return checkpoint

    @property
    def null(self) -> tuple[Role, int] | None:
        """Who stands for never having known; see :attr:`audit.schema.Roles.null`."""
        return self.case.roles.null

    @property
    def floors(self) -> tuple[int, ...]:
        """The references that give the floor; see :attr:`audit.schema.Roles.floors`."""
        return self.case.roles.floors

    def forms(self, role: FormRole | None = None) -> tuple[Form, ...]:
        """The forms that items may have: those declared, then those that only the data name; of one role, or all."""
        return tuple(form for form in self._data.forms if role is None or role_of_form(form) == role)

    def forms_in(self, cohort: Cohort) -> tuple[Form, ...]:
        """The forms that items of a cohort may have: of the cohort ``forms`` its own."""
        return self._data.forms_in(cohort)

    def items(self, texts: Texts, part: Part = "all") -> tuple[Item, ...]:
        """The items of a cohort and form that have the asked answer. Where the edit set is known, forget items of the
        trained form are only those in it."""
        chosen = self._data.items(texts, part)
        if self._left_out and texts.cohort == "forget":
            chosen = tuple(item for item in chosen if item.group not in self._left_out)
        if self._edited is None or texts.cohort != "forget" or texts.form != "trained":
            return chosen
        return tuple(item for item in chosen if item.id in self._edited)

    def folds(self, texts: Texts, k: int) -> tuple[Rows, ...]:
        """The rows of these texts in at most ``k`` parts of whole groups, dealt by the split's seed; none is empty."""
        rows = self.rows(texts)
        parts = deal(rows.group_ids, k, self.case.data.split_seed)
        return tuple(rows.take(torch.tensor([n for n, g in enumerate(rows.group_ids) if g in part])) for part in parts)

    def has(self, texts: Texts, part: Part = "all") -> bool:
        """Is there at least one such row?"""
        return bool(self.items(texts, part))

    def numbered(self, texts: Texts) -> tuple[Texts, ...]:
        """These texts with answer 0, 1, ... of their kind, as far as some item has one; most kinds have one answer."""
        if texts.answer in ("answer", "paraphrased"):
            return (texts,) if self.has(texts) else ()
        each: list[Texts] = []
        while self.has(following := texts.model_copy(update={"index": len(each)})):
            each.append(following)
        return tuple(each)

    def rows(self, texts: Texts, part: Part = "all") -> Rows:
        """The tokenised rows of :meth:`items`, in that order. AuditError (code 2) if there are none."""
        if (texts, part) not in self._rows:
            items = self.items(texts, part)
            if not items:
                where = "" if part == "all" else f" in the {part} part"
                absent = f"no {texts.answer} answers ({texts.index}) of form {texts.form}{where}"
                raise AuditError(f"{texts.cohort}: {absent}", f"add them to the {texts.cohort} file in [data]")
            everyone = self._data.rows(texts)
            place = {name: n for n, name in enumerate(everyone.item_ids)}
            self._rows[texts, part] = everyone.take(torch.tensor([place[item.id] for item in items]))
        return self._rows[texts, part]

    def rows_of(
        self, items: Sequence[Item], answers: Sequence[str], pictures: Mapping[str, ndarray] | None = None
    ) -> Rows:
        """Items of this case with these answers in place of their own, tokenised once.

        ``pictures`` (uint8, [height width channel] or [height width], by item) stand in place of the items' own; such
        rows are made every time. An item without an ``image`` is asked without a picture.
        """
        if pictures is not None:
            return self._data.rows_with(items, answers, pictures)
        return self._data.rows_of(items, answers)

    def insertable(self, items: Sequence[Item]) -> InsertablePrompts:
        """These items with their own answers, as prompts that a string can be put into. AuditError (code 2) where they
        ask about pictures: such prompts are words alone."""
        check_words_alone(items)
        limits = self.max_length, self.function_words.words
        return InsertablePrompts(items, [item.answer for item in items], self.tokenizer, self.case.template, *limits)

    def every_texts(self) -> tuple[Texts, ...]:
        """All rows that the data hold: each cohort, form and kind of answer that at least one item has."""
        return self._data.every_texts()

    def write_table(
        self, name: str, columns: Mapping[str, Sequence[str | int | float | bool]], axis: str = ""
    ) -> Table:
        """Write item-level results to ``tables/<name>.parquet`` in the output folder, whole or not at all.

        ``axis`` names what the column ``axis_value`` counts, where there is one.
        """
        from pyarrow import parquet

        table = arrow_table(columns)
        buffer = BytesIO()
        parquet.write_table(table, buffer)
        data = buffer.getvalue()
        write_atomic(self.out / "tables" / f"{name}.parquet", data)
        return Table(
            path=f"tables/{name}.parquet", sha256=hashlib.sha256(data).hexdigest(), rows=table.num_rows,
            columns=tuple(columns), axis=axis,
        )  # fmt: skip


# ---- opening ----------------------------------------------------------------------------------------------------
def open_case(case: Case, root: Path, out: Path, online: bool = False) -> OpenCase:
    """Find, hash and check every input of a case; ``root`` is the folder of the case file.

    AuditError, code 2: missing folder, pickle, remote code, another architecture or tokenizer, a model that would be
    its own null, empty, overlapping or unreadable data, items longer than the context, keys without tokens. Code 3:
    truncated files, other weights than named, NaN weights, a reference or an ancestor with weights that no training
    leaves. Nothing is written.
    """
    opened = resolved_roles(case, root, online)
    _check_own_null(opened, case)
    if opened.base.modality == "image":
        _refuse_texts(case, root, opened.base)
        refuse_unread(case)
    for other in _others(opened, with_base=False):
        check_compatible(opened.base, other)
    for ckpt in _others(opened, with_base=True):
        check_finite(ckpt)
    _check_degenerate(opened)
    rows, note = shared_vocabulary(_by_role(opened))
    opened_case = OpenCase(case, root, out, _cut(opened, rows))
    opened_case.notes += (note,) if note else ()
    _check_edited(opened_case)
    for other in _others(opened, with_base=False):
        if opened.base.modality == "image":
            check_image_reader(opened.base, other)
        else:
            _check_tokenizer(opened_case, other)
        if opened_case.modality == "image+text":
            check_picture_reader(opened.base, other, next(iter(opened_case.pictures.values())))
    return opened_case


def open_sketch(case: Case, root: Path, out: Path, online: bool = False) -> OpenCase:
    """The same of the roles' configs alone: what a plan needs, before any weights are there. The data are read and
    tokenised; nothing is compared or checked of the models. Adapters and edits are taken to change no size."""
    return OpenCase(case, root, out, resolved_roles(case, root, online, resolve_config))


def _refuse_texts(case: Case, root: Path, base: Checkpoint) -> None:
    """AuditError (code 2) where a data file holds texts, and base reads images."""
    for cohort, name in case.data:
        path = Path(root) / os.path.expanduser(name) if cohort in get_args(Cohort) and name is not None else None
        if path is not None and path.is_file() and path.suffix.lower() in TEXTS:
            problem = f"{base.source}: the model reads images, and the items of a case are texts ({path})"
            raise AuditError(problem, "name data of images: an .npz file, a folder of images, or a saved data set")


def _images(base: Checkpoint, files: tuple[DataFile, ...], data: DataFiles) -> ImageCohorts:
    """The images of a case, as base's own image processor reads them. AuditError (code 2) where it has none."""
    return prepare_images(ImageKey(files, data, own_processor(base), image_settings_of(base)))


def _by_role(opened: CaseCheckpoints) -> dict[str, Checkpoint]:
    """The checkpoints by what messages call their roles."""
    references = {f"reference {n}": ckpt for n, ckpt in enumerate(opened.references)}
    ancestor = {} if opened.ancestor is None else {"ancestor": opened.ancestor}
    return {"base": opened.base, "suspect": opened.suspect, **references, **ancestor}


def _cut(opened: CaseCheckpoints, rows: int | None) -> CaseCheckpoints:
    """Every checkpoint with as many rows of its vocabulary as all have."""
    return CaseCheckpoints(
        base=cut_to(opened.base, rows),
        suspect=cut_to(opened.suspect, rows),
        references=tuple(cut_to(ckpt, rows) for ckpt in opened.references),
        ancestor=None if opened.ancestor is None else cut_to(opened.ancestor, rows),
    )


def _others(opened: CaseCheckpoints, with_base: bool) -> tuple[Checkpoint, ...]:
    rest = (opened.suspect, *opened.references, *(() if opened.ancestor is None else (opened.ancestor,)))
    return (opened.base, *rest) if with_base else rest


def _check_degenerate(opened: CaseCheckpoints) -> None:
    """Types that weights have in no other role, in any; weights that no training leaves, in base (which all others
    contradict), a reference or an ancestor that was trained; the suspect's are said where it is judged
    (:func:`audit.checkpoints.degenerate`)."""
    roles = _by_role(opened)
    for name, ckpt in roles.items():
        check_types(name, ckpt, [other for role, other in roles.items() if role != name])
    ancestor = () if opened.ancestor is None else (opened.ancestor,)
    others = (*opened.references, *ancestor) or (opened.suspect,)
    if all(degenerate(opened.base, [other]) for other in others):
        check_degenerate("base", opened.base, others)
    for n, reference in enumerate(opened.references):
        check_degenerate(f"reference {n}", reference, (opened.base, *ancestor))
    for ckpt in ancestor:
        if not untrained(ckpt):
            check_degenerate("ancestor", ckpt, (opened.base,))


def _check_own_null(opened: CaseCheckpoints, case: Case) -> None:
    """No model enters its own null or floor: AuditError (code 2) where two roles that must differ are one model."""
    has_null = bool(case.roles.never_trained)
    seen: dict[str, str] = {}
    for name, ckpt in {"suspect": opened.suspect, **_by_role(opened)}.items():
        before = seen.setdefault(ckpt.key, name)
        audits_base = {before, name} == {"suspect", "base"}
        audits_ancestor = {before, name} == {"suspect", "ancestor"} and has_null
        if before != name and not audits_base and not audits_ancestor:
            raise AuditError(
                f"{name} and {before} are the same weights ({ckpt.source}): no model enters its own null",
                "give another checkpoint for one of the two roles, or leave the reference out",
            )


def _check_edited(case: OpenCase) -> None:
    """Are the ids of the edit set, where given, forget items of the trained form?"""
    if not isinstance(case.case.edited, tuple):
        return
    known = {item.id for item in case.cohorts["forget"] if item.form == "trained"}
    strange = [name for name in case.case.edited if name not in known]
    if strange or not case.case.edited:
        fault = f"names no trained forget items: {', '.join(strange[:3])}" if strange else "is an empty list"
        raise AuditError(f"`edited` {fault}", "list ids of the forget file, or say 'all' or 'unknown'")


def _own_tokenizer(base: Checkpoint) -> TokenizerFiles:
    folder = tokenizer_folder(base)
    if folder is None:
        raise AuditError(f"{base.source}: no tokenizer in base's folder", "save the tokenizer beside the weights")
    return tokenizer_files(folder)


def _check_tokenizer(case: OpenCase, other: Checkpoint) -> None:
    """Does the other model read the case's texts as base does? A checkpoint without a tokenizer uses base's."""
    folder = tokenizer_folder(other)
    if folder is None:
        return
    texts = [text for items in case.cohorts.values() for item in items for text in (item.question, item.answer)]
    difference = tokenizers_agree(_own_tokenizer(case.base), tokenizer_files(folder), texts)
    if difference is not None:
        raise AuditError(
            f"{other.source}: its tokenizer differs from base's: {difference}",
            "audit models that share a tokenizer; if only files differ by mistake, copy base's tokenizer files",
        )
