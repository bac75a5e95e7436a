"""Faithfulness: does a metric tell models that know from models that do not, and does it rise with what is known?"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy import stats as scipy_stats

from audit import stats
from audit.calibration import ScoredModel
from audit.stats import Area, Gap, clustered_auroc, difference
from studies.faithfulness.contrasts import CONTRASTS, EVERYTHING, PUBLISHED, Contrast, Held, Table, counted, held
from studies.faithfulness.metrics import METRICS, UDS

SEED = 41
DIGITS = 4


# ---- one metric ---------------------------------------------------------------------------------------------------
def rounded(x: float) -> float:
    """Four decimals: what a results file keeps."""
    return round(float(x), DIGITS)


def area_row(area: Area, compared: Held) -> dict[str, object]:
    """An AUROC with its interval, its counts, and the models that had no number."""
    worlds = len(np.unique(compared.data.cluster))
    return {
        "auc": rounded(area.auc), "lo": rounded(area.ci95.lo), "hi": rounded(area.ci95.hi),
        "approximate": area.approximate, "knowing": int(compared.data.knows.sum()),
        "clean": int((~compared.data.knows).sum()), "worlds": worlds, "missing": counted(compared.absent),
    }  # fmt: skip


def gap_row(gap: Gap, compared: Held, against: str) -> dict[str, object]:
    """A paired difference of two AUROCs: this metric's less the other's."""
    return {
        "against": against, "gap": rounded(gap.gap), "lo": rounded(gap.ci95.lo), "hi": rounded(gap.ci95.hi),
        "bootstrap_lo": rounded(gap.bootstrap95.lo), "bootstrap_hi": rounded(gap.bootstrap95.hi),
        "p": float(f"{gap.p:.3g}"), "models": len(compared.row), "missing": counted(compared.absent, 0),
    }  # fmt: skip


def faithful(levels: Table, contrast: Contrast) -> dict[str, dict[str, object]]:
    """Every metric's AUROC on a contrast, and its difference from the depth score and from the best, paired.

    The best is chosen by the same numbers, so that the difference from it is described, and only p of the difference
    from the depth score is adjusted (Holm, over the metrics).
    """
    by_metric = {metric.key: held(levels, contrast, [metric.key]) for metric in METRICS}
    areas = {key: clustered_auroc(compared.data, SEED) for key, compared in by_metric.items()}
    best = max(areas, key=lambda key: areas[key].auc)
    rows = {key: area_row(areas[key], by_metric[key]) for key in areas}
    others = [key for key in areas if key != UDS]
    raw: list[float] = []
    for key in areas:
        for name, other in (("versus_depth_score", UDS), ("versus_best", best)):
            if key == other:
                continue
            both = held(levels, contrast, [key, other])
            gap = difference(both.data, levels.levels[other][both.row], SEED)
            rows[key][name] = gap_row(gap, both, other)
            if other == UDS and name == "versus_depth_score":
                raw.append(gap.p)
    for key, p in zip(others, stats.holm(np.array(raw)), strict=True):
        rows[key]["p_holm"] = float(f"{p:.3g}")
    return rows


# ---- where it fails -----------------------------------------------------------------------------------------------
def cut(level: Float[ndarray, " model"], knows: Bool[ndarray, " model"]) -> float:
    """The level above which a model counts as knowing: that of the largest share found less share alarmed.

    Half-way between two levels that occur; the lowest of equally good cuts. Source: arXiv 2506.12618, section 4.
    """
    values = np.unique(level)
    cuts = np.concatenate([[values[0] - 1.0], (values[1:] + values[:-1]) / 2])
    above = level[:, None] > cuts
    return float(cuts[(above[knows].mean(0) - above[~knows].mean(0)).argmax()])


def cuts(levels: Table) -> dict[str, float]:
    """Every metric's cut on the published convention."""
    thresholds: dict[str, float] = {}
    for metric in METRICS:
        data = held(levels, PUBLISHED, [metric.key]).data
        thresholds[metric.key] = cut(data.score, data.knows)
    return thresholds


def _kind(model: ScoredModel) -> str:
    return f"dose {model.kept}" if model.mechanism == "dose" else model.mechanism


def by_mechanism(levels: Table, at: Mapping[str, float]) -> dict[str, dict[str, dict[str, dict[str, object]]]]:
    """Metric -> pool -> mechanism: how many models lie above the cut, and (knowing) the AUROC against all clean models.

    Above is right for a knowing model, wrong for a clean one and for one that was unlearned on facts it did not know.
    """
    counts: dict[str, dict[str, dict[str, dict[str, object]]]] = {}
    clean = levels.where(EVERYTHING.clean)
    kinds = np.array([_kind(model) for model in levels.models], dtype=object)
    pools = np.array([model.pool for model in levels.models], dtype=object)
    for metric in METRICS:
        level = levels.levels[metric.key]
        measured = np.isfinite(level)
        for pool in ("knowing", "clean", "edited clean"):
            by_kind = counts.setdefault(metric.key, {}).setdefault(pool, {})
            for kind in sorted(set(kinds[pools == pool])):
                chosen = (kinds == kind) & (pools == pool)
                scores = level[chosen & measured]
                row: dict[str, object] = {
                    "above": int((scores > at[metric.key]).sum()), "of": len(scores),
                    "missing": int((chosen & ~measured).sum())
                }  # fmt: skip
                if pool == "knowing" and len(scores):
                    row["auc"] = rounded(stats.auroc(scores, level[clean & measured]))
                by_kind[kind] = row
    return counts


# ---- doses --------------------------------------------------------------------------------------------------------
class Ordered(NamedTuple):
    """Mean over worlds of Spearman's rho between people kept and a metric, a t-interval over worlds, every world's."""

    rho: float
    lo: float
    hi: float
    by_world: Mapping[int, float]


def _dosed(model: ScoredModel) -> bool:
    return model.mechanism in ("dose", "retrain")


def _spearman(people_kept: Sequence[int], level: Float[ndarray, " model"]) -> float:
    """The correlation of midranks; 0 where the metric does not move."""
    if np.ptp(level) == 0:
        return 0.0
    return float(np.corrcoef(scipy_stats.rankdata(people_kept), scipy_stats.rankdata(level))[0, 1])


def doses(levels: Table, key: str) -> Ordered | None:
    """Does the metric rise with the number of audited people kept, within a world? None where no world has doses.

    A world's retrained model is its dose 0; base is left out, which is 1 by the definition of an effect.
    """
    rows = np.flatnonzero(levels.where(_dosed) & np.isfinite(levels.levels[key]))
    by_world: dict[int, float] = {}
    for world in dict.fromkeys(int(w) for w in levels.world[rows]):
        own = [row for row in rows if levels.world[row] == world]
        people_kept = [levels.models[row].kept for row in own]
        if len(set(people_kept)) >= 3:
            by_world[world] = _spearman(people_kept, levels.levels[key][own])
    if len(by_world) < 2:
        return None
    rho = np.array(list(by_world.values()))
    half = float(scipy_stats.t.ppf(0.975, len(rho) - 1) * rho.std(ddof=1) / np.sqrt(len(rho)))
    mean = float(rho.mean())
    return Ordered(mean, max(mean - half, -1.0), min(mean + half, 1.0), by_world)


# ---- all of it ----------------------------------------------------------------------------------------------------
def scores_part(levels: Table, worlds: Sequence[int]) -> dict[str, object]:
    """Everything that the committed scores say, as it stands in results.json."""
    at = cuts(levels)
    rhos = {metric.key: doses(levels, metric.key) for metric in METRICS}
    return {
        "seed": SEED,
        "worlds": list(worlds),
        "models": len(levels.models),
        "contrasts": {c.key: {"words": c.words, "metrics": faithful(levels, c)} for c in CONTRASTS},
        "cuts": {key: float(f"{value:.5g}") for key, value in at.items()},
        "mechanisms": by_mechanism(levels, at),
        "doses": {
            key: None if o is None else {
                "rho": rounded(o.rho), "lo": rounded(o.lo), "hi": rounded(o.hi),
                "by_world": {str(world): rounded(rho) for world, rho in o.by_world.items()},
            }
            for key, o in rhos.items()
        },
        "missing": {metric.key: counted(levels.absent[metric.key]) for metric in METRICS},
    }  # fmt: skip
