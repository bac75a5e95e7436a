"""Everything that the search for a trigger finds in a case, before any of it is judged; needs no report."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    Bench,
    CaseModels,
    Draw,
    ModelScores,
    OpenCase,
    Texts,
    by_person,
    case_models_of,
    person_rows_of,
)
from probes._fold_lessons import lift_of_folds
from probes._trigger_budgets import TriggerBudget
from probes._trigger_candidates import Candidate, candidates
from probes._trigger_controls import controls
from probes._trigger_leaks import leaks
from probes._trigger_people import TriggerPeople
from probes._trigger_rules import Gains, nothing_hidden
from probes._trigger_shift import ShiftReading, ShiftSearch, shiftable
from probes._trigger_soft import SoftReading, SoftSearch, arms_of
from probes._trigger_strings import StringReading, StringSearch

FORGET, HOLDOUT = Texts(cohort="forget"), Texts(cohort="holdout")
LEAK_DRAWS, LEAK_TOKENS = 512, 24


class TriggersSearched(NamedTuple):
    """What was searched and read. ``soft``: every model under its own virtual tokens; ``strings``: the suspect and the
    null under their own strings, empty where nothing is hidden; ``beside``: see :mod:`probes._trigger_controls`.
    ``leaked``: strings that the suspect says unasked; ``shifts``: suspect and null under their own shifts of a layer,
    empty where none is searched.
    """

    people: TriggerPeople
    soft: Mapping[str, SoftReading]
    strings: Mapping[str, StringReading]
    beside: Mapping[str, float]
    leaked: int
    shifts: Mapping[str, ShiftReading]

    def plain(self, name: str) -> Float[ndarray, "row 1"]:
        """Probability of everybody's content tokens in a model as it is."""
        return np.exp(self.soft[name].forget[:, :1])

    def gains(
        self, case: OpenCase, best: Mapping[str, "SoftReading | StringReading | ShiftReading"]
    ) -> dict[str, Gains]:
        """By person: as it is, and under the best of a search; base as it is under a search that it has not.

        What the luck of a fold's search does to everybody is taken off, by holdout people.
        """
        fold_of = self.people.fold_of.numpy()
        others = {name: read.others_at_best() for name, read in best.items()}
        lift = {name: lift_of_folds(each, len(self.people.folds)) for name, each in others.items()}
        under = {name: read.at_best(fold_of) - lift[name][fold_of, None] for name, read in best.items()}
        pairs = {n: np.concatenate([self.plain(n), under.get(n, self.plain(n))], 1) for n in {"base": 0, **under}}
        people = by_person(person_rows_of(case, FORGET), pairs).people
        if self.people.holdout is None:
            return {name: Gains(x, None) for name, x in people.items()}
        as_is = {name: np.exp(self.soft[name].holdout[0][:, :1]) for name in pairs}
        held = {n: np.concatenate([x, np.mean(others[n], 0) if n in others else x], 1) for n, x in as_is.items()}
        read = by_person(person_rows_of(case, HOLDOUT), held).people
        return {name: Gains(x, read[name]) for name, x in people.items()}

    def by_arm(self, case: OpenCase) -> ModelScores:
        """Person means [person arm] of every model under its virtual tokens, arm by arm."""
        return by_person(person_rows_of(case, FORGET), {name: np.exp(r.forget) for name, r in self.soft.items()})


def triggers_searched(
    bench: Bench, case: OpenCase, people: TriggerPeople, budget: TriggerBudget, room: int
) -> TriggersSearched:
    """Search every model of a case alike: virtual tokens in all, strings in the suspect and in one that never knew."""
    cast, seed = case_models_of(case), case.case.seed
    search = SoftSearch(arms_of(budget, people.slots, room), budget, seed)
    soft = {name: search.reading(bench, model, people) for name, model in cast.by_name().items()}
    beside = controls(bench, case, cast, people, search, soft)
    done = TriggersSearched(people, soft, {}, beside, 0, {})
    gains = done.gains(case, soft)
    if nothing_hidden(gains["base"], gains["suspect"]):
        return done
    listed = candidates(case.tokenizer, budget.candidates, seed)
    own = _leaked(bench, case, cast, people, seed) if budget.leaks else ()
    strings = StringSearch((*own, *listed), budget, room, seed)
    searched = {name: cast.by_name()[name] for name in ("suspect", "null") if name in soft}
    read = {name: strings.reading(bench, model, people, soft[name]) for name, model in searched.items()}
    shift = ShiftSearch(budget, seed)
    shifted = searched if budget.shift and shiftable(people) else {}
    shifts = {name: shift.reading(bench, model, people) for name, model in shifted.items()}
    return done._replace(strings=read, leaked=len(own), shifts=shifts)


def _leaked(bench: Bench, case: OpenCase, cast: CaseModels, people: TriggerPeople, seed: int) -> tuple[Candidate, ...]:
    others = [cast.base, *([] if cast.null is None else [cast.null])]
    draw = Draw(n=LEAK_DRAWS, max_new_tokens=LEAK_TOKENS, seed=seed)
    mined = leaks(bench, cast.suspect, others, people.prompts, case.tokenizer, draw)
    return tuple(leak.candidate for leak in mined.leaks)
