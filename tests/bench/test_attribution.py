"""Scores of edges against exact patching by finite differences, and exact patching against coarser patching."""

import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audit import checkpoints
from audit.bench import Attribution, Bench, Edges, EdgeScores, Forward, Graph, graph_of, reads_of_writers
from audit.bench.results import Pass
from audit.case import Rows
from audit.schema import AuditError, Checkpoint, Read, Site, Source
from tests import lens_edges, toy

BENCH = Bench()
FINE = Bench(dtype="float64")
ANSWER = Read(site=Site(part="logits"), at="answer", reduce="logprob")
TWIN = (toy.VOCAB - len(toy.SPECIAL)) // 3  # clean tokens come first, then their twins on either side


def loss(forward: Forward) -> Tensor:
    """Mean negative log-likelihood of each row's answer."""
    count = torch.bincount(forward.row)
    return forward.logprob.new_zeros(len(count)).index_add(0, forward.row, -forward.logprob) / count


@cache
def rows(shift: int = 0) -> Rows:
    """Four rows over the clean tokens; shifted, the same rows over their twins."""
    made = toy.rows(4, seed=5)
    low = len(toy.SPECIAL)
    clean = (made.ids - low) % TWIN + low
    ids = torch.where(made.ids >= low, clean + shift * TWIN, made.ids)
    return replace(made, ids=ids)


@cache
def twins(family: str) -> Checkpoint:
    """A toy in which every clean token has two twins whose embeddings lie a little to either side of its own."""
    model, low = toy.model(family), len(toy.SPECIAL)
    weight = model.get_input_embeddings().weight.detach()
    side = 3e-3 * torch.randn(TWIN, weight.shape[1], generator=torch.Generator().manual_seed(1))
    weight[low + TWIN : low + 2 * TWIN] = weight[low : low + TWIN] + side
    weight[low + 2 * TWIN : low + 3 * TWIN] = weight[low : low + TWIN] - side
    out = toy.root() / f"twins-{family}"
    model.save_pretrained(out)
    toy.tokenizer().save_pretrained(out)
    return checkpoints.resolve(Source(path=str(out)), Path())


@cache
def graph(family: str) -> Graph:
    return graph_of(BENCH.open(toy.checkpoint(family)))


def writers(bench: Bench, ckpt: Checkpoint, some: Rows) -> Pass:
    """What every writer wrote. Reads are float32; the differences of twins need more, so they are taken wider."""
    return bench.run(ckpt, some, reads_of_writers(graph_of(bench.open(ckpt))))


def patched(bench: Bench, ckpt: Checkpoint, keep: Tensor, other: Pass) -> Tensor:
    """The loss of every row with these edges from another run."""
    found = bench.run(ckpt, rows(), [ANSWER], [Edges(keep, other)])[ANSWER]
    row, _ = rows().targets("answer")
    return torch.zeros(len(rows())).index_add(0, row, -found) / torch.bincount(row)


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_scores_are_the_slopes_of_exact_patching(family: str) -> None:
    ckpt = twins(family)
    up, down = (FINE.edge_scores(ckpt, rows(), rows(n), loss, Attribution("eap")) for n in (1, 2))
    score = (up.scores - down.scores) / 2
    exists = up.graph.exists
    edges = random.Random(0).sample(exists.nonzero().tolist(), 5)
    other = [writers(FINE, ckpt, rows(n)) for n in (1, 2)]
    for writer, reader in edges:
        keep = torch.ones_like(exists)
        keep[writer, reader] = False
        slope = (patched(FINE, ckpt, keep, other[0]) - patched(FINE, ckpt, keep, other[1])) / 2
        torch.testing.assert_close(
            slope.double(), score[:, writer, reader], rtol=0, atol=3e-3 * float(score.abs().max())
        )


def scored(family: str, attribution: Attribution, bench: Bench = BENCH) -> EdgeScores:
    return bench.edge_scores(toy.checkpoint(family), rows(), rows(1), loss, attribution)


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_edges_from_the_embedding_sum_to_the_change_of_the_objective(family: str) -> None:
    found = scored(family, Attribution(steps=30))
    gap = found.scores[:, 0].sum(1) - (found.other - found.clean)
    assert gap.abs().max() < 5e-3 * (found.other - found.clean).abs().max()
    assert scored(family, Attribution(steps=3)).scores[:, 0].sum(1).sub(found.other - found.clean).abs().max() > 0


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("family", "method"),
    [("gpt_neox", "eap"), ("gpt2", "clean_corrupted"), ("llama", "ig_activations"), ("gemma2", "ig_inputs")],
)
def test_a_row_scores_the_same_alone_as_in_a_batch(family: str, method: str) -> None:
    attribution = Attribution(method, 1)  # type: ignore[arg-type]
    together = scored(family, attribution)
    alone = scored(family, attribution, Bench(token_budget=1))
    torch.testing.assert_close(together.scores, alone.scores, rtol=0, atol=1e-5 * float(together.scores.abs().max()))
    assert (together.scores[:, ~together.graph.exists] == 0).all()


@pytest.mark.parametrize("family", lens_edges.FAMILIES)
def test_scores_equal_those_of_transformer_lens(family: str) -> None:
    expected = json.loads(lens_edges.EXPECTED.read_text(encoding="utf-8"))
    theirs, ckpt = expected["models"][family], toy.checkpoint(family)
    assert theirs["fingerprint"] == ckpt.fingerprint, "other toys: make the file again (tests/lens_edges.py says how)"
    assert expected["pairs"] == lens_edges.pairs() and theirs["passes"] == {"forward": 2, "backward": 1}
    at_other_run = Attribution("ig_inputs", 1, "left")  # one point, the other run itself, where the library takes it
    found = BENCH.edge_scores(ckpt, lens_edges.clean_rows(), lens_edges.other_rows(), loss, at_other_run)
    for row, scores in zip(theirs["rows"], found.scores, strict=True):
        ours = {found.graph.edge_name(w, r): float(scores[w, r]) for w, r in found.graph.exists.nonzero().tolist()}
        assert ours.keys() == row.keys()
        largest = max(abs(value) for value in row.values())
        assert max(abs(ours[edge] - row[edge]) for edge in row) < 1e-5 * largest


def test_one_point_between_is_the_mean_of_what_published_rules_see() -> None:
    both = scored("llama", Attribution("clean_corrupted")).scores
    clean = scored("llama", Attribution("eap")).scores
    corrupted = scored("llama", Attribution("ig_inputs", 1, "left")).scores
    torch.testing.assert_close(both, (clean + corrupted) / 2)


def _heads_of(keep: Tensor, g: Graph) -> Tensor:
    """Edges between blocks' parts as edges between their heads."""
    parts_w = torch.tensor(
        [0, *(1 + 2 * g.writer_place(w)[0] + (g.writer_place(w)[1] < 0) for w in range(1, len(g.writers)))]
    )
    parts_r = torch.tensor([2 * r.block + (r.kind == "mlp") for r in g.readers])
    return keep[parts_w][:, parts_r]


@pytest.mark.parametrize("family", toy.FAMILIES)
def test_cutting_all_heads_together_is_cutting_the_part(family: str) -> None:
    ckpt, g = toy.checkpoint(family), graph(family)
    parts = [Site(part="embed"), *(Site(part=p, block=b) for b in range(3) for p in ("attn_out", "mlp_out"))]  # type: ignore[misc]
    other = BENCH.run(ckpt, rows(1), [Read(site=s, at="all") for s in parts])
    keep = torch.rand(7, 7, generator=torch.Generator().manual_seed(3)) < 0.5
    coarse, fine = (
        patched(BENCH, ckpt, keep, other),
        patched(BENCH, ckpt, _heads_of(keep, g), writers(BENCH, ckpt, rows(1))),
    )
    torch.testing.assert_close(fine, coarse, rtol=1e-4, atol=1e-5)


def test_rows_may_keep_edges_of_their_own() -> None:
    ckpt, g = toy.checkpoint("llama"), graph("llama")
    keep = torch.rand(4, *g.exists.shape, generator=torch.Generator().manual_seed(4)) < 0.5
    other = writers(BENCH, ckpt, rows(1))
    each = patched(BENCH, ckpt, keep, other)
    for n in range(4):
        torch.testing.assert_close(patched(BENCH, ckpt, keep[n], other)[n], each[n])


def test_cutting_nothing_and_everything_gives_the_two_runs() -> None:
    ckpt, g, found = toy.checkpoint("gemma2"), graph("gemma2"), scored("gemma2", Attribution("eap"))
    other = writers(BENCH, ckpt, rows(1))
    every = torch.ones_like(g.exists)
    torch.testing.assert_close(patched(BENCH, ckpt, every, other), found.clean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(patched(BENCH, ckpt, ~every, other), found.other, rtol=1e-4, atol=1e-5)


def test_mean_states_leave_the_first_position_alone_and_need_no_other_text() -> None:
    ckpt = toy.checkpoint("gpt2")
    means = BENCH.mean_states(ckpt, rows())
    states = BENCH.run(ckpt, rows(), [Read(site=Site(part="mlp_out", block=1), at="all")])
    real = rows().mask.clone()
    real[:, 0] = False
    torch.testing.assert_close(means.mlp[1], next(iter(states.reads.values()))[real].mean(0), rtol=1e-4, atol=1e-5)
    found = BENCH.edge_scores(ckpt, rows(), means, loss, Attribution(steps=30))
    assert (found.scores[:, 0].sum(1) - (found.other - found.clean)).abs().max() < 5e-3 * found.other.max()


def test_other_rows_must_be_aligned() -> None:
    with pytest.raises(AuditError, match="other lengths"):
        BENCH.edge_scores(toy.checkpoint("gpt2"), rows(), toy.rows(4, seed=6), loss, Attribution())
