"""Wrong answers to the same questions: what a score of the true answer is set against, item by item."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import OpenCase, Rows, Texts, aligned, variants

NO_WRONG = "no item has alternates or perturbed answers to compare the true answer with"


def wrong_rows(case: OpenCase, texts: Texts, most: int) -> list[tuple[Rows, list[str]]]:
    """At most so many never-trained answers of each item, as rows and in words: alternates; where no item has any,
    perturbed answers."""
    by_id = {item.id: item for item in case.items(texts)}
    for answer in ("alternate", "perturbed"):
        result = variants(case, texts.model_copy(update={"answer": answer}), most)
        if result:
            items = [[by_id[name] for name in rows.item_ids] for rows in result]
            report_text = [
                [(i.alternates if answer == "alternate" else i.perturbed_answers)[n] for i in each]
                for n, each in enumerate(items)
            ]
            return list(zip(result, report_text, strict=True))
    return []


def over_wrong(
    own: Float[ndarray, " row"], ids: Sequence[str], others: Sequence[tuple[Float[ndarray, " other"], Sequence[str]]]
) -> Float[ndarray, " row"]:
    """Each item's score less the mean of the scores of its wrong answers; NaN for an item that has none."""
    each = np.stack([aligned(values, label, ids) for values, label in others])
    has = ~np.isnan(each)
    mean = np.where(has, each, 0.0).sum(0) / np.maximum(has.sum(0), 1)
    return np.where(has.any(0), own - mean, np.nan)
