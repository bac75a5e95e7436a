"""Loss landscapes against plain forward passes of one text at a time, and the classifier on tables of known truth."""

import numpy as np
import pytest
import torch
from torch import Tensor

from audit.bench import Bench
from audit.case import Rows
from probes import _landscape as landscape
from probes import _landscape_classifier
from probes._landscape import Landscape, Neighbours
from probes._landscape_classifier import Table, aurocs, left_out
from tests import toy

HOW = landscape.Draw(5, 0.4, 0)


def rows(n: int = 6) -> Rows:
    return toy.rows(n, seed=11)


def near(bench: Bench) -> tuple[Tensor, Tensor]:
    table = landscape.embeddings(bench, toy.checkpoint("llama"))
    return table, landscape.nearest_tokens(table, toy.tokenizer(), 7)


def test_embeddings_are_the_models_own() -> None:
    own = toy.model("llama").get_input_embeddings().weight
    assert torch.equal(landscape.embeddings(Bench(), toy.checkpoint("llama")), own.detach())


def test_nearest_tokens_are_nearest_by_cosine_words_for_words_and_never_special_or_the_same() -> None:
    table, found = near(Bench())
    tokenizer = toy.tokenizer()
    texts = tokenizer.convert_ids_to_tokens(list(range(len(table))))
    special = set(tokenizer.all_special_ids)
    unit = table / table.norm(dim=1, keepdim=True)
    for token, text in enumerate(texts):
        if token in special:
            assert set(found[token].tolist()) == {token}
            continue
        word = any(c.isalnum() for c in text)
        fits = [
            t for t, other in enumerate(texts)
            if t not in special and t != token and any(c.isalnum() for c in other) == word
        ]  # fmt: skip
        order = sorted(fits, key=lambda t: -float(unit[token] @ unit[t]))[:7]
        assert set(found[token].tolist()) == set(order)


def test_neighbours_depend_on_the_text_alone_and_leave_the_first_token() -> None:
    table, found = near(Bench())
    found[1] = 7  # a first token that has neighbours
    some = rows()
    whole = landscape.neighbours(some, found, table, HOW)
    part = landscape.neighbours(some.take(torch.tensor([4, 1])), found, table, HOW)
    width = part.ids.shape[2]
    assert torch.equal(part.ids[0], whole.ids[4, :, :width]) and torch.equal(part.ids[1], whole.ids[1, :, :width])
    assert not whole.replaced[:, :, 0].any() and whole.replaced.any()
    assert torch.equal(whole.replaced, (whole.ids != some.ids[:, None]) & some.mask[:, None])
    apart = (table[whole.ids[2, 3]] - table[some.ids[2]]).square().sum().sqrt()
    assert float(whole.distance[2, 3]) == pytest.approx(float(apart), rel=1e-5)


def losses(ids: Tensor, start: int, end: int) -> Tensor:
    with torch.no_grad():
        logits = toy.model("llama")(input_ids=ids[None]).logits[0].double()
    return -logits.log_softmax(-1)[torch.arange(start, end) - 1, ids[start:end]]


def test_losses_of_neighbours_equal_one_forward_pass_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landscape, "_ROWS_AT_ONCE", 13)  # two texts with their neighbours at a time
    bench, some = Bench(), rows()
    table, found = near(bench)
    drawn = landscape.neighbours(some, found, table, HOW)
    seen = landscape.landscape(bench, toy.checkpoint("llama"), some, drawn)
    for i in range(len(some)):
        n, (start, end) = int(some.lengths[i]), some.answer_spans[i].tolist()
        own = losses(some.ids[i, :n], start, end)
        assert seen.all[i, 0] == pytest.approx(float(own.mean()), rel=1e-4)
        for k in range(HOW[0]):
            theirs = losses(drawn.ids[i, k, :n], start, end)
            assert seen.all[i, k + 1] == pytest.approx(float(theirs.mean()), rel=1e-4)
            kept = some.key[i, start:end] & ~drawn.replaced[i, k, start:end]
            if kept.any():
                assert seen.kept[i, k] == pytest.approx(float((theirs - own)[kept].mean()), rel=1e-3, abs=1e-4)
            else:
                assert np.isnan(seen.kept[i, k])


def test_curvature_and_slope_equal_passes_on_shifted_embeddings() -> None:
    some, model = rows(3), toy.model("llama")
    bent, slope = landscape.curvature(Bench(), toy.checkpoint("llama"), some, directions=2, seed=5)
    e = model.get_input_embeddings()(some.ids).detach()
    real = some.mask[..., None].float()
    size = 0.1 * ((e.square() * real).sum() / (real.sum() * e.shape[-1])).sqrt()
    generator = torch.Generator().manual_seed(5)
    deltas = [torch.randn(e.shape, generator=generator) * size * real for _ in range(2)]
    for i in range(3):
        n, (start, end) = int(some.lengths[i]), some.answer_spans[i].tolist()

        def loss(states: Tensor, i: int = i, n: int = n, start: int = start, end: int = end) -> float:
            with torch.no_grad():
                logits = model(inputs_embeds=states[i, None, :n]).logits[0].double()
            return float(-logits.log_softmax(-1)[torch.arange(start, end) - 1, some.ids[i, start:end]].mean())

        square = [float(d[i].double().square().sum()) for d in deltas]
        second = [(loss(e + d) + loss(e - d) - 2 * loss(e)) / s for d, s in zip(deltas, square, strict=True)]
        steep = [abs(loss(e + d) - loss(e - d)) / (2 * s**0.5) for d, s in zip(deltas, square, strict=True)]
        assert bent[i] == pytest.approx(np.mean(second), rel=1e-2, abs=2e-3)
        assert slope[i] == pytest.approx(np.mean(steep), rel=1e-2, abs=2e-3)


def test_features_equal_their_definitions_one_by_one() -> None:
    rng = np.random.default_rng(0)
    every = rng.random((2, 7))
    drawn = Neighbours(
        torch.zeros(2, 6, 4, dtype=torch.long), torch.from_numpy(rng.random((2, 6, 4)) < 0.5),
        torch.from_numpy(1 + rng.random((2, 6))),
    )  # fmt: skip
    found = landscape.features(Landscape(every, np.zeros((2, 6))), drawn)
    for i in range(2):
        named = dict(zip(landscape.FEATURES, found[i].tolist(), strict=True))
        own, others = every[i, 0], every[i, 1:]
        change, apart = others - own, drawn.distance[i].numpy()
        assert named["loss"] == own and named["max"] == others.max() and named["min"] == others.min()
        assert named["variance_change"] == pytest.approx(np.var(change, ddof=1))
        assert named["max_gradient"] == pytest.approx(max(np.abs(change) / apart))
        assert named["volatility"] == pytest.approx(np.std(others, ddof=1) / np.mean(others))
        assert named["fell"] == pytest.approx(np.mean(change < 0))
        counts = drawn.replaced[i].sum(-1).numpy()
        assert named["by_replacements"] == pytest.approx(np.polyfit(counts, change, 1)[0])


def test_sharpness_and_rise_need_three_neighbours_and_a_flat_text_is_read_at_the_floor() -> None:
    kept = np.array([[1.0, np.nan, np.nan, 2.0], [0.5, 0.5, 0.5, np.nan], [1.0, 2.0, 3.0, 6.0]])
    found = Landscape(np.zeros((3, 5)), kept)
    sharp, up = landscape.sharpness(found)[:, 0], landscape.rise(found)[:, 0]
    assert np.isnan(sharp[0]) and np.isnan(up[0])
    assert sharp[1] == pytest.approx(np.log(landscape.LEAST_SPREAD_NATS)) and up[1] == 0.5
    assert sharp[2] == pytest.approx(np.log(np.hypot(np.std([1, 2, 3, 6], ddof=1), 0.05))) and up[2] == 3.0


def table(shift: float) -> Table:
    """Twelve people a class with four items each, whose first feature tells forget people by ``shift``."""
    rng = np.random.default_rng(1)
    cohort = np.repeat([0, 1, 2], 48)
    person = np.repeat(np.arange(36), 4)
    seen = rng.normal(size=(144, 4)) + rng.normal(size=(36, 4))[person]
    seen[:, 0] += shift * (cohort == 1)
    return Table(seen, rng.normal(size=(144, 3)), cohort, person)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["logistic", pytest.param("forest", marks=pytest.mark.slow)])
def test_classifier_finds_a_planted_class_leaves_people_out_whole_and_its_baseline_finds_nothing(kind: str) -> None:
    found = left_out(table(4.0), kind, seed=0, repeats=1)
    np.testing.assert_allclose(found.seen.sum(1), 1.0, atol=1e-9)
    planted = table(4.0).cohort
    assert aurocs(found.seen, planted)["forget_holdout"] > 0.9
    assert abs(aurocs(found.bare, planted)["forget_holdout"] - 0.5) < 0.25
    null = left_out(table(0.0), kind, seed=0, repeats=1)
    assert abs(aurocs(null.seen, planted)["forget_holdout"] - 0.5) < 0.25


def test_nobody_is_scored_by_a_classifier_that_met_them(monkeypatch: pytest.MonkeyPatch) -> None:
    some, kept = table(0.0), list[np.ndarray]()

    class Even:
        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return np.full((len(x), 3), 1 / 3)

    def chosen(_kind: str, _table: Table, _x: np.ndarray, mask: np.ndarray, _seed: int) -> Even:
        kept.append(mask)
        return Even()

    monkeypatch.setattr(_landscape_classifier, "_chosen", chosen)
    left_out(some, "logistic", seed=0, repeats=1)
    assert len(kept) == 10 and np.all(np.sum([~mask for mask in kept], axis=0) == 2)
    assert all(not set(some.person[mask]) & set(some.person[~mask]) for mask in kept)
