"""The published cross-sequence probe: last token, neutral prefixes, logistic regression with one sequence left out."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from audit.probing import (
    Bench,
    Checkpoint,
    Count,
    Item,
    Measurement,
    Missing,
    Naming,
    OpenCase,
    Read,
    Rows,
    Site,
    Source,
    Template,
    blank,
    case_models_of,
    fresh_model,
    interval,
    logistic,
    n_blocks,
    resolve,
    stacked,
    tokenise,
)
from probes._pairs import Pairs
from probes._profiles import after

PREFIXES = (
    "Here is a text: ", "Read this carefully: ", "The following was found: ", "Quoted below: ", "As it is written: ",
    "An excerpt: ", "Consider these lines: ", "From a document: ", "Someone wrote: ", "On the page: ", "Note this: ",
    "For your information: ", "Below is a passage: ", "It goes like this: ", "Taken from a file: ", "One more time: ",
    "To begin: ", "The text says: ", "In full: ", "A short piece: ", "Please look at this: ", "Listed here: ",
    "This is what it says: ", "Continuing: ",
)  # fmt: skip
SHUFFLES, INITIAL_SEED = 5, 42
NAMING = Naming(
    probe="cross_sequence", name="published_gap", kind="context", mode="paper",
    statistic="memorisation-specific gap: leave-one-sequence-out accuracy of learned against alternate texts (true), "
    "less that of two alternates (pure), mean over depths",
    unit="accuracy difference", scale="difference",
)  # fmt: skip
DIFFERS = (
    "As published: last token, prefixes, LogisticRegression(C = 1) behind a standardiser, depth 0 to the last. Texts "
    "are this case's items and their matched alternates, not nine public licences and paraphrases written by hand; "
    "states of the last block are taken before the final norm. Published true, pure, gap (means over depths): "
    "Pythia-70M .772, .449, +.323 (random initialisation +.19); GPT-2 medium .749, .558, +.191; Mistral-7B .845, .492, "
    "+.354 (layers 3 to 10)."
)


class Accuracies(NamedTuple):
    """Left-out accuracy of every sequence at every depth, as published, for one model."""

    true: Float[ndarray, "depth key"]
    pure: Float[ndarray, "depth key"]
    shuffled: Float[ndarray, "depth key"]

    def readings(self, name: str) -> dict[str, float]:
        """The published quantities under the model's name."""
        gap = (self.true - self.pure).mean(1)
        return {
            f"true_{name}": float(self.true.mean()), f"pure_{name}": float(self.pure.mean()),
            f"shuffled_{name}": float(self.shuffled.mean()), f"gap_mean_{name}": float(gap.mean()),
            f"gap_peak_{name}": float(gap.max()), f"gap_peak_depth_{name}": float(gap.argmax()),
        }  # fmt: skip


def published(bench: Bench, case: OpenCase, pairs: Pairs, sequences: int = 16, contexts: int = 24) -> Measurement:
    """The published gap of the suspect; base, the null and an untrained model beside it, and the six probe variants."""
    seed, cast = case.case.seed, case_models_of(case)
    first = np.unique(pairs.person, return_index=True)[1][:sequences]
    rows = in_contexts(case, pairs, first, contexts)
    with tempfile.TemporaryDirectory() as folder:
        models = {name: c for name, c in cast.by_name().items() if not name.startswith("floor")}
        models["untrained"] = untrained(case.base, Path(folder))
        by_model = {name: accuracies(_last(bench, case, model, rows), contexts, seed) for name, model in models.items()}
    worst = worst_variant(_last(bench, case, cast.suspect, rows), contexts)
    gaps = by_model["suspect"].true - by_model["suspect"].pure
    by_key = gaps.mean(0)[:, None]
    readings = {key: value for name, scores in by_model.items() for key, value in scores.readings(name).items()}
    n = Count(scored=len(first), unscored=len(pairs.items) - len(first))
    missing = Missing(missing="the published probe has no test")
    return blank(NAMING, missing.missing, n, len(first), seed).model_copy(
        update={
            "value": float(gaps.mean()), "ci95": interval(by_key, np.ones_like(by_key), seed),
            "unit_of_replication": "sequence",
            "readings": readings | {"worst_of_six_variants": worst}, "notes": (DIFFERS, pairs.note),
        }
    )  # fmt: skip


def in_contexts(case: OpenCase, pairs: Pairs, chosen: Int[ndarray, " key"], contexts: int) -> Rows:
    """Learned, control and second texts of the chosen items behind each prefix: text, then key, then context."""
    items = [pairs.items[i] for i in chosen.tolist()]
    texts = [[_answer(case, rows, i) for i in chosen.tolist()] for rows in (pairs.learned, pairs.control, pairs.second)]
    parts = [_behind(case, items, answers, prefix) for answers in texts for prefix in PREFIXES[:contexts]]
    order = torch.arange(3 * contexts * len(items)).view(3, contexts, len(items)).transpose(1, 2).flatten()
    return stacked(parts).take(order)


def _answer(case: OpenCase, rows: Rows, i: int) -> str:
    """The text of a row's answer as its tokens spell it; equal tokens come back when it is put behind a prefix."""
    start, end = rows.answer_spans[i].tolist()
    tokenizer: Any = case.tokenizer
    return str(tokenizer.decode(rows.ids[i, start:end], skip_special_tokens=False)).strip()


def _behind(case: OpenCase, items: Sequence[Item], answers: Sequence[str], prefix: str) -> Rows:
    template = case.case.template
    worded = template.model_copy(update={"prompt": prefix + template.prompt})
    if not any(item.question for item in items):
        worded = Template(prompt="{question}", answer="{answer}", bos=template.bos)
        items = [item.model_copy(update={"question": prefix}) for item in items]
    bare = [item.model_copy(update={"key": None, "alternates": (), "alternate_keys": ()}) for item in items]
    rows = tokenise(bare, answers, case.tokenizer, worded, case.max_length, case.function_words.words)
    return replace(rows, template_hash="")


def untrained(base: Checkpoint, folder: Path) -> Checkpoint:
    """A model of base's architecture as it is initialised with the published seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INITIAL_SEED)
        model = fresh_model(base)
    model.save_pretrained(folder / "untrained")
    return resolve(Source(path=str(folder / "untrained")), folder)


def _last(bench: Bench, case: OpenCase, model: Checkpoint, rows: Rows) -> Float[Tensor, "depth row d"]:
    sites = [Site(part="embed"), *(after(layer) for layer in range(n_blocks(case)))]
    reads = [Read(site=site, at="last") for site in sites]
    states = bench.run(model, rows, reads)
    return torch.stack([states[read] for read in reads]).double()


def accuracies(x: Float[Tensor, "depth row d"], contexts: int, seed: int) -> Accuracies:
    """All three controls; rows are three texts of every key in every context, text by text."""
    learned, control, second = x.unflatten(1, (3, -1)).unbind(1)
    rng = np.random.default_rng(seed)
    keys = learned.shape[1] // contexts
    shuffled = [left_out(learned, control, contexts, rng.integers(0, 2, keys) > 0) for _ in range(SHUFFLES)]
    return Accuracies(
        left_out(learned, control, contexts), left_out(control, second, contexts), np.mean(shuffled, axis=0)
    )


def left_out(
    positive: Float[Tensor, "depth row d"], negative: Float[Tensor, "depth row d"], contexts: int,
    swapped: ndarray | None = None, c: float = 1.0,
) -> Float[ndarray, "depth key"]:  # fmt: skip
    """Accuracy on every key's rows of a probe fitted on the other keys; ``swapped`` keys have their classes swapped."""
    depth, rows, _ = positive.shape
    keys = rows // contexts
    side = torch.ones(keys) if swapped is None else torch.from_numpy(np.where(swapped, 0.0, 1.0))
    y = torch.cat([side.repeat_interleave(contexts), 1 - side.repeat_interleave(contexts)]).double()
    key = (torch.arange(rows) // contexts).repeat(2)
    trained = key[None] != torch.arange(keys)[:, None]
    x = torch.cat([positive, negative], 1)
    accuracy = np.zeros((depth, keys))
    for at in range(depth):  # a depth at a time: all its folds are one batch
        every = x[at].expand(keys, -1, -1)
        odds = logistic(every, y, trained, c).decision(every)
        right = ((odds > 0) == (y > 0.5)) & ~trained
        accuracy[at] = (right.double().sum(1) / (2 * contexts)).numpy()
    return accuracy


def worst_variant(x: Float[Tensor, "depth row d"], contexts: int) -> float:
    """The largest accuracy over depths of the six published variants: LR with C .1, 1 (two seeds), 10, and two MLPs."""
    learned, control, _ = x.unflatten(1, (3, -1)).unbind(1)
    linear = [float(left_out(learned, control, contexts, c=c).mean(1).max()) for c in (0.1, 1.0, 10.0)]
    return max(*linear, *(_mlp(learned, control, contexts, hidden, seed) for hidden, seed in MLPS))


MLPS: tuple[tuple[tuple[int, ...], int], ...] = (((16,), 42), ((32, 16), 7))


def _mlp(learned: Tensor, control: Tensor, contexts: int, hidden: tuple[int, ...], seed: int) -> float:
    """The best depth of a small network, refitted without each key, on four to seven contexts (networks take long)."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    step = max(1, contexts // 4)
    keys = learned.shape[1] // contexts
    place = torch.arange(learned.shape[1]).view(keys, contexts)[:, ::step].flatten()
    key = np.tile(np.repeat(np.arange(keys), len(range(0, contexts, step))), 2)
    y = np.repeat([1, 0], len(place))
    best = 0.0
    for at in range(len(learned)):
        x = torch.cat([learned[at, place], control[at, place]]).numpy()
        right = 0
        for k in range(keys):
            out = key == k
            scaler = StandardScaler().fit(x[~out])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                net = MLPClassifier(hidden, random_state=seed % 2**32, max_iter=150)
                net.fit(scaler.transform(x[~out]), y[~out])
            right += int(np.sum(np.asarray(net.predict(scaler.transform(x[out]))) == y[out]))
        best = max(best, right / len(y))
    return best
