"""States beside scores: learners carry what bench.run reads, cost nothing unasked; RMU's losses against numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audit.bench import (
    Bench,
    CausalLearner,
    Forward,
    Learner,
    RowObjective,
    TrainData,
    TrainingRecipe,
    WrapperLearner,
    descend,
    trainable,
)
from audit.checkpoints import delta_of
from audit.edits import RMU, EditData
from audit.edits.rmu import answer_states, direction, state_mse
from audit.schema import AuditError, Read, Site
from tests import toy

MIDDLE = Site(part="resid_out", block=1)


def edit_data() -> EditData:
    return EditData(toy.rows(6, seed=1), toy.rows(7, seed=2))


def learners(family: str) -> tuple[Learner, Learner]:
    return CausalLearner(toy.model(family)), WrapperLearner(Bench().open(toy.checkpoint(family)))


# ---- states in a forward ----------------------------------------------------------------------------------------
@pytest.mark.sampled
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("block", [0, 2])
def test_learners_carry_the_states_that_the_bench_reads(family: str, block: int) -> None:
    rows, site = toy.rows(5), Site(part="resid_out", block=block)
    whole, packed = Read(site=site, at="all"), Read(site=site, at="answer")
    read = Bench().run(toy.checkpoint(family), rows, (whole, packed))
    for learner in learners(family):
        seen = learner.answers(rows, (site,))
        torch.testing.assert_close(seen.states[site][rows.mask], read[whole][rows.mask], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(answer_states(seen, site), read[packed], atol=1e-5, rtol=1e-5)


def test_asking_for_states_does_not_move_the_scores() -> None:
    rows = toy.rows(5)
    for learner in learners("llama"):
        torch.testing.assert_close(learner.answers(rows, (MIDDLE,)).logprob, learner.answers(rows).logprob)


def test_where_no_state_is_asked_for_nothing_is_hooked_or_kept() -> None:
    model = toy.model("llama")
    learner = CausalLearner(model)
    assert learner.answers(toy.rows()).states == {}
    assert all(
        not m._forward_hooks and not m._forward_pre_hooks and "forward" not in m.__dict__ for m in model.modules()
    )
    assert "_wrapped" not in vars(learner)


def test_states_on_the_bench_and_in_gradients_stand_at_the_same_places() -> None:
    rows, bench, start = toy.rows(5), Bench(), toy.checkpoint("llama")
    packed = Read(site=MIDDLE, at="answer")
    expected = bench.run(start, rows, (packed,))[packed]
    seen = list[Tensor]()

    def objective(forward: Forward) -> Tensor:
        seen.append(answer_states(forward, MIDDLE).detach())
        return torch.zeros(len(rows)).index_add(0, forward.row, forward.logprob)

    asked: RowObjective = objective
    bench.gradients(start, rows, (MIDDLE,), asked)
    torch.testing.assert_close(torch.cat(seen), expected, atol=1e-5, rtol=1e-5)


def test_a_recipe_gets_live_and_frozen_states_of_both_sides_and_gradients_flow() -> None:
    model, seen = toy.model("llama"), list[tuple[Tensor, ...]]()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def objective(*passes: Forward | None) -> Tensor:
        states = tuple(answer_states(one, MIDDLE) for one in passes if one is not None)
        assert [s.requires_grad for s in states] == [True, True, False, False]
        seen.append(tuple(s.detach() for s in states))
        return states[0].square().mean() + states[1].square().mean()

    recipe = TrainingRecipe(
        "states", objective, steps=2, lr=1e-2, batch=4, warmup_steps=0, needs_frozen=True, at_sites=(MIDDLE,)
    )
    frozen = CausalLearner(toy.model("llama"))
    descend(CausalLearner(model), recipe, TrainData(toy.rows(4, 1), toy.rows(4, 2)), frozen)
    torch.testing.assert_close(seen[0][0], seen[0][2])
    torch.testing.assert_close(seen[0][1], seen[0][3])
    assert (seen[1][0] - seen[1][2]).abs().max() > 1e-3
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {name.split(".")[2] for name in moved if ".layers." in name} == {"0", "1"}


# ---- RMU --------------------------------------------------------------------------------------------------------
def dense_mse(states: np.ndarray, target: np.ndarray, lengths: tuple[int, ...]) -> float:
    """Row by row: the mean over tokens of the mean over d, then the mean over rows."""
    per_row, start = [], 0
    for n in lengths:
        tokens = [np.mean((states[t] - target[t]) ** 2) for t in range(start, start + n)]
        per_row.append(sum(tokens) / n)
        start += n
    return float(np.mean(per_row))


def packed_forward(lengths: tuple[int, ...]) -> Forward:
    n = sum(lengths)
    row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    blank = torch.zeros(n)
    return Forward(blank, blank[:, None], row, row, torch.ones(n, dtype=torch.bool), {})


def test_every_row_counts_once_however_long_its_answer() -> None:
    lengths, generator = (1, 5, 2), torch.Generator().manual_seed(0)
    states, target = torch.randn(8, 6, generator=generator), torch.randn(8, 6, generator=generator)
    states[1:6] *= 4
    found = state_mse(packed_forward(lengths), states, target).item()
    assert found == pytest.approx(dense_mse(states.numpy(), target.numpy(), lengths), rel=1e-5)
    sums = np.array([((states - target) ** 2).mean(1)[a:b].sum().item() for a, b in ((0, 1), (1, 6), (6, 8))])
    broadcast = np.mean(sums[None, :] / np.array(lengths)[:, None])
    assert abs(found - broadcast) > 0.1 * found, "the public code's [row row] division gives another number"


def test_the_rmu_loss_is_that_of_states_read_on_the_bench() -> None:
    edit, data, bench = RMU(layer=1, steering=3.0, gamma=0.5, alpha=2.0, seed=4), edit_data(), Bench()
    start, other = toy.checkpoint("llama"), toy.checkpoint("llama", seed=1)
    site, recipe = edit.site(3), edit.lesson(data, 3).recipe
    assert site == MIDDLE and recipe.at_sites == (site,) and recipe.needs_frozen
    live, frozen = (WrapperLearner(bench.open(ckpt)) for ckpt in (other, start))
    with torch.no_grad():
        passes = [learner.answers(rows, (site,)) for learner in (live, frozen) for rows in data[:2]]
        found = recipe.objective(*passes).item()
    packed = Read(site=site, at="answer")
    forget, retain, still = (
        bench.run(ckpt, rows, (packed,))[packed].numpy()
        for ckpt, rows in ((other, data.forget), (other, data.retain), (start, data.retain))
    )
    lengths = [tuple(int(n) for n in spans[:, 1] - spans[:, 0]) for spans in (r.answer_spans for r in data[:2])]
    target = np.broadcast_to(3.0 * direction(48, 4).numpy(), forget.shape)
    expected = 0.5 * dense_mse(forget, target, lengths[0]) + 2.0 * dense_mse(retain, still, lengths[1])
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_direction_is_one_of_its_seed_with_length_one_and_no_negative_entry() -> None:
    u = direction(48, 3)
    assert u.norm().item() == pytest.approx(1) and (u >= 0).all()
    assert torch.equal(u, direction(48, 3)) and not torch.equal(u, direction(48, 4))


def test_a_layer_is_a_block_or_a_share_of_the_depth() -> None:
    assert [RMU(layer=layer).site(12).block for layer in (0, 7, 0.0, 0.25, 0.5, 1.0, 1)] == [0, 7, 0, 3, 6, 11, 1]
    for layer in (1, 1.0):
        again = RMU.model_validate_json(RMU(layer=layer).model_dump_json())
        assert type(again.layer) is type(layer) and again.site(12) == RMU(layer=layer).site(12)
    for layer in (3, -1, 1.5):
        with pytest.raises(AuditError, match="none of 3 blocks"):
            RMU(layer=layer).site(3)


@pytest.mark.parametrize("family", toy.FAMILIES)
def test_blocks_only_means_the_blocks_up_to_the_steered_one(family: str) -> None:
    pattern = RMU(layer=1, blocks_only=True).lesson(edit_data(), toy.N_BLOCKS).recipe.trainable
    learner = CausalLearner(toy.model(family))
    core = learner.model.base_model
    blocks = next(m for m in core.modules() if isinstance(m, torch.nn.ModuleList))
    below = {id(p) for block in blocks[:2] for p in block.parameters()}
    assert {id(p) for p in trainable(learner, pattern).values()} == below


@pytest.mark.thorough
def test_rmu_steers_forget_states_and_holds_retain_states(tmp_path: Path) -> None:
    edit = RMU(layer=1, steering=30.0, steps=30, lr=2e-2, batch=7, alpha=5.0, blocks_only=True)
    bench, start, data = Bench(), toy.checkpoint("llama"), edit_data()
    suspect = edit.fit(bench, start, data, tmp_path / "rmu")
    packed = Read(site=MIDDLE, at="answer")

    def states(rows: toy.Rows) -> list[Tensor]:
        return [bench.run(ckpt, rows, (packed,))[packed] for ckpt in (start, suspect)]

    u = direction(48, edit.seed)
    before, after = (torch.cosine_similarity(s, u, dim=-1).mean() for s in states(data.forget))
    assert after > before + 0.5
    moved, still = ((b - a).norm() / a.norm() for a, b in (states(data.forget), states(data.retain)))
    assert still < 0.5 * moved
    touched = set(delta_of(suspect, suspect.edits[-1]))
    assert touched and all(name.startswith(("model.layers.0.", "model.layers.1.")) for name in touched)
