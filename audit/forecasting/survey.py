"""Base asked everything that a forecast needs: predictors, circuits twice, and pilots if wanted; stage by stage."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.bench import Bench
from audit.case import OpenCase, Rows, row_means, stacked
from audit.circuits import (
    KEY,
    AttributionSettings,
    CircuitRows,
    Material,
    OtherRows,
    Predictors,
    Stage,
    circuit_size,
    jaccard,
    kept_circuits,
    predictors,
    top_n,
)
from audit.forecasting.pilot import UNKNOWN_LEVEL, Rowsets, Watched, pilot
from audit.forecasting.stages import Arrays, Stages
from audit.schema import Checkpoint, Item, Missing, Number, Stability, Texts

RETAINED = 160
"""At most so many retained rows are asked for circuits and gradients, spread over their groups."""
STABLE = 0.6
STAGES = ("outputs", "gradients", "circuits", "retained circuits", "other words", "other partners", "mean states")


class ForecastRows(NamedTuple):
    """The rows of a forecast, and their items."""

    forget: Rows
    forget_items: tuple[Item, ...]
    retain: Rows
    retain_items: tuple[Item, ...]


class Surveyed(NamedTuple):
    """Everything that base, and its pilots, said."""

    rows: ForecastRows
    predictors: Predictors
    stability: Stability
    pilots: dict[str, Watched]


def rows_of(case: OpenCase) -> ForecastRows:
    """All trained forget rows, and a spread of the retained ones: nothing is fitted on them, so nobody is set aside."""
    forget, retain = Texts(cohort="forget"), Texts(cohort="retain")
    retained = case.items(retain, "all")
    chosen = np.random.default_rng(case.case.seed).permutation(len(retained))[:RETAINED]
    rows = case.rows(retain, "all").take(torch.from_numpy(np.sort(chosen)))
    return ForecastRows(
        case.rows(forget, "all"), case.items(forget, "all"), rows, tuple(retained[i] for i in np.sort(chosen).tolist())
    )


def survey(bench: Bench, case: OpenCase, stages: Stages, pilots: tuple[str, ...]) -> Surveyed:
    """Run all stages."""
    rows, base = rows_of(case), case.base
    others = _others(case)
    measured = predictors(bench, base, Material(*rows, others, stages.keep))
    return Surveyed(
        rows, measured, _stability(bench, base, rows, (measured, stages)), _pilots(bench, case, rows, (pilots, stages))
    )


def _others(case: OpenCase) -> OtherRows | None:
    """Rows that ask for the same facts in other words."""
    texts = [Texts(cohort="forget", form=form) for form in case.forms("held_out")]
    present = [t for t in texts if case.has(t, "all")]
    if not present:
        return None
    rows = stacked([case.rows(t, "all") for t in present])
    return OtherRows(rows, tuple(i for t in present for i in case.items(t, "all")))


def _stability(bench: Bench, base: Checkpoint, rows: ForecastRows, computed: tuple[Predictors, Stages]) -> Stability:
    """The gate: other partners, and mean states, must give nearly the same circuits."""
    measured, stages = computed
    circuits, graph = measured.circuits, measured.circuits.graph
    n = circuit_size(int(graph.exists.sum()))
    mine = top_n(circuits.scores, graph, n)

    swapped = circuits.swapped.nonzero().flatten()

    def overlap(stage: str, corruption: AttributionSettings) -> Number:
        if not len(swapped):
            return Missing(missing="no item has a partner of the same template")
        attribution = CircuitRows(rows.forget.take(swapped), rows.forget, corruption)
        other = kept_circuits(bench, base, attribution, Stage(stage, stages.keep))
        return float(np.median(jaccard(mine[swapped], top_n(other.scores, graph, n)).numpy()))

    partners, corruptions = (
        overlap("other partners", AttributionSettings(seed=1)),
        overlap("mean states", AttributionSettings(means=True)),
    )
    return Stability(
        edges=n, partners=partners, corruptions=corruptions, swapped=len(swapped),
        completeness_gap=circuits.gap,
        passed=all(not isinstance(x, Missing) and x >= STABLE for x in (partners, corruptions)),
    )  # fmt: skip


def _pilots(
    bench: Bench, case: OpenCase, rows: ForecastRows, pilot_stages: tuple[tuple[str, ...], Stages]
) -> dict[str, Watched]:
    names, stages = pilot_stages
    watched: dict[str, Watched] = {}
    general = Texts(cohort="general")
    for name in names:

        def compute(name: str = name) -> Arrays:
            text = case.rows(general, "all") if case.has(general, "all") else None
            data = Rowsets(rows.forget, rows.retain, text, never_trained(bench, case, rows.forget))
            steps, lost, damage = pilot(bench, case.base, name, data, case.out)
            return {"steps": steps, "share_lost": np.array(lost), "damage": damage}

        arrays = stages.keep(f"pilot {name}", compute)
        watched[name] = Watched(arrays["steps"], float(arrays["share_lost"]), arrays["damage"])
    return watched


def never_trained(bench: Bench, case: OpenCase, rows: Rows) -> Float[ndarray, " item"]:
    """The probability of each row's content in the ancestor; a fixed level where the case names none."""
    if case.ancestor is None:
        return np.full(len(rows), UNKNOWN_LEVEL)
    logprob = bench.run(case.ancestor, rows, (KEY,))[KEY]
    return np.exp(row_means(logprob, rows))
