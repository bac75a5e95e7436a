"""Everything that base alone says of how hard an item may be to unlearn, in one table of numbers.

Names, in order: what the output says (:mod:`~audit.circuits.outputs`), what the gradients say
(:mod:`~audit.circuits.shared_gradients`), where the circuit lies (:mod:`~audit.circuits.shape`), whether other words
reach the same fact, and how often its content occurs. A column that the data cannot give is not there.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.bench import Bench, graph_of
from audit.case import Rows
from audit.circuits.item_scores import AttributionSettings, CircuitScores, scored
from audit.circuits.outputs import outputs
from audit.circuits.selection import top_n
from audit.circuits.shape import cosines, depth, longest_path
from audit.circuits.shared_gradients import shared
from audit.schema import Checkpoint, Item

EDGES = 0.1
"""Share of all edges that make a row's circuit where one has to be cut out (small models have few hundred edges)."""


Arrays = dict[str, ndarray]
Keep = Callable[[str, Callable[[], Arrays]], Arrays]
"""``keep(stage, compute)`` gives what a stage computed, now or in a run that was killed."""


def at_once(stage: str, compute: Callable[[], Arrays]) -> Arrays:
    """Keep nothing."""
    return compute()


class OtherRows(NamedTuple):
    """Rows in other words about facts, and their items."""

    rows: Rows
    items: Sequence[Item]


class Material(NamedTuple):
    """The rows and items to forget and to keep, and other rows about the forget items' facts (or none)."""

    forget: Rows
    forget_items: Sequence[Item]
    retain: Rows
    retain_items: Sequence[Item]
    others: OtherRows | None = None
    keep: Keep = at_once


class CircuitRows(NamedTuple):
    """Rows whose circuits are attributed, the pool that their partners come from, and how (None: by default)."""

    rows: Rows
    pool: Rows
    settings: AttributionSettings | None = None


class Stage(NamedTuple):
    """The name of a stage of work, and what keeps its arrays."""

    name: str
    keep: Keep


class Predictors(NamedTuple):
    """Per forget item the predictors, per retained item what ties it to the forget set, and both sets' circuits.

    ``entangled``: circuit_cosine (largest with a forget item), nearest (which one), gradient_cosine (with the mean
    forget gradient).
    """

    by_name: dict[str, Float[ndarray, " item"]]
    entangled: dict[str, Float[ndarray, " retained"]]
    circuits: CircuitScores
    retained: CircuitScores


def circuit_size(edges: int) -> int:
    """How many edges a circuit of a model with so many has."""
    return max(20, round(EDGES * edges)) if edges < 4000 else round(0.001 * edges)


def predictors(bench: Bench, ckpt: Checkpoint, material: Material) -> Predictors:
    """Run base over the rows: two forwards and five forward-backwards a row for circuits, two for gradients."""
    forget, retain, keep = material.forget, material.retain, material.keep
    columns = keep("outputs", lambda: outputs(bench, ckpt, forget))
    weights = keep("gradients", lambda: dict(shared(bench, ckpt, forget, retain)._asdict()))
    columns |= {name: values for name, values in weights.items() if name != "retained_cosine"}
    circuits = kept_circuits(bench, ckpt, CircuitRows(forget, forget), Stage("circuits", keep))
    retained = kept_circuits(bench, ckpt, CircuitRows(retain, retain), Stage("retained circuits", keep))
    columns |= located(circuits)
    mine, theirs = circuits.vectors().double().numpy(), retained.vectors().double().numpy()
    alike = cosines(theirs, mine)
    columns["entanglement"] = alike.max(0)
    columns |= keep("other words", lambda: _others(bench, ckpt, material)) | _frequency(material)
    entangled = {
        "circuit_cosine": alike.max(1), "nearest": alike.argmax(1).astype(np.float64),
        "gradient_cosine": weights["retained_cosine"],
    }  # fmt: skip
    return Predictors(columns, entangled, circuits, retained)


def kept_circuits(bench: Bench, ckpt: Checkpoint, inputs: CircuitRows, stage: Stage) -> CircuitScores:
    """The scores of some rows, from what keeps the stage where it has them."""

    def compute() -> Arrays:
        circuits = scored(bench, ckpt, *inputs)
        return {"scores": circuits.scores.numpy(), "swapped": circuits.swapped.numpy(), "gap": np.array(circuits.gap)}

    arrays = stage.keep(stage.name, compute)
    graph = graph_of(bench.open(ckpt))
    return CircuitScores(
        graph, torch.from_numpy(arrays["scores"]), torch.from_numpy(arrays["swapped"]), float(arrays["gap"])
    )


def located(circuits: CircuitScores) -> dict[str, Float[ndarray, " item"]]:
    """Where the circuit lies, and where the writers that matter lie (the key layers)."""
    scores, graph = circuits.scores, circuits.graph
    where = depth(scores, graph)
    block = torch.tensor([graph.writer_place(w)[0] for w in range(len(graph.writers))])
    by_block = torch.zeros(len(scores), graph.blocks + 1, dtype=torch.float64)
    by_block.index_add_(1, block + 1, scores.sum(2).abs().double())
    share = by_block[:, 1:] / by_block[:, 1:].sum(1, keepdim=True).clamp_min(1e-30)
    top = top_n(scores, graph, circuit_size(int(graph.exists.sum())))
    return {
        "circuit_source": where.source, "circuit_depth": where.destination, "circuit_spread": where.spread,
        "circuit_early": where.early, "circuit_late": where.late,
        "path_length": np.array([float(longest_path(circuit, graph)) for circuit in top]),
        "key_layer": (share * torch.arange(graph.blocks)).sum(1).numpy(),
        "key_spread": -(share * share.clamp_min(1e-30).log()).sum(1).numpy(),
    }  # fmt: skip


def _others(bench: Bench, ckpt: Checkpoint, material: Material) -> dict[str, Float[ndarray, " item"]]:
    """pathways: how many other rows about the same fact are recalled outright; other_words: their mean probability."""
    if material.others is None:
        return {}
    rows, items = material.others
    by_output = outputs(bench, ckpt, rows)
    count, n = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    total: defaultdict[tuple[str, str], float] = defaultdict(float)
    for item, margin, loss in zip(items, by_output["margin"].tolist(), by_output["loss"].tolist(), strict=True):
        fact = (item.group, item.attribute or item.answer)
        count[fact] += margin > 0
        total[fact] += float(np.exp(-loss))
        n[fact] += 1
    facts = [(item.group, item.attribute or item.answer) for item in material.forget_items]
    if not any(n[fact] for fact in facts):
        return {}
    return {
        "pathways": np.array([float(count[fact]) if n[fact] else np.nan for fact in facts]),
        "other_words": np.array([total[fact] / n[fact] if n[fact] else np.nan for fact in facts]),
    }


def _frequency(material: Material) -> dict[str, Float[ndarray, " item"]]:
    """frequency: as the items state it; key_count: rows of the case that say the same content."""
    items = material.forget_items
    known = Counter((item.key or item.answer) for item in (*items, *material.retain_items))
    columns = {"key_count": np.array([float(known[item.key or item.answer]) for item in items])}
    stated = [item.frequency for item in items]
    if all(frequency is not None for frequency in stated):
        columns["frequency"] = np.array([float(frequency or 0) for frequency in stated])
    return columns
