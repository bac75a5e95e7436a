"""Adapters trained together are those trained alone, and those of PEFT."""

from collections.abc import Callable, Mapping
from functools import cache

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, MixtralConfig

from audit.bench.training.adapter_stack import AdapterStack, LowRankForm
from audit.bench.training.descent import learning_rate, training_batches
from audit.bench.training.recipe import TrainingRecipe
from audit.bench.training.stacked_descent import StackedLesson, StackedRows, StackLearner, descend_stacked
from audit.case import Rows
from audit.edits import nll
from audit.schema import AuditError
from audit.wrappers import Wrapper, wrap
from tests import toy

STEPS = 4
FORM = LowRankForm(rank=4, alpha=8.0, first=1)


def clipped(grads: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    norm = torch.stack([grad.norm() for grad in grads.values()]).norm()
    return {name: grad / norm.clamp_min(0.1) for name, grad in grads.items()}


def recipe(seed: int, lr: float = 0.02) -> TrainingRecipe:
    return TrainingRecipe(
        "toy", lambda _, rows, *__: nll(rows), steps=STEPS + seed % 2, lr=lr, batch=4, warmup_steps=2, seed=seed,
        gradient_transform=clipped,
    )  # fmt: skip


@cache
def base(family: str, dtype: torch.dtype = torch.float32) -> Wrapper:
    return wrap(toy.model(family, dtype=dtype).requires_grad_(False))


def lessons(count: int = 3) -> list[StackedLesson]:
    return [StackedLesson(toy.rows(6, seed=n), recipe(n, 0.02 + 0.01 * n)) for n in range(count)]


def trained(wrapper: Wrapper, wanted: list[StackedLesson], seeds: list[int], form: LowRankForm = FORM) -> AdapterStack:
    stack = AdapterStack(wrapper, form, seeds)
    descend_stacked(StackedRows(stack, [lesson.rows for lesson in wanted]), wanted)
    return stack


def gap(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).detach().abs().max()) for name in ours)


# ---- together and alone -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_adapters_trained_together_are_those_trained_alone(family: str, dtype: torch.dtype, bound: float) -> None:
    wrapper = base(family, dtype)
    before = {name: value.clone() for name, value in wrapper.parameters().items()}
    together = trained(wrapper, lessons(), [5, 6, 7])
    for n, lesson in enumerate(lessons()):
        single = trained(wrapper, [lesson], [5 + n])
        assert gap(together.learners[n], single.learners[0]) < bound
    assert all(torch.equal(value, before[name]) for name, value in wrapper.parameters().items())
    moved = {name: value for name, value in together.learners[0].items() if name.endswith("lora_B")}
    assert all(bool((value != 0).any()) for value in moved.values())


@pytest.mark.parametrize(("family", "ratio"), [("llama", 1.0), ("gpt2", 4.0)])
def test_an_adapter_is_the_one_that_peft_trains(family: str, ratio: float) -> None:
    peft = pytest.importorskip("peft")
    wrapper, lesson = base(family, torch.float64), lessons()[1]
    ours = trained(wrapper, [lessons()[0], lesson], [5, 6], FORM._replace(ratio=ratio))
    model = toy.model(family, dtype=torch.float64)
    settings = peft.LoraConfig(
        r=FORM.rank, lora_alpha=FORM.alpha, target_modules=[each.name for each in ours.maps],
        fan_in_fan_out=ours.transposed,
    )  # fmt: skip
    theirs = peft.get_peft_model(model, settings, autocast_adapter_dtype=False)
    start = AdapterStack(wrapper, FORM, [6]).tensors(0)
    assert not peft.set_peft_model_state_dict(theirs, dict(start)).unexpected_keys
    plainly(theirs, lesson, ratio)
    assert gap(ours.tensors(1), peft.get_peft_model_state_dict(theirs)) < 1e-9


def plainly(model: torch.nn.Module, lesson: StackedLesson, ratio: float) -> None:
    """A loop over whole rows with torch's own loss."""
    chosen = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = [{"params": [p for name, p in chosen.items() if f"lora_{side}" in name]} for side in "AB"]
    optimiser = torch.optim.AdamW(groups, betas=lesson.recipe.betas, weight_decay=0.0)
    batches = training_batches(len(lesson.rows), lesson.recipe.batch, 2 * lesson.recipe.seed + 1)
    for step, index in zip(range(lesson.recipe.steps), batches, strict=False):
        rows = lesson.rows.take(index)
        place = torch.arange(rows.ids.shape[1])
        answer = (place >= rows.answer_spans[:, :1]) & (place < rows.answer_spans[:, 1:])
        logits = model(input_ids=rows.ids, attention_mask=rows.mask.long()).logits[:, :-1].float()
        wanted = rows.ids.masked_fill(~answer, -100)[:, 1:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimiser.zero_grad()
        loss.backward()
        for name, grad in clipped({n: p.grad for n, p in chosen.items() if p.grad is not None}).items():
            chosen[name].grad = grad
        for group, slower in zip(optimiser.param_groups, (ratio, 1.0), strict=True):
            group["lr"] = learning_rate(lesson.recipe, step) / slower
        optimiser.step()


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_batches_in_parts_and_states_kept_below_change_nothing_but_rounding(family: str) -> None:
    wrapper = base(family, torch.float64)
    full = trained(wrapper, lessons(2), [1, 2])
    stack, wanted = AdapterStack(wrapper, FORM, [1, 2]), lessons(2)
    rows = StackedRows(stack, [lesson.rows for lesson in wanted], kept_share=0.0)
    assert rows.states is None
    descend_stacked(rows, wanted, tokens=30)
    for n in range(2):
        assert gap(stack.learners[n], full.learners[n]) < 1e-8
    retained = StackedRows(stack, [lesson.rows for lesson in wanted], kept_share=1.0)
    assert retained.states is not None
    index = torch.tensor([3, 0, 4])
    assert torch.allclose(
        StackLearner(retained, 1).answers(index).logprob, StackLearner(rows, 1).answers(index).logprob
    )


def test_a_learner_that_has_learnt_enough_stands_still_while_the_others_go_on() -> None:
    wrapper, wanted = base("llama", torch.float64), lessons(2)
    stopped = [wanted[0]._replace(after_step=lambda taken: taken == 2), wanted[1]]
    stack = AdapterStack(wrapper, FORM, [1, 2])
    assert descend_stacked(StackedRows(stack, [lesson.rows for lesson in wanted]), stopped) == [2, STEPS + 1]
    single = trained(wrapper, [wanted[1]], [2])
    short = trained(wrapper, [stopped[0]], [1])
    assert gap(stack.learners[1], single.learners[0]) < 1e-9
    assert gap(stack.learners[0], short.learners[0]) < 1e-9


def test_equal_rows_of_two_lessons_are_kept_once() -> None:
    stack = AdapterStack(base("llama"), FORM, [1, 2])
    rows = toy.rows(6)
    assert len(StackedRows(stack, [rows, rows]).rows) == 6
    other = Rows(**{**vars(rows), "answer_spans": rows.answer_spans - torch.tensor([1, 0])})
    assert len(StackedRows(stack, [rows, other]).rows) == 12


# ---- refused ----------------------------------------------------------------------------------------------------
def test_stacked_experts_are_refused_by_name() -> None:
    settings = MixtralConfig(
        vocab_size=toy.VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    wrapper = wrap(AutoModelForCausalLM.from_config(settings).eval().requires_grad_(False))
    with pytest.raises(AuditError, match=r"mlp\.gate\.weight is \[4, 32\], and no linear map of its own") as refused:
        AdapterStack(wrapper, FORM, [0])
    assert "form full" in refused.value.do


def test_rows_that_meet_on_the_way_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = wrap(toy.model("llama").requires_grad_(False))
    mean = wrapper.model.model.layers[2].mlp.register_forward_hook(lambda _, __, out: out + out.mean(0))  # type: ignore[attr-defined]
    with pytest.raises(AuditError, match="rows of a batch meet"):
        AdapterStack(wrapper, FORM, [0])
    mean.remove()


def refused(change: Callable[[TrainingRecipe], TrainingRecipe], text: str) -> None:
    wanted = lessons(2)
    odd = [wanted[0], wanted[1]._replace(recipe=change(wanted[1].recipe))]
    stack = AdapterStack(base("llama"), FORM, [1, 2])
    with pytest.raises(AuditError, match=text):
        descend_stacked(StackedRows(stack, [lesson.rows for lesson in wanted]), odd)


def test_recipes_that_a_stack_cannot_follow_are_refused() -> None:
    from dataclasses import replace

    refused(lambda r: replace(r, needs_frozen=True), "no single loss")
    refused(lambda r: replace(r, batch=5), "several sizes")
    refused(lambda r: replace(r, objective=lambda *_: torch.tensor(float("nan"))), "loss is nan")
