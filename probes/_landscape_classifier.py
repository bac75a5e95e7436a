"""The published classifier of landscapes, and the same classifier on texts that no model has seen."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import (
    Bench,
    Checkpoint,
    Count,
    Measurement,
    Missing,
    Naming,
    OpenCase,
    Part,
    Texts,
    blank,
    clustered,
    stats,
)
from probes._landscape import Draw, curvature, embeddings, features, landscape, nearest_tokens, neighbours

COHORTS = ("retain", "forget", "holdout")
DIRECTIONS = 8
KINDS = ("forest", "logistic")
NAMING = Naming(
    probe="remind_landscape", name="classifier", kind="context", mode="paper",
    statistic="AUROC of forget against holdout items by the published features, people left out in turn",
    unit="AUROC", scale="probability",
)  # fmt: skip
BASELINE = (
    "The baseline sees the texts alone (length, replaced words, the table's distances). Without a difference whose "
    "interval lies above 0 the classifier may be reading topic or format, and no claim is made."
)


class Settings(NamedTuple):
    """How neighbours are drawn."""

    many: int
    nearest: int
    share: float


class Table(NamedTuple):
    """Features of all items of the three cohorts, what the texts alone give, class and person of each."""

    seen: Float[ndarray, "item feature"]
    bare: Float[ndarray, "item other"]
    cohort: Int[ndarray, " item"]
    person: Int[ndarray, " item"]


class Scores(NamedTuple):
    """Left-out probability of every class, by the model's features and by the baseline's."""

    seen: Float[ndarray, "item cohort"]
    bare: Float[ndarray, "item cohort"]


def passes(case: OpenCase, count: int) -> int:
    """Tokens of all items of the three cohorts in every neighbour and direction, for two models."""
    tokens = sum(int(case.rows(Texts(cohort=c)).mask.sum()) for c in COHORTS if case.has(Texts(cohort=c)))
    return 2 * tokens * (2 + count + 2 * DIRECTIONS)


def classified(bench: Bench, case: OpenCase, settings: Settings) -> tuple[Measurement, ...]:
    """The classifier on the suspect, by random forest and by logistic regression, each beside its baseline."""
    wanted = [c for c in COHORTS if case.has(Texts(cohort=c))]
    n = Count(scored=0, unscored=len(case.rows(Texts(cohort="forget"))))
    if len(wanted) < 3:
        return (blank(NAMING, "needs retained and holdout people", n, 0, case.case.seed),)
    table = described(bench, case, case.suspect, settings)
    return tuple(measured(case, table, kind) for kind in KINDS)


def described(bench: Bench, case: OpenCase, model: Checkpoint, settings: Settings, part: Part = "audit") -> Table:
    """All items of the three cohorts as one model's landscapes describe them; neighbours are base's."""
    embedded = embeddings(bench, case.base)
    near = nearest_tokens(embedded, case.tokenizer, settings.nearest)
    seen: list[ndarray] = []
    bare: list[ndarray] = []
    cohort: list[int] = []
    person: list[str] = []
    for number, name in enumerate(COHORTS):
        rows = case.rows(Texts.model_validate({"cohort": name}), part)
        drawn = neighbours(rows, near, embedded, Draw(settings.many, settings.share, case.case.seed))
        columns = features(landscape(bench, model, rows, drawn), drawn)
        bent, slope = curvature(bench, model, rows, DIRECTIONS, case.case.seed)
        seen.append(np.concatenate([columns, bent[:, None], slope[:, None]], 1))
        count, distance = drawn.replaced.sum(-1).double().numpy(), drawn.distance.double().numpy()
        length = (rows.answer_spans[:, 1] - rows.answer_spans[:, 0]).double().numpy()
        text = [
            rows.lengths.double().numpy(),
            length,
            count.mean(1),
            distance.mean(1),
            distance.std(1),
            _zipped(rows.ids),
        ]
        bare.append(np.stack(text, 1))
        cohort += [number] * len(rows)
        person += list(rows.group_ids)
    return Table(
        np.concatenate(seen), np.concatenate(bare), np.array(cohort), np.unique(person, return_inverse=True)[1]
    )


def _zipped(ids: Int[Tensor, "row pos"]) -> Float[ndarray, " row"]:
    """Bytes of each row's tokens after compression: repetition and nothing else."""
    import zlib

    return np.array([len(zlib.compress(np.asarray(row, dtype=np.int32).tobytes())) for row in np.asarray(ids)], float)


def left_out(table: Table, kind: str, seed: int, repeats: int = 5) -> Scores:
    """Probabilities of the three classes with whole people left out: five folds, repeated; depth or penalty is chosen
    inside each fold by people left out there."""
    probability = [np.zeros((len(table.cohort), 3)), np.zeros((len(table.cohort), 3))]
    for repeat in range(repeats):
        for fold in _folds(table, seed + repeat):
            for side, x in enumerate((table.seen, table.bare)):
                fitted = _chosen(kind, table, x, ~fold, seed + repeat)
                probability[side][fold] += fitted.predict_proba(x[fold]) / repeats
    return Scores(*probability)


def _folds(table: Table, seed: int, parts: int = 5) -> list[ndarray]:
    """Masks of items to leave out: people of every class are dealt to the parts."""
    rng, part = np.random.default_rng(seed), np.zeros(int(table.person.max()) + 1, int)
    for cohort in range(3):
        people = rng.permutation(np.unique(table.person[table.cohort == cohort]))
        part[people] = np.arange(len(people)) % parts
    return [part[table.person] == p for p in range(parts)]


def _chosen(kind: str, table: Table, x: Float[ndarray, "item _"], train: ndarray, seed: int) -> Any:
    """A classifier fitted on the items that are kept, its setting chosen by people left out among them.

    Three classes with balanced weights, as published: neither of our logistic regressions, which know two, fits them.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    inner = StratifiedGroupKFold(3, shuffle=True, random_state=seed % 2**32)
    if kind == "forest":
        model = RandomForestClassifier(60, random_state=seed % 2**32, class_weight="balanced")
        grid: Mapping[str, list[object]] = {"max_depth": [3, None]}
    else:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
        grid = {"logisticregression__C": [0.03, 1.0]}
    return GridSearchCV(model, dict(grid), cv=inner, scoring="roc_auc_ovr").fit(
        x[train], table.cohort[train], groups=table.person[train]
    )


def aurocs(scores: Float[ndarray, "item cohort"], cohort: Int[ndarray, " item"]) -> dict[str, float]:
    """One against the rest for every class, their mean, and forget against holdout alone."""
    by_class = {name: stats.auroc(scores[cohort == k, k], scores[cohort != k, k]) for k, name in enumerate(COHORTS)}
    odds = scores[:, 1] / np.maximum(scores[:, 1] + scores[:, 2], 1e-12)
    return by_class | {
        "mean": float(np.mean(list(by_class.values()))),
        "forget_holdout": stats.auroc(odds[cohort == 1], odds[cohort == 2]),
    }


def measured(case: OpenCase, table: Table, kind: str) -> Measurement:
    """One classifier beside its baseline: areas for every class, and the paired difference for forget and holdout."""
    seed = case.case.seed
    scores = left_out(table, kind, seed)
    mine, plain = aurocs(scores.seen, table.cohort), aurocs(scores.bare, table.cohort)
    pair = table.cohort > 0
    odds = [s[pair, 1] / np.maximum(s[pair, 1] + s[pair, 2], 1e-12) for s in scores]
    people = table.person[pair]
    data = clustered.labelled(odds[0].tolist(), (table.cohort[pair] == 1).tolist(), people.tolist())
    gap = clustered.difference(data, odds[1], seed)
    readings = {f"auroc_{name}": value for name, value in mine.items()}
    readings |= {f"baseline_{name}": value for name, value in plain.items()}
    comparison = {
        "difference": gap.gap,
        "difference_lo": gap.ci95.lo,
        "difference_hi": gap.ci95.hi,
        "p_difference": gap.p,
    }
    n = Count(scored=len(table.cohort))
    naming = NAMING._replace(name=f"classifier_{kind}")
    missing = Missing(missing="an AUROC beside a baseline; the difference has the interval")
    return blank(naming, missing.missing, n, len(np.unique(table.person)), seed).model_copy(
        update={
            "value": mine["forget_holdout"], "readings": readings | comparison,
            "notes": (BASELINE,),
        }
    )  # fmt: skip
