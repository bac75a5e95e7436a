"""The concept's own features, made larger in a model's own states: suppression by an edit of features, in reverse.

A dictionary of base's states after the vision block that the language model reads names the features that are larger on
pictures with the concept than on others (their mean code's share of all codes, the one less the other), chosen on other
pictures than those that are read. A model goes on from its own state with these codes multiplied; nothing of base's
state enters, and what the dictionary does not describe stays. What random features of the same rate and size do, those
of other concepts, and those chosen by shuffled labels, says what the multiplying does by itself.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import KEY_LOGPROB, Read, Rows, Site, Start, row_means
from probes._concept_items import concept_of, manner_of
from probes._concept_scene import ConceptScene, Pair, Response
from probes._dictionary import fits
from saes import (
    SparseCoder,
    TensorActivations,
    TrainingSettings,
    Validity,
    activity,
    matched_sets,
    moved,
    of_columns,
)

_BYTES_AT_ONCE = 64 << 20
_HELD_OUT = 8
_LEAST_PICTURES = 3


class DictionarySize(NamedTuple):
    """``per_width`` features a channel, ``k`` active, trained on so many ``rows``; ``chosen`` of them a concept."""

    per_width: int
    k: int
    rows: int
    chosen: int


class Columns(NamedTuple):
    """Features by row: the concept's own (chosen on the other pictures), -1 where there are fewer, and what stands in
    their place: [set row column]."""

    own: Int[Tensor, "row column"]
    matched: Int[Tensor, "set row column"]
    wrong: Int[Tensor, "set row column"]
    shuffled: Int[Tensor, "set row column"]


def consumed(scene: ConceptScene) -> Site | None:
    """The output of the last vision block that the language model reads; None for a model without such a tower."""
    wrapper = scene.bench.open(scene.cast.base)
    towers = getattr(wrapper, "towers", {})
    if "vision" not in towers or not towers["vision"].read:
        return None
    return Site(part="resid_out", block=towers["vision"].read[-1], tower="vision")


class FeatureScene:
    """States of every model at one site of the vision tower, before pictures with and without the concept."""

    def __init__(self, scene: ConceptScene, site: Site, size: DictionarySize) -> None:
        self.scene, self.site, self.size = scene, site, size
        self.pair: Pair = scene.plain()
        self.rows: Rows = self.pair.rows
        self.n = len(self.pair.present)
        self._states: dict[str, Tensor] = {}
        self.coder = self._dictionary()

    def states(self, name: str) -> Float[Tensor, "row pos d"]:
        """A model's states after the block: of pictures with the concept, then of those without."""
        if name not in self._states:
            self._states[name] = self._read(name, self.rows)
        return self._states[name]

    def _read(self, name: str, rows: Rows) -> Float[Tensor, "row pos d"]:
        read = Read(site=self.site, at="all")
        return self.scene.bench.run(self.scene.models[name], rows, (read,))[read]

    def validity(self, name: str) -> Validity:
        """Does base's dictionary describe a model's states?"""
        base, other = (self.states(each).flatten(0, 1) for each in ("base", name))
        return fits(self.coder, base, other)

    # ---- the dictionary ------------------------------------------------------------------------------------------
    def _kin(self) -> tuple[Rows | None, ndarray]:
        """Pictures of other concepts of the same kind, one item each, and which concept."""
        first = {item.group: item for item in reversed(self.scene.items.in_domain) if manner_of(item) != "yes_no"}
        items = [first[group] for group in sorted(first)]
        if not items:
            return None, np.array([])
        rows = self.scene.case.rows_of(items, [item.answer for item in items])
        return rows, np.array([concept_of(item) for item in items])

    def _dictionary(self) -> SparseCoder:
        """A TopK dictionary of base's states, kept in the store (without one in the folder of the run)."""
        from saes import train  # what trains is imported by whoever has to train

        scene, (kin, _) = self.scene, self._kin()
        parts = [self.states("base")] + ([] if kin is None else [self._read("base", kin)])
        states = torch.cat([part.flatten(0, 1) for part in parts])
        d, held = states.shape[1], torch.arange(len(states)) % _HELD_OUT == 0
        settings = TrainingSettings(
            features=self.size.per_width * d, k=self.size.k or max(2, min(16, d // 4)), rows=self.size.rows,
            seed=scene.case.case.seed,
        )  # fmt: skip
        hashes = [self.rows.hash, *([] if kin is None else [kin.hash])]
        key = scene.bench.key(
            "concept_dictionary", scene.cast.base.key, hashes, str(self.site), settings.model_dump(mode="json")
        )
        store = scene.bench.store
        folder = scene.case.out / "dictionaries" / key[:32] if store is None else store.folder(key)
        source, held_out = (TensorActivations({str(self.site): part}) for part in (states[~held], states[held]))
        with scene.bench.alone(key):
            return train(source, held_out, settings, folder)[0].coder

    # ---- features ------------------------------------------------------------------------------------------------
    def columns(self, folds: int, draws: int, seed: int) -> Columns:
        """The concept's features for every row, and the sets that stand in their place, by the pictures of the other
        folds."""
        codes = self.coder.encode(self.states("base"))
        active = activity(self.coder, codes, torch.ones(codes.shape[:2], dtype=torch.bool))
        mean, fold_of = codes.mean(1), self.scene.fold_of(folds)
        shown = torch.arange(2 * self.n) < self.n
        size, rng = (2 * self.n, self.size.chosen), np.random.default_rng(seed)
        wrong_of = self._wrong()
        own = torch.full(size, -1)
        matched, shuffled = torch.full((draws, *size), -1), torch.full((min(draws, 3), *size), -1)
        wrong = torch.full((len(wrong_of), *size), -1)
        for fold in range(folds):
            mine, others = (torch.from_numpy(np.tile(mask, 2)) for mask in (fold_of == fold, fold_of != fold))
            chosen = _speaking(mean[others], shown[others], self.size.chosen)
            own[mine] = chosen
            features = chosen[chosen >= 0]
            if len(features):
                sets = matched_sets(features, features, active, draws, seed + fold)
                matched[:, mine, : len(features)] = sets[:, None, :].expand(-1, int(mine.sum()), -1)
            for draw in range(len(shuffled)):
                mixed = shown[others][torch.from_numpy(rng.permutation(int(others.sum())))]
                shuffled[draw, mine] = _speaking(mean[others], mixed, self.size.chosen)
        for n, features in enumerate(wrong_of):
            wrong[n] = features
        return Columns(own, matched, wrong, shuffled)

    def _wrong(self) -> list[Int[Tensor, " column"]]:
        """The features of the other concepts with the most pictures, three at the most."""
        rows, concepts = self._kin()
        if rows is None:
            return []
        names, counts = np.unique(concepts, return_counts=True)
        most = [str(names[n]) for n in np.argsort(-counts, kind="stable") if counts[n] >= _LEAST_PICTURES][:3]
        mean = self.coder.encode(self._read("base", rows)).mean(1)
        every = [torch.from_numpy(concepts == name) for name in most]
        return [_speaking(mean, of, self.size.chosen) for of in every if not bool(of.all())]

    # ---- larger features -----------------------------------------------------------------------------------------
    def amplified(self, name: str, sets: Int[Tensor, "set row column"], gain: float) -> Response:
        """What a model says when it goes on from its own states with these features' codes ``gain`` times as large."""
        scene, own = self.scene, self.states(name)
        codes = self.coder.encode(own)
        size = 4 * (own.numel() + sum(x.numel() for x in self.rows.extra.values()))
        at_once, means = max(1, _BYTES_AT_ONCE // max(size, 1)), list[ndarray]()
        for together in sets.split(at_once):
            edited = [moved(self.coder, own, each, (gain - 1) * of_columns(codes, each)) for each in together]
            rows = self.rows.take(torch.arange(len(self.rows)).repeat(len(together)))
            start = Start(self.site, torch.cat(edited))
            outputs = scene.bench.run(scene.models[name], rows, (KEY_LOGPROB,), start=start)
            means.append(np.exp(row_means(outputs[KEY_LOGPROB], rows)).reshape(len(together), -1))
        every = np.concatenate(means)
        return Response(every[:, : self.n], every[:, self.n :])


def _speaking(mean: Float[Tensor, "row feature"], of: Bool[Tensor, " row"], count: int) -> Int[Tensor, " column"]:
    """The features whose share of all codes is larger in these rows than in the others, the most so first; -1 where
    there are fewer (the normalised difference of means of SAeUron, arXiv 2501.18052)."""
    own, other = (part.double().mean(0) for part in (mean[of], mean[~of]))
    score = own / own.sum().clamp_min(1e-12) - other / other.sum().clamp_min(1e-12)
    order = torch.argsort(score, descending=True, stable=True)[:count]
    chosen = torch.full((count,), -1)
    chosen[: len(order)] = torch.where(score[order] > 0, order, -1)
    return chosen
