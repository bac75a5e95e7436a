"""Interventions of a restoration test on one audited model: ours with their controls, and the published one.

Every number is the mean probability, or the share of right answers, of the forget rows that have expert features, when
the audited model goes on from states that were edited after the block.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import Texts
from probes._restoration import Scene, Scores, scores
from saes import StatePair, donated, moved, of_columns, published, summary_swapped

_OTHER_CLASSES = 3


class Restored(NamedTuple):
    """One audited model's probabilities by row: as it is, by its experts, and by every random set in their place."""

    plain: Float[ndarray, " row"]
    experts: Float[ndarray, " row"]
    random: Float[ndarray, "set row"]


def restored(scene: Scene, name: str, sets: Int[Tensor, "set row expert"]) -> Restored:
    """Donation of base's codes: of the expert features, and of every matched random set."""
    pair, codes, coder = scene.pair(name, "base"), (scene.codes(name), scene.codes("base")), scene.coder
    own = scene.run_on(name, donated(coder, pair, codes, scene.experts.by_row))
    plain = scores(scene.bench, scene.models[name], scene.sheet.rows)
    random = scene.run_many(name, sets, lambda columns: donated(coder, pair, codes, columns))
    return Restored(plain.probability, own.probability, random)


def swapped(scene: Scene, name: str) -> Scores:
    """The model goes on from base's whole states."""
    return scene.run_on(name, scene.states("base"))


def controls(scene: Scene, name: str, gain: float, seed: int) -> dict[str, float]:
    """Every other intervention of the controlled mode, and what each controls for: mean probabilities."""
    pair, codes, coder = scene.pair(name, "base"), (scene.codes(name), scene.codes("base")), scene.coder
    columns, chosen = scene.experts.by_row, scene.experts.scored
    own = of_columns(codes[0], columns)
    encoded = pair.encoded[..., None]
    class_means = _class_means(scene)
    edited: dict[str, Tensor] = {
        "donor_experts_but_summary": donated(coder, _but_summary(pair), codes, columns),
        "own_amplified": moved(coder, pair.own, columns, (gain - 1) * own * encoded),
        "class_mean": moved(coder, pair.own, columns, class_means[:, None, :] * encoded),
        "summary_swap": summary_swapped(pair),
        "whole_swap": pair.donor,
        "reconstruction_with_error": moved(coder, pair.own, columns, torch.zeros_like(own)),
        "reconstruction_without_error": torch.where(encoded, coder.decode(codes[0]).to(pair.own.dtype), pair.own),
        "random_direction": _random_direction(scene, pair, codes, seed),
        **_of_other_classes(scene, pair, codes),
    }  # fmt: skip
    means = {key: _mean(scene.run_on(name, states), chosen) for key, states in edited.items()}
    means |= _shuffled(scene, name, pair, seed)
    return means


def _but_summary(pair: StatePair) -> StatePair:
    """The same states, of which those that predict the answer are not described by features."""
    return pair._replace(encoded=pair.encoded & ~pair.summary)


def _mean(answered: Scores, chosen: Bool[ndarray, " row"]) -> float:
    return float(answered.probability[chosen].mean())


def _class_means(scene: Scene) -> Float[Tensor, "row expert"]:
    """Each row's experts' mean codes in base, over the states of the other fold's rows with the same answer."""
    codes, encoded = scene.codes("base"), scene.encoded(scene.sheet.rows)
    means = torch.zeros(scene.experts.by_row.shape)
    kind, fold = scene.forget.kind, scene.forget.fold
    for (part, of), columns in scene.experts.columns.items():
        source = torch.from_numpy((kind == of) & (fold != part))
        own = torch.from_numpy((kind == of) & (fold == part))
        if bool(source.any()):
            means[own] = codes[source][encoded[source]].mean(0)[columns.clamp_min(0)]
    return means


def _of_other_classes(scene: Scene, pair: StatePair, codes: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Donation of the features that speak for other answers: of up to three, chosen among those of the same fold."""
    kind, fold, columns = scene.forget.kind, scene.forget.fold, scene.experts.columns
    everyone = scene.other_experts()
    edited: dict[str, Tensor] = {}
    for n in range(_OTHER_CLASSES):
        by_row = torch.full_like(scene.experts.by_row, -1)
        for part, of in columns:
            others = [c for (p, other), c in everyone.items() if p == part and other != of]
            if n < len(others):
                by_row[torch.from_numpy((fold == part) & (kind == of))] = others[n]
        if bool((by_row >= 0).any()):
            edited[f"wrong_class_{n}"] = donated(scene.coder, pair, codes, by_row)
    return edited


def _random_direction(scene: Scene, pair: StatePair, codes: tuple[Tensor, Tensor], seed: int) -> Tensor:
    """A random vector at every state, as long as the experts' edit there."""
    edit = donated(scene.coder, pair, codes, scene.experts.by_row) - pair.own
    drawn = torch.randn(edit.shape, generator=torch.Generator().manual_seed(seed))
    return pair.own + drawn / drawn.norm(dim=-1, keepdim=True) * edit.norm(dim=-1, keepdim=True)


def _shuffled(scene: Scene, name: str, pair: StatePair, seed: int) -> dict[str, float]:
    """The experts' codes donated by base's states of a row with another answer and as many states."""
    donors = scene.strangers(seed)
    usable = scene.experts.scored & (donors.at >= 0)
    if not usable.any():
        return {}
    states = donors.states[torch.from_numpy(np.where(donors.at >= 0, donors.at, 0))]
    other = pair._replace(donor=states)
    codes = scene.codes(name), scene.coder.encode(states)
    return {"shuffled_donor": _mean(
        scene.run_on(name, donated(scene.coder, other, codes, scene.experts.by_row)), usable
    )}  # fmt: skip


def forced(scene: Scene, name: str) -> float | None:
    """How often steering makes a *false* answer the first: rows of other answers with the class mean added of an answer
    that stands among their alternates. None where no row has such an alternate."""
    hits: list[ndarray] = []
    means = {of: (columns, scene.class_mean(of, columns)) for (_, of), columns in scene.experts.columns.items()}
    for cohort in ("forget", "retain"):
        for texts in scene.case.numbered(Texts(cohort=cohort, answer="alternate")):
            rows = scene.case.rows(texts)
            kind = scene.kinds_of(rows)
            index = torch.from_numpy(np.flatnonzero(np.isin(kind, list(means))))
            if not len(index):
                continue
            rows, kind = rows.take(index), kind[index.numpy()]
            columns = torch.stack([means[int(k)][0] for k in kind])
            change = torch.stack([means[int(k)][1] for k in kind])
            states = scene.states(name, rows)
            edited = moved(scene.coder, states, columns, change[:, None, :] * scene.encoded(rows)[..., None])
            hits.append(scene.run_on(name, edited, rows).hit)
    return float(np.concatenate(hits).mean()) if hits else None


def retained_shift(scene: Scene, name: str) -> float:
    """What the experts' edit does to retained rows, whose answers it is not told: the change of their share of right
    answers, the experts of up to three answers in turn, worst."""
    rows = scene.retain.rows
    own, donor = scene.states(name, rows), scene.states("base", rows)
    pair = StatePair(own, donor, scene.encoded(rows), scene.summary(rows))
    codes = scene.coder.encode(own), scene.coder.encode(donor)
    plain = scores(scene.bench, scene.models[name], rows).hit.mean()
    shifts: list[float] = []
    for columns in list(scene.experts.columns.values())[:_OTHER_CLASSES]:
        everywhere = columns.expand(len(rows), -1)
        shifts.append(float(scene.run_on(name, donated(scene.coder, pair, codes, everywhere), rows).hit.mean() - plain))
    return min(shifts)


def injection(
    scene: Scene, name: str, alphas: tuple[float, ...], sets: Int[Tensor, "set row expert"]
) -> Mapping[str, float]:
    """The published intervention at every strength with the rows that it must not be read without: accuracies.

    ``experts``: as published; ``empty``: no feature is edited; ``random_*``: sets of equal size, drawn alike in rate
    and norm; ``summary_only``: the state that predicts the answer is swapped and nothing else.
    """
    pair, chosen = scene.pair(name, "base"), scene.experts.scored
    pair = _but_summary(pair)
    columns = scene.experts.by_row
    nobody = torch.full_like(columns, -1)
    means: dict[str, float] = {}

    def accuracy(states: Tensor) -> float:
        return float(scene.run_on(name, states).hit[chosen].mean())

    for alpha in alphas:
        random = [accuracy(published(scene.coder, pair, drawn, alpha)) for drawn in sets]
        lo, hi = np.percentile(random, [2.5, 97.5])
        means |= {
            f"experts_alpha{alpha:g}": accuracy(published(scene.coder, pair, columns, alpha)),
            f"empty_alpha{alpha:g}": accuracy(published(scene.coder, pair, nobody, alpha)),
            f"random_alpha{alpha:g}": float(np.mean(random)),
            f"random_lo_alpha{alpha:g}": float(lo),
            f"random_hi_alpha{alpha:g}": float(hi),
            f"experts_alone_alpha{alpha:g}": accuracy(
                published(scene.coder, pair._replace(summary=torch.zeros_like(pair.summary)), columns, alpha)
            ),
        }
        if bool(pair.summary.any()):
            means[f"summary_only_alpha{alpha:g}"] = accuracy(summary_swapped(pair, alpha))
    plain = scores(scene.bench, scene.models[name], scene.sheet.rows)
    return {"unedited": float(plain.hit[chosen].mean()), **means}
