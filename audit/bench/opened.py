"""An opened case: roles as checkpoints, cohorts as rows, and every check of the input done before a model is built.

The null is the first reference, else the ancestor; the other references give the floor; the suspect can be neither.
A reference from another initialisation is kept and flagged: base's blocks cannot read it, so it is never a null.
"""

import hashlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch

from audit.bench.rows import tokenise
from audit.bench.shapes import Rows
from audit.bench.tokenizers import load_tokenizer, tokenizers_agree
from audit.checkpoints import check_compatible, check_finite, folder_of, read_config, resolve, tokenizer_folder
from audit.data import check_disjoint, read_items, split
from audit.findings import Table
from audit.nouns import AuditError, Case, Checkpoint, Cohort, Form, Item, Lineage, Role, Source, Texts
from audit.store import write_atomic

Part = Literal["audit", "calibration", "all"]


class Opened(NamedTuple):
    """Who plays what, named by content."""

    base: Checkpoint
    suspect: Checkpoint
    references: tuple[Checkpoint, ...]
    ancestor: Checkpoint | None


class OpenCase:
    """A case whose inputs were found, hashed and checked. Made by :func:`open_case`.

    ``cohorts`` holds all items by cohort, ``max_length`` the context in tokens, ``data_sha256`` the data files' hashes.
    """

    def __init__(self, case: Case, root: Path, out: Path, opened: Opened) -> None:
        self.case, self.root, self.out = case, Path(root), Path(out)
        self.base, self.suspect, self.references, self.ancestor = opened
        self.cohorts = _read_cohorts(case, self.root)
        self.data_sha256 = {name: _sha256(self.root / file) for name, file in _data_files(case).items()}
        self.tokenizer: Any = load_tokenizer(_own_tokenizer(self.base))
        self.max_length = min(filter(None, map(_context, _others(opened, with_base=True))), default=None)
        self._parts = {name: split(items, case.data.split_seed) for name, items in self.cohorts.items()}
        self._rows: dict[tuple[Texts, Part], Rows] = {}

    def checkpoint(self, role: Role, reference: int = 0) -> Checkpoint:
        """The checkpoint that plays ``role``. AuditError (code 2) if the case does not give it."""
        found: Checkpoint | None
        if role == "reference":
            found = self.references[reference] if reference < len(self.references) else None
        else:
            found = {"base": self.base, "suspect": self.suspect, "ancestor": self.ancestor}[role]
        if found is None:
            raise AuditError(f"the case names no {role} {reference or ''}".rstrip(), f"add it under [roles.{role}]")
        return found

    @property
    def reference_lineage(self) -> tuple[Lineage, ...]:
        """Where each reference comes from; only those of the same ancestor are a null or a floor."""
        return tuple(source.lineage for source in self.case.roles.references)

    @property
    def null(self) -> tuple[Role, int] | None:
        """Who stands for never having known: the first reference of the same ancestor, else the ancestor, else none."""
        kin = self._kin()
        if kin:
            return "reference", kin[0]
        return None if self.ancestor is None else ("ancestor", 0)

    @property
    def floors(self) -> tuple[int, ...]:
        """The references that give the floor: those of the same ancestor other than the null."""
        return self._kin()[1:]

    def _kin(self) -> tuple[int, ...]:
        return tuple(n for n, lineage in enumerate(self.reference_lineage) if lineage == "same_ancestor")

    def items(self, texts: Texts, part: Part = "audit") -> tuple[Item, ...]:
        """The items of a cohort and form that have the asked answer. Where the edit set is known, forget items of the
        trained form are only those in it."""
        if texts.cohort not in self.cohorts:
            return ()
        parts = self._parts[texts.cohort]
        chosen = self.cohorts[texts.cohort] if part == "all" else getattr(parts, part)
        known = self.case.edited if isinstance(self.case.edited, tuple) else None
        if known is not None and texts.cohort == "forget" and texts.form == "trained":
            chosen = [item for item in chosen if item.id in set(known)]
        return tuple(item for item in chosen if item.form == texts.form and _answer(item, texts) is not None)

    def has(self, texts: Texts, part: Part = "audit") -> bool:
        """Is there at least one such row?"""
        return bool(self.items(texts, part))

    def rows(self, texts: Texts, part: Part = "audit") -> Rows:
        """The tokenised rows of :meth:`items`, in that order. AuditError (code 2) if there are none."""
        if (texts, part) not in self._rows:
            items = self.items(texts, part)
            if not items:
                what = f"no {texts.answer} answers ({texts.index}) of form {texts.form} in the {part} part"
                raise AuditError(f"{texts.cohort}: {what}", f"add them to the {texts.cohort} file in [data]")
            self._rows[texts, part] = self._tokenised(items, texts, part)
        return self._rows[texts, part]

    def _tokenised(self, items: tuple[Item, ...], texts: Texts, part: Part) -> Rows:
        """A part is taken from all rows, so that every text is tokenised once."""
        if part != "all":
            everyone = self.rows(texts, "all")
            place = {name: n for n, name in enumerate(everyone.item_ids)}
            return everyone.take(torch.tensor([place[item.id] for item in items]))
        answers = [answer for item in items if (answer := _answer(item, texts)) is not None]
        return tokenise(items, answers, self.tokenizer, self.case.template, self.max_length)

    def every_texts(self) -> tuple[Texts, ...]:
        """All rows that the data hold: each cohort, form and kind of answer that has at least one item."""
        found: list[Texts] = []
        for cohort, items in self.cohorts.items():
            for form in get_args(Form):
                mine = [item for item in items if item.form == form]
                found += [Texts(cohort=cohort, form=form)] if mine else []
                if any(item.paraphrased_answer is not None for item in mine):
                    found.append(Texts(cohort=cohort, form=form, answer="paraphrased"))
                for n in range(max((len(item.perturbed_answers) for item in mine), default=0)):
                    found.append(Texts(cohort=cohort, form=form, answer="perturbed", index=n))
                for n in range(max((len(item.alternates) for item in mine), default=0)):
                    found.append(Texts(cohort=cohort, form=form, answer="alternate", index=n))
        return tuple(found)

    def write_table(self, name: str, columns: Mapping[str, Sequence[str | int | float | bool]]) -> Table:
        """Write item-level results to ``tables/<name>.parquet`` in the output folder, whole or not at all."""
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.table({key: list(values) for key, values in columns.items()})
        buffer = BytesIO()
        parquet.write_table(table, buffer)
        data = buffer.getvalue()
        write_atomic(self.out / "tables" / f"{name}.parquet", data)
        return Table(
            path=f"tables/{name}.parquet", sha256=hashlib.sha256(data).hexdigest(), rows=table.num_rows,
            columns=tuple(columns),
        )  # fmt: skip


def _answer(item: Item, texts: Texts) -> str | None:
    """The asked answer of an item, or None if it has none."""
    if texts.answer in ("answer", "paraphrased"):
        return item.answer if texts.answer == "answer" else item.paraphrased_answer
    several = item.perturbed_answers if texts.answer == "perturbed" else item.alternates
    return several[texts.index] if texts.index < len(several) else None


# ---- opening ----------------------------------------------------------------------------------------------------
def open_case(case: Case, root: Path, out: Path, online: bool = False) -> OpenCase:
    """Find, hash and check every input of a case; ``root`` is the folder of the case file.

    AuditError, code 2: missing folder, pickle, remote code, another architecture or tokenizer, a model that would be
    its own null, empty, overlapping or unreadable data, items longer than the context, keys without tokens. Code 3:
    truncated files, other weights than named, NaN weights. Nothing is written.
    """
    opened = _resolve_roles(case, root, online)
    _check_own_null(opened)
    for other in _others(opened, with_base=False):
        check_compatible(opened.base, other)
    for ckpt in _others(opened, with_base=True):
        check_finite(ckpt)
    found = OpenCase(case, root, out, opened)
    check_disjoint(found.cohorts)
    _check_edited(found)
    for other in _others(opened, with_base=False):
        _check_tokenizer(found, other)
    for texts in found.every_texts():
        if found.has(texts, "all"):
            found.rows(texts, "all")
    return found


def _resolve_roles(case: Case, root: Path, online: bool) -> Opened:
    """The checkpoints behind the roles; an error says which role it is about."""

    def named(role: str, source: Source) -> Checkpoint:
        try:
            return resolve(source, Path(root), online)
        except AuditError as error:
            raise AuditError(f"{role}: {error.what}", error.do, error.code) from None

    roles = case.roles
    return Opened(
        base=named("base", roles.base),
        suspect=named("suspect", roles.suspect),
        references=tuple(named(f"reference {n}", source) for n, source in enumerate(roles.references)),
        ancestor=None if roles.ancestor is None else named("ancestor", roles.ancestor),
    )


def _others(opened: Opened, with_base: bool) -> tuple[Checkpoint, ...]:
    rest = (opened.suspect, *opened.references, *(() if opened.ancestor is None else (opened.ancestor,)))
    return (opened.base, *rest) if with_base else rest


def _check_own_null(opened: Opened) -> None:
    """No model enters its own null or floor: AuditError (code 2) where two roles that must differ are one model."""
    names = [("suspect", opened.suspect), ("base", opened.base)]
    names += [(f"reference {n}", reference) for n, reference in enumerate(opened.references)]
    if opened.ancestor is not None:
        names.append(("ancestor", opened.ancestor))
    seen: dict[str, str] = {}
    for name, ckpt in names:
        before = seen.setdefault(ckpt.key, name)
        audits_base = {before, name} == {"suspect", "base"}
        audits_ancestor = {before, name} == {"suspect", "ancestor"} and opened.references
        if before != name and not audits_base and not audits_ancestor:
            raise AuditError(
                f"{name} and {before} are the same weights ({ckpt.source}): no model enters its own null",
                "give another checkpoint for one of the two roles, or leave the reference out",
            )


def _data_files(case: Case) -> dict[Cohort, str]:
    files = {cohort: getattr(case.data, cohort) for cohort in get_args(Cohort)}
    return {cohort: file for cohort, file in files.items() if file is not None}


def _read_cohorts(case: Case, root: Path) -> dict[Cohort, tuple[Item, ...]]:
    """The items of every data file; AuditError (code 2) for an empty one."""
    cohorts: dict[Cohort, tuple[Item, ...]] = {}
    for cohort, file in _data_files(case).items():
        items = read_items(root / file, case.data.group, own_groups=cohort == "general")
        if not items:
            raise AuditError(f"{root / file}: the {cohort} set is empty", "put items into it, or name another file")
        if cohort in ("forget", "retain") and all(item.form != "trained" for item in items):
            raise AuditError(f"{root / file}: no {cohort} item has form 'trained'", "mark what the edit was given")
        cohorts[cohort] = items
    return cohorts


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_edited(case: OpenCase) -> None:
    """Are the ids of the edit set, where given, forget items of the trained form?"""
    if not isinstance(case.case.edited, tuple):
        return
    known = {item.id for item in case.cohorts["forget"] if item.form == "trained"}
    strange = [name for name in case.case.edited if name not in known]
    if strange or not case.case.edited:
        what = f"names no trained forget items: {', '.join(strange[:3])}" if strange else "is an empty list"
        raise AuditError(f"`edited` {what}", "list ids of the forget file, or say 'all' or 'unknown'")


def _context(ckpt: Checkpoint) -> int | None:
    """How many tokens the model takes, by its config; None if it does not say."""
    config = read_config(folder_of(ckpt))
    config = config.get("text_config", config)
    found = [config[key] for key in ("max_position_embeddings", "n_positions", "seq_length") if key in config]
    return int(found[0]) if found else None


def _own_tokenizer(base: Checkpoint) -> Path:
    folder = tokenizer_folder(base)
    if folder is None:
        raise AuditError(f"{base.source}: no tokenizer in base's folder", "save the tokenizer beside the weights")
    return folder


def _check_tokenizer(case: OpenCase, other: Checkpoint) -> None:
    """Does the other model read the case's texts as base does? A checkpoint without a tokenizer uses base's."""
    folder = tokenizer_folder(other)
    if folder is None:
        return
    texts = [text for items in case.cohorts.values() for item in items for text in (item.question, item.answer)]
    why = tokenizers_agree(_own_tokenizer(case.base), folder, texts)
    if why is not None:
        raise AuditError(
            f"{other.source}: its tokenizer differs from base's: {why}",
            "audit models that share a tokenizer; if only files differ by mistake, copy base's tokenizer files",
        )
