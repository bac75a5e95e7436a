"""Training: an independent AdamW agrees, same recipe gives same bytes, records play back, unlearners bite."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from audit.bench import (
    Bench,
    CausalLearner,
    Forward,
    TrainData,
    TrainingRecipe,
    WrapperLearner,
    descend,
    learning_rate,
    trainable,
    training_batches,
)
from audit.bench.training.descent import pairs
from audit.checkpoints import delta_of
from audit.edits import (
    NPO,
    Descent,
    GradAscent,
    GradDiff,
    HeadEdit,
    KLMin,
    LastLayer,
    LogitBias,
    RandomLabel,
    Refusal,
    RefusalDPO,
    SimNPO,
    UnDIAL,
    WeightedAscent,
    nll,
)
from audit.schema import AuditError
from audit.wrappers import Wrapper, open_wrapper
from tests import toy


def descent(_f: Forward | None, retain: Forward | None, _ff: Forward | None, _fr: Forward | None) -> Tensor:
    assert retain is not None
    return nll(retain)


def recipe(**settings: object) -> TrainingRecipe:
    return TrainingRecipe(
        **{"name": "nll", "objective": descent, "steps": 4, "lr": 1e-2, "batch": 3, "warmup_steps": 2, **settings}
    )  # type: ignore[arg-type]


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def plain_nll(model: torch.nn.Module, rows: toy.Rows) -> Tensor:
    """Answer-only loss the Hugging Face way: labels of -100 everywhere else, mask given."""
    pos = torch.arange(rows.ids.shape[1])
    answer = (pos >= rows.answer_spans[:, :1]) & (pos < rows.answer_spans[:, 1:])
    labels = rows.ids.masked_fill(~answer, -100)
    return model(input_ids=rows.ids, attention_mask=rows.mask.long(), labels=labels).loss


def test_the_loop_agrees_with_a_plain_one_over_full_batches() -> None:
    # In double precision: Adam divides a gradient that is nearly zero by its own size, so that the order of a sum in
    # single precision decides a step's sign, and that order is the processor's.
    rows, ours, theirs = toy.rows(6), *(toy.model("llama", dtype=torch.float64) for _ in range(2))
    descend(CausalLearner(ours), recipe(steps=3, batch=6), TrainData(retain=rows))
    optimiser = torch.optim.AdamW(theirs.parameters(), 1.0, (0.9, 0.95), weight_decay=0.0)
    for lr in (0.005, 0.01, 0.01):
        optimiser.param_groups[0]["lr"] = lr
        optimiser.zero_grad()
        plain_nll(theirs, rows).backward()
        optimiser.step()
    for name, expected in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], expected, atol=2e-5, rtol=1e-3)


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_does_not() -> None:
    def trained(seed: int) -> Tensor:
        model = toy.model("llama")
        descend(CausalLearner(model), recipe(seed=seed), TrainData(retain=toy.rows(8)))
        return torch.cat([p.flatten() for p in weights(model).values()])

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_every_epoch_sees_every_row_once() -> None:
    draw = training_batches(10, 4, seed=0)
    seen = torch.cat([next(draw) for _ in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    some = recipe(steps=10, lr=1.0, warmup_steps=4)
    rates = [learning_rate(some, step) for step in range(10)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[-1] == pytest.approx(1 / 6) and rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)
    assert learning_rate(recipe(steps=10, lr=1.0, warmup_steps=0, schedule="constant"), 9) == 1.0


def test_only_matching_parameters_move_and_no_flag_stays_behind() -> None:
    model = toy.model("llama")
    model.get_input_embeddings().weight.requires_grad_(False)
    before = weights(model)
    descend(CausalLearner(model), recipe(trainable=r"lm_head\..*"), TrainData(retain=toy.rows()))
    assert {n for n, p in weights(model).items() if not torch.equal(p, before[n])} == {"lm_head.weight"}
    assert not model.get_input_embeddings().weight.requires_grad
    assert all(model.get_parameter(n).requires_grad for n in ("lm_head.weight", "model.norm.weight"))
    assert all(p.grad is None for p in model.parameters())


def test_tied_weights_are_stepped_once() -> None:
    class Tied:
        def parameters(self) -> dict[str, Tensor]:
            return {"a": weight, "b": weight}

        def answers(self, rows: toy.Rows) -> Forward:
            raise AssertionError("nothing is scored here")

    weight = torch.zeros(1)
    assert list(trainable(Tied(), ".*")) == ["a"]


def test_gradients_pass_through_the_transform_and_every_is_called() -> None:
    model, seen = toy.model("llama"), list[int]()
    before = weights(model)
    some = recipe(
        gradient_transform=lambda grads: {name: torch.zeros_like(g) for name, g in grads.items()},
        every=(2, lambda step, learner: seen.append(step)),
    )
    descend(CausalLearner(model), some, TrainData(retain=toy.rows()))
    assert seen == [2, 4]
    assert all(torch.equal(p, before[name]) for name, p in weights(model).items())


def test_the_frozen_pass_is_of_the_start_and_takes_no_gradient() -> None:
    seen = list[tuple[Tensor, Tensor]]()

    def objective(_f: Forward | None, live: Forward | None, _ff: Forward | None, still: Forward | None) -> Tensor:
        assert live is not None and still is not None and not still.logits.requires_grad
        seen.append((live.logprob.detach(), still.logprob))
        return nll(live)

    some = recipe(objective=objective, needs_frozen=True, steps=3, batch=5, warmup_steps=0, schedule="constant")
    rows = toy.rows(5)
    descend(CausalLearner(toy.model("llama")), some, TrainData(retain=rows), CausalLearner(toy.model("llama")))
    torch.testing.assert_close(*seen[0])
    assert (seen[2][0] - seen[2][1]).abs().max() > 1e-3


def test_a_loss_that_explodes_is_an_error_and_not_a_model() -> None:
    with pytest.raises(AuditError, match="loss is"):
        some = recipe(objective=lambda f, r, ff, fr: nll(r) * float("inf"))
        descend(CausalLearner(toy.model("llama")), some, TrainData(retain=toy.rows()))


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(AuditError, match="no parameter"):
        descend(CausalLearner(toy.model("llama")), recipe(trainable="nothing"), TrainData(retain=toy.rows()))
    with pytest.raises(AuditError, match="no rows"):
        descend(CausalLearner(toy.model("llama")), recipe(), TrainData())


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_training_on_the_bench_equals_training_the_live_model(family: str, tmp_path: Path) -> None:
    bench, start, rows = Bench(), toy.checkpoint(family), toy.rows(6)
    before = {n: p.clone() for n, p in bench.open(start).parameters().items()}
    one, two = bench.train([start], [recipe()], TrainData(retain=rows), [2, 4], tmp_path)
    assert (one.settings["steps"], two.settings["steps"]) == (2, 4)
    live = toy.model(family)
    descend(CausalLearner(live), recipe(), TrainData(retain=rows))
    edited = start.model_copy(update={"edits": (two,), "edits_from": str(tmp_path / "0-nll-4")})
    played = bench.open(edited).parameters()
    for name, expected in weights(live).items():
        torch.testing.assert_close(played[name], expected, atol=2e-5, rtol=1e-3)
    assert all(torch.equal(p, before[n]) for n, p in bench.open(start).parameters().items())


def test_lessons_of_one_model_share_a_copy_and_each_starts_from_the_weights_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, data, opened = toy.checkpoint("llama"), TrainData(retain=toy.rows(6)), list[object]()

    def open_counted(*given: Any, **named: Any) -> Wrapper:
        opened.append(given)
        return open_wrapper(*given, **named)

    monkeypatch.setattr("audit.bench.model_pool.open_wrapper", open_counted)
    bench = Bench()
    three = bench.train([start], [recipe()] * 3, data, [4], tmp_path / "three")
    assert len(opened) == 2, "the bench's own, and one copy"
    (alone,) = Bench().train([start], [recipe()], data, [4], tmp_path / "alone")
    assert {record.delta_sha256 for record in three} == {alone.delta_sha256}
    with bench.pool.to_train(start) as copy:
        assert all(torch.equal(copy.parameters()[name], p) for name, p in bench.open(start).parameters().items())
        with bench.pool.to_train(start) as other:
            assert other is not copy, "lent to one at a time"


def test_steps_outside_the_recipe_and_hook_edited_starts_are_refused(tmp_path: Path) -> None:
    bench, start, data = Bench(), toy.checkpoint("llama"), TrainData(retain=toy.rows())
    with pytest.raises(AuditError, match="no step 9"):
        bench.train([start], [recipe()], data, [9], tmp_path)
    hooked = LogitBias(steps=3).fit(bench, start, toy.edit_data(), tmp_path / "hooked")
    with pytest.raises(AuditError, match="hook"):
        bench.train([hooked], [recipe()], data, [4], tmp_path)
    with pytest.raises(AuditError, match="changed no weight"):
        bench.train([start], [recipe(lr=0.0)], data, [4], tmp_path)


# ---- pairs --------------------------------------------------------------------------------------------------------
def test_pairs_are_drawn_together_and_every_epoch_sees_every_pair_once() -> None:
    draw = pairs(12, 4, seed=0)
    seen = torch.cat([next(draw) for _ in range(6)]).view(-1, 2)
    assert torch.equal(seen[:, 0] % 2, torch.zeros(12)) and torch.equal(seen[:, 1], seen[:, 0] + 1)
    assert sorted(seen[:6, 0].tolist()) == sorted(seen[6:, 0].tolist()) == list(range(0, 12, 2))
    assert len(next(pairs(12, 5, seed=0))) == 6, "an odd batch is rounded up to whole pairs"


def test_a_paired_recipe_pairs_its_forget_rows_and_leaves_the_retain_rows_alone() -> None:
    def drawn(paired: bool) -> tuple[list[list[int]], list[list[int]]]:
        forget, retain = list[list[int]](), list[list[int]]()

        def objective(f: Forward | None, r: Forward | None, *_frozen: Forward | None) -> Tensor:
            assert f is not None and r is not None
            forget.append(f.target[torch.cat([torch.tensor([True]), f.row.diff() > 0])].tolist())
            retain.append(r.target.tolist())
            return nll(r)

        some = recipe(objective=objective, paired=paired, batch=4, steps=3)
        descend(CausalLearner(toy.model("llama")), some, TrainData(both, toy.rows(7, seed=5)))
        return forget, retain

    both = toy.rows(10, seed=4)
    first_tokens = both.ids[torch.arange(10), both.answer_spans[:, 0]].view(-1, 2).tolist()
    together, kept = drawn(True)
    assert all(batch[i : i + 2] in first_tokens for batch in together for i in (0, 2))
    alone, same = drawn(False)
    assert kept == same and together != alone


# ---- unlearners -------------------------------------------------------------------------------------------------
QUICK = {"steps": 12, "warmup_steps": 2, "lr": 1e-2, "batch": 6}
LOWERING = (GradAscent, GradDiff, KLMin, LastLayer, NPO, RefusalDPO, SimNPO, UnDIAL, WeightedAscent)


@pytest.mark.sampled
@pytest.mark.parametrize("unlearner", LOWERING)
def test_an_unlearner_lowers_the_forgotten_answers(unlearner: Callable[..., Descent]) -> None:
    assert change(unlearner(**QUICK), toy.edit_data().forget) < -0.2


@pytest.mark.thorough
def test_teaching_other_answers_raises_them() -> None:
    data = toy.edit_data()
    for unlearner, rows in ((Refusal, data.refusal), (RandomLabel, data.relabelled)):
        assert rows is not None and change(unlearner(**QUICK), rows) > 0.2
    assert data.refusal is not None
    assert change(RefusalDPO(**QUICK), data.refusal) > change(RefusalDPO(**QUICK), data.forget) + 0.2


def change(unlearner: Descent, rows: toy.Rows) -> float:
    """By how many nats the content tokens of some rows become likelier when a live toy takes the lesson."""
    some, data = unlearner.lesson(toy.edit_data(), toy.N_BLOCKS)
    frozen, learner = (CausalLearner(toy.model("llama")) for _ in range(2))
    descend(learner, some, data, frozen)
    with torch.no_grad():
        now, then = (of.answers(rows) for of in (learner, frozen))
    return (now.logprob - then.logprob)[now.key].mean().item()


def test_fakes_touch_only_what_they_say(tmp_path: Path) -> None:
    bench, start = Bench(), toy.checkpoint("llama")
    last = LastLayer(**QUICK).fit(bench, start, toy.edit_data(), tmp_path / "last")
    head = HeadEdit(steps=5).fit(bench, start, toy.edit_data(), tmp_path / "head")
    touched = set(delta_of(last, last.edits[-1]))
    assert touched and all(name.startswith(("model.layers.2.", "model.norm.")) for name in touched)
    assert set(delta_of(head, head.edits[-1])) == {"lm_head.weight"}


def test_a_tied_head_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="untie"):
        HeadEdit(steps=2).fit(Bench(), toy.checkpoint("qwen2"), toy.edit_data(), tmp_path / "x")


def test_wrapper_and_live_model_score_alike() -> None:
    rows, bench = toy.rows(4), Bench()
    ours = WrapperLearner(bench.open(toy.checkpoint("llama"))).answers(rows)
    with torch.no_grad():
        theirs = CausalLearner(toy.model("llama")).answers(rows)
    torch.testing.assert_close(ours.logprob, theirs.logprob, atol=1e-5, rtol=1e-5)
    assert torch.equal(ours.target, theirs.target) and torch.equal(ours.row, theirs.row)
