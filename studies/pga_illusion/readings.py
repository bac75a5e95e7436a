"""How a model is read: by a probe fitted anew, by one frozen before the edit, as published and sign-free."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit import stats
from audit.bench import Bench
from audit.case import OpenCase
from audit.probing import text_states
from audit.readouts import Logistic, logistic
from audit.readouts import grouped_ridge as ridge
from audit.readouts import label_swaps as swaps
from audit.schema import Checkpoint, Read, Site, Texts
from studies.pga_illusion.subjects import Paired

POOLINGS = ("last", "mean")
SCORES = Read(site=Site(part="logits"), at="answer", reduce="logprob")


class States(NamedTuple):
    """States of pairs after every block: by pooling, [depth row d]."""

    last: Float[Tensor, "depth row d"]
    mean: Float[Tensor, "depth row d"]


def states(bench: Bench, model: Checkpoint, reader: Checkpoint, paired: Paired) -> States:
    """Both poolings after every block."""
    sites = [Site(part="resid_out", block=b) for b in range(bench.open(model).n_blocks)]
    return States(*text_states(bench, model, reader, paired.rows, sites)[:2].unbind(0))


def sides(pairs: int) -> Float[Tensor, " row"]:
    """1 for learned texts, 0 for the others."""
    return torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(pairs)


def refitted(x: Float[Tensor, "depth row d"]) -> Float[ndarray, "depth pair"]:
    """Accuracy on every pair of the published probe fitted on the other pairs."""
    pairs = x.shape[1] // 2
    pair, side = torch.arange(2 * pairs) // 2, sides(pairs)
    trained = pair[None] != torch.arange(pairs)[:, None]
    accuracy = np.zeros((len(x), pairs))
    for depth, layer in enumerate(x):
        every = layer.expand(pairs, -1, -1)
        right = (logistic(every, side, trained).decision(every) > 0) == (side > 0.5)
        accuracy[depth] = (right & ~trained).double().sum(1).numpy() / 2
    return accuracy


def frozen(probe: Logistic, x: Float[Tensor, "depth row d"]) -> Float[ndarray, "depth pair"]:
    """Accuracy on every pair of a probe that was fitted before the edit."""
    right = (probe.decision(x) > 0) == (sides(x.shape[1] // 2) > 0.5)
    return right.double().view(len(x), -1, 2).mean(2).numpy()


def fitted(x: Float[Tensor, "depth row d"]) -> Logistic:
    """The published probe on all rows of every depth."""
    return logistic(x, sides(x.shape[1] // 2), torch.ones(x.shape[:2], dtype=torch.bool))


def sign_free(
    x: Float[Tensor, "depth row d"], person: tuple[str, ...], seed: int, draws: int = 1999
) -> dict[str, object]:
    """The controlled statistic: concordance of people by ridge, |A - 1/2|, max-T over depths under label swaps."""
    number = {name: i for i, name in enumerate(dict.fromkeys(person))}
    unit = torch.tensor([number[name] for name in person]).repeat_interleave(2)
    z = ridge.standardised(x)
    smoother = ridge.ridge_smoother(ridge.linear_gram(z), unit, z.shape[-1])
    label = 2 * sides(len(person)) - 1
    a = swaps.concordance(swaps.margins(swaps.pair_form(smoother, label, unit), swaps.swaps(len(number), draws, seed)))
    tested = swaps.max_t(swaps.sign_free(a))
    return {"concordance": a[:, 0].tolist(), "largest_distance_from_half": float(tested.statistic.max()), "p": tested.p}


def summary(by_pair: Float[ndarray, "depth pair"], person: tuple[str, ...], seed: int) -> dict[str, object]:
    """Accuracy by depth with 95 % intervals over people, and the mean over depths."""
    names, index = np.unique(person, return_inverse=True)
    people = np.stack([by_pair[:, index == k].mean(1) for k in range(len(names))])
    people = np.concatenate([people, people.mean(1, keepdims=True)], 1)
    drawn = stats.bootstrap_effect(people, np.ones_like(people), seed).effect
    lo, hi = np.percentile(drawn, [2.5, 97.5], axis=0)
    mean = people.mean(0)
    interval = {"lo": lo[:-1].tolist(), "hi": hi[:-1].tolist(), "mean_ci95": [float(lo[-1]), float(hi[-1])]}
    ends = {"lowest": float(mean[:-1].min()), "highest": float(mean[:-1].max()), "mean": float(mean[-1])}
    return {"by_depth": mean[:-1].tolist(), "people": len(names), **interval, **ends}


def capability(bench: Bench, case: OpenCase, model: Checkpoint) -> dict[str, float]:
    """Perplexity on general text, and mean probability of content tokens of each half and of retained facts."""
    measures: dict[str, float] = {}
    key = Read(site=Site(part="logits"), at="key", reduce="logprob")
    if case.has(Texts(cohort="general")):
        loss = -bench.run(model, case.rows(Texts(cohort="general")), (SCORES,))[SCORES].double().mean()
        measures["general_perplexity"] = float(loss.exp())
    for name, cohort, part in (
        ("edited", "forget", "calibration"), ("fresh", "forget", "audit"), ("retained", "retain", "audit"),
    ):  # fmt: skip
        rows = case.rows(Texts.model_validate({"cohort": cohort}), part)
        measures[f"probability_{name}"] = float(bench.run(model, rows, (key,))[key].double().exp().mean())
    return measures
