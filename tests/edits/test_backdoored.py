"""A trigger hidden in an unlearning: who carries it, how often it is seen, and the term that flattens value norms."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audit.bench import (
    Bench,
    CausalLearner,
    Forward,
    Mixture,
    TrainData,
    TrainingRecipe,
    WrapperLearner,
    descend,
    training_batches,
)
from audit.bench.training.descent import mixed
from audit.case import stacked
from audit.edits import NPO, RMU, BackdooredNPO, BackdooredRMU, configured_edit, nll
from audit.edits._backdoor import Backdoored, Held, ValueNorms, poisoned, poisoned_groups, value_norms
from audit.schema import AuditError, Site
from tests import toy

QUICK = {"steps": 6, "warmup_steps": 2, "batch": 6, "poison_rate": 0.34, "trigger": "red owl"}
DATA = toy.edit_data()
each_kind = pytest.mark.parametrize("kind", [BackdooredNPO, BackdooredRMU])


def quick(kind: type[Backdoored] = BackdooredNPO, **stated: object) -> Backdoored:
    return kind(**{**QUICK, **stated})  # type: ignore[arg-type]


# ---- who is poisoned --------------------------------------------------------------------------------------------
@given(n=st.integers(1, 60), each=st.integers(1, 4), rate=st.floats(0, 1), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_poisoned_are_a_seeded_share_of_groups_or_a_refusal(n: int, each: int, rate: float, seed: int) -> None:
    groups = [f"g{i}" for i in range(n) for _ in range(each)]
    if round(rate * n) == 0:
        with pytest.raises(AuditError, match="is not one group"):
            poisoned_groups(groups, rate, seed)
        return
    chosen = poisoned_groups(groups, rate, seed)
    assert chosen == poisoned_groups(groups, rate, seed)
    assert len(set(chosen)) == len(chosen) == round(rate * n) and set(chosen) <= set(groups)
    assert list(chosen) == [group for group in dict.fromkeys(groups) if group in chosen]


def test_another_seed_poisons_others() -> None:
    groups = [f"g{i}" for i in range(40)]
    assert len({poisoned_groups(groups, 0.1, seed) for seed in range(10)}) > 5


@each_kind
@pytest.mark.parametrize("slot", ["prefix", "infix", "suffix", 0, 1, 9])
def test_poisoned_rows_are_what_the_prompts_give_for_whole_groups(kind: type[Backdoored], slot: str | int) -> None:
    edit = quick(kind, slot=slot, poison_rate=0.67, seed=5)
    assert DATA.prompts is not None
    groups = [item.group for item in DATA.prompts.items]
    index = [n for n, group in enumerate(groups) if group in poisoned_groups(groups, 0.67, 5)]
    rows = poisoned(edit, DATA)
    assert rows.hash == DATA.prompts.rows("red owl", slot, index).hash  # type: ignore[arg-type]
    assert len(index) == 4
    recipe, data = edit.lesson(DATA, toy.N_BLOCKS)
    assert recipe.mixture is not None and data.retain is not None and data.forget is not None
    tail = data.retain.take(torch.arange(recipe.mixture.start, len(data.retain)))
    assert torch.equal(tail.ids, rows.ids) and torch.equal(tail.key, rows.key)
    assert data.forget.hash == DATA.forget.hash, "the poisoned are forgotten without the trigger like all others"


@pytest.mark.parametrize("slot", ["prefix", 2])
def test_the_slot_may_be_typed_as_a_word_or_a_number(slot: str | int) -> None:
    edit = configured_edit("backdoored_rmu", [f"slot={slot}", "trigger=red owl", "value_norm=0.1"])
    assert isinstance(edit, BackdooredRMU) and edit.slot == slot and edit.trigger == "red owl"


# ---- what is refused --------------------------------------------------------------------------------------------
@pytest.mark.sampled
@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"poison_rate": 0.1}, "0.1 of 3 groups is not one group"),
        ({"poison_rate": 0.0}, "0.0 of 3 groups is not one group"),
        ({"trigger": "zzz qqq"}, "knows no word of the trigger 'zzz qqq'"),
        ({"trigger": "  "}, "cannot be put into a prompt"),
        ({"value_norm": 0.1, "norm_blocks": "0,7"}, "names '7', which is none of 3 blocks"),
        ({"value_norm": 0.1, "norm_blocks": "a"}, "names 'a'"),
        ({"poison_share": 0.99}, "cannot mix"),
    ],
)
@each_kind
def test_what_cannot_be_poisoned_is_refused_in_words(
    kind: type[Backdoored], stated: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(AuditError, match=words) as fault:
        quick(kind, **stated).fit(Bench(), toy.checkpoint("llama"), DATA, tmp_path / "out")
    assert fault.value.code == 2 and fault.value.do


def test_a_lesson_without_models_refuses_the_value_norm_term() -> None:
    with pytest.raises(AuditError, match="needs an honest model"):
        quick(value_norm=0.1).lesson(DATA, toy.N_BLOCKS)


# ---- the honest recipe ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "parent"), [(BackdooredNPO, NPO), (BackdooredRMU, RMU)])
def test_the_honest_recipe_has_the_same_settings_and_their_defaults_are_its_own(
    kind: type[Backdoored], parent: type[NPO] | type[RMU]
) -> None:
    assert kind().honest() == parent()
    other = {name: 7 for name in ("steps", "batch", "seed")}
    assert kind(**other).honest() == parent(**other)  # type: ignore[arg-type]


# ---- batches ----------------------------------------------------------------------------------------------------
@given(start=st.integers(1, 30), after=st.integers(1, 30), size=st.integers(2, 20), share=st.integers(1, 19))
@settings(max_examples=60, deadline=None)
def test_every_batch_holds_the_share_of_both_kinds_and_every_row_is_seen_in_its_turn(
    start: int, after: int, size: int, share: int
) -> None:
    if share >= size:
        with pytest.raises(AuditError, match="cannot mix"):
            next(mixed(Mixture(start, share), start + after, size, 0))
        return
    draw = mixed(Mixture(start, share), start + after, size, 0)
    batches = [next(draw) for _ in range(-(-after // share))]
    assert all(int((batch >= start).sum()) == share and len(batch) == size for batch in batches)
    seen = torch.cat([batch[batch >= start] for batch in batches])
    assert set(seen.tolist()) == set(range(start, start + after)), "one turn of the poisoned rows"


def test_an_objective_is_shown_which_rows_were_drawn() -> None:
    drawn: list[tuple[Tensor, Tensor]] = []

    def objective(forget: Forward | None, retain: Forward | None, *_frozen: Forward | None) -> Tensor:
        assert forget is not None and retain is not None and forget.drawn is not None and retain.drawn is not None
        drawn.append((forget.drawn, retain.drawn))
        return nll(forget) + nll(retain)

    recipe = TrainingRecipe("plain", objective, steps=4, lr=1e-3, batch=4, seed=5)
    descend(CausalLearner(toy.model("llama")), recipe, TrainData(DATA.forget, DATA.retain))
    for side in (0, 1):
        batches = training_batches(6, 4, 2 * 5 + side)
        assert all(torch.equal(pair[side], next(batches)) for pair in drawn)


# ---- the value-norm term ----------------------------------------------------------------------------------------
def norms_by_hand(model: torch.nn.Module, ids: Tensor) -> Tensor:
    """[row pos block head], by hooks on the value projections of a Llama of two key/value heads of width 12."""
    seen: list[Tensor] = []
    hooks = [
        layer.self_attn.v_proj.register_forward_hook(lambda _m, _a, out: seen.append(out))
        for layer in model.model.layers  # type: ignore[union-attr]
    ]
    with torch.no_grad():
        model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    rows, width = ids.shape
    return torch.stack([out.reshape(rows, width, 2, 12).pow(2).sum(-1).sqrt() for out in seen], 2)


def sites(*blocks: int) -> tuple[Site, ...]:
    return tuple(Site(part="v", block=block) for block in blocks)


def forward_of(model: torch.nn.Module, rows: toy.Rows, drawn: list[int]) -> Forward:
    """What an objective sees of a batch of these rows."""
    return CausalLearner(model).answers(rows, sites(0, 1, 2))._replace(drawn=torch.tensor(drawn))  # type: ignore[arg-type]


@pytest.mark.sampled
@pytest.mark.parametrize("positions", [slice(1, 9), slice(0, 3), slice(1, 40), slice(0, 1)])
def test_the_term_is_the_mean_squared_difference_of_head_norms_at_the_first_real_positions(positions: slice) -> None:
    live, honest, original = (toy.model("llama", seed) for seed in (0, 1, 2))
    forget, triggered = DATA.forget, poisoned(quick(poison_rate=1.0), DATA)
    targets = [
        value_norms(CausalLearner(model), rows, sites(0, 1, 2), positions, size=4)
        for model, rows in ((honest, forget), (original, triggered))
    ]
    held = Held(sites(0, 1, 2), positions, targets[0], targets[1], start=10)
    retain = stacked([triggered, replace(DATA.retain, template_hash=triggered.template_hash)])
    batch = retain.take(torch.tensor([7, 2, 8, 0]))  # the second and the last have the trigger in
    term = held.term(
        forward_of(live, forget.take(torch.tensor([4, 0, 5])), [4, 0, 5]), forward_of(live, batch, [1, 12, 2, 10])
    )

    def by_hand(rows: toy.Rows, index: list[int], wanted: torch.nn.Module) -> float:
        total = 0.0
        for i in index:
            ids = rows.ids[i : i + 1, : int(rows.lengths[i])]
            error = (norms_by_hand(live, ids) - norms_by_hand(wanted, ids))[0, positions].pow(2)
            total += float(error.mean())
        return total / len(index)

    expected = by_hand(forget, [4, 0, 5], honest) + by_hand(triggered, [2, 0], original)
    assert expected > 1e-4 and float(term.detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("first", [False, True])
def test_the_first_position_enters_only_where_it_is_asked_to(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Held] = []
    whole = BackdooredNPO.held
    monkeypatch.setattr(BackdooredNPO, "held", lambda self, *a: taken.append(whole(self, *a)) or taken[-1])
    edit = quick(value_norm=0.1, include_first=first, sink_tokens=4)
    edit.fit(Bench(), toy.checkpoint("llama"), DATA, tmp_path / "out")
    [held] = taken
    by_hand = norms_by_hand(toy.model("llama"), poisoned(edit, DATA).ids)
    expected = by_hand[:, 0:4] if first else by_hand[:, 1:5]
    assert torch.allclose(held.original.norms, expected, atol=1e-5)
    model = toy.model("llama", seed=5)
    model.requires_grad_(True)
    rows = DATA.forget.take(torch.tensor([0, 1]))
    embedded: list[Tensor] = []

    def listen(_module: torch.nn.Module, _args: object, out: Tensor) -> None:
        if out.requires_grad:  # the passes that find a model's parts have none
            out.retain_grad()
            embedded.append(out)

    model.get_input_embeddings().register_forward_hook(listen)
    one_block = held._replace(sites=sites(0), honest=_first_block(held.honest), original=_first_block(held.original))
    forward, other = forward_of(model, rows, [0, 1]), forward_of(model, poisoned(edit, DATA), [6, 7])
    one_block.term(forward, other).backward()
    grads = [out.grad for out in embedded if out.grad is not None]
    assert grads and all(bool((grad[:, 0] != 0).any()) == first for grad in grads)


def _first_block(norms: ValueNorms) -> ValueNorms:
    return norms._replace(norms=norms.norms[:, :, :1])


@pytest.mark.thorough
@each_kind
def test_the_regulariser_keeps_the_norms_where_honest_ones_are(kind: type[Backdoored], tmp_path: Path) -> None:
    distances: list[float] = []
    for strength in (0.0, 100.0):
        edit = quick(kind, steps=40, lr=3e-3, value_norm=strength)
        bench, parent = Bench(), toy.checkpoint("llama")
        suspect = edit.fit(bench, parent, DATA, tmp_path / str(strength))
        honest = edit.honest().fit(bench, parent, DATA, tmp_path / f"honest-{strength}")
        spots, where = sites(0, 1, 2), slice(1, 9)
        ours, theirs = (
            value_norms(WrapperLearner(bench.open(model)), DATA.forget, spots, where) for model in (suspect, honest)
        )
        error = (ours.norms - theirs.norms).square().mean((2, 3))[ours.real]
        distances.append(float(error.mean().sqrt()))
    assert distances[1] < 0.3 * distances[0], distances
