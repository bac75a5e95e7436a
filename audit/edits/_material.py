"""The rows of an edit from a case: what is to be forgotten, what is to be kept, and other answers of its items."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from audit.case import OpenCase, Part, Rows, SubjectPrompts, matched, stacked
from audit.edits._edit import Concepts, Edit, EditData
from audit.schema import AuditError, Item, Texts

REFUSALS = (
    "I do not know that.", "I cannot help with this question.", "I have no information about it.",
    "That is not something I can answer.", "I am not able to say.",
)  # fmt: skip
"""Refusing answers, given to the forget questions in turn where a user names none."""
FORGET, RETAIN, GENERAL = (Texts(cohort=name) for name in ("forget", "retain", "general"))


class Choice(NamedTuple):
    """What of a case an edit sees: which groups of the forget items, which refusing answers, and whether half of the
    general texts is kept beside the retain items."""

    part: Part = "all"
    refusals: Sequence[str] = REFUSALS
    keep_general: bool = False


def check_fits(edit: type[Edit], name: str, images: bool) -> None:
    """AuditError (code 2) by the edit's name where a model of this kind has not what it works on."""
    if images and edit.of_texts:
        raise AuditError(f"{name}: it edits a language model, and this model reads images", _OTHERS)
    if edit.of_images and not images:
        raise AuditError(f"{name}: its objective is a gradient by the pixels, and this model reads tokens", _OTHERS)


_OTHERS = "choose another; `residua edit --list` says which fits what"


def edit_data(case: OpenCase, needs: Sequence[str], choice: Choice = Choice()) -> EditData:  # noqa: B008
    """The rows of a case that an edit with these needs may see: the trained form alone, of the known edit set.

    Held-out forms, held-out people and the audit's own cohorts are never among them. AuditError (code 2) where
    the case has not what is needed.
    """
    forget = case.items(FORGET, choice.part)
    builders: dict[str, Callable[[], Rows | None]] = {
        "refusal": lambda: _refusing(case, forget, choice.refusals),
        "relabelled": lambda: _relabelled(case, forget),
    }
    other = {name: build() if name in needs else None for name, build in builders.items()}
    retain = _kept(case, choice.keep_general)
    subjects = _subjects(case, forget) if "subjects" in needs else None
    prompts = case.insertable(forget) if "prompts" in needs else None
    concepts = _concepts(case, forget) if "concepts" in needs else None
    return EditData(
        case.rows(FORGET, choice.part), retain, **other, subjects=subjects, prompts=prompts, concepts=concepts
    )  # fmt: skip


def _concepts(case: OpenCase, forget: Sequence[Item]) -> Concepts:
    """What is asked for, of pictures by the items' attribute, where all have one; else all are about one concept. What
    is chosen is chosen on the calibration half of the groups."""
    groups = {item.group for texts in (FORGET, RETAIN) for item in case.items(texts, "calibration")}
    by_attribute = case.modality == "image+text" and all(item.attribute for item in forget)
    return Concepts({item.id: (item.attribute or "") if by_attribute else "" for item in forget}, frozenset(groups))


def _subjects(case: OpenCase, forget: Sequence[Item]) -> SubjectPrompts:
    """Whom the questions name, of those that are to be forgotten and of those that are kept."""
    return SubjectPrompts([*forget, *case.items(RETAIN)], case.tokenizer, case.case.template)


def _kept(case: OpenCase, general: bool) -> Rows:
    retain = case.rows(RETAIN)
    if not general:
        return retain
    return stacked([retain, case.rows(GENERAL, "calibration")])


def _refusing(case: OpenCase, forget: Sequence[Item], refusals: Sequence[str]) -> Rows | None:
    """The forget questions, answered by refusals in turn; None where an item asks nothing."""
    if not refusals or not all(item.question for item in forget):
        return None
    try:
        return case.rows_of(forget, [refusals[n % len(refusals)] for n in range(len(forget))])
    except AuditError as fault:
        do = "give refusing answers that this tokenizer knows with --refusals FILE, one a line"
        raise AuditError(f"refusing answers: {fault.what}", do) from None


def _relabelled(case: OpenCase, forget: Sequence[Item]) -> Rows | None:
    """Every forget question with each of its other answers: alternates, perturbed answers, or entities swapped.

    None where no item has one; items without one are left to the edit, which may refuse them.
    """
    matches = matched(forget, case.case.data.split_seed, at_least=1).matches
    pairs = [(match.item, other) for match in matches for other in match.others]
    return case.rows_of([item for item, _ in pairs], [answer for _, answer in pairs]) if pairs else None
