"""What a model's outputs give to the facts of one set of texts: four scores an item, for every model of a case."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.bench import Bench
from audit.case import OpenCase, row_means
from audit.probing.case_models import CaseModels
from audit.probing.effects import Panel, Sides
from audit.probing.person_scores import (
    ANSWER_LOGPROB,
    KEY_LOGPROB,
    KEY_RANK,
    ModelScores,
    PersonRows,
    aligned,
    person_rows_of,
    variants,
)
from audit.schema import Checkpoint, Positions, Read, Texts
from audit.stats import tofu

BY_POSITION: dict[Positions, Read] = {"key": KEY_LOGPROB, "answer": ANSWER_LOGPROB}
Table1 = Mapping[str, Float[ndarray, "row 1"]]


class Losses(NamedTuple):
    """Mean negative log-likelihoods (nats a token) of the paraphrased and the perturbed answers of the same items.

    ``perturbed`` is one column: the mean over those perturbed answers that the item has, NaN where it has none.
    """

    paraphrased: Float[ndarray, " row"]
    perturbed: Float[ndarray, "row 1"]


class Outputs(NamedTuple):
    """Item scores of one set of texts: statistic -> model -> [row 1]."""

    sheet: PersonRows
    by_statistic: Mapping[str, Table1]


def without_variants(case: OpenCase, texts: Texts) -> str:
    """Why these texts have no truth ratio, or an empty string."""
    paraphrased, perturbed = (
        case.has(texts.model_copy(update={"answer": answer})) for answer in ("paraphrased", "perturbed")
    )
    if paraphrased and perturbed:
        return ""
    if perturbed:
        return "a truth ratio needs a paraphrased answer, and the items have perturbed answers alone"
    has = "a paraphrased answer alone" if paraphrased else "neither"
    return f"a truth ratio needs a paraphrased and perturbed answers, and the items have {has}"


def perturbed_answers(case: OpenCase, texts: Texts) -> str:
    """How many perturbed answers an item has, in words: from the fewest to the most, of the items that have any."""
    counts = [len(item.perturbed_answers) for item in case.items(texts) if item.perturbed_answers]
    fewest, most = min(counts, default=0), max(counts, default=0)
    return f"{most}" if fewest == most else f"{fewest} to {most}"


def variant_losses(
    bench: Bench, case: OpenCase, checkpoint: Checkpoint, texts: Texts, at: Positions, most: int | None = None
) -> Losses | None:
    """Losses of paraphrased and perturbed answers in the order of the items; None where the data has either not.

    All perturbed answers are read, or an item's first ``most``; each item's mean is over those that it has.
    """
    read, ids = BY_POSITION[at], case.rows(texts).item_ids
    by_variant = [
        variants(case, texts.model_copy(update={"answer": answer}), up_to)
        for answer, up_to in (("paraphrased", 1), ("perturbed", most))
    ]
    if not all(by_variant):
        return None
    both = (KEY_LOGPROB, ANSWER_LOGPROB)
    done = bench.run_together(checkpoint, [(rows, both) for each in by_variant for rows in each])
    # by variant: the loss of every item, and whether the item has this variant
    losses = [
        (-aligned(row_means(each[read], each.rows, at), each.rows.item_ids, ids), np.isin(ids, each.rows.item_ids))
        for each in done
    ]
    (paraphrased, _), perturbed = losses[0], losses[1:]
    # A variant that an item has and a model gives no number for makes the item's mean NaN: it is not passed over.
    total = sum(np.where(has, loss, 0.0) for loss, has in perturbed)
    count = sum(has.astype(float) for _, has in perturbed)
    return Losses(paraphrased, np.where(count > 0, total / np.maximum(count, 1.0), np.nan)[:, None])


def alternate_probability(
    bench: Bench, case: OpenCase, checkpoint: Checkpoint, texts: Texts, most: int
) -> Float[ndarray, " row"] | None:
    """Mean probability of never-trained values of the same attribute in the same answer, else of perturbed answers;
    None without either."""
    rows = variants(case, texts.model_copy(update={"answer": "alternate"}), most)
    rows = rows or variants(case, texts.model_copy(update={"answer": "perturbed"}), most)
    ids = case.rows(texts).item_ids
    probabilities = [
        aligned(np.exp(row_means(done[KEY_LOGPROB], done.rows)), done.rows.item_ids, ids)
        for done in bench.run_together(checkpoint, [(r, (KEY_LOGPROB,)) for r in rows])
    ]
    return np.nanmean(np.stack(probabilities), 0) if probabilities else None


def _scores(bench: Bench, checkpoint: Checkpoint, sheet: PersonRows) -> dict[str, ndarray]:
    rows = sheet.rows
    read = bench.run(checkpoint, rows, (KEY_LOGPROB, KEY_RANK))
    row, correct = rows.targets("key")[0].numpy(), read[KEY_RANK].numpy() == 0
    return {
        "probability": np.exp(row_means(read[KEY_LOGPROB], rows)),
        "extraction_strength": tofu.extraction_strength(correct, row, len(rows)),
        "exact_memorisation": tofu.exact_memorisation(correct, row, len(rows)),
    }


def outputs_of(bench: Bench, case: OpenCase, cast: CaseModels, texts: Texts, most: int) -> Outputs:
    """All scores of these texts in every model, on content tokens, with at most ``most`` perturbed answers an item.

    The truth ratio is there only where the items have variants; it is our own, not the published one.
    """
    sheet = person_rows_of(case, texts)
    by_statistic: dict[str, dict[str, ndarray]] = {}
    for name, checkpoint in cast.by_name().items():
        scores = _scores(bench, checkpoint, sheet)
        losses = variant_losses(bench, case, checkpoint, texts, "key", most) if texts.form == "trained" else None
        if losses is not None:
            scores["truth_ratio"] = tofu.knowledge_truth_ratio(losses.paraphrased, losses.perturbed)
        for statistic, values in scores.items():
            by_statistic.setdefault(statistic, {})[name] = values[:, None]
    return Outputs(sheet, by_statistic)


def panel_of(forget: ModelScores, holdout: ModelScores | None) -> Panel:
    """The panel of named models; without a model that never knew, the null is zero everywhere."""

    def sides(name: str) -> Sides:
        return Sides(forget.people[name], None if holdout is None else holdout.people[name])

    base = sides("base")
    zero = Sides(np.zeros_like(base.forget), None if base.holdout is None else np.zeros_like(base.holdout))
    floors = tuple(sides(name) for name in forget.people if name.startswith("floor"))
    null = sides("null") if "null" in forget.people else zero
    return Panel(sides("suspect"), base, null, floors, forget.groups)
