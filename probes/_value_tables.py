"""What is told of value vectors beside the restoration: how they moved, what they name, and what became of their
coefficients."""

from collections.abc import Sequence
from typing import NamedTuple, SupportsFloat

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from audit.probing import (
    RATIO_UNIT,
    Count,
    Listing,
    Measurement,
    Naming,
    OpenCase,
    PersonRows,
    Rows,
    blank,
    interval,
    stats,
)
from probes._ablation import CONTROLS, Filtered, filtered
from probes._value_changes import Activated, Drift, activated, drift, peers_of
from probes._value_columns import Columns, Groups, ValueModel, Values, activity
from probes._value_scan import Concepts, Named, column_numbers, concepts_of, jaccard, mixed, seed_tokens

LISTED = 20
_ROWS_FILTERED = 16
VECTORS = Naming(
    probe="concept_vectors", name="value_vectors", kind="context",
    statistic="how far the columns that write a forget group's answers moved from base: share of columns of the same "
    "block, as long and as active, that moved less",
    unit="share of matched columns (0.5 like any)", scale="other",
)  # fmt: skip
COEFFICIENTS = Naming(
    probe="concept_vectors", name="coefficients", kind="context",
    statistic="what is left of base's coefficients of the columns that write a forget group's answers",
    unit=RATIO_UNIT, scale="ratio",
)  # fmt: skip
CONTEXT = (VECTORS, COEFFICIENTS)
COLUMNS = (
    "group", "block", "unit", "writes", "trace", "coefficient base", "coefficient suspect", "hits base", "hits suspect",
    "log10 p", "cosine", "distance", "moved more than", "ablated", "ablated matched", "carries",
)  # fmt: skip


def value_measurements(
    case: OpenCase, models: Values, forget: Groups, retain: Groups, draws: int
) -> tuple[Measurement, Measurement]:
    """The vectors, with their listing; the coefficients."""
    both = activity(models.base, forget.sheet.rows)
    drifts = [drift(models.base, models.suspect, of.columns, both) for of in (forget, retain)]
    active = [activated(models.base, models.suspect, of.sheet, of.columns) for of in (forget, retain)]
    sets, others = (seed_tokens(of.sheet, case.tokenizer) for of in (forget, retain))
    concepts = concepts_of(models.base, [*sets, *mixed(sets, others, case.case.seed)])
    scans = {name: concepts.named_in(m) for name, m in models._asdict().items() if m is not None}
    draw = (case.case.seed, draws)
    n = Count(scored=len(forget.sheet.rows))
    vectors = _compared(VECTORS, [_means(d.percentile) for d in drifts], n, draw)
    listing = _listing(case, models, forget, _Facts(concepts, scans, drifts[0], active[0], both))
    vectors = vectors.model_copy(
        update={
            "readings": vectors.readings | _moved(drifts) | _alike(models, forget.columns, concepts) | _named(scans),
            "listings": (listing,),
            "notes": (*vectors.notes, _size(concepts, scans), *_unrouted(models.base, both)),
        }
    )  # fmt: skip
    coefficients = _compared(COEFFICIENTS, [a.share.numpy().astype(float) for a in active], n, draw)
    traces = {
        f"trace_{name}": float(activated(models.base, m, forget.sheet, forget.columns).trace.mean())
        for name, m in models._asdict().items()
        if m is not None
    }
    return vectors, coefficients.model_copy(update={"readings": coefficients.readings | traces})


def filter_tokens(longest: int) -> int:
    """At most so many tokens does the causal filter of the listed columns read, of rows of at most this length."""
    return LISTED * (CONTROLS + 3) * _ROWS_FILTERED * longest


def _means(by_column: Float[Tensor, "group column"]) -> Float[ndarray, " group"]:
    return by_column.mean(1).numpy().astype(float)


def _compared(naming: Naming, sides: Sequence[ndarray], n: Count, draw: tuple[int, int]) -> Measurement:
    """Forget groups' mean, with p of labels permuted over forget and retained groups."""
    forget, retain = sides
    seed, draws = draw
    labels = np.arange(len(forget) + len(retain)) < len(forget)
    tested = stats.mean_max_t(np.concatenate(sides)[:, None], seed, labels, draws)
    empty = blank(naming, "context: nothing is judged by it", n, len(forget), seed)
    return empty.model_copy(
        update={
            "value": float(forget.mean()), "ci95": interval(forget[:, None], np.ones((len(forget), 1)), seed),
            "p": tested.p, "p_below": tested.p_below,
            "readings": {"forget": float(forget.mean()), "retain": float(retain.mean())},
            "notes": ("p: forget/retain labels permuted over people",),
        }
    )  # fmt: skip


def _moved(drifts: Sequence[Drift]) -> dict[str, float]:
    names = ("forget", "retain")
    return {
        f"{part}_{name}": float(getattr(d, part).mean())
        for name, d in zip(names, drifts, strict=True)
        for part in ("cosine", "distance")
    }


def _alike(models: Values, columns: Columns, concepts: Concepts) -> dict[str, float]:
    """Mean overlap of the first tokens that the chosen columns write in base and in the suspect."""
    numbers = column_numbers(models.base, columns).unique()
    base, suspect = (
        torch.cat([m.vectors(block) for block in range(m.blocks)])[numbers] if m.blocks else torch.zeros(0)
        for m in (models.base, models.suspect)
    )
    own, head = models.suspect.unembedding, models.base.unembedding
    return {
        "jaccard_base_head": float(jaccard((head, suspect), (head, base), concepts.first).mean()),
        "jaccard_own_heads": float(jaccard((own, suspect), (head, base), concepts.first).mean()),
    }


def _named(scans: dict[str, Named]) -> dict[str, float]:
    """How many vectors anywhere name a concept, on average over concepts, and over as many mixed ones."""
    readings: dict[str, float] = {}
    for name, every in scans.items():
        half = len(every.hits) // 2
        for kind, scan in (("", every.of(slice(half))), ("_mixed", every.of(slice(half, None)))):
            readings[f"enriched{kind}_{name}"] = float(scan.enriched.sum((1, 2)).mean())
    return readings


def _size(concepts: Concepts, scans: dict[str, Named]) -> str:
    """How fine the scan is: what would have to be found for a vector to count as enriched."""
    tests = scans["base"].log10_p.shape[1] * scans["base"].log10_p.shape[2]
    sizes, vocabulary = concepts.seeds.sizes, len(concepts.base.unembedding)
    return (
        f"scan: the first {concepts.first} of {vocabulary} tokens of {tests} vectors (both signs), Bonferroni at 5 %; "
        f"concepts of {int(sizes.min())} to {int(sizes.max())} tokens, mixed ones of as many from any group's answers"
    )


def _unrouted(base: ValueModel, active: Sequence[Tensor]) -> tuple[str, ...]:
    """Of a mixture of experts: what a coefficient is, and how many value vectors are seen by their weights alone."""
    if not base.is_mixture:
        return ()
    idle = float((torch.cat(list(active)) == 0).float().mean())
    return (
        "a mixture of experts: a coefficient is an expert's activation times the weight of its routing, 0 where a "
        f"token is not sent to it; {idle:.0%} of base's value vectors had none where the answers' content tokens are "
        "predicted: the scan of the weights sees those, and nothing else here does",
    )


class _Facts(NamedTuple):
    """What a line of the listing is made of."""

    concepts: Concepts
    scans: dict[str, Named]
    drift: Drift
    activated: Activated
    activity: tuple[Tensor, ...]


def _listing(case: OpenCase, models: Values, forget: Groups, facts: _Facts) -> Listing:
    """The columns with the largest traces, one line a column."""
    columns = forget.columns
    order = columns.strength.flatten().argsort(descending=True, stable=True).tolist()
    chosen: list[tuple[int, int]] = []
    seen: set[tuple[int, int]] = set()
    for at in order:
        group, n = divmod(at, columns.unit.shape[1])
        place = int(columns.block[group, n]), int(columns.unit[group, n])
        if place not in seen and len(chosen) < LISTED:
            chosen.append((group, n))
            seen.add(place)
    base_means = activated(models.base, models.base, forget.sheet, columns).mean
    rows = [_line(case, models, forget, facts, (group, n, float(base_means[group, n]))) for group, n in chosen]
    return Listing(
        title="columns that write the forgotten answers in base", columns=COLUMNS, rows=tuple(rows),
        of=columns.unit.numel(), quoted=("group", "writes"),
    )  # fmt: skip


def _line(
    case: OpenCase, models: Values, forget: Groups, facts: _Facts, at: tuple[int, int, float]
) -> tuple[str | int | float | None, ...]:
    group, n, coefficient = at
    columns, drifted = forget.columns, facts.drift
    block, unit = int(columns.block[group, n]), int(columns.unit[group, n])
    sign = int(coefficient < 0)
    number = int(column_numbers(models.base, columns)[group, n])
    vector = models.base.vectors(block)[unit] * (1 - 2 * sign)
    tokens = (models.base.unembedding @ vector.float()).topk(3).indices.tolist()
    effect = _effect(case, models.base, forget, facts, (group, block, unit))
    hits = {name: int(scan.hits[group, sign, number]) for name, scan in facts.scans.items()}
    return (
        forget.sheet.people[group], block, unit, " ".join(str(case.tokenizer.decode([t])).strip() for t in tokens),
        *_rounded(columns.strength[group, n], coefficient, facts.activated.mean[group, n]),
        hits["base"], hits["suspect"], *_rounded(
            facts.scans["base"].log10_p[group, sign, number], drifted.cosine[group, n], drifted.distance[group, n],
            drifted.percentile[group, n], effect.drop, effect.limit,
        ), "yes" if effect.carries else "no",
    )  # fmt: skip


def _rounded(*values: SupportsFloat) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


def _answers_differ(sheet: PersonRows, group: int) -> Bool[ndarray, " row"]:
    """The rows of other groups with none of a group's content tokens; where letters make up the tokens and all share
    some, those that share the smallest part."""
    row, position = (x.numpy() for x in sheet.rows.targets("key"))
    tokens, n = sheet.rows.ids.numpy()[row, position], len(sheet.rows)
    shared = np.isin(tokens, tokens[sheet.person[row] == group])
    part = np.bincount(row[shared], minlength=n) / np.maximum(np.bincount(row, minlength=n), 1)
    others = sheet.person != group
    if not others.any() or (part[others] == 0).any():
        return others & (part == 0)
    return others & (part <= np.sort(part[others])[:_ROWS_FILTERED][-1])


def _effect(case: OpenCase, base: ValueModel, forget: Groups, facts: _Facts, at: tuple[int, int, int]) -> Filtered:
    """The causal filter of one listed column in base."""
    group, block, unit = at
    vectors = base.vectors(block).cpu()
    peers = peers_of(vectors, facts.activity[block], torch.tensor([unit]), CONTROLS)[0].tolist()
    own = np.flatnonzero(forget.sheet.person == group)[:_ROWS_FILTERED]
    others = np.flatnonzero(_answers_differ(forget.sheet, group))
    drawn = np.random.default_rng(case.case.seed).permutation(others)[:_ROWS_FILTERED]

    def take(index: ndarray) -> Rows:
        return forget.sheet.rows.take(torch.from_numpy(np.sort(index)))

    return filtered(base.bench, base.checkpoint, take(own), take(drawn), (block, [unit, *peers]))
