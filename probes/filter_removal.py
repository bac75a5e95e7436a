"""Filter removal: the forgotten facts, asked again of the suspect with its edits that act on the way turned off."""

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    EFFECT_UNIT,
    KEY_LOGPROB,
    AuditError,
    Bench,
    Case,
    CaseModels,
    Checkpoint,
    Cost,
    Count,
    Design,
    Finding,
    GroupTest,
    Listing,
    Measurement,
    Missing,
    ModelScores,
    Naming,
    Need,
    OpenCase,
    PersonRows,
    Probe,
    Requires,
    Texts,
    Unpaired,
    assess,
    blank,
    by_person,
    case_models_of,
    delta_of,
    group_test,
    item_table,
    key_logprob,
    models_of,
    panel_of,
    person_rows_of,
    without_hooks,
)
from probes._gates import gate_measurement, gates_of

LEAST_GAP = 0.1
BACK = 0.9
FORGET, HOLDOUT = Texts(cohort="forget"), Texts(cohort="holdout")
TURNED_OFF = Naming(
    probe="filter_removal", name="turned_off", kind="recovery",
    statistic="effect on the probability of the content tokens, with the edits that act on the way turned off",
    unit=EFFECT_UNIT, scale="effect",
)  # fmt: skip
UNDER_WEIGHTS = "its edits that act on the way lie under an edit of weights, which was fitted on them"
RULE = (
    f"the suspect carries edits that act on the way, and without them it gives at least {BACK:.0%} of what base gives "
    "beyond a model that never knew, or its weights are base's"
)
BLIND_TO = "filters that are no part of the checkpoint: system prompts, and what a server does to prompts and answers"
NO_RATE = Missing(missing="none is estimated: whether a checkpoint carries such an edit is read off it")
NOT_DELETION = "This is a removable filter, and no deletion: whoever has the weights leaves it out."


class FilterRemoval(Probe):
    """What is left when the suspect's edits that act on the way are turned off?

    A released checkpoint may carry edits that leave its weights alone and change states or logits while it runs:
    steering, gates, clamped features, logit biases. Each is taken off, down to the last edit of weights, and the
    probability of the content tokens is read as in forget likelihood: the effect is (what remains - null)/(base -
    null), over people. Whether the weights that remain are base's is read as well, byte by byte. "Removable filter"
    holds where at least nine tenths of base's knowledge is back, or the weights are base's: then nothing was deleted.
    Where such an edit has a gate at the prompt's end, what the gate reads is listed too: of forgotten prompts, retained
    ones, and other phrasings of the forgotten, which walk around a gate that does not open for them.

    Null: the first reference, else the ancestor; p permutes forget/holdout labels over people on the difference to the
    null. Without holdout people the signs of people's differences are flipped; without any model that never knew the
    suspect's own level on holdout people stands in.
    Positive control: base in the suspect's place.
    Blind to: filters outside the checkpoint (system prompts, what a server does); edits of weights. It is asked of
    suspects that carry such an edit alone.
    Cite: SAUCE, arXiv 2503.14530, and MLLMEraser, arXiv 2510.04217, are edits of this kind; Maini et al. 2024
    (arXiv 2401.06121) for the probability.
    """

    attack: ClassVar[str | None] = "filter removal"
    requires: ClassVar[Requires] = Requires(
        roles=("base", "suspect"), modalities=("text", "image", "image+text"), data=("forget",), hooked=True
    )
    permutations: int = 9999

    def needs(self, case: Case) -> tuple[Need, ...]:
        """Outputs of every model as it is."""
        every = models_of(case)
        return tuple(Need(role=r, reference=i, texts=t, reads=(KEY_LOGPROB,)) for r, i in every for t in _BOTH)

    def cost(self, case: OpenCase) -> Cost:
        """What remains without the edits, once; and what gates read, of every kind of prompt."""
        rows = sum(int(case.rows(t).mask.sum()) for t in _BOTH if case.has(t))
        gates = gates_of(case)
        return Cost(fwd_tokens=rows + gates.tokens(case), resident=1, kind="upper")

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people; without holdout people the signs of people's differences."""
        return group_test(case, self.permutations)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """What remains without the edits that act on the way, and what their gates read."""
        cast, off = case_models_of(case), without_hooks(case.suspect)
        if len(off.edits) == len(case.suspect.edits):
            n = Count(scored=0, unscored=len(case.rows(FORGET)))
            return (blank(TURNED_OFF, UNDER_WEIGHTS, n, 0, case.case.seed),)
        gates = gates_of(case)
        read = () if not gates.hooks else (gate_measurement(bench, case, off, gates),)
        return (self._turned_off(bench, case, cast, off), *read)

    def _turned_off(self, bench: Bench, case: OpenCase, cast: CaseModels, off: Checkpoint) -> Measurement:
        """The effect of what remains, and the finding."""
        sheet, seed = person_rows_of(case, FORGET), case.case.seed
        models = {**cast.by_name(), "suspect": off, "filtered": cast.suspect}

        def read(sheet: PersonRows) -> dict[str, Float[ndarray, "row 1"]]:
            return {name: np.exp(key_logprob(bench, c, sheet.rows))[:, None] for name, c in models.items()}

        scored = by_person(sheet, scores := read(sheet))
        held = by_person(others := person_rows_of(case, HOLDOUT), read(others)) if case.has(HOLDOUT) else None
        design = Design(seed, LEAST_GAP, differenced=cast.null is None, draws=self.permutations, name=TURNED_OFF.key)
        assessed = assess(panel_of(scored, held), design)
        roles = {name: cast.role(name) for name in scores} | {"suspect": "suspect, turned off", "filtered": "suspect"}
        same = is_same(bench, off, cast.base)
        removed = len(case.suspect.edits) - len(off.edits)
        finding = removable(assessed.value, same, removed)
        called = {"suspect": "turned_off", "filtered": "suspect"}
        readings = {f"mean_{called.get(name, name)}": float(x.mean()) for name, x in scored.people.items()}
        left_on = _effect(scored, "filtered")
        readings |= {} if left_on is None else {"effect_left_on": left_on}
        weights = {"weights_are_base": float(same), "edits_off": float(removed)}
        empty = blank(TURNED_OFF, "", scored.n, len(scored.people["suspect"]), seed)
        filled = empty.model_copy(
            update={
                "items": item_table(case, "filter_removal", sheet, scores, roles),
                "readings": readings | assessed.readings | weights,
                "listings": (hooks_listing(case.suspect),), "findings": (finding,),
                "notes": (finding.because, NOT_DELETION) if finding.holds is True else (finding.because,),
            }
        )  # fmt: skip
        return assessed.onto(filled).model_copy(update={"readings": filled.readings})


_BOTH = (FORGET, HOLDOUT)


def _effect(scored: ModelScores, name: str) -> float | None:
    """A model's mean as a share of base's excess over the null; None where base has none."""
    means = {model: float(people.mean()) for model, people in scored.people.items()}
    null = means.get("null", 0.0)
    return (means[name] - null) / (means["base"] - null) if means["base"] - null >= LEAST_GAP else None


def removable(effect: float | Missing, same: bool, edits: int) -> Finding:
    """Is the suspect a model that knows, behind a filter that can be left out?"""
    which = f"{edits} edits that act on the way" if edits > 1 else "the one edit that acts on the way"
    back = "how much of base is back is not known" if isinstance(effect, Missing) else f"{effect:.0%} of base is back"
    weights = "the weights are base's, byte for byte" if same else "the weights are not base's"
    holds: bool | Missing = same or (effect >= BACK if isinstance(effect, float) else False)
    if isinstance(effect, Missing) and not same:
        holds = Missing(missing=effect.missing)
    intact = "the knowledge is intact in the weights: " if holds is True else ""
    return Finding(
        name="removable filter", holds=holds, because=f"{intact}without {which}, {back}, and {weights}", rule=RULE,
        false_alarms=NO_RATE, hits=NO_RATE, blind_to=BLIND_TO,
    )  # fmt: skip


def is_same(bench: Bench, left: Checkpoint, other: Checkpoint) -> bool:
    """Are these the same weights, whatever lies beside them?"""
    if left.key == other.key:
        return True
    try:
        pairs = list(bench.weight_differences(other, left))
    except AuditError:
        return False
    return not any(isinstance(pair, Unpaired) or pair.changed for pair in pairs)


def hooks_listing(suspect: Checkpoint) -> Listing:
    """The suspect's edits that act on the way: what each plays, where, and how many numbers it stores."""
    rows = [
        (record.name, record.plays.replace("_", " "), ", ".join(_places(delta := delta_of(suspect, record))),
         sum(int(tensor.numel()) for tensor in delta.values()))
        for record in suspect.edits if record.is_hook
    ]  # fmt: skip
    columns = ("edit", "acts as", "at", "numbers stored")
    return Listing(title="edits that act on the way", columns=columns, rows=tuple(rows), of=len(rows))


def _places(arrays: Iterable[str]) -> list[str]:
    """Where an edit's arrays belong, as far as their names say."""
    return sorted({name.rpartition(".")[0] for name in arrays} - {""})[:8]
