"""Steering: the published matrix is its two vectors; prompts alone are gated; off it is the parent, to the bit."""

import tempfile
from dataclasses import replace
from math import floor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audit.bench import Bench, GatedShift, Prefix
from audit.case import Rows, open_case, row_means
from audit.checkpoints import delta_of, resolve, without_hooks
from audit.edits import EditData, LogitBias, Steering, edit_data
from audit.edits._steering import at_prompt_end, free_directions, gate_vector, rows_of_other_topic
from audit.schema import AuditError, Checkpoint, Read, Site, Source
from tests import image_toy, planted_world, toy, toy_vlm

BENCH = Bench()
DEEP = Site(part="resid_out", block=1)
LOGPROB = Read(site=Site(part="logits"), at="answer", reduce="logprob")


def states(n: int, d: int, seed: int) -> Tensor:
    """Random states that do not fill the space evenly."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng, dtype=torch.float64) * torch.logspace(0, -1, d, dtype=torch.float64)


def dense(forget: Tensor, retain: Tensor, direction: Tensor, share: float, lam: float) -> Tensor:
    """The published steering matrix, as its formula stands: W = P pinv(X^T X + lam P) X^T (1 r^T)."""
    right = torch.linalg.svd(retain.T @ retain).Vh
    q = right[-floor(share * retain.shape[1]) :].T
    p = q @ q.T
    x = forget @ p
    ones = torch.ones(len(forget), 1, dtype=torch.float64)
    return p @ torch.linalg.pinv(x.T @ x + lam * p, rcond=1e-9) @ x.T @ (ones @ direction[None])


# ---- numbers ----------------------------------------------------------------------------------------------------
@given(
    n=st.integers(2, 24), d=st.integers(8, 32), share=st.sampled_from((0.2, 0.3, 0.5)),
    lam=st.sampled_from((0.01, 0.1, 1.0)), seed=st.integers(0, 10**6),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_the_published_matrix_is_a_gate_times_a_direction(n: int, d: int, share: float, lam: float, seed: int) -> None:
    """To 1e-8: two vectors say what a matrix of d x d says. Retained states fill the space, so that it has one form."""
    forget, retain = states(n, d, seed), states(3 * d, d, seed + 1)
    direction = states(1, d, seed + 2)[0]
    gate = gate_vector(forget, free_directions(retain, share), lam, absolute=True)
    whole = dense(forget, retain, direction, share, lam)
    assert float((gate[:, None] * direction - whole).abs().max()) <= 1e-8 * max(1.0, float(whole.abs().max()))


@given(scale=st.sampled_from((1e-3, 1.0, 1e3)), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_a_relative_ridge_gives_the_same_gate_values_whatever_the_scale_of_states(scale: float, seed: int) -> None:
    forget, retain = states(12, 20, seed), states(60, 20, seed + 1)
    plain, scaled = (gate_vector(s * forget, free_directions(s * retain, 0.3), 0.01) for s in (1.0, scale))
    torch.testing.assert_close(scale * forget @ scaled, forget @ plain)


def test_the_gate_reads_more_at_what_it_was_fitted_on_than_at_what_it_was_kept_off() -> None:
    forget, retain = states(10, 40, 1) + 0.3, states(120, 40, 2)
    gate = gate_vector(forget, free_directions(retain, 0.3), 0.01)
    assert float((forget @ gate).mean()) > 0.5 and float((retain @ gate).abs().mean()) < 0.3


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0, 1.5])
def test_a_share_of_no_direction_or_of_all_is_refused(share: float) -> None:
    with pytest.raises(AuditError, match="none, or all"):
        free_directions(states(30, 20, 0), share)


# ---- where it acts ----------------------------------------------------------------------------------------------
def pushed(write: GatedShift, rows: Rows) -> Tensor:
    """By how much every state at the write's site is moved, [row pos d]."""
    read = Read(site=write.site, at="all")
    before, after = (BENCH.run(toy.checkpoint("llama"), rows, [read], w)[read] for w in ((), (write,)))
    return after - before


def gated(seed: int, beyond: bool = False) -> GatedShift:
    rng = torch.Generator().manual_seed(seed)
    return GatedShift(DEEP, torch.randn(48, generator=rng), torch.randn(48, generator=rng), beyond)


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_prompt_is_moved_by_what_its_last_token_reads_and_an_answer_with_it_only_beyond(
    seed: int, beyond: bool
) -> None:
    rows, write = toy.rows(6, seed=seed), gated(seed, beyond)
    ends = at_prompt_end(BENCH, toy.checkpoint("llama"), rows, [DEEP])[DEEP].float()
    moved = (torch.arange(rows.ids.shape[1]) < rows.answer_spans[:, :1]) | torch.tensor(beyond)
    wanted = (ends @ write.gate)[:, None, None] * write.direction * (moved & rows.mask)[..., None]
    torch.testing.assert_close(pushed(write, rows) * rows.mask[..., None], wanted, atol=2e-5, rtol=1e-5)


def test_virtual_tokens_are_prompt_and_move_with_it() -> None:
    """An answer reads the same whether the tokens before it are put in as embeddings or as tokens."""
    rows = toy.rows(4, seed=5)
    added = torch.tensor([[7, 8]]).expand(4, 2)
    ids = torch.cat([rows.ids[:, :1], added, rows.ids[:, 1:]], 1)
    mask = torch.cat([rows.mask[:, :1], torch.ones(4, 2, dtype=torch.bool), rows.mask[:, 1:]], 1)
    key = torch.cat([rows.key[:, :1], torch.zeros(4, 2, dtype=torch.bool), rows.key[:, 1:]], 1)
    longer = replace(rows, ids=ids, mask=mask, key=key, answer_spans=rows.answer_spans + 2)
    parent = toy.checkpoint("llama")
    prefix = Prefix(BENCH.open(parent).embed(added).detach(), torch.ones(4, dtype=torch.long))
    as_tokens = BENCH.run(parent, longer, [LOGPROB], (gated(3),))[LOGPROB]
    as_embeddings = BENCH.run(parent, rows, [LOGPROB], (prefix, gated(3)))[LOGPROB]
    torch.testing.assert_close(as_embeddings, as_tokens, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("beyond", [False, True])
def test_what_is_generated_is_what_a_pass_over_it_finds_likeliest(tmp_path: Path, beyond: bool) -> None:
    """In generation the prompt ends where it did: what was said since is answer."""
    edited = Steering(beyond=beyond, strength=20.0).fit(BENCH, toy.checkpoint("llama"), toy.edit_data(), tmp_path / "e")
    rows = toy.rows(4, seed=1)
    prompts = rows.answer_spans[:, 0]
    for row, said in enumerate(BENCH.generate(edited, rows, 4)):
        start = int(prompts[row])
        ids = torch.cat([rows.ids[row, :start], torch.tensor(said, dtype=torch.long)])[None]
        whole = Rows(
            ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), answer_spans=torch.tensor([[start, ids.shape[1]]]),
            key=torch.arange(ids.shape[1])[None] >= start, item_ids=("a",), group_ids=("a",),
        )  # fmt: skip
        read = Read(site=Site(part="logits"), at="answer", reduce="rank")
        assert len(said) and int(BENCH.run(edited, whole, [read])[read].max()) == 0


# ---- the edit ---------------------------------------------------------------------------------------------------
def steered(edit: Steering) -> tuple[Checkpoint, GatedShift]:
    """The edited toy, and what it plays."""
    out = Path(tempfile.mkdtemp(dir=toy.root())) / "steered"
    edited = edit.fit(BENCH, toy.checkpoint("llama"), toy.edit_data(), out)
    (write,) = GatedShift.from_delta(delta(edited))
    return edited, write


def delta(edited: Checkpoint) -> dict[str, Tensor]:
    return delta_of(edited, edited.edits[-1])


def test_the_gate_is_played_at_the_block_whose_output_it_was_fitted_on() -> None:
    """No block between reading and writing: the gate reads near 1 at the forgotten prompts of that very site."""
    for layer, block in ((0.0, 0), (0.5, 1), (1.0, 2)):
        _, write = steered(Steering(layer=layer, ridge=1e-6))
        assert write.site == Site(part="resid_out", block=block)
        forget = at_prompt_end(BENCH, toy.checkpoint("llama"), toy.edit_data().forget, [write.site])[write.site]
        torch.testing.assert_close(forget @ write.gate.double(), torch.ones(6, dtype=torch.float64), atol=0.05, rtol=0)


def test_paper_mode_plays_every_block_but_the_first_with_gates_of_what_enters_it() -> None:
    edited = Steering(paper=True, ridge=1e-6).fit(
        BENCH, toy.checkpoint("llama"), toy.edit_data(), Path(tempfile.mkdtemp(dir=toy.root())) / "paper"
    )
    writes = GatedShift.from_delta(delta(edited))
    assert [write.site.block for write in writes] == [1, 2] and not any(write.beyond for write in writes)
    for write in writes:
        entering = Site(part="resid_in", block=write.site.block)
        seen = at_prompt_end(BENCH, toy.checkpoint("llama"), toy.edit_data().forget, [entering])[entering]
        torch.testing.assert_close(seen @ write.gate.double(), torch.ones(6, dtype=torch.float64), atol=0.05, rtol=0)


@pytest.mark.parametrize("control", ["random direction", "other direction"])
def test_a_control_keeps_gate_and_length_and_changes_the_direction(control: str) -> None:
    _, plain = steered(Steering())
    _, other = steered(Steering.model_validate({"control": control}))
    assert torch.equal(plain.gate, other.gate)
    torch.testing.assert_close(plain.direction.norm(), other.direction.norm())
    assert float(torch.cosine_similarity(plain.direction, other.direction, dim=0).abs()) < 0.9


def test_another_topic_is_rows_that_share_an_answer_else_a_group_and_one_topic_is_refused() -> None:
    rows = toy.rows(6, seed=2)
    assert rows_of_other_topic(rows, 0).sum() == 2, "answers differ: the two rows of a group"
    ids = rows.ids.clone()
    key = torch.zeros_like(rows.key)
    key[torch.arange(6), rows.answer_spans[:, 0]] = True
    ids[torch.arange(6), rows.answer_spans[:, 0]] = torch.tensor([11, 11, 11, 9, 9, 9])
    shared = replace(rows, ids=ids, key=key)
    assert rows_of_other_topic(shared, 0).sum() == 3
    with pytest.raises(AuditError, match="one thing"):
        rows_of_other_topic(rows.take(torch.tensor([0])), 0)


def test_no_strength_is_the_identity_and_writes_nothing(tmp_path: Path) -> None:
    rows, parent = toy.rows(5), toy.checkpoint("llama")
    still = GatedShift(DEEP, torch.ones(48), torch.zeros(48))
    assert not still.bites()
    assert torch.equal(
        BENCH.run(parent, rows, [LOGPROB], (still,))[LOGPROB], BENCH.run(parent, rows, [LOGPROB])[LOGPROB]
    )
    with pytest.raises(AuditError, match="sets no hook"):
        Steering(strength=0.0).fit(BENCH, parent, toy.edit_data(), tmp_path / "still")


@pytest.mark.thorough
@pytest.mark.parametrize("edit", [Steering(), Steering(paper=True), LogitBias(steps=5)])
def test_turned_off_it_is_its_parent_to_the_bit(tmp_path: Path, edit: Steering | LogitBias) -> None:
    parent, rows = toy.checkpoint("llama"), toy.edit_data().forget
    first = edit.fit(BENCH, parent, toy.edit_data(), tmp_path / "one")
    second = Steering(layer=0.5, seed=3).fit(BENCH, first, toy.edit_data(), tmp_path / "two")
    off = without_hooks(second)
    assert off.key == parent.key and off == resolve(Source(path=str(toy.folder("llama"))), toy.root())
    assert torch.equal(Bench().run(off, rows, [LOGPROB])[LOGPROB], BENCH.run(parent, rows, [LOGPROB])[LOGPROB])
    assert not torch.equal(BENCH.run(second, rows, [LOGPROB])[LOGPROB], BENCH.run(off, rows, [LOGPROB])[LOGPROB])


def test_refusing_answers_are_needed_where_the_direction_leads_to_them(tmp_path: Path) -> None:
    parent, data = toy.checkpoint("llama"), toy.edit_data()
    refusing = Steering(toward="refusal").fit(BENCH, parent, data, tmp_path / "refusal")
    assert refusing.edits[-1].settings["toward"] == "refusal"
    with pytest.raises(AuditError, match="refusing answers"):
        Steering(toward="refusal").fit(BENCH, parent, data._replace(refusal=None), tmp_path / "none")


@pytest.mark.thorough
def test_a_classifier_is_steered_at_the_state_that_its_head_reads(tmp_path: Path) -> None:
    data = EditData(image_toy.rows(6, seed=1), image_toy.rows(8, seed=2))
    edited = Steering(layer=0.5).fit(BENCH, image_toy.checkpoint(), data, tmp_path / "vit")
    (write,) = GatedShift.from_delta(delta(edited))
    read = Read(site=write.site, at="all")
    states_of_images = [BENCH.run(image_toy.checkpoint(), data.forget, [read], w)[read] for w in ((), (write,))]
    moved = (states_of_images[1] != states_of_images[0]).any(-1)
    assert moved[:, 0].all() and not moved[:, 1:].any()


@pytest.mark.sampled
@pytest.mark.parametrize("kind", toy_vlm.KINDS)
def test_questions_about_pictures_are_steered_by_what_their_last_word_has_seen(kind: str, tmp_path: Path) -> None:
    """The gate reads the picture too: the same words before other pictures open it otherwise. Off, it is the parent."""
    parent = toy_vlm.checkpoint(kind)
    data = EditData(toy_vlm.rows(kind, 6, seed=1), toy_vlm.rows(kind, 8, seed=2))
    edited = Steering(layer=1.0, strength=4.0, until=1.0).fit(BENCH, parent, data, tmp_path / "steered")
    (write,) = GatedShift.from_delta(delta(edited))
    other = replace(data.forget, extra={name: x.flip(0) for name, x in data.forget.extra.items()})
    seen = [
        at_prompt_end(BENCH, parent, rows, [write.site])[write.site] @ write.gate.double()
        for rows in (data.forget, other)
    ]
    assert float((seen[0] - seen[1]).abs().max()) > 1e-3
    plain, steered, off = (
        BENCH.run(model, data.forget, [LOGPROB])[LOGPROB] for model in (parent, edited, without_hooks(edited))
    )
    assert torch.equal(plain, off) and float((plain - steered).abs().max()) > 0.01


@pytest.mark.thorough
def test_a_steered_model_of_known_truth_keeps_what_it_should_and_says_the_forgotten_no_more(tmp_path: Path) -> None:
    case = open_case(planted_world.case("base"), planted_world.root(), tmp_path)
    data = edit_data(case, Steering.needs)
    edited = Steering().fit(BENCH, case.base, data, tmp_path / "steered")
    key = Read(site=Site(part="logits"), at="key", reduce="logprob")

    def said(rows: Rows) -> float:
        return float(np.exp(row_means(BENCH.run(edited, rows, (key,))[key], rows)).mean())

    assert said(data.forget) < 0.3 and said(data.retain) > 0.9
