"""The string to tell: the best of all folds by the people chosen by, read on people it was not found on."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import Bench, CaseModels, Missing, OpenCase, Texts, TriggerText, folded, interval, words
from probes._trigger_measured import TriggersSearched
from probes._trigger_people import PlacedRows
from probes._trigger_strings import LEAKED, ROUNDED, SEARCHED, TriggerString, spoken

FROM_TOKENIZER = ("vocabulary", "rare token", ROUNDED, SEARCHED, LEAKED)
"""Where a string's words are the tokenizer's or the model's, and so may be the data's; others are of fixed lists."""


def best_text(bench: Bench, case: OpenCase, cast: CaseModels, done: TriggersSearched) -> TriggerText | None:
    """The string that the people chosen by gained most from, read on the fold whose people its search did not see:
    (suspect - null) / (base - null) with the string spoken to suspect and null. None where no string was searched."""
    if "suspect" not in done.strings:
        return None
    ranked = done.strings["suspect"].ranked
    best = max(range(len(ranked)), key=lambda n: ranked[n].validation[0])
    string, read = ranked[best].strings[0], done.people.folds[best].read
    number = read.number.numpy()
    suspect, null = (
        np.zeros(len(number)) if model is None else np.exp(spoken(bench, model, read, [string]))[0]
        for model in (cast.suspect, cast.null)
    )
    never = done.plain("null")[number, 0] if cast.null is not None else np.zeros(len(number))
    gained = _by_person(read, suspect - null)
    known = _by_person(read, done.plain("base")[number, 0] - never)
    transfer = float(gained.mean() / known.mean()) if known.mean() > 0 else None
    return TriggerText(
        text=str(case.tokenizer.decode(list(string.ids))), slot=string.slot,
        transfer=Missing(missing="base says no more than a model that never knew") if transfer is None else transfer,
        ci95=interval(gained, known, case.case.seed), units=len(gained), fold=(best + 1, len(ranked)),
        quoted=_quotes(case, string),
    )  # fmt: skip


def _by_person(read: PlacedRows, values: Float[ndarray, " row"]) -> Float[ndarray, "person 1"]:
    """Means over each person's rows that have content tokens."""
    groups = np.array(read.rows.group_ids)[np.isfinite(values)]
    scored = values[np.isfinite(values)]
    return np.array([[scored[groups == name].mean()] for name in dict.fromkeys(groups.tolist())])


def _quotes(case: OpenCase, string: TriggerString) -> bool:
    """May it hold words of the case's own data? Not if it is of a fixed list, or none of its words is theirs."""
    if string.family not in FROM_TOKENIZER:
        return False
    mine = _words(case.tokenizer.decode(list(string.ids)))
    cohorts: tuple[Texts, ...] = tuple(Texts(cohort=name) for name in ("forget", "retain", "holdout"))
    items = [item for texts in cohorts if case.has(texts) for item in case.items(texts)]
    return any(mine & _words(f"{item.question} {item.answer}") for item in items)


def _words(text: str) -> set[str]:
    return {folded(text[begin:end]) for begin, end in words(text)}
