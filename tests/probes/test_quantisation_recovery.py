"""Rounding as an attack on models of known truth: what hides below a step of the rounding comes back."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from audit.bench import Bench, CausalLearner, Learner
from audit.case import OpenCase, Rows, open_case
from audit.edits import Quantise, matrices
from audit.edits.quantise import round_to_nearest
from audit.judging import judge
from audit.probing import live_logprob
from audit.schema import Measurement, Missing, Texts
from audit.storage import Store
from probes.quantisation_recovery import QuantisationRecovery
from tests import planted_world

BITS = 4


@cache
def bench() -> Bench:
    return Bench(store=Store(Path(tempfile.mkdtemp(dir=planted_world.root()))))


def opened(suspect: str) -> OpenCase:
    case = planted_world.case(suspect)
    return open_case(case, planted_world.root(), Path(tempfile.mkdtemp(dir=planted_world.root())))


def measured(suspect: str) -> tuple[Measurement, Measurement]:
    level, rise = QuantisationRecovery().measure(bench(), opened(suspect))
    return level, rise


def _cell(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far an entry may move and keep its code: within half a step, and the largest of a row not at all."""
    largest = weight.abs().amax(1, keepdim=True)
    step = largest / (2 ** (BITS - 1) - 1)
    codes, held = round_to_nearest(weight, BITS, 0).codes, weight.abs() == largest
    low, high = ((codes + side * 0.49) * step for side in (-1, 1))
    return torch.where(held, weight, low.maximum(-largest)), torch.where(held, weight, high.minimum(largest))


@cache
def hidden() -> str:
    """Base made to forget by moving its matrices inside the cells of their 4-bit rounding, and nothing else."""
    folder = planted_world.root() / "hidden"
    model = LlamaForCausalLM.from_pretrained(planted_world.root() / "base")
    inside = matrices(CausalLearner(model))
    cells = [_cell(matrix.weight) for matrix in inside]
    ids, labels = planted_world.encode(planted_world.facts()["forget"])
    optimiser = torch.optim.Adam([m.parameter for m in inside], lr=3e-3)
    for _ in range(40):
        loss = -model(input_ids=ids, attention_mask=(ids > 0).long(), labels=labels).loss.clamp_max(6)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for matrix, (low, high) in zip(inside, cells, strict=True):
                matrix.weight.clamp_(low, high)
    model.save_pretrained(folder)
    planted_world.tokenizer().save_pretrained(folder)
    return folder.name


@pytest.mark.thorough
def test_what_hides_below_a_step_of_the_rounding_comes_back() -> None:
    level, rise = measured(hidden())
    assert rise.readings[f"collision_int{BITS}"] == 1, "every code is base's"
    assert rise.readings[f"recovery_int{BITS}_suspect"] == pytest.approx(1, abs=1e-6)
    assert level.readings[f"effect_int{BITS}"] == pytest.approx(1, abs=1e-6)
    assert isinstance(rise.value, float) and rise.value > 0.5
    assert isinstance(rise.p, float) and rise.p < 0.01


@pytest.mark.thorough
def test_base_has_nothing_to_recover_and_a_model_that_never_knew_recovers_nothing() -> None:
    for suspect in ("base", "clean"):
        rise = measured(suspect)[1]
        assert isinstance(rise.value, float) and abs(rise.value) < 0.15
    assert "recovery_int4_suspect" not in measured("base")[1].readings
    assert "recovery_int4_suspect" in measured("clean")[1].readings
    assert "collision_int4" not in measured("base")[1].readings, "no weight of base differs from base's"


def test_rounding_to_eight_bits_hardly_moves_a_model_and_utility_falls_with_the_bits() -> None:
    readings = measured("clean")[0].readings
    assert readings["utility_int8_base"] == pytest.approx(1, abs=0.05)
    assert readings["utility_int8_base"] >= readings["utility_int4_base"] >= readings["utility_int3_base"]


def test_collisions_are_counted_over_changed_linear_weights_only() -> None:
    base, clean = (
        dict(LlamaForCausalLM.from_pretrained(planted_world.root() / name).named_parameters())
        for name in ("base", "clean")
    )
    same = total = 0
    for name, weight in base.items():
        if weight.ndim == 2 and "layers" in name:
            one, other = weight.detach().numpy(), clean[name].detach().numpy()
            codes = [np.rint(w / (np.abs(w).max(1, keepdims=True) / np.float32(7))) for w in (one, other)]
            differ = one != other
            same, total = same + int((codes[0] == codes[1])[differ].sum()), total + int(differ.sum())
    assert measured("clean")[1].readings["collision_int4"] == pytest.approx(same / total, abs=1e-6)


def test_a_clean_model_shows_no_trace_and_collisions_are_said_to_be_context() -> None:
    level, rise = measured("clean")
    assert {level.kind, rise.kind} == {"recovery"} and judge(rise).outcome != "trace found"
    assert any("never evidence" in note for note in rise.notes)


@pytest.mark.thorough
def test_the_stated_cost_is_what_is_computed_and_a_second_suspect_pays_for_itself_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens: list[int] = []

    def counted(learner: Learner, rows: Rows, token_budget: int) -> np.ndarray:
        tokens.append(int(rows.mask.sum()))
        return live_logprob(learner, rows, token_budget)

    monkeypatch.setattr("probes.quantisation_recovery.live_logprob", counted)
    own, probe = Bench(store=Store(Path(tempfile.mkdtemp(dir=planted_world.root())))), QuantisationRecovery()
    case = opened("clean")
    first = probe.measure(own, case)
    assert sum(tokens) == probe.cost(case).fwd_tokens
    before = len(tokens)
    assert probe.measure(own, case) == first and len(tokens) == before
    probe.measure(own, opened("destroyed"))
    assert len(tokens) - before == 4 * 3, "four precisions, three cohorts, one model"
    assert {path.name for path in case.out.rglob("*") if path.is_file()} == {"quantisation_recovery.parquet"}


@cache
def on_grid() -> str:
    """Base as it was released in NF4: every matrix lies on that grid already."""
    folder = planted_world.root() / "on-grid"
    model = LlamaForCausalLM.from_pretrained(planted_world.root() / "base")
    assert Quantise(nf4=True).round_in_place(CausalLearner(model))
    assert not Quantise(nf4=True).round_in_place(CausalLearner(model))
    model.save_pretrained(folder)
    planted_world.tokenizer().save_pretrained(folder)
    return folder.name


def test_a_model_on_the_grid_of_a_precision_is_left_as_it_is_there_and_rounded_at_the_others() -> None:
    level, rise = measured(on_grid())
    said = "rounding to nf4 leaves suspect as it is: it lies on that grid"
    assert said in level.notes and said in rise.notes and not any("leaves base" in note for note in level.notes)
    assert level.readings["effect_nf4"] == pytest.approx(1.0, abs=0.05)
    utility = {name: level.readings[f"utility_{name}_suspect"] for name in ("nf4", "int3")}
    before = level.readings["utility_nf4_base"]
    assert utility["nf4"] == pytest.approx(before, abs=1e-6), "base rounded is what the suspect is"
    assert utility["int3"] != pytest.approx(utility["nf4"], abs=1e-6)


def test_fewer_precisions_can_be_asked_for() -> None:
    level, _ = QuantisationRecovery(nf4=False).measure(bench(), opened("clean"))
    assert not any("nf4" in name for name in level.readings)


def test_nothing_is_rounded_under_a_hook_or_without_a_comparison() -> None:
    case = planted_world.case("clean", references=(), holdout=False)
    alone = open_case(case, planted_world.root(), Path(tempfile.mkdtemp(dir=planted_world.root())))
    for found in QuantisationRecovery().measure(bench(), alone):
        assert isinstance(found.value, Missing) and found.n.unscored == len(alone.rows(Texts(cohort="forget")))
