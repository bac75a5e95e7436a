"""A string put into the prompts of a case's forget people: what it brings back, in whom."""

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit import stats
from audit.bench import Bench
from audit.case import SLOTS, CaseFile, InsertablePrompts, OpenCase, Rows, Slot, open_case
from audit.planning import RunSettings, Step, Watch, make_bench, parse_count, unwatched
from audit.probing import key_logprob
from audit.schema import AuditError, Checkpoint, Interval, Item, Role, Texts

FORGET = Texts(cohort="forget")
_ROLE = re.compile(r"(suspect|base|ancestor|reference)(?::(\d+))?")


_Played = tuple[Role, int]
"""A role, and of references the number."""


class Fold(NamedTuple):
    """One of so many folds of the forget people, counted from 1, dealt by the split's seed: those whom a search on the
    other folds has not seen."""

    number: int
    of: int


class ReplayRequest(NamedTuple):
    """Which string, where in the prompts, in whom (``suspect``, ``base``, ``ancestor``, ``reference:N``), and which of
    the forget people: all, or a fold of them."""

    text: str
    slot: Slot = "prefix"
    roles: tuple[str, ...] = ("suspect",)
    fold: Fold | None = None


class Share(NamedTuple):
    """A share of what base knows beyond whoever never knew (0: as they, 1: as base), with a 95 % bootstrap interval
    over people; NaN where base knows no more."""

    value: float
    interval: Interval | None


class ReplayedModel(NamedTuple):
    """Of one model the mean probability of the content tokens, over people, the shares of base they come to, and the
    share that the string brings back."""

    role: str
    without: float
    spoken: float
    share_without: Share
    share_spoken: Share
    returned: Share


class Replayed(NamedTuple):
    """What a string did. ``null``: who stands for never having known, empty for nobody. ``unknown``: how many of its
    ``tokens`` the tokenizer has no word for."""

    case: str
    request: ReplayRequest
    models: tuple[ReplayedModel, ...]
    null: str
    people: int
    rows: int
    tokens: int
    unknown: int


def slot_of(text: str) -> Slot:
    """The slot that a word or a number names. AuditError (code 2) for any other."""
    if text in SLOTS:
        return text  # pyright: ignore[reportReturnType]
    if (number := parse_count(text)) is not None:
        return number
    raise AuditError(
        f"{text[:99]!r} is no place in a prompt", f"say {', '.join(map(str, SLOTS))}, or the number of a word"
    )


def replay(case_file: CaseFile, request: ReplayRequest, settings: RunSettings, watch: Watch = unwatched) -> Replayed:
    """Ask the forget people's questions without and with the string. Nothing is written but cached passes.

    AuditError (code 2): an empty string, one of which the tokenizer knows no token, a place that the prompts do not
    have, a role that the case does not give, a case of images.
    """
    if not request.text.strip():
        raise AuditError("the string is empty", "say which with --text")
    roles = [_role_of(name) for name in request.roles]
    watch(Step("opening", case_file.case.name, 0, 1))
    case = open_case(case_file.case, case_file.root, case_file.root, online=settings.online)
    watch(Step("opening", case_file.case.name, 1, 1, finished=True))
    tokens, unknown = _tokens(case, request.text)
    case.rows(FORGET)  # says so where there are none
    prompts = case.insertable(_items(case, request.fold))
    base: _Played = ("base", 0)
    names = {_name(role): role for role in (*roles, base, *([] if case.null is None else [case.null]))}
    spoken = _Spoken.of(prompts, request)
    bench, answered = make_bench(settings, [case.checkpoint(*role) for role in names.values()]), dict[str, _Pair]()
    for n, (name, role) in enumerate(names.items()):
        watch(Step("asking", name, n, len(names)))
        answered[name] = spoken.answered(bench, case.checkpoint(*role))
        watch(Step("asked", name, n + 1, len(names), finished=True))
    null = "" if case.null is None else _name(case.null)
    models = tuple(_model(name, answered, null, case.case.seed) for name in names)
    return Replayed(
        case.case.name, request, models, null, len(spoken.people), len(prompts), tokens, unknown
    )  # fmt: skip


def _role_of(name: str) -> _Played:
    match = _ROLE.fullmatch(name)
    if match is None or (match[2] and match[1] != "reference"):
        raise AuditError(f"{name!r} is no role", "say suspect, base, ancestor, or reference:N (from 0)")
    return match[1], int(match[2] or 0)  # pyright: ignore[reportReturnType]


def fold_of(text: str) -> Fold:
    """The fold that a text such as ``1/2`` names. AuditError (code 2) for any other."""
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text, re.ASCII)
    fold = Fold(*map(int, match.groups())) if match else Fold(0, 0)
    if not 1 <= fold.number <= fold.of:
        raise AuditError(f"{text!r} is no fold", "say which of how many, such as 1/2 or 2/2")
    return fold


def _items(case: OpenCase, fold: Fold | None) -> tuple[Item, ...]:
    """The forget items of the people who are asked."""
    items = case.items(FORGET)
    if fold is None:
        return items
    folds = case.folds(FORGET, fold.of)
    if fold.of > len(folds):
        raise AuditError(f"the forget people make {len(folds)} folds, not {fold.of}", "name fewer")
    chosen = set(folds[fold.number - 1].item_ids)
    return tuple(item for item in items if item.id in chosen)


def _name(role: _Played) -> str:
    return f"reference {role[1]}" if role[0] == "reference" else role[0]


def _tokens(case: OpenCase, text: str) -> tuple[int, int]:
    """How many tokens a string has, and how many of them are unknown."""
    tokenizer = case.tokenizer
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    unknown = sum(i == tokenizer.unk_token_id for i in ids)
    if unknown == len(ids):
        raise AuditError(f"{text!r}: base's tokenizer knows no word of it", "give a string that the model can read")
    return len(ids), unknown


# ---- asked ------------------------------------------------------------------------------------------------------
class _Pair(NamedTuple):
    """Person means of the probability of content tokens, without and with the string."""

    without: Float[ndarray, " person"]
    spoken: Float[ndarray, " person"]


class _Spoken(NamedTuple):
    """The rows without and with the string, and their people."""

    plain: Rows
    rows: Rows
    people: tuple[str, ...]

    @classmethod
    def of(cls, prompts: InsertablePrompts, request: ReplayRequest) -> "_Spoken":
        plain = prompts.plain()
        return cls(plain, prompts.rows(request.text, request.slot), tuple(sorted(set(plain.group_ids))))

    def answered(self, bench: Bench, checkpoint: Checkpoint) -> _Pair:
        """Ask one model."""
        person = np.array([self.people.index(group) for group in self.plain.group_ids])
        count = np.bincount(person)
        means = (np.exp(key_logprob(bench, checkpoint, rows)) for rows in (self.plain, self.rows))
        return _Pair(*(np.bincount(person, weights=mean) / count for mean in means))


def _model(name: str, answered: dict[str, _Pair], null: str, seed: int) -> ReplayedModel:
    """The means of one model, and its shares of what base knows: the string is spoken to whoever never knew too, so
    that what it does to anybody is taken off."""
    mine, base = answered[name], answered["base"]
    nothing = answered[null] if null else _Pair(*(np.zeros_like(base.without) for _ in range(2)))
    known = base.without - nothing.without
    without, spoken = (own - none for own, none in zip(mine, nothing, strict=True))
    shares = (_share(part, known, seed) for part in (without, spoken, spoken - without))
    return ReplayedModel(name, float(mine.without.mean()), float(mine.spoken.mean()), *shares)


def _share(numerator: Float[ndarray, " person"], known: Float[ndarray, " person"], seed: int) -> Share:
    if known.mean() <= 0:
        return Share(float("nan"), None)
    value = float(numerator.mean() / known.mean())
    if len(known) < 2:
        return Share(value, None)
    draws = stats.bootstrap_effect(numerator[:, None], known[:, None], seed).effect[:, 0]
    return Share(value, stats.percentile_interval(draws))
