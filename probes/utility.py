"""Utility: the gate that every other reading stands behind."""

from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    ANSWER_LOGPROB,
    BY_POSITION,
    KEY_LOGPROB,
    RATIO_UNIT,
    Bench,
    Case,
    CaseModels,
    Checkpoint,
    Control,
    Cost,
    Measurement,
    Missing,
    Naming,
    Need,
    OpenCase,
    Positions,
    Probe,
    Requires,
    Texts,
    blank,
    by_person,
    case_models_of,
    every_variant,
    interval,
    item_table,
    models_of,
    person_rows_of,
    perturbed_answers,
    row_means,
    stats,
    tofu,
    variant_losses,
    without_variants,
)

RATIO_NULL = Missing(missing="a gate compares with base, not with a model that never knew")


class _Target(NamedTuple):
    """What one gate reads: its name, the texts, and at which of their tokens."""

    naming: Naming
    texts: Texts
    at: Positions


class Utility(Probe):
    """Is the suspect still a usable model, or was it broken rather than made to forget?

    The suspect's probability (geometric mean over tokens, per item, averaged over people) relative to base's: on the
    content tokens of the facts it should keep, and on all tokens of general text where the case has some. A destroyed
    model passes every test of forgetting, so nothing else is read unless this holds. The parts of TOFU's model utility
    that need no generation stand beside it, with every perturbed answer; ``most_variants`` limits nothing any more and
    stays for the case files and records that state it.

    Null: none; the comparison is with base. The reading of a model that never knew is shown where there is one.
    Positive control: the references, trained on the same retained facts, keep their probability.
    Blind to: damage to abilities that neither the retained facts nor the general text exercise.
    Cite: Maini et al. 2024 (arXiv 2401.06121), model utility; Dorna et al. 2025 (arXiv 2506.12618), section 4.
    """

    requires: ClassVar[Requires] = Requires(
        roles=("base", "suspect"), modalities=("text", "image", "image+text"), data=("retain",)
    )
    most_variants: int = 3

    def needs(self, case: Case) -> tuple[Need, ...]:
        """Outputs of every model on retained facts, on their variants for base and suspect, and on general text."""
        retain, general = Texts(cohort="retain"), Texts(cohort="general")
        needs: list[Need] = []
        for role, i in models_of(case):
            needs.append(Need(role=role, reference=i, texts=retain, reads=(KEY_LOGPROB, ANSWER_LOGPROB)))
            needs.append(Need(role=role, reference=i, texts=general, reads=(ANSWER_LOGPROB,)))
            if role in ("base", "suspect"):
                needs += every_variant(role, 0, retain, (KEY_LOGPROB, ANSWER_LOGPROB))
        return tuple(needs)

    def cost(self, case: OpenCase) -> Cost:
        """Nothing beyond the needs."""
        return Cost()

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """One gate on retained facts, and one on general text where the case has some."""
        cast = case_models_of(case)
        retained = Naming(
            probe="utility", name="retain", kind="gate",
            statistic="the suspect's probability on retained facts, relative to base",
            unit=RATIO_UNIT, scale="ratio",
        )  # fmt: skip
        gates = [self._gate(bench, case, cast, _Target(retained, Texts(cohort="retain"), "key"))]
        if case.has(Texts(cohort="general")):
            general = retained._replace(
                name="general", statistic="the suspect's probability of the tokens of general text, relative to base"
            )
            gates.append(self._gate(bench, case, cast, _Target(general, Texts(cohort="general"), "answer")))
        parts, note = self._tofu_parts(bench, case, cast), _tofu_note(case)
        gates[0] = gates[0].model_copy(update={"readings": gates[0].readings | parts, "notes": (*gates[0].notes, note)})
        return tuple(gates)

    def _gate(self, bench: Bench, case: OpenCase, cast: CaseModels, target: _Target) -> Measurement:
        """Suspect over base, means of people's means, with an interval over people."""
        naming, texts, at = target
        sheet, read, seed = person_rows_of(case, texts), BY_POSITION[at], case.case.seed
        scores = {
            name: np.exp(row_means(bench.run(checkpoint, sheet.rows, (read,))[read], sheet.rows, at))[:, None]
            for name, checkpoint in cast.by_name().items()
        }
        scored = by_person(sheet, scores)
        base, suspect = scored.people["base"], scored.people["suspect"]
        readings = {f"mean_{name}": float(x.mean()) for name, x in scored.people.items()}
        table = item_table(case, f"utility_{naming.name}", sheet, scores, {name: cast.role(name) for name in scores})
        if not len(base) or base.mean() <= 0:
            reason = "base itself gives these items no probability" if len(base) else "no item could be scored"
            return blank(naming, reason, scored.n, len(base), seed).model_copy(update={"items": table})
        control = scored.people.get("null")
        return blank(naming, "", scored.n, len(base), seed).model_copy(
            update={
                "value": float(suspect.mean() / base.mean()), "ci95": interval(suspect, base, seed),
                "p": RATIO_NULL, "p_below": RATIO_NULL, "null": RATIO_NULL, "floor": RATIO_NULL,
                "positive_control": Missing(missing="no reference and no ancestor") if control is None else Control(
                    value=float(control.mean() / base.mean()), ci95=Missing(missing="shown for comparison"),
                    found=bool(control.mean() >= base.mean() / 2),
                ),
                "items": table, "readings": readings,
            }
        )  # fmt: skip

    def _tofu_parts(self, bench: Bench, case: OpenCase, cast: CaseModels) -> dict[str, float]:
        """TOFU's parts on retained facts, on all answer tokens as published; ROUGE needs generation and is left out."""
        parts: dict[str, float] = {}
        for name, checkpoint in (("base", cast.base), ("suspect", cast.suspect)):
            parts[f"tofu_probability_{name}"] = float(np.nanmean(_answer_probability(bench, case, checkpoint)))
            losses = variant_losses(bench, case, checkpoint, Texts(cohort="retain"), "answer")
            if losses is not None:
                ratio = tofu.truth_ratio(losses.paraphrased, losses.perturbed)
                parts[f"tofu_truth_ratio_{name}"] = tofu.aggregate_truth_ratio(ratio[np.isfinite(ratio)], "true_better")
        for name in ("base", "suspect"):
            both = [parts[k] for k in (f"tofu_probability_{name}", f"tofu_truth_ratio_{name}") if k in parts]
            if len(both) == 2:
                parts[f"tofu_utility_without_rouge_{name}"] = stats.harmonic_mean(np.array(both))
        return {key: value for key, value in parts.items() if np.isfinite(value)}


def _tofu_note(case: OpenCase) -> str:
    """What the readings that begin with ``tofu`` are."""
    absent = without_variants(case, retain := Texts(cohort="retain"))
    ratio = absent or f"the truth ratio has every perturbed answer ({perturbed_answers(case, retain)} an item)"
    return f"tofu: by the published formulas, on all answer tokens; {ratio}"


def _answer_probability(bench: Bench, case: OpenCase, checkpoint: Checkpoint) -> Float[ndarray, " row"]:
    rows = case.rows(Texts(cohort="retain"))
    return np.exp(row_means(bench.run(checkpoint, rows, (ANSWER_LOGPROB,))[ANSWER_LOGPROB], rows, "answer"))
