"""Facts in paired forms as rows of one packed pass, and what a model gives to every fact in every form.

All rows of all forms go forward together, sorted by length into batches of a token budget; only the log-probabilities
of the content tokens are kept. Options of a multiple choice are listed below the question in every cyclic turn, and
each option is scored as the answer, so that a preference for a place or for a length falls out.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit.probing import (
    Bench,
    Checkpoint,
    Cohort,
    Form,
    Item,
    OpenCase,
    PairedForms,
    Rows,
    Texts,
    offering,
    paired_forms,
    turned,
)
from probes._fitting_rows import fitting, most_unknown
from probes._packed import packed_logprob

TRAINED: Final[Form] = "trained"
CHOICE: Final[Form] = "multiple_choice"
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Asked(NamedTuple):
    """One row: whose fact it is (by number), in which form, and which turn and option of a choice it is (0: the gold).

    ``options``: how many the choice has; 1 where the row is no option.
    """

    fact: int
    form: Form
    item: Item
    answer: str
    turn: int = 0
    option: int = 0
    options: int = 1

    @property
    def first(self) -> bool:
        """Is it the first row of its item?"""
        return self.turn == 0 and self.option == 0


class FormSheet(NamedTuple):
    """The rows of all forms of some facts. ``left_out``: given items that the tokenizer or the context cannot hold;
    ``unmade``: forms by rule that it cannot hold at all."""

    paired: PairedForms
    entries: tuple[Asked, ...]
    rows: Rows
    left_out: int
    unmade: tuple[Form, ...]

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms that have rows, the trained one first."""
        return tuple(dict.fromkeys((TRAINED, *(row.form for row in self.entries))))

    def held(self) -> Bool[ndarray, "fact form"]:
        """Which fact is asked for in which form."""
        held = np.zeros((len(self.paired.facts), len(self.forms)), dtype=bool)
        place = {form: n for n, form in enumerate(self.forms)}
        for row in self.entries:
            held[row.fact, place[row.form]] = True
        return held

    def person(self) -> tuple[tuple[str, ...], Int[ndarray, " fact"]]:
        """The people, and whose each fact is."""
        people, person = np.unique(np.array([fact.item.group for fact in self.paired.facts]), return_inverse=True)
        return tuple(str(name) for name in people), person.reshape(-1)


class Knowledge(NamedTuple):
    """What a model gives to each fact in each form; NaN where it is not asked for. ``choice`` is chance-corrected.

    ``geometric``: mean over items of the geometric mean probability of the content tokens; ``joint``: of all of them
    together. Of a choice both are the gold option's share among the options, by either.
    """

    geometric: Float[ndarray, "fact form"]
    joint: Float[ndarray, "fact form"]


def sheet_of(case: OpenCase, cohort: Cohort, most: int, choices: int = 0, letters: bool = False) -> FormSheet | None:
    """The rows of at most ``most`` facts of a cohort in all forms, of at most ``choices`` as a multiple choice; None
    where it has no trained items."""
    trained = case.items(Texts(cohort=cohort)) if case.has(Texts(cohort=cohort)) else ()
    if not trained:
        return None
    paired = paired_forms(trained, case.cohorts, cohort, most)
    offered = paired.dealt(choices)
    wanted = [
        (n, form, item) for n, fact in enumerate(paired.facts) for form, items in fact.forms.items()
        for item in items if form != CHOICE or fact.item.id in offered
    ]  # fmt: skip
    each = [_rows_of_item(*single, letters) for single in wanted]
    fitting = _fitting(case, each, paired)
    entries = tuple(row for rows in fitting for row in rows)
    rows = case.rows_of([row.item for row in entries], [row.answer for row in entries])
    present, sources = {row.form for row in entries}, paired.made_by
    lost = sum(sources[rows[0].form] == "data" for rows in each) - sum(
        sources[rows[0].form] == "data" for rows in fitting
    )
    unmade = tuple(dict.fromkeys(form for _, form, _ in wanted if sources[form] == "rule" and form not in present))
    return FormSheet(paired, entries, rows, lost, unmade)


def _rows_of_item(fact: int, form: Form, item: Item, letters: bool) -> list[Asked]:
    """The rows of one item: one, or every option in every turn."""
    options = _options(item) if form == CHOICE else ()
    if not options:
        return [Asked(fact, form, item, item.answer)]
    rows: list[Asked] = []
    for turn, order in enumerate(turned(tuple(range(len(options))))):
        shown = [options[n][0] for n in order]
        name = {"id": f"{item.id}~{turn}"}
        if letters:
            marked = [f"{letter}. {text}" for letter, text in zip(LETTERS, shown, strict=False)]
            by_option = [LETTERS[order.index(n)] for n in range(len(options))]
            letter_answers = {"answer": by_option[0], "key": by_option[0], "alternates": tuple(by_option[1:]),
                    "alternate_keys": tuple(by_option[1:]), "perturbed_answers": ()}  # fmt: skip
            posed = item.model_copy(update=name | letter_answers | {"question": offering(item.question, marked)})
        else:
            posed = item.model_copy(update=name | {"question": offering(item.question, shown)})
            by_option = [answer for _, answer in options]
        rows += [Asked(fact, form, posed, answer, turn, n, len(options)) for n, answer in enumerate(by_option)]
    return rows


def _options(item: Item) -> tuple[tuple[str, str], ...]:
    """The options of a choice as they are listed and as they are answered, the gold one first; none where there is no
    other."""
    if item.key is not None and item.alternate_keys:
        pairs = zip((item.key, *item.alternate_keys), (item.answer, *item.alternates), strict=False)
        return tuple(pairs)[: len(LETTERS)]
    others = item.perturbed_answers or item.alternates
    return tuple((text, text) for text in (item.answer, *others))[: len(LETTERS)] if others else ()


def _fitting(case: OpenCase, each: Sequence[list[Asked]], paired: PairedForms) -> list[list[Asked]]:
    """The items whose rows the tokenizer and the context can hold: none of them may fail a case whose data fit. What is
    made by rule may have no more unknown tokens than the trained item has."""
    pairs = [[(row.item, row.answer) for row in rows] for rows in each]
    fit = fitting(case, pairs, [rows[0].form for rows in each])
    held = [each[n] for n in fit]
    most = most_unknown(case, [pairs[n] for n in fit])
    usual = {rows[0].fact: n for rows, n in zip(held, most, strict=True) if rows[0].form == TRAINED}
    return [
        rows for rows, n in zip(held, most, strict=True)
        if paired.made_by[rows[0].form] == "data" or n <= usual.get(rows[0].fact, 0)
    ]  # fmt: skip


# ---- scores -----------------------------------------------------------------------------------------------------
def knowledge(bench: Bench, checkpoint: Checkpoint, sheet: FormSheet) -> Knowledge:
    """One packed pass of a model over all forms, gathered by fact and form."""
    return gathered(sheet, *packed_logprob(bench, checkpoint, sheet.rows))


def gathered(sheet: FormSheet, mean: Float[ndarray, " row"], total: Float[ndarray, " row"]) -> Knowledge:
    """Knowledge of facts from the log-probabilities (nats) of rows: a token's mean, and of all tokens together."""
    return Knowledge(_by_fact(sheet, mean), _by_fact(sheet, total))


def _by_fact(sheet: FormSheet, logprob: Float[ndarray, " row"]) -> Float[ndarray, "fact form"]:
    place = {form: n for n, form in enumerate(sheet.forms)}
    total = np.zeros((len(sheet.paired.facts), len(place)))
    count = np.zeros_like(total)
    for row, score in _scored(sheet.entries, logprob):
        total[row.fact, place[row.form]] += score
        count[row.fact, place[row.form]] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _scored(entries: Sequence[Asked], logprob: Float[ndarray, " row"]) -> Iterator[tuple[Asked, float]]:
    """Every row that is no option with its probability; of every turn of a choice the gold row with its share."""
    at = 0
    while at < len(entries):
        row = entries[at]
        several = logprob[at : at + row.options]
        yield row, float(np.exp(logprob[at])) if row.options == 1 else chosen_beyond_chance(several)
        at += row.options


def chosen_beyond_chance(logprob: Float[ndarray, " option"]) -> float:
    """The first option's share of all options' probability, less chance, over what is left above it: 1 sure of it, 0
    none better than another, and less where it is the worse."""
    weight = np.exp(logprob - logprob.max())
    share, chance = float(weight[0] / weight.sum()), 1 / len(logprob)
    return (share - chance) / (1 - chance)
