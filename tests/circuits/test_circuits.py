"""Circuits: chosen, compared, corrupted, scored; against hand-made cases and planted circuits."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audit import checkpoints
from audit.bench import Attribution, Bench, Forward, Graph, graph_of
from audit.case import Rows
from audit.circuits import (
    AttributionSettings,
    Runs,
    ScoredEdges,
    cud,
    faithfulness,
    folds,
    greedy,
    jaccard,
    objectives,
    scored,
    swapped,
    top_n,
)
from audit.circuits.difficulty import between
from audit.circuits.faithfulness_curve import depth_matched
from audit.circuits.outputs import outputs
from audit.circuits.selection import pruned
from audit.circuits.shape import cosines, depth, longest_path
from audit.circuits.shared_gradients import shared
from audit.schema import Checkpoint, Source
from tests import toy

BENCH = Bench()
GRAPH = Graph(3, 4, 2, False)


def circuit(*edges: tuple[str, int, str, int]) -> Tensor:
    """Edges given as (writer, reader's block, reader's kind, reader's head)."""
    found = torch.zeros_like(GRAPH.exists)
    for writer, block, kind, head in edges:
        found[GRAPH.writers.index(writer), GRAPH.readers.index((block, kind, head))] = True  # type: ignore[arg-type]
    return found


# ---- a planted circuit ------------------------------------------------------------------------------------------
PLANTED = circuit(
    ("embed", 0, "q", 1), ("embed", 0, "k", 0), ("embed", 0, "v", 0),
    *((writer, 1, kind, head) for writer in ("embed", "a0.h1") for kind, head in (("q", 2), ("k", 1), ("v", 1))),
    *((writer, 3, "final", 0) for writer in ("embed", "a0.h1", "a1.h2")),
)  # fmt: skip
"""Two heads in a chain, as in induction: one feeds the other's queries, keys and values; nothing else writes."""


@cache
def planted() -> Checkpoint:
    """A toy in which only those two heads write into the stream."""
    model = toy.model("llama")
    for block, layer in enumerate(model.model.layers):
        weight = layer.self_attn.o_proj.weight.detach()
        width = weight.shape[1] // 4
        for head in range(4):
            if (block, head) not in ((0, 1), (1, 2)):
                weight[:, head * width : (head + 1) * width] = 0
        layer.mlp.down_proj.weight.detach().zero_()
    out = toy.root() / "planted-circuit"
    model.save_pretrained(out)
    toy.tokenizer().save_pretrained(out)
    return checkpoints.resolve(Source(path=str(out)), Path())


def _pair() -> tuple[Rows, Rows]:
    rows = toy.rows(4)
    other = replace(rows, ids=torch.where(rows.mask & (rows.ids > 1), (rows.ids - 4 + 9) % 50 + 4, rows.ids))
    return rows, other


def test_a_planted_circuit_is_recovered_and_is_all_there_is() -> None:
    rows, other = _pair()
    found = BENCH.edge_scores(planted(), rows, other, objectives.key_loss, Attribution())
    n = int(PLANTED.sum())
    assert ((found.scores.abs().amax(0) > 0) == PLANTED).all()
    assert (top_n(found.scores.mean(0), found.graph, n) == PLANTED).all()
    assert (greedy(found.scores.mean(0), found.graph, 100) & PLANTED == PLANTED).all()
    curve = faithfulness(BENCH, planted(), Runs(rows, other), ScoredEdges(found.graph, found.scores), (1, n))
    np.testing.assert_allclose(curve.share[1], 1.0, atol=1e-4)
    assert np.abs(curve.share[0] - 1).max() > 0.01


# ---- selection --------------------------------------------------------------------------------------------------
def test_top_n_takes_the_largest_edges_of_every_row() -> None:
    scores = torch.randn(2, *GRAPH.exists.shape)
    for row, chosen in zip(scores, top_n(scores, GRAPH, 7), strict=True):
        assert int(chosen.sum()) == 7 and not (chosen & ~GRAPH.exists).any()
        assert row[chosen].abs().min() >= row[GRAPH.exists & ~chosen].abs().max()
    assert (top_n(scores, GRAPH, 10_000)[0] == GRAPH.exists).all()


def test_pruning_drops_what_nothing_reaches_and_what_reaches_nothing() -> None:
    way = circuit(("embed", 0, "mlp", 0), ("m0", 1, "v", 0), ("a1.h1", 3, "final", 0))
    unfed = circuit(("m2", 3, "final", 0))
    leads_nowhere = circuit(("embed", 2, "q", 3), ("m0", 1, "mlp", 0))
    assert (pruned(way | unfed | leads_nowhere, GRAPH) == way).all()


def test_greedy_grows_from_the_output_and_hangs_together() -> None:
    scores = torch.zeros(GRAPH.exists.shape)
    way = circuit(("embed", 0, "mlp", 0), ("m0", 1, "mlp", 0), ("m1", 3, "final", 0))
    scores[way] = 1.0
    scores[circuit(("embed", 2, "mlp", 0))] = 5.0  # larger, and m2 is not in the circuit
    assert (greedy(scores, GRAPH, 3) == way).all()
    assert (top_n(scores, GRAPH, 1) == circuit(("embed", 2, "mlp", 0))).all()


# ---- profile ----------------------------------------------------------------------------------------------------
def test_longest_path_counts_edges_from_the_embedding_to_the_output() -> None:
    assert longest_path(circuit(("embed", 3, "final", 0)), GRAPH) == 1
    way = circuit(("embed", 0, "k", 1), ("a0.h3", 0, "mlp", 0), ("m0", 2, "v", 0), ("a2.h0", 3, "final", 0))
    assert longest_path(way | circuit(("embed", 3, "final", 0)), GRAPH) == 4
    assert longest_path(circuit(("embed", 0, "mlp", 0), ("m1", 3, "final", 0)), GRAPH) == 0


def test_overlap_and_cosine_of_known_circuits() -> None:
    a, b = circuit(("embed", 0, "mlp", 0), ("m0", 3, "final", 0)), circuit(("m0", 3, "final", 0))
    none = torch.zeros_like(a)
    assert jaccard(torch.stack([a, none]), torch.stack([b, none])).tolist() == [0.5, 1.0]
    np.testing.assert_allclose(cosines(np.eye(2), np.array([[1.0, 1.0], [0.0, 0.0]])), [[2**-0.5, 0], [2**-0.5, 0]])


def test_depth_of_edges_in_one_place() -> None:
    scores = torch.zeros(2, *GRAPH.exists.shape)
    scores[0][circuit(("embed", 0, "mlp", 0))] = -2.0
    scores[1][circuit(("m2", 3, "final", 0))] = 3.0
    found = depth(scores, GRAPH)
    np.testing.assert_allclose(found.source, [0, 2 / 3])
    np.testing.assert_allclose(found.destination, [0, 1])
    np.testing.assert_allclose([*found.spread, *found.early, *found.late], [0, 0, 1, 0, 0, 1], atol=1e-12)


def test_matched_edges_lie_between_the_same_blocks_and_are_others() -> None:
    chosen = circuit(("a0.h1", 2, "q", 3), ("a0.h2", 2, "v", 0), ("m1", 2, "mlp", 0))
    found = depth_matched(chosen, GRAPH, 0)
    assert int(found.sum()) == 3 and not (found & chosen).any()
    places = [(GRAPH.writer_place(w)[0], GRAPH.readers[r].block) for w, r in found.nonzero().tolist()]
    assert sorted(places) == [(0, 2), (0, 2), (1, 2)]


# ---- corruptions ------------------------------------------------------------------------------------------------
def written(*texts: str) -> Rows:
    """Rows of the toy's words: prompt | answer, the last word the key."""
    tokenizer = toy.tokenizer()
    ids = [tokenizer(text.replace("|", ""))["input_ids"] for text in texts]
    prompts = [len(tokenizer(text.split("|")[0])["input_ids"]) for text in texts]
    width = max(map(len, ids))
    key = torch.zeros(len(ids), width, dtype=torch.bool)
    for n, row in enumerate(ids):
        key[n, len(row) - 1] = True
    padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    spans = torch.tensor([[start, len(row)] for start, row in zip(prompts, ids, strict=True)])
    names = tuple(str(n) for n in range(len(ids)))
    return Rows(padded, padded > 0, spans, key, names, names)


def _text(rows: Rows, n: int) -> str:
    return toy.tokenizer().decode(rows.ids[n, 1 : rows.lengths[n]])


def test_entities_are_swapped_in_the_prompt_and_where_the_answer_repeats_them() -> None:
    rows = written("where is anna born ? | anna is born in paris", "where is boris born ? | boris is born in lima")
    found = swapped(rows, rows, 0)
    assert _text(found.rows, 0) == "where is boris born ? boris is born in paris"
    assert _text(found.rows, 1) == "where is anna born ? anna is born in lima"
    assert found.partnered.all() and torch.equal(found.rows.mask, rows.mask)


def test_longer_entities_are_cut_and_shorter_ones_repeated() -> None:
    rows = written("where is the city of anna clara born ? | paris", "where is the city of boris born ? | lima")
    found = swapped(rows, rows, 0).rows
    assert _text(found, 0) == "where is the city of boris boris born ? paris"
    assert _text(found, 1) == "where is the city of anna born ? lima"


def test_a_row_without_a_partner_stays_and_says_so() -> None:
    rows = written("where is anna born ? | paris", "what job of the nurse ! | baker", "where is anna born ? | oslo")
    found = swapped(rows, rows, 0)
    assert not found.partnered.any() and torch.equal(found.rows.ids, rows.ids)  # the third differs in no word


def test_rows_without_a_partner_are_scored_against_mean_states() -> None:
    rows = written("where is anna born ? | paris", "where is boris born ? | oslo", "what job of the nurse ! | baker")
    ckpt = toy.checkpoint("gpt2")
    found = scored(BENCH, ckpt, rows, rows)
    assert found.swapped.tolist() == [True, True, False]
    means = scored(BENCH, ckpt, rows, rows, AttributionSettings(means=True))
    torch.testing.assert_close(found.scores[2], means.scores[2], rtol=1e-4, atol=1e-6)
    assert (found.scores[0] - means.scores[0]).abs().max() > 1e-3


# ---- objectives and predictors ----------------------------------------------------------------------------------
def _forward() -> Forward:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0, 1.5]])
    target = torch.tensor([0, 2, 2])
    logprob = logits.log_softmax(-1).gather(-1, target[:, None])[:, 0]
    return Forward(logprob, logits, target, torch.tensor([0, 0, 1]), torch.tensor([True, False, True]), {})


def test_objectives_of_known_logits() -> None:
    seen = _forward()
    torch.testing.assert_close(objectives.key_loss(seen), -seen.logprob[[0, 2]])
    torch.testing.assert_close(objectives.answer_loss(seen)[0], -seen.logprob[:2].mean())
    torch.testing.assert_close(objectives.key_margin(seen), torch.tensor([-1.0, -0.5]))
    torch.testing.assert_close(objectives.published(seen)[0], -seen.logprob[:2].mean().exp())


def test_outputs_equal_those_of_the_plain_model() -> None:
    rows = toy.rows(4)
    found = outputs(BENCH, toy.checkpoint("llama"), rows)
    logits = toy.model("llama")(rows.ids).logits.detach()
    for n in range(4):
        start, end = rows.answer_spans[n].tolist()
        said, target = logits[n, start - 1 : end - 1], rows.ids[n, start:end]
        key = rows.key[n, start:end]
        logprob = said.log_softmax(-1)
        loss = -logprob.gather(-1, target[:, None])[:, 0]
        assert found["loss"][n] == pytest.approx(float(loss[key].mean()), rel=1e-4)
        assert found["answer_loss"][n] == pytest.approx(float(loss.mean()), rel=1e-4)
        entropy = torch.distributions.Categorical(logits=said[key]).entropy().mean()
        assert found["entropy"][n] == pytest.approx(float(entropy), rel=1e-4)
        right = (said.argmax(-1) == target).tolist()
        tail = next((i for i, ok in enumerate(reversed(right)) if not ok), len(right))
        assert found["extraction"][n] == pytest.approx(tail / len(right))
        assert found["answer_tokens"][n] == end - start and found["question_tokens"][n] == start


def test_shared_gradients_equal_those_of_the_plain_model() -> None:
    ckpt, forget, retain = toy.checkpoint("gpt2"), toy.rows(2, seed=1), toy.rows(3, seed=2)
    found = shared(BENCH, ckpt, forget, retain)
    model = toy.model("gpt2")

    def gradient(rows: Rows, n: int) -> Tensor:
        logprob = model(rows.ids[n : n + 1, : rows.lengths[n]]).logits[0].log_softmax(-1)
        at = rows.key[n].nonzero()[:, 0]
        model.zero_grad()
        (-logprob[at - 1, rows.ids[n, at]].mean()).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    kept = torch.stack([gradient(retain, n) for n in range(3)])
    unwanted = torch.stack([gradient(forget, n) for n in range(2)]).mean(0)
    for n in range(2):
        mine = gradient(forget, n)
        assert found.gradient_norm[n] == pytest.approx(float(mine.norm()), rel=1e-4)
        assert found.first_step[n] == pytest.approx(float(mine @ unwanted), rel=1e-3)
        assert found.gradient_cosine[n] == pytest.approx(
            float(torch.cosine_similarity(mine, kept.mean(0), 0)), abs=1e-4
        )
        overlap = torch.minimum(mine**2, (kept**2).mean(0)).sum() / (mine**2).sum()
        assert found.fisher_overlap[n] == pytest.approx(float(overlap), abs=1e-4)


# ---- CUD --------------------------------------------------------------------------------------------------------
def test_cud_is_nought_at_the_easy_anchor_and_one_at_the_hard_one() -> None:
    easy, hard = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    found = between(np.array([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]]), easy, hard)
    np.testing.assert_allclose(found.cud, [0, 1, 0.5])
    np.testing.assert_allclose(found.margin, [-1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(between(easy[None], easy, easy).cud, [0.5])


def test_only_the_published_mode_leaks_its_labels() -> None:
    rng = np.random.default_rng(0)
    people = tuple(str(i // 4) for i in range(200))
    leaked, honest = [], []
    for seed in range(20):
        vectors, label = rng.normal(size=(200, 50)), rng.normal(size=200)
        fold = folds(people, 5, seed)
        leaked.append(np.corrcoef(cud(vectors, label, fold, "paper").cud, label)[0, 1])
        honest.append(np.corrcoef(cud(vectors, label, fold).cud, label)[0, 1])
    assert np.mean(leaked) > 0.25 and abs(np.mean(honest)) < 0.06


def test_folds_keep_people_together() -> None:
    people = ("a", "b", "a", "c", "b", "d")
    found = folds(people, 2, 0)
    assert found[0] == found[2] and found[1] == found[4] and set(found.tolist()) == {0, 1}


def test_graph_of_a_wrapper_knows_groups_and_parallel_blocks() -> None:
    llama, neox = graph_of(BENCH.open(toy.checkpoint("llama"))), graph_of(BENCH.open(toy.checkpoint("gpt_neox")))
    assert llama == GRAPH and int(llama.exists.sum()) == 190
    assert neox.parallel and int(neox.exists.sum()) == 250
    assert [llama.edge_name(0, 0), llama.edge_name(7, len(llama.readers) - 1)] == ["embed -> q0.h0", "a1.h1 -> final"]
