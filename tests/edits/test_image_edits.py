"""Edits on classifiers of images: each works by its definition, or is refused by its name; objectives recomputed."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax
from torch import Tensor
from transformers import PreTrainedModel

from audit.bench import Bench, CausalLearner, Forward, WrapperLearner
from audit.case import Rows
from audit.checkpoints import delta_of
from audit.edits import (
    NPO,
    PGA,
    RMU,
    ROCR,
    ROME,
    SAUCE,
    SCRUB,
    SSD,
    BackdooredNPO,
    BackdooredRMU,
    Edit,
    EditData,
    FineTune,
    GradAscent,
    GradDiff,
    HeadEdit,
    KLMin,
    LastLayer,
    LogitBias,
    MUMis,
    Needle,
    PGAProjection,
    Projected,
    Quantise,
    RandomLabel,
    Refusal,
    RefusalDPO,
    Relearn,
    SalUn,
    SimNPO,
    Steering,
    SubjectGate,
    TaskVector,
    UnDIAL,
    WeightedAscent,
)
from audit.edits.mu_mis import drawn_others, measured_ratio, sensitivity
from audit.edits.scrub import Cycle
from audit.plugins import discover
from audit.schema import AuditError, Read, Site
from audit.wrappers import wrap
from tests import image_toy, toy

BENCH = Bench()
KINDS = ("vit", "resnet")
QUICK = {"steps": 6, "warmup_steps": 1, "lr": 5e-3, "batch": 6}
WORKS: tuple[Edit, ...] = (
    FineTune(**QUICK), GradAscent(**QUICK), GradDiff(**QUICK), HeadEdit(steps=10), KLMin(**QUICK), LastLayer(**QUICK),
    LogitBias(steps=10), MUMis(steps=6, batch=6), NPO(**QUICK), Projected(**QUICK), Quantise(), RandomLabel(**QUICK),
    Relearn(**QUICK), RMU(**QUICK), SalUn(**QUICK), SCRUB(**QUICK), SimNPO(**QUICK), SSD(alpha=1.2), Steering(),
    TaskVector(**QUICK), UnDIAL(**QUICK), WeightedAscent(**QUICK), SAUCE(steps=6),
)  # fmt: skip
REFUSED: tuple[Edit, ...] = (
    PGA(), PGAProjection(), Refusal(**QUICK), RefusalDPO(**QUICK), ROCR(), ROME(), SubjectGate(), Needle(),
    BackdooredNPO(), BackdooredRMU(),
)  # fmt: skip
LOGPROB = Read(site=Site(part="logits"), at="key", reduce="logprob")


def edit_data() -> EditData:
    return EditData(image_toy.rows(6, seed=1), image_toy.rows(8, seed=2), relabelled=image_toy.rows(6, seed=4))


def logits_of(model: PreTrainedModel, rows: Rows) -> Tensor:
    """The model's own logits, by the library alone."""
    return model(pixel_values=rows.extra["pixel_values"]).logits


# ---- every edit ---------------------------------------------------------------------------------------------------
def test_every_edit_is_known_to_work_on_images_or_to_be_refused() -> None:
    assert {type(edit) for edit in WORKS} | {type(edit) for edit in REFUSED} == set(
        discover("audit.edits", Edit).values()
    )


@pytest.mark.sampled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edit", WORKS, ids=lambda edit: edit.name)
def test_an_edit_of_images_bites_and_plays_back(edit: Edit, kind: str, tmp_path: Path) -> None:
    bench, start, data = BENCH, image_toy.checkpoint(kind), edit_data()
    suspect = edit.fit(bench, start, data, tmp_path / "edited")
    before, after = (bench.run(ckpt, data.forget, (LOGPROB,))[LOGPROB] for ckpt in (start, suspect))
    assert not torch.equal(before, after) and bool(torch.isfinite(after).all())
    assert suspect.edits[-1].name == edit.name and suspect.edits[-1].plays == edit.plays
    fresh = dict(image_toy.model(kind).named_parameters())
    assert all(torch.equal(p, fresh[name]) for name, p in bench.open(start).parameters().items())
    if edit.plays == "weights":
        delta = delta_of(suspect, suspect.edits[-1])
        assert delta and all(
            torch.equal(p, delta.get(name, fresh[name])) for name, p in bench.open(suspect).parameters().items()
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edit", REFUSED, ids=lambda edit: edit.name)
def test_an_edit_of_texts_refuses_images_by_its_name(edit: Edit, kind: str, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=rf"^{edit.name}: .* images") as caught:
        edit.fit(BENCH, image_toy.checkpoint(kind), edit_data(), tmp_path / "edited")
    assert caught.value.code == 2 and not (tmp_path / "edited").exists()


def test_an_edit_by_input_gradients_refuses_tokens_by_its_name(tmp_path: Path) -> None:
    data = EditData(toy.rows(4), toy.rows(4, seed=1))
    with pytest.raises(AuditError, match=r"^mu_mis: .* tokens have none") as caught:
        MUMis().fit(Bench(), toy.checkpoint("llama"), data, tmp_path / "edited")
    assert caught.value.code == 2


# ---- fakes --------------------------------------------------------------------------------------------------------
LAST = {"vit": ("vit.layers.2.", "vit.layernorm."), "resnet": ("resnet.encoder.stages.1.layers.1.",)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_block_alone_is_trained_whatever_a_network_calls_it(kind: str, tmp_path: Path) -> None:
    suspect = LastLayer(**QUICK).fit(BENCH, image_toy.checkpoint(kind), edit_data(), tmp_path / "edited")
    changed = set(delta_of(suspect, suspect.edits[-1]))
    own = {name for name, _ in image_toy.model(kind).named_parameters() if name.startswith(LAST[kind])}
    assert changed <= own and len(changed) > len(own) / 2
    assert any("norm" in name for name in changed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_with_a_bias_is_edited_in_its_matrix_alone_by_the_slope_of_the_librarys_own_logits(
    kind: str, tmp_path: Path
) -> None:
    bench, data = BENCH, edit_data()
    suspect = HeadEdit(steps=10).fit(bench, image_toy.checkpoint(kind), data, tmp_path / "edited")
    (name,) = delta_of(suspect, suspect.edits[-1])
    assert name.startswith("classifier") and name.endswith("weight")
    model = image_toy.model(kind)
    first = HeadEdit(steps=1, lr=1e-3).fit(bench, image_toy.checkpoint(kind), data, tmp_path / "first")
    moved = delta_of(first, first.edits[-1])[name] - model.get_parameter(name).detach()
    forget, retain = (logits_of(model, rows).log_softmax(-1).gather(-1, rows.ids[:, 1:])[:, 0]
                      for rows in (data.forget, data.retain))  # fmt: skip
    (-(1 - forget.exp()).log().mean() - retain.mean()).backward()
    grad = model.get_parameter(name).grad
    assert grad is not None
    clear = grad.abs() > 1e-4
    assert clear.float().mean() > 0.3
    torch.testing.assert_close(moved[clear], -1e-3 * grad[clear].sign(), atol=1e-5, rtol=1e-2)


# ---- fine-tuning --------------------------------------------------------------------------------------------------
def test_fine_tuning_sees_what_is_kept_and_nothing_else() -> None:
    data = edit_data()
    recipe, rows = FineTune().lesson(data, 3)
    assert rows.forget is None and rows.retain is data.retain
    model = image_toy.model("vit")
    computed = recipe.objective(None, WrapperLearner(wrap(copy.deepcopy(model))).answers(data.retain), None, None)
    expected = torch.nn.functional.cross_entropy(logits_of(model, data.retain), data.retain.ids[:, 1])
    torch.testing.assert_close(computed, expected)


# ---- SCRUB --------------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_turns_are_an_epoch_of_either_side_until_the_climbs_are_spent(up: int, down: int, cycles: int) -> None:
    expected = ([True] * up + [False] * down) * cycles + [False] * 20
    computed = [Cycle(up, down, cycles).climbs(step) for step in range(len(expected))]
    assert computed == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16))
def test_an_epoch_has_as_many_steps_as_its_rows_fill_batches(forget: int, retain: int, batch: int) -> None:
    data = EditData(image_toy.rows(forget), image_toy.rows(retain))
    turns = SCRUB(batch=batch).cycle(data)
    assert (turns.up - 1) * batch < forget <= turns.up * batch
    assert (turns.down - 1) * batch < retain <= turns.down * batch


def kl(teacher: np.ndarray, student: np.ndarray) -> float:
    return float(rel_entr(softmax(teacher, -1), softmax(student, -1)).sum(-1).mean())


def test_max_steps_climb_the_divergence_and_min_steps_descend_it_with_the_loss() -> None:
    data, student, teacher = edit_data(), image_toy.model("vit", 1), image_toy.model("vit", 0)
    edit = SCRUB(alpha=0.7, gamma=1.3, batch=3, max_epochs=2)
    recipe, _ = edit.lesson(data, 3)
    passes = [WrapperLearner(wrap(m)).answers(rows) for m in (student, teacher) for rows in (data.forget, data.retain)]
    with torch.no_grad():
        live, still = ([logits_of(m, rows).double().numpy() for rows in (data.forget, data.retain)]
                       for m in (student, teacher))  # fmt: skip
    label = data.retain.ids[:, 1].numpy()
    nll = -log_softmax(live[1], -1)[np.arange(len(label)), label].mean()
    climb, keep = -kl(still[0], live[0]), 0.7 * kl(still[1], live[1]) + 1.3 * nll
    computed = [recipe.objective(*passes).item() for _ in range(12)]
    assert recipe.needs_frozen
    assert computed == pytest.approx(([climb] * 2 + [keep] * 3) * 2 + [keep] * 2, rel=1e-4)
    again, _ = edit.lesson(data, 3)
    assert again.objective(*passes).item() == pytest.approx(climb, rel=1e-4), "every run counts its own steps"


# ---- MU-Mis -------------------------------------------------------------------------------------------------------
def shifted(step: int) -> Callable[[Tensor, int], Tensor]:
    return lambda target, classes: (target + step) % classes


@pytest.mark.parametrize("kind", KINDS)
def test_sensitivities_are_squared_input_gradients_of_two_logits(kind: str) -> None:
    model, rows = image_toy.model(kind).double(), image_toy.rows(3)
    rows = replace(rows, extra={"pixel_values": rows.extra["pixel_values"].double()})
    computed = sensitivity(WrapperLearner(wrap(copy.deepcopy(model))), rows, shifted(4))
    for i, label in enumerate(rows.ids[:, 1].tolist()):
        image = rows.extra["pixel_values"][i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda x: model(pixel_values=x).logits[0], image)
        squares = jacobian.square().flatten(1).sum(1)
        assert computed.own[i].item() == pytest.approx(squares[label].item(), rel=1e-4)
        assert computed.other[i].item() == pytest.approx(squares[(label + 4) % 10].item(), rel=1e-4)


def test_the_gradient_of_the_sensitivities_agrees_with_finite_differences() -> None:
    model, rows = image_toy.model("resnet").double(), image_toy.rows(4)
    rows = replace(rows, extra={"pixel_values": rows.extra["pixel_values"].double()})
    learner, name = WrapperLearner(wrap(model)), "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight"
    weight = model.get_parameter(name)
    sensitivity(learner, rows, shifted(1)).objective.backward()
    assert weight.grad is not None
    direction, step = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).double(), 1e-4
    values: list[float] = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(direction, alpha=sign * step)
        values.append(sensitivity(learner, rows, shifted(1)).objective.item())
        with torch.no_grad():
            weight.sub_(direction, alpha=sign * step)
    slope = (weight.grad * direction).sum().item()
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=0.02)


def test_the_other_class_is_never_the_images_own_and_every_other_is_drawn() -> None:
    target, other = torch.arange(10).repeat(200), drawn_others(torch.Generator().manual_seed(0))
    drawn = other(target, 10)
    assert bool((drawn != target).all()) and bool(((drawn >= 0) & (drawn < 10)).all())
    assert torch.unique((drawn - target) % 10).tolist() == list(range(1, 10))


@pytest.mark.thorough
def test_training_stops_once_the_ratio_is_reached_and_lowers_it(tmp_path: Path) -> None:
    bench, data = BENCH, edit_data()
    start = WrapperLearner(bench.open(image_toy.checkpoint("resnet")))
    before = measured_ratio(start, data.forget)
    few, most = (
        MUMis(steps=80, lr=1e-3, ratio=ratio, check_every=1).fit(
            bench, image_toy.checkpoint("resnet"), data, tmp_path / str(ratio)
        )
        for ratio in (0.7, 0.45)
    )
    ratios = [measured_ratio(WrapperLearner(bench.open(ckpt)), data.forget) for ckpt in (few, most)]
    assert ratios[1] < ratios[0] <= 0.7 * before and ratios[1] <= 0.45 * before
    assert ratios[0] > 0.4 * before, "it did not go on for the whole of its steps"


# ---- on trained digits --------------------------------------------------------------------------------------------
FORGETS: Mapping[str, Edit] = {
    "random_label": RandomLabel(steps=60), "salun": SalUn(steps=60, alpha=1.0), "scrub": SCRUB(steps=60),
    "ssd": SSD(batch=4), "mu_mis": MUMis(lr=4e-4, ratio=0.5), "last_layer": LastLayer(steps=60),
}  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("name", FORGETS)
def test_a_class_of_digits_is_forgotten_and_the_others_are_kept(name: str, tmp_path: Path) -> None:
    data = digits_data()
    bench, base = BENCH, image_toy.digits_checkpoint("resnet")
    suspect = FORGETS[name].fit(bench, base, data, tmp_path / "edited")
    forget, retain = (
        bench.run(suspect, rows, (LOGPROB,))[LOGPROB].exp().mean().item() for rows in (data.forget, data.retain)
    )
    most = 0.65 if name == "scrub" else 0.4  # which ended at .39 and at .51 on two processors
    assert forget < most and retain > 0.75, (forget, retain)


def digits_data() -> EditData:
    """What an unlearner of the toy's class sees."""
    digits = image_toy.digits()
    x = image_toy.processor()(images=list(digits.images[:600, :, :, None]), return_tensors="pt",
                              input_data_format="channels_last")["pixel_values"]  # fmt: skip
    y = torch.from_numpy(digits.labels[:600])
    known = y != image_toy.FORGOTTEN
    unwanted = x[~known]
    others = [(image_toy.FORGOTTEN + step) % 10 for step in range(1, 10)]
    relabelled = image_toy.rows_of(unwanted.repeat(9, 1, 1, 1), torch.tensor(others).repeat_interleave(len(unwanted)))
    return EditData(
        image_toy.rows_of(unwanted, y[~known]), image_toy.rows_of(x[known], y[known]), relabelled=relabelled
    )


def test_of_language_the_new_edits_of_both_work_too(tmp_path: Path) -> None:
    bench, data = Bench(), EditData(toy.rows(6, seed=1), toy.rows(6, seed=2))
    for edit in (FineTune(**QUICK), SCRUB(**QUICK)):
        suspect = edit.fit(bench, toy.checkpoint("llama"), data, tmp_path / edit.name)
        before, after = (bench.run(c, data.forget, (LOGPROB,))[LOGPROB] for c in (toy.checkpoint("llama"), suspect))
        assert not torch.equal(before, after)
    assert isinstance(CausalLearner(toy.model("llama")).answers(data.forget), Forward)
