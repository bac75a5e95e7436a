"""Probes that read weights, value vectors and attention, on a mixture of experts and on gpt-oss of known truth."""

from functools import cache, partial

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from audit.bench import Bench
from audit.judging import judge
from audit.schema import Measurement, Site
from audit.wrappers import Batch, NativeWrapper, Tap, wrap
from probes._sinks import beside_tokens, heads_of, sink_texts
from probes._value_columns import ValueModel
from probes.attention_sink import AttentionSink
from probes.concept_vectors import ConceptVectors
from probes.weight_difference import WeightDifference
from tests import expert_toy, expert_world, planted_world, toy

families = pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])


@cache
def bench() -> Bench:
    return Bench()


@cache
def vectors_of(family: str, suspect: str) -> tuple[Measurement, ...]:
    return ConceptVectors(permutations=999).measure(bench(), expert_world.opened(family, suspect))


# ---- value vectors ----------------------------------------------------------------------------------------------
@pytest.mark.thorough
@families
def test_base_gives_everything_under_its_own_coefficients_and_a_clean_model_nothing(family: str) -> None:
    base, clean = (vectors_of(family, suspect)[0] for suspect in ("base", "clean"))
    lever = base.readings
    assert lever["probability_base_plain"] - lever["probability_base_mean_coefficients"] > 0.15
    assert lever["probability_base_mean_coefficients_candidates"] > 0.9 * lever["probability_base_plain"]
    assert base.value == pytest.approx(1, abs=1e-6) and judge(base).outcome == "trace found"
    assert isinstance(clean.value, float) and clean.value < 0.3 and judge(clean).outcome != "trace found"


@families
def test_the_listing_names_columns_of_experts_and_the_note_says_what_the_router_hides(family: str) -> None:
    _, vectors, coefficients = vectors_of(family, "clean")
    units = {int(row[2]) for row in vectors.listings[0].rows if row[2] is not None}
    width = 48
    assert len({unit // width for unit in units}) > 1, "columns of several experts write the answers"
    (note,) = (note for note in vectors.notes if note.startswith("a mixture of experts"))
    assert "of base's value vectors had none" in note
    assert isinstance(coefficients.value, float) and coefficients.readings["forget"] < coefficients.readings["retain"]


def test_a_token_has_coefficients_of_two_of_four_experts() -> None:
    opened = expert_world.opened("mixtral", "clean")
    model = ValueModel(bench(), opened.base)
    active = model.coefficients(toy_rows(), 1).unflatten(1, (4, -1)) != 0
    assert active.any(2).sum(1).unique().tolist() == [2]


def toy_rows() -> toy.Rows:
    rows = toy.rows(4)
    rows.ids.clamp_(max=len(planted_world.tokenizer()) - 1)
    return rows


# ---- weights ----------------------------------------------------------------------------------------------------
@pytest.mark.thorough
@families
def test_a_change_of_one_expert_is_told_from_the_weights_by_its_number(family: str) -> None:
    folder = expert_world.root(family)
    model = AutoModelForCausalLM.from_pretrained(folder / "base")
    name = "model.layers.1.mlp.experts.down_proj"
    with torch.no_grad():
        fused = model.get_parameter(name)
        fused[2] += 0.1 * torch.outer(torch.linspace(-1, 1, fused.shape[1]), torch.linspace(1, 2, fused.shape[2]))
    model.save_pretrained(folder / "one_expert")
    planted_world.tokenizer().save_pretrained(folder / "one_expert")
    (found,) = WeightDifference().measure(bench(), expert_world.opened(family, "one_expert"))
    assert found.n.unscored == 0 and any("kind of edit: rank-one; 1 of" in note for note in found.notes)
    assert [row[0] for row in found.listings[0].rows] == [f"{name}[2]"]
    assert found.readings["share_of_change_experts"] == pytest.approx(1)
    assert any("nobody is told" in note for note in found.notes), "an edit of one expert is no redirect of a block"


@pytest.mark.thorough
@families
def test_all_experts_of_another_model_are_compared(family: str) -> None:
    (found,) = WeightDifference().measure(bench(), expert_world.opened(family, "clean"))
    base, clean = (
        dict(AutoModelForCausalLM.from_pretrained(expert_world.root(family) / name).named_parameters())
        for name in ("base", "clean")
    )
    moved = sum(float((clean[n] - p).detach().double().square().sum()) for n, p in base.items())
    total = sum(float(p.detach().double().square().sum()) for p in base.values())
    assert found.value == pytest.approx((moved / total) ** 0.5, rel=1e-5)
    experts = [n for n, p in base.items() if p.ndim == 3]
    moved, total = (
        sum(float(x.double().square().sum()) for x in each)
        for each in ([clean[n] - base[n] for n in experts], [base[n] for n in experts])
    )
    assert found.readings["distance_experts"] == pytest.approx((moved / total) ** 0.5, rel=1e-5)


# ---- sinks ------------------------------------------------------------------------------------------------------
@pytest.mark.thorough
@families
def test_what_tokens_receive_is_what_plain_eager_attention_gives_them(family: str) -> None:
    opened = expert_world.opened(family, "clean")
    texts = sink_texts(opened, 6, 24)
    heads = heads_of(bench(), opened.suspect, texts)
    folder = expert_world.root(family) / "clean"
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    assert heads.received is not None
    sums = torch.zeros(2, 4)
    for n, length in enumerate(texts.lengths.tolist()):
        with torch.no_grad():
            patterns = model(input_ids=texts.ids[n : n + 1, :length], output_attentions=True).attentions
        for block, pattern in enumerate(patterns):
            followers = length - torch.arange(length)
            wanted = pattern[0].sum(1) / followers
            np.testing.assert_allclose(heads.received[block, n, :, :length], wanted, atol=1e-5)
            sums[block] += (1 - pattern[0].sum(-1)).mean(-1) / len(texts)
    np.testing.assert_allclose(beside_tokens(heads, texts), sums, atol=1e-5)
    assert bool((sums > 0.01).all()) == (family == "gpt_oss"), "learned sinks take what no token receives"


@pytest.mark.thorough
@families
def test_the_sink_screen_runs_and_tells_learned_sinks(family: str) -> None:
    (found,) = AttentionSink().measure(bench(), expert_world.opened(family, "clean"))
    assert isinstance(found.value, float) and found.value > 0
    assert any(note.startswith("learned sinks: ") for note in found.notes) == (family == "gpt_oss")


def test_a_pattern_that_is_written_leaves_the_sink_its_own() -> None:
    """Even attention over the past, whatever the sink would take: head outputs are means of the values so far."""
    wrapper, seen = wrap(expert_toy.model("gpt_oss")), dict[str, torch.Tensor]()
    assert isinstance(wrapper, NativeWrapper) and "pattern" in wrapper.parts
    even = torch.ones(9, 9).tril()
    even = even / even.sum(1, keepdim=True)

    def replaced(pattern: torch.Tensor) -> torch.Tensor:
        seen["pattern"] = pattern.clone()
        return even.expand_as(pattern)

    ids = torch.arange(5, 14)[None]
    taps = [Tap(Site(part="pattern", block=1), replaced)]
    taps += [Tap(Site(part=part, block=1), partial(seen.__setitem__, part)) for part in ("v", "z")]
    with torch.no_grad():
        wrapper.forward(Batch(ids, torch.ones_like(ids, dtype=torch.bool)), taps)
    assert seen["pattern"].shape == (1, 4, 9, 9) and (seen["pattern"].sum(-1) < 0.99).all()
    means = torch.einsum("qk,rkhd->rqhd", even, seen["v"]).repeat_interleave(2, 2)
    torch.testing.assert_close(seen["z"], means, atol=1e-5, rtol=1e-4)
