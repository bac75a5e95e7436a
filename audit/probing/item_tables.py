"""Item scores as they stand beside the report."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.case import OpenCase
from audit.probing.person_scores import PersonRows
from audit.schema import Table


def item_table(
    case: OpenCase,
    name: str,
    sheet: PersonRows,
    scores: Mapping[str, Float[ndarray, "row place"]],
    roles: Mapping[str, str],
    axis: str = "",
) -> Table:
    """Write item scores beside the report: one line per item, model and place on the axis.

    ``axis`` names what the columns of the scores are (a layer, a site, a precision); without one they are one column,
    and its place is -1.

    Items that a model could not score are left out here and counted in the measurement.
    """
    assert axis or all(score.shape[1] == 1 for score in scores.values()), "several scores of an item lie on an axis"
    ids, groups = list(sheet.rows.item_ids), list(sheet.rows.group_ids)
    fixed = [(i, g, s.question, s.key or s.answer) for i, g, s in zip(ids, groups, sheet.items, strict=True)]
    lines = [
        (
            *fixed[row][:2],
            roles[model],
            *fixed[row][2:],
            "",
            float(score[row, place]),
            place if axis else -1,
        )
        for model, score in scores.items()
        for place in range(score.shape[1])
        for row in np.flatnonzero(np.isfinite(score[:, place])).tolist()
    ]
    names = ("item", "group", "role", "prompt", "target", "output", "score", "axis_value")
    columns = {name: [line[i] for line in lines] for i, name in enumerate(names)}
    return case.write_table(name, columns, axis)
