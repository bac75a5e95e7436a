"""Which facts are hard to unlearn, and can base alone tell? ``python -m studies.difficulty.study`` measures and tells.

Writes results.json here and the fitted forecast beside the code that uses it. ``--work`` keeps what is measured, so
that a killed study goes on; ``--stories`` names a folder with the story model taught TOFU authors (studies/tofu_stories
makes it) for its faithfulness curve.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from audit.forecasting import FITTED, Fitted, normal_scores
from audit.schema import Missing
from audit.stats import significant
from audit.storage import write_atomic
from studies.difficulty import page
from studies.difficulty.faithful import of_stories, of_world
from studies.difficulty.fit import fit, interval
from studies.difficulty.measure import Measured, measure
from studies.difficulty.results import Claim, CudRow, PredictorRow, Results, Value
from studies.difficulty.tables import (
    ALL,
    BASELINE,
    TARGETS,
    Anchored,
    Estimate,
    Held,
    Runs,
    Values,
    agreement,
    blocks,
    by_other_methods,
    by_other_seeds,
    correlation,
    cud_of,
    difficulty,
    features,
    gain,
    halves,
    mean,
    partial,
    permuted,
    rho,
)
from studies.difficulty.truth import METHODS, SEEDS
from studies.difficulty.worlds import WORLDS
from studies.provenance import stamp

HERE = Path(__file__).parent
CUDS = (
    Anchored(), Anchored(part="margin"), Anchored("margin"), Anchored("published"), Anchored(mode="paper"),
    Anchored("paper"), Anchored("paper", "paper"),
)  # fmt: skip
CLAIMS = {
    "hard items have longer answers": "answer_tokens",
    "hard items have longer questions": "question_tokens",
    "hard items have longer paths": "path_length",
    "hard items have deeper circuits": "circuit_depth",
    "hard items have more of their circuit in the last third": "circuit_late",
}
log = logging.getLogger(__name__)


def value(estimate: Estimate) -> Value:
    """As a noun, to five digits."""
    lo, hi = (significant(x, 5) for x in (estimate.lo, estimate.hi))
    return Value(
        value=significant(estimate.value, 5), ci95=interval(estimate._replace(lo=lo, hi=hi)), agree=estimate.agree
    )  # fmt: skip


def of(worlds: Sequence[Measured], name: str) -> dict[int, Values]:
    """One predictor in every world."""
    return {w.number: w.arrays[f"p_{name}"] for w in worlds}


def predictor_rows(worlds: Sequence[Measured]) -> tuple[PredictorRow, ...]:
    """The validation table."""
    targets = {t: {w.number: difficulty(w, ALL, t) for w in worlds} for t in (*TARGETS, "all")}
    left = {w.number: partial(w, targets["all"][w.number]) for w in worlds}
    base = {w.number: features(w, BASELINE) for w in worlds}
    rows: list[PredictorRow] = []
    for name in [key[2:] for key in worlds[0].arrays if key.startswith("p_")]:
        mine = of(worlds, name)
        own = {w.number: partial(w, mine[w.number]) for w in worlds}
        wider = {w.number: features(w, BASELINE, (mine[w.number],)) for w in worlds}
        inside = name in BASELINE
        itself = Missing(missing="it is what the others are compared with")
        rows.append(
            PredictorRow(
                name=name, spearman={t: value(correlation(worlds, mine, y)) for t, y in targets.items()},
                p=permuted(worlds, mine, targets["all"], 0),
                partial=itself if inside else value(correlation(worlds, own, left)),
                partial_p=itself if inside else permuted(worlds, own, left, 0),
                r2_gain=itself if inside else value(gain(worlds, base, wider, targets["all"])),
            )
        )  # fmt: skip
        log.info("%s: %.2f", name, rows[-1].spearman["all"].value)
    return tuple(rows)


def cud_row(worlds: Sequence[Measured], anchoring: Anchored) -> CudRow:
    """CUD in one mode, and with labels that mean nothing."""

    def by_methods(w: Measured, labelled: Measured) -> list[Held]:
        return by_other_methods(w, lambda runs: cud_of(labelled, runs, anchoring))

    base = {w.number: features(w, BASELINE) for w in worlds}
    target = {w.number: difficulty(w) for w in worlds}
    mine = {w.number: np.mean([held.predicted for held in by_methods(w, w)], 0) for w in worlds}
    wider = {w.number: features(w, BASELINE, (mine[w.number],)) for w in worlds}

    def own(w: Measured) -> list[Held]:
        return [Held(cud_of(w, ALL, anchoring), difficulty(w))]

    row = CudRow(
        **anchoring._asdict(), other_methods=value(agreement(worlds, lambda w: by_methods(w, w))),
        other_seeds=value(agreement(worlds, lambda w: by_other_seeds(w, lambda runs: cud_of(w, runs, anchoring)))),
        r2_gain=value(gain(worlds, base, wider, target)),
        shuffled=value(agreement(worlds, lambda w: by_methods(w, shuffled(w)))),
        own=value(agreement(worlds, own)), own_shuffled=value(agreement(worlds, lambda w: own(shuffled(w)))),
    )  # fmt: skip
    log.info("%s: %.2f, shuffled %.2f", anchoring, row.other_methods.value, row.shuffled.value)
    return row


def shuffled(world: Measured) -> Measured:
    """The same world with people's labels exchanged."""
    mine = blocks(world)
    order = np.empty(mine.size, dtype=int)
    order[mine.ravel()] = mine[np.random.default_rng(world.number).permutation(len(mine))].ravel()
    names = ("steps", "cost", "patch", "relearn", "left")
    moved = {
        run: label._replace(**{name: getattr(label, name)[order] for name in names})
        for run, label in world.labels.items()
    }
    return world._replace(labels=moved)


def reliability(worlds: Sequence[Measured]) -> dict[str, dict[str, Value]]:
    """How well difficulty agrees with itself, by target."""

    def by(target: str) -> dict[str, Value]:
        def own(w: Measured, runs: Runs) -> Values:
            return difficulty(w, runs, target)

        return {
            "halves of the methods": value(agreement(worlds, lambda w: halves(w, target))),
            "one method with the others": value(
                agreement(worlds, lambda w: by_other_methods(w, lambda r: own(w, r), target))
            ),
            "one seed with the other": value(
                agreement(worlds, lambda w: by_other_seeds(w, lambda r: own(w, r), target))
            ),
        }

    return {target: by(target) for target in (*TARGETS, "all")}


def of_frequency(worlds: Sequence[Measured]) -> dict[str, Value]:
    """Facts taught more often: the rank correlation, and the mean normal score by rank of the frequency."""
    target = {w.number: difficulty(w) for w in worlds}
    planted = {w.number: w.arrays["frequency"].astype(float) for w in worlds}
    by_frequency = {"spearman": value(correlation(worlds, planted, target))}
    for place, name in enumerate(("least often", "between", "most often")):

        def chosen(w: Measured, place: int = place) -> Values:
            often = w.arrays["frequency"]
            return np.where(often == np.unique(often)[place], target[w.number], np.nan)

        by_frequency[name] = value(mean(worlds, chosen))
    return by_frequency


def claims(rows: Sequence[PredictorRow]) -> tuple[Claim, ...]:
    """The published claims: easy is short and early, hard is long and late."""
    rho_of = {row.name: row.spearman["all"] for row in rows}
    return tuple(Claim(claim=c, value=rho_of[name], holds=rho_of[name].ci95.lo > 0) for c, name in CLAIMS.items())


def overlap(worlds: Sequence[Measured], name: str) -> Value:
    """The mean overlap of an item's circuits."""
    return value(mean(worlds, lambda w: w.arrays[name].astype(float)))


def completeness(worlds: Sequence[Measured], name: str) -> Value:
    """The gap of a world, averaged over worlds."""
    return value(mean(worlds, lambda w: np.full(len(w.arrays["person"]), float(w.arrays[name]))))


def entangled(worlds: Sequence[Measured]) -> dict[str, Value]:
    """Do ties to the forget set say which retained items are damaged? Spearman over retained items, mean over runs."""

    def tie(name: str) -> Value:
        def of(w: Measured) -> Values:
            each = [rho(w.arrays[name], label.damage) for label in w.labels.values()]
            return np.full(len(w.arrays["person"]), float(np.mean(each)))

        return value(mean(worlds, of))

    return {name: tie(f"e_{name}") for name in ("circuit_cosine", "gradient_cosine")} | {"one_method": pilot(worlds)}


def pilot(worlds: Sequence[Measured]) -> Value:
    """Does the damage by one method say who is damaged by the others? Mean over methods."""

    def of(w: Measured) -> Values:
        damage = {name: np.mean([w.labels[name, seed].damage for seed in SEEDS], 0) for name in METHODS}
        others = {m: np.mean([normal_scores(damage[o]) for o in METHODS if o != m], 0) for m in METHODS}
        each = [rho(damage[name], others[name]) for name in METHODS]
        return np.full(len(w.arrays["person"]), float(np.mean(each)))

    return value(mean(worlds, of))


class Analysis(NamedTuple):
    """The tables, and the forecast that was fitted on the way."""

    results: Results
    fitted: Fitted


def analyse(worlds: Sequence[Measured], stories: Path | None) -> Analysis:
    """Everything that the worlds say; ``stories``: where the story model lies, or nothing."""
    cuds = tuple(cud_row(worlds, anchoring) for anchoring in CUDS)
    ties = entangled(worlds)
    fitted, estimates, by_method = fit(worlds, cuds[0].r2_gain, ties)
    rows = predictor_rows(worlds)
    curves = (of_world(worlds[0].number), *([of_stories(stories)] if stories else []))
    overlaps: Mapping[str, str] = {"other partners": "partner_1", "mean activations": "means"}
    results = Results(
        stamp=stamp(seed=0), worlds=tuple(w.number for w in worlds), methods=METHODS, seeds=SEEDS,
        items=fitted.items, reliability=reliability(worlds), predictors=rows,
        cud=cuds,
        frequency=of_frequency(worlds), claims=claims(rows), entangled=ties,
        stability={words: overlap(worlds, f"s_{name}") for words, name in overlaps.items()},
        completeness_gap={name: completeness(worlds, f"g_{name}") for name in ("partner_0", "means")},
        forecast={name: value(estimate) for name, estimate in estimates.items()},
        forecast_by_method={name: value(estimate) for name, estimate in by_method.items()}, faithful=curves,
    )  # fmt: skip
    return Analysis(results, fitted)


def main() -> None:
    """Measure, tell, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/difficulty"), help="where what is measured is kept")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--worlds", type=int, nargs="+", default=list(WORLDS))
    parser.add_argument("--stories", type=Path, help="folder of the story model that was taught TOFU, with its data")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    results, fitted = analyse(measure(given.work, given.workers, tuple(given.worlds)), given.stories)
    write_atomic(FITTED, (fitted.model_dump_json(indent=1) + "\n").encode())
    write_atomic(HERE / "results.json", (results.model_dump_json(indent=1) + "\n").encode())
    page.update()


if __name__ == "__main__":
    main()
