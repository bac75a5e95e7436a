"""The worlds of the study: their models (made once, kept with the zoo's), their rows, and what base says of them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from audit.bench import Attribution, Bench, Means
from audit.case import Rows
from audit.checkpoints import resolve
from audit.circuits import (
    AttributionSettings,
    CircuitScores,
    Material,
    OtherRows,
    folds,
    greedy,
    key_margin,
    predictors,
    published,
    scored,
)
from audit.schema import Item, Source
from audit.storage import cache_root
from audit.zoo import draw, edit_data, items, make_model, make_tokenizer, make_world, population, rows_of, vocabulary
from studies.difficulty.truth import Seen, World, settings

WORLDS = (102, 103, 113, 121, 125, 132)
RETAINED = 96
PUBLISHED_EDGES = 75


class Opened(NamedTuple):
    """A world, its ancestor's folder, and the items behind its measured rows and behind other phrasings of the same
    facts."""

    world: World
    ancestor: Path
    forget: tuple[Item, ...]
    retain: tuple[Item, ...]
    others: tuple[Item, ...]
    other_rows: Rows


def opened(number: int) -> Opened:
    """The world with its base and references, trained where the cache has none."""
    drawn = draw(number)
    zoo, root = population(drawn).zoo, Path(cache_root()).resolve() / "zoo"
    root.mkdir(parents=True, exist_ok=True)
    names = ("ancestor", "base", "reference_0", "reference_1", "reference_2")
    folders = {name: make_model(zoo, number, root, name) for name in names}
    world, tokenizer = make_world(number, drawn.shape), make_tokenizer(vocabulary())
    forget = tuple(item for item in items(world, "forget") if item.form == "trained")
    others = tuple(item for item in items(world, "forget") if item.form == "held_out_phrasing")
    retained = [item for item in items(world, "retain") if item.form == "trained"]
    retain = tuple(retained[i] for i in np.random.default_rng(number).permutation(len(retained))[:RETAINED])
    rows = rows_of(forget, tokenizer)
    seen = Seen(rows, rows_of(retain, tokenizer), folds(rows.group_ids, 2, number))
    study_world = World(
        number, folders["base"], tuple(folders[name] for name in names[2:]), edit_data(world, tokenizer), seen,
        dict(settings(number)),
    )  # fmt: skip
    return Opened(study_world, folders["ancestor"], forget, retain, others, rows_of(others, tokenizer))


class BaseReadings(NamedTuple):
    """What base says before anything is unlearned: predictors by name, and circuits by how they were scored."""

    predictors: dict[str, Float[ndarray, " item"]]
    entangled: dict[str, Float[ndarray, " retained"]]
    circuits: dict[str, CircuitScores]
    gaps: dict[str, float]
    paper: Bool[Tensor, "item edge"]


def base_readings(bench: Bench, setup: Opened) -> BaseReadings:
    """All predictors and circuits of a world."""
    folder, seen = setup.world.base, setup.world.seen
    ckpt = resolve(Source(path=str(folder)), folder)
    material = Material(seen.forget, setup.forget, seen.retain, setup.retain, OtherRows(setup.other_rows, setup.others))
    of_base = predictors(bench, ckpt, material)
    variants = {
        "partner_1": AttributionSettings(seed=1), "means": AttributionSettings(means=True),
        "margin": AttributionSettings(objective=key_margin),
        "published": AttributionSettings(objective=published),
    }  # fmt: skip
    circuits = {name: scored(bench, ckpt, seen.forget, seen.forget, variant) for name, variant in variants.items()}
    circuits["partner_0"] = of_base.circuits
    gaps = {name: circuit.gap for name, circuit in circuits.items()}
    return BaseReadings(of_base.by_name, of_base.entangled, circuits, gaps, as_published(bench, setup))


def as_published(bench: Bench, setup: Opened) -> Bool[Tensor, "item edge"]:
    """CUD's circuits by its public code: of the model that was never taught the facts, by EAP-IG over activations
    against zeros (here at every position but the first), 75 edges taken greedily."""
    ckpt = resolve(Source(path=str(setup.ancestor)), setup.ancestor)
    rows = setup.world.seen.forget
    zeros = Means(*(torch.zeros_like(x) for x in vars(bench.mean_states(ckpt, rows)).values()))
    graph, scores, *_ = bench.edge_scores(ckpt, rows, zeros, published, Attribution("ig_activations"))
    return torch.stack([greedy(item_scores, graph, PUBLISHED_EDGES)[graph.exists] for item_scores in scores])
