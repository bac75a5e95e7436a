"""Surgery and projected gradients: every number against a dense computation; edits bite, undo and play back."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from audit.bench import Bench, CausalLearner, Forward, SecondLoss, TrainData, TrainingRecipe, WrapperLearner, descend
from audit.bench.training.two_losses import adam_scale
from audit.checkpoints import delta_of, resolve
from audit.edits import RMU, SSD, Edit, EditData, InPlaceEdit, LogitBias, Projected, SalUn, TaskVector, nll
from audit.edits._in_place import drawn, summed_gradients
from audit.edits._losses import ascent
from audit.edits.projected import disentangled, inner, orthogonal
from audit.edits.salun import salient
from audit.edits.ssd import dampening
from audit.schema import AuditError, Read, Site, Source
from tests import toy

LOGPROB = Read(site=Site(part="logits"), at="key", reduce="logprob")
QUICK = {"steps": 8, "warmup_steps": 2, "lr": 5e-3, "batch": 6}


def edit_data() -> EditData:
    return EditData(toy.rows(6, seed=1), toy.rows(6, seed=2), relabelled=toy.rows(6, seed=4))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def hugging_face_nll(model: nn.Module, rows: toy.Rows) -> Tensor:
    """Mean answer loss by labels of -100 everywhere else, mask given."""
    pos = torch.arange(rows.ids.shape[1])
    answer = (pos >= rows.answer_spans[:, :1]) & (pos < rows.answer_spans[:, 1:])
    labels = rows.ids.masked_fill(~answer, -100)
    return model(input_ids=rows.ids, attention_mask=rows.mask.long(), labels=labels).loss


def row_gradients(model: nn.Module, rows: toy.Rows) -> list[dict[str, Tensor]]:
    """The gradient of every single row's mean loss."""
    found = []
    for i in range(len(rows)):
        model.zero_grad()
        hugging_face_nll(model, rows.take(torch.tensor([i]))).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    return found


# ---- conduct of every edit here -----------------------------------------------------------------------------------
EDITS: tuple[Edit, ...] = (
    RMU(**QUICK, layer=1), SSD(alpha=1.5), SalUn(**QUICK), TaskVector(**QUICK), Projected(**QUICK),
    Projected(**QUICK, loss="ascent"),
)  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: type(edit).__name__)
def test_an_edit_bites_leaves_its_parent_alone_and_plays_back(edit: Edit, tmp_path: Path) -> None:
    bench, start, data = Bench(), toy.checkpoint("llama"), edit_data()
    suspect = edit.fit(bench, start, data, tmp_path / "edited")
    before, after = (bench.run(ckpt, data.forget, (LOGPROB,))[LOGPROB].mean() for ckpt in (start, suspect))
    assert before != after and suspect.edits[-1].plays == edit.plays
    fresh = weights(toy.model("llama"))
    assert all(torch.equal(p, fresh[name]) for name, p in bench.open(start).parameters().items())
    again = resolve(Source(path=str(tmp_path / "edited")), tmp_path)
    assert again.key == suspect.key
    played, delta = bench.open(again).parameters(), delta_of(suspect, suspect.edits[-1])
    assert delta and all(torch.equal(p, delta.get(name, fresh[name])) for name, p in played.items())


@pytest.mark.thorough
@pytest.mark.parametrize("edit", [e for e in EDITS if isinstance(e, InPlaceEdit)], ids=lambda edit: type(edit).__name__)
def test_a_live_model_and_a_checkpoint_come_out_of_surgery_alike(edit: Edit, tmp_path: Path) -> None:
    bench, live = Bench(), toy.model("llama")
    assert isinstance(edit, InPlaceEdit)
    edit.apply(CausalLearner(live), edit_data())
    suspect = edit.fit(bench, toy.checkpoint("llama"), edit_data(), tmp_path / "edited")
    assert suspect.edits[-1].name in {"ssd", "salun", "task_vector"}
    assert suspect.edits[-1].settings == edit.model_dump()
    for name, p in bench.open(suspect).parameters().items():
        torch.testing.assert_close(p, weights(live)[name], atol=2e-4, rtol=1e-2)


def test_a_start_that_is_edited_by_a_hook_is_refused(tmp_path: Path) -> None:
    bench = Bench()
    hooked = LogitBias(steps=3).fit(bench, toy.checkpoint("llama"), edit_data(), tmp_path / "hooked")
    with pytest.raises(AuditError, match="hook"):
        SSD(alpha=1.5).fit(bench, hooked, edit_data(), tmp_path / "twice")


# ---- gradients and importances ------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_importances_are_mean_squares_of_single_rows_gradients(family: str) -> None:
    model, rows = toy.model(family), toy.rows(4)
    found = SSD().importances(CausalLearner(model), rows)
    every = row_gradients(model, rows)
    assert found.keys() == every[0].keys()
    for name, importance in found.items():
        expected = torch.stack([grads[name].double() ** 2 for grads in every]).mean(0)
        torch.testing.assert_close(importance.double(), expected, atol=1e-7, rtol=2e-3)


def test_batches_of_rows_square_the_mean_gradient() -> None:
    model, rows = toy.model("llama"), toy.rows(4)
    found = SSD(batch=4).importances(CausalLearner(model), rows)["lm_head.weight"]
    hugging_face_nll(model, rows).backward()
    grad = model.get_parameter("lm_head.weight").grad
    assert grad is not None
    torch.testing.assert_close(found, grad.square(), atol=1e-7, rtol=2e-3)
    assert found.sum() < SSD().importances(CausalLearner(model), rows)["lm_head.weight"].sum()


def test_measuring_gradients_leaves_no_gradient_and_no_flag_behind() -> None:
    model = toy.model("llama")
    model.get_input_embeddings().weight.requires_grad_(False)
    summed_gradients(CausalLearner(model), toy.rows(3), 2, nll, torch.square)
    assert all(p.grad is None for p in model.parameters())
    assert not model.get_input_embeddings().weight.requires_grad and model.get_parameter("lm_head.weight").requires_grad


def test_rows_are_drawn_by_seed_and_never_twice() -> None:
    rows = toy.rows(9)
    some = drawn(rows, 4, seed=1)
    assert len(set(some.item_ids)) == 4 and some.item_ids == drawn(rows, 4, seed=1).item_ids
    assert some.item_ids != drawn(rows, 4, seed=2).item_ids and drawn(rows, 9, seed=1) is rows


# ---- SSD ----------------------------------------------------------------------------------------------------------
sizes = st.floats(0, 10, width=32)


@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=8), st.floats(0.5, 20), st.floats(0, 2))
def test_dampening_follows_its_two_equations(pairs: list[tuple[float, float]], alpha: float, lam: float) -> None:
    forget, rest = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    found = dampening(forget, rest, alpha, lam).tolist()
    expected = [
        min(lam * d / f, 1.0) if f > alpha * d else 1.0 for f, d in zip(forget.tolist(), rest.tolist(), strict=True)
    ]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("rest", ["retain", "all"])
def test_ssd_multiplies_each_weight_by_its_own_factor(rest: str) -> None:
    model, data = toy.model("llama"), edit_data()
    before = weights(model)
    edit = SSD.model_validate({"alpha": 1.5, "lam": 0.5, "rest": rest, "within": r".*layers.*"})
    edit.apply(CausalLearner(model), data)
    forget, retain = (row_gradients(toy.model("llama"), rows) for rows in data[:2])
    dampened = 0
    for name, after in weights(model).items():
        f, r = (np.mean([grads[name].double().numpy() ** 2 for grads in side], axis=0) for side in (forget, retain))
        d = r if rest == "retain" else 0.5 * f + 0.5 * r
        clear = np.abs(f - 1.5 * d) > 1e-3 * f  # float32 may fall on either side of the bound
        factor = (
            np.where(f > 1.5 * d, np.minimum(0.5 * d / np.maximum(f, 1e-300), 1), 1) if "layers" in name else 1 + 0 * f
        )
        expected = before[name].numpy() * factor
        np.testing.assert_allclose(after.numpy()[clear], expected[clear], rtol=1e-2, atol=1e-5)
        dampened += int((factor < 1).sum())
    assert dampened > 100


def test_an_alpha_that_can_select_nothing_is_refused_with_its_bound() -> None:
    learner, data = CausalLearner(toy.model("llama")), edit_data()
    with pytest.raises(AuditError, match="below 2"):
        SSD(alpha=2.0, rest="all").apply(learner, data)
    with pytest.raises(AuditError, match="dampen no weight"):
        SSD(alpha=1e30, within=r".*norm.*").apply(learner, data)


# ---- SalUn --------------------------------------------------------------------------------------------------------
def test_the_salient_share_is_a_quantile_over_all_weights_together() -> None:
    generator = torch.Generator().manual_seed(0)
    grads = {"a": torch.randn(40, 3, generator=generator), "b": 5 * torch.randn(80, generator=generator)}
    masks = salient(grads, 0.25)
    size = np.concatenate([g.abs().numpy().ravel() for g in grads.values()])
    bound = np.quantile(size, 0.75, method="higher")
    for name, grad in grads.items():
        assert np.array_equal(masks[name].numpy(), grad.abs().numpy() >= bound)
    assert sum(int(m.sum()) for m in masks.values()) == 50
    assert masks["b"].float().mean() > masks["a"].float().mean()


def test_a_weight_without_gradient_is_never_salient() -> None:
    masks = salient({"a": torch.tensor([0.0, 0.0, 0.0, 1.0, -2.0])}, 0.8)
    assert masks["a"].tolist() == [False, False, False, True, True]
    with pytest.raises(AuditError, match="no gradient"):
        salient({"a": torch.zeros(3)}, 0.5)


def test_salun_moves_only_salient_weights_and_masks_the_live_start() -> None:
    model, data = toy.model("llama"), edit_data()
    before = weights(model)
    SalUn(**{**QUICK, "batch": 2}, share=0.2).apply(CausalLearner(model), data)
    model_at_start = toy.model("llama")
    hugging_face_nll(model_at_start, data.forget).backward()
    grads = {name: p.grad.abs().numpy() for name, p in model_at_start.named_parameters() if p.grad is not None}
    bound = np.quantile(np.concatenate([g.ravel() for g in grads.values()]), 0.8)
    still = {name: grads[name] < 0.99 * bound for name in grads}
    for name, after in weights(model).items():
        assert torch.equal(after[torch.tensor(still[name])], before[name][torch.tensor(still[name])])
    moved = sum(int((after != before[name]).sum()) for name, after in weights(model).items())
    assert 0.15 < moved / sum(p.numel() for p in before.values()) <= 0.2


def test_salun_without_other_answers_is_refused() -> None:
    with pytest.raises(AuditError, match="alternates"):
        SalUn().apply(CausalLearner(toy.model("llama")), edit_data()._replace(relabelled=None))


# ---- task vector --------------------------------------------------------------------------------------------------
def test_the_task_vector_is_what_fine_tuning_adds_taken_away() -> None:
    edit, data, model = TaskVector(**QUICK, scale=0.7), edit_data(), toy.model("llama")
    edit.apply(CausalLearner(model), data)
    tuned, recipe = (
        toy.model("llama"),
        TrainingRecipe("ft", lambda f, *_: nll(f), batch=6, steps=8, lr=5e-3, warmup_steps=2),
    )
    descend(CausalLearner(tuned), recipe, TrainData(forget=data.forget))
    before, after = weights(toy.model("llama")), weights(tuned)
    for name, p in weights(model).items():
        expected = before[name].double() - 0.7 * (after[name].double() - before[name].double())
        torch.testing.assert_close(p.double(), expected, atol=1e-6, rtol=1e-5)


# ---- two gradients ------------------------------------------------------------------------------------------------
def random_grads(seed: int, like: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in like.items()}


@given(st.integers(0, 1000), st.floats(-5, 5))
def test_what_is_left_is_orthogonal_to_the_retain_gradient_in_the_metric(seed: int, shared: float) -> None:
    shapes = {"a": (4, 3), "b": (7,)}
    retain, scale = random_grads(seed, shapes), {n: g.exp() for n, g in random_grads(seed + 2000, shapes).items()}
    forget = {name: g + shared * retain[name] for name, g in random_grads(seed + 1000, shapes).items()}
    found = orthogonal(forget, retain, scale)
    f, r, s, left = (
        np.concatenate([g[n].double().numpy().ravel() for n in shapes]) for g in (forget, retain, scale, found)
    )
    expected = f - (f * s) @ r / ((r * s) @ r) * r
    np.testing.assert_allclose(left, expected, atol=1e-4)
    norm = np.sqrt(((left * s) @ left) * ((r * s) @ r))
    assert abs((left * s) @ r) < 1e-4 * norm
    assert inner(found, retain, scale).item() == pytest.approx((left * s) @ r, abs=1e-3)
    summed = disentangled(forget, retain, scale)
    assert all(torch.allclose(summed[n], found[n] + retain[n]) for n in shapes)


def test_without_a_retain_gradient_the_forget_gradient_stays_as_it_is() -> None:
    forget, none = {"a": torch.ones(3)}, {"a": torch.zeros(3)}
    assert torch.equal(orthogonal(forget, none, {"a": torch.ones(3)})["a"], forget["a"])


def test_the_scale_is_what_adam_multiplies_the_next_gradient_by() -> None:
    generator, parameter = torch.Generator().manual_seed(0), nn.Parameter(torch.zeros(5))
    optimiser = torch.optim.AdamW([parameter], 0.1, (0.0, 0.9), weight_decay=0.0)
    for _ in range(3):
        grad = torch.randn(5, generator=generator)
        grad[0] = 0.0
        scale, before = adam_scale(optimiser, {"a": parameter}, {"a": grad})["a"], parameter.detach().clone()
        parameter.grad = grad
        optimiser.step()
        torch.testing.assert_close(before - parameter.detach(), 0.1 * scale * grad, atol=1e-6, rtol=1e-4)


def of_forget(forget: Forward | None, *_: Forward | None) -> Tensor:
    assert forget is not None
    return ascent(forget)


def of_retain(_forget: Forward | None, retain: Forward | None, *_: Forward | None) -> Tensor:
    assert retain is not None
    return nll(retain)


def test_two_gradients_that_are_added_step_like_the_sum_of_the_losses() -> None:
    def trained(recipe: TrainingRecipe) -> dict[str, Tensor]:
        model = toy.model("llama")
        descend(CausalLearner(model), recipe, TrainData(toy.rows(6, 1), toy.rows(6, 2)))
        return weights(model)

    settings = {"steps": 3, "lr": 1e-3, "batch": 4, "warmup_steps": 0}
    plain = SecondLoss(of_retain, lambda one, two, _: {n: one[n] + two[n] for n in one})
    apart = trained(TrainingRecipe("apart", of_forget, apart=plain, **settings))
    together = trained(TrainingRecipe("sum", lambda f, r, ff, fr: of_forget(f) + of_retain(f, r), **settings))
    for name, p in together.items():
        torch.testing.assert_close(apart[name], p, atol=1e-4, rtol=1e-3)


def test_a_projected_step_agrees_with_a_loop_of_its_own() -> None:
    data, model, plain = edit_data(), toy.model("llama"), toy.model("llama")
    edit = Projected(loss="ascent", steps=3, lr=1e-3, batch=6, warmup_steps=0, gamma=0.5, alpha=2.0)
    recipe, rows = edit.lesson(data, 3)
    descend(CausalLearner(model), recipe, rows)
    names = [name for name, _ in plain.named_parameters()]
    moment = torch.zeros(sum(p.numel() for p in plain.parameters()), dtype=torch.float64)

    def flat(loss: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(plain.parameters()))]).double()

    for step in range(3):
        f, r = flat(-0.5 * hugging_face_nll(plain, data.forget)), flat(2.0 * hugging_face_nll(plain, data.retain))
        seen = (0.999 * moment + 0.001 * (f**2 + r**2)) / (1 - 0.999 ** (step + 1))
        metric = 1 / (seen.sqrt() + 1e-8)
        left = f - (f * metric) @ r / ((r * metric) @ r) * r
        assert abs((left * metric) @ r) < 1e-6 * ((r * metric) @ r)
        moment = 0.999 * moment + 0.001 * (left + r) ** 2
        step_by = 1e-3 * (3 - step) / 3 * (left + r) / ((moment / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        with torch.no_grad():
            for p, move in zip(plain.parameters(), step_by.split([p.numel() for p in plain.parameters()]), strict=True):
                p -= move.view_as(p).float()
    before, ours, theirs = (weights(m) for m in (toy.model("llama"), model, plain))
    moved = torch.cat([(theirs[n] - before[n]).flatten() for n in names])
    apart = torch.cat([(theirs[n] - ours[n]).flatten() for n in names])
    assert apart.norm() < 0.02 * moved.norm()


def test_an_explosion_of_either_loss_is_an_error() -> None:
    broken = SecondLoss(lambda *_: torch.tensor(float("nan"), requires_grad=True), disentangled)
    recipe = TrainingRecipe("apart", of_forget, apart=broken, steps=1, lr=1e-3, warmup_steps=0)
    with pytest.raises(AuditError, match="loss is nan"):
        descend(CausalLearner(toy.model("llama")), recipe, TrainData(toy.rows(3), toy.rows(3)))


def test_projected_npo_sees_the_start_and_ascent_does_not() -> None:
    assert Projected().lesson(edit_data(), 3).recipe.needs_frozen
    recipe = Projected(loss="ascent").lesson(edit_data(), 3).recipe
    assert not recipe.needs_frozen and recipe.betas[0] == 0.0 and recipe.weight_decay == 0.0


def test_a_wrapper_and_a_live_model_give_the_same_importances() -> None:
    rows = toy.rows(3)
    ours = SSD().importances(WrapperLearner(Bench().open(toy.checkpoint("llama"))), rows)
    theirs = SSD().importances(CausalLearner(toy.model("llama")), rows)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, atol=1e-6, rtol=1e-2)
