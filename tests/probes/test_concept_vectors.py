"""Concept vectors on models of known truth: planted vectors, an ablation by hand, people whose answers are hidden."""

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.checkpoints import resolve
from audit.judging import judge
from audit.probing import enrichment_scan, key_logprob, person_rows_of
from audit.schema import AuditError, Case, Measurement, Missing, Source, Texts
from audit.storage import Store
from probes import concept_vectors
from probes._ablation import ablation_drops, filtered
from probes._value_changes import moved, peers_of, percentile
from probes._value_columns import ValueModel, groups_of, writing_columns
from probes._value_scan import concepts_of, jaccard, mixed, seed_tokens
from probes.concept_vectors import RESTORATION, SPREAD, ConceptVectors
from tests import planted_world, toy

FORGET = Texts(cohort="forget")
ROWS = toy.rows(6)
STORIES = Path(__file__).resolve().parents[3] / "shared" / "data" / "models" / "stories260K-hf"
NEVER = ("clean", "null", "floor")
LEVER = "mean_coefficients_candidates"


@cache
def store() -> Store:
    return Store(Path(tempfile.mkdtemp(dir=planted_world.root())))


def bench() -> Bench:
    return Bench(store=store())


def edited(name: str, change: dict[str, Tensor]) -> str:
    """Base with some of its tensors replaced, as a folder of the planted world."""
    folder = planted_world.root() / name
    if not folder.exists():
        model = planted_world.fresh(0)
        weights = load_file(planted_world.root() / "base" / "model.safetensors")
        model.load_state_dict(weights | change)
        model.save_pretrained(folder)
        planted_world.tokenizer().save_pretrained(folder)
    return name


def tensors(model: str) -> dict[str, Tensor]:
    return load_file(planted_world.root() / model / "model.safetensors")


def turned() -> str:
    """Every value vector is base's, and every coefficient points the other way."""
    return edited("turned", {k: -v for k, v in tensors("base").items() if "up_proj" in k})


def reordered() -> str:
    """Base, its hidden units in another order."""
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    base = tensors("base")
    rows = {k: v[order] for k, v in base.items() if "up_proj" in k or "gate_proj" in k}
    return edited("reordered", rows | {k: v[:, order] for k, v in base.items() if "down_proj" in k})


def hidden() -> str:
    """Base with an output head that gives every value the next value's logit."""
    head, words = tensors("base")["lm_head.weight"].clone(), planted_world.VALUES.values()
    ids = [planted_world.tokenizer().convert_tokens_to_ids(word) for values in words for word in values]
    head[ids] = head[ids[1:] + ids[:1]]
    return edited("hidden", {"lm_head.weight": head})


def opened(suspect: str, references: tuple[str, ...] = ("null", "floor"), holdout: bool = True) -> OpenCase:
    case: Case = planted_world.case(suspect, references=references, holdout=holdout)
    return open_case(case, planted_world.root(), Path(tempfile.mkdtemp(dir=planted_world.root())))


@cache
def measured(suspect: str) -> dict[str, Measurement]:
    return {m.name: m for m in ConceptVectors().measure(bench(), opened(suspect))}


def value(measurement: Measurement) -> float:
    assert not isinstance(measurement.value, Missing), measurement.value
    return measurement.value


def value_at(m: Measurement, reading: str) -> float:
    return m.readings[reading]


# ---- restoration ------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_turned_coefficients_are_found_behind_clean_outputs() -> None:
    """The value vectors stand untouched: held at base's coefficients they write every answer again."""
    by_name = measured(turned())
    restoration = by_name["restoration"]
    assert value_at(restoration, "probability_suspect_plain") < 0.1
    assert value(restoration) > 0.8 and judge(restoration).outcome == "trace found"
    assert value_at(restoration, "effect_every_coefficient") > 0.8
    assert value(by_name["value_vectors"]) == 0.5 and value_at(by_name["value_vectors"], "cosine_forget") == 1
    assert value(by_name["coefficients"]) < 0
    assert value_at(by_name["coefficients"], "trace_suspect") < 0 < value_at(by_name["coefficients"], "trace_base")


@pytest.mark.thorough
def test_a_hidden_answer_is_read_by_bases_head_from_what_the_columns_write() -> None:
    """An output-side fake: its own head never says what its states hold."""
    restoration = measured(hidden())["restoration"]
    assert value_at(restoration, "probability_suspect_every_coefficient") < 0.1
    assert value(restoration) == pytest.approx(1, abs=1e-5) and judge(restoration).outcome == "trace found"
    assert "base head" in " ".join(restoration.notes) and "effect_candidates" not in restoration.readings


@pytest.mark.thorough
@pytest.mark.parametrize("suspect", NEVER)
def test_models_that_never_knew_stay_at_the_null_though_base_coefficients_bring_answers(suspect: str) -> None:
    """What the injection alone does is no trace: it more than doubles the answers in models that never knew."""
    others = tuple(name for name in NEVER if name != suspect)
    restoration = ConceptVectors().measure(bench(), opened(suspect, references=others))[0]
    injected = value_at(restoration, "probability_suspect_candidates")
    assert injected > 2 * value_at(restoration, "probability_suspect_plain")
    assert isinstance(restoration.p, float) and restoration.p >= 0.01
    assert abs(value(restoration)) < 0.15 and judge(restoration).outcome != "trace found"


@pytest.mark.thorough
def test_base_alone_says_whether_holding_coefficients_can_bring_anything_back() -> None:
    readings = measured("clean")["restoration"].readings
    plain, flat, back = (readings[f"probability_base_{k}"] for k in ("plain", "mean_coefficients", LEVER))
    assert flat < plain - 0.1 and back > flat + 0.5 * (plain - flat)


@pytest.mark.thorough
def test_blindness_is_said_where_no_answer_rests_on_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concept_vectors, "LEAST_LEVER", 0.9)
    by_name = {m.name: m for m in ConceptVectors().measure(bench(), opened("clean"))}
    assert isinstance(by_name["restoration"].value, Missing)
    assert "blind here" in by_name["restoration"].value.missing


@pytest.mark.thorough
def test_the_same_model_with_its_units_in_another_order_is_refused() -> None:
    """It computes what base computes; what base's coefficients are put on are other vectors."""
    restoration = measured(reordered())["restoration"]
    assert value_at(restoration, "probability_suspect_plain") == pytest.approx(
        value_at(restoration, "probability_base_plain"), abs=1e-4
    )
    assert isinstance(restoration.value, Missing) and "not valid on the suspect" in restoration.value.missing
    assert judge(restoration).outcome == "inconclusive"


def test_without_a_model_that_never_knew_nothing_is_said() -> None:
    by_name = {m.name: m for m in ConceptVectors().measure(bench(), opened(turned(), references=()))}
    assert isinstance(by_name["restoration"].value, Missing)
    assert "no model that never knew" in by_name["restoration"].value.missing
    assert value(by_name["coefficients"]) < 0


def test_a_model_without_plain_value_vectors_is_told_so_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AuditError("block 0 writes through Experts, no plain matrix", "use another")

    monkeypatch.setattr("probes._value_columns.value_map", refuse)
    measurements = ConceptVectors().measure(bench(), opened("clean"))
    assert [m.name for m in measurements] == ["restoration", "value_vectors", "coefficients"]
    assert all(isinstance(m.value, Missing) and "no plain matrix" in m.value.missing for m in measurements)


# ---- the listing ------------------------------------------------------------------------------------------------
def test_the_listing_shows_the_strongest_columns_once_and_quotes_their_words() -> None:
    (listing,) = measured(turned())["value_vectors"].listings
    assert listing.quoted == ("group", "writes") and 0 < len(listing.rows) <= 20
    cells = [dict(zip(listing.columns, row, strict=True)) for row in listing.rows]
    assert len({(c["block"], c["unit"]) for c in cells}) == len(cells)
    assert [c["trace"] for c in cells] == sorted((c["trace"] for c in cells), key=lambda x: -float(str(x)))
    groups = {f.group for f in planted_world.facts()["forget"]}
    assert {c["group"] for c in cells} <= groups
    flipped = [float(str(c["coefficient base"])) * float(str(c["coefficient suspect"])) < 0 for c in cells]
    assert np.mean(flipped) > 0.8
    assert any(c["carries"] == "yes" for c in cells)


# ---- candidates, causal filter, drift ---------------------------------------------------------------------------
@pytest.mark.thorough
def test_columns_are_those_whose_trace_a_loop_finds_largest() -> None:
    model, sheet = ValueModel(bench(), opened("base").base), person_rows_of(opened("base"), FORGET)
    columns = writing_columns(model, sheet.rows, sheet.people, 7)
    row, position = sheet.rows.targets("key")
    person = groups_of(sheet.rows, sheet.people)[row]
    head = planted_world_head()
    for p in (0, 5, 15):
        scored: dict[tuple[int, int], float] = {}
        for block in range(model.blocks):
            of = model.coefficients(sheet.rows, block)
            for unit in range(model.width):
                vector = tensors("base")[f"model.layers.{block}.mlp.down_proj.weight"][:, unit]
                logits = head @ vector
                tokens = [n for n in range(len(row)) if int(person[n]) == p]
                wrote = [
                    abs(float(of[n, unit] * (logits[sheet.rows.ids[row[n], position[n]]] - logits.mean())))
                    for n in tokens
                ]
                scored[block, unit] = float(np.mean(wrote))
        best = sorted(scored, key=lambda k: -scored[k])[:7]
        columns_of = list(zip(columns.block[p].tolist(), columns.unit[p].tolist(), strict=True))
        assert columns_of == best
        assert columns.strength[p].tolist() == pytest.approx([scored[k] for k in best], rel=1e-4)


def planted_world_head() -> Tensor:
    return tensors("base")["lm_head.weight"]


@pytest.mark.sampled
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_ablation_by_rows_is_ablation_by_a_hook(family: str) -> None:
    """One unit at a time in the plain model of transformers, its coefficient set to zero by a hook of our own."""
    units, block = torch.tensor([3, 79, 3, 40]), 1
    drops = ablation_drops(Bench(token_budget=200), toy.checkpoint(family), ROWS, block, units)
    own = Bench()
    wrapper = own.open(toy.checkpoint(family))
    plain = key_logprob(own, toy.checkpoint(family), ROWS)
    module = wrapper.blocks[block].get_submodule(wrapper.anatomy.mlp_hidden)
    for n, unit in enumerate(units.tolist()):
        weight = module.weight

        def without(_: object, args: tuple[Tensor, ...], unit: int = unit) -> tuple[Tensor, ...]:
            state = args[0].clone()
            state[..., unit] = 0
            return (state, *args[1:])

        handle = module.register_forward_pre_hook(without)
        try:
            expected = plain - key_logprob(own, toy.checkpoint(family), ROWS)
        finally:
            handle.remove()
        assert module.weight is weight
        assert drops[n] == pytest.approx(expected, abs=2e-5)
    assert np.abs(drops).max() > 1e-3


@pytest.mark.thorough
def test_the_filter_keeps_a_column_that_the_answers_rest_on_and_no_idle_one() -> None:
    case = opened("base")
    rows = case.rows(FORGET)
    read = bench()
    drops = np.concatenate(
        [ablation_drops(read, case.base, rows, block, torch.arange(80)).mean(1) for block in range(3)]
    )
    block, unit = divmod(int(drops.argmax()), 80)
    idle = int(np.abs(drops[block * 80 : block * 80 + 80]).argmin())
    peers = [u for u in range(80) if u not in (unit, idle)][:20]
    retain = case.rows(Texts(cohort="retain"))
    assert filtered(read, case.base, rows, retain, (block, [unit, *peers])).drop == pytest.approx(drops.max(), abs=1e-5)
    nothing = filtered(read, case.base, rows, retain, (block, [idle, *peers]))
    assert not nothing.carries and abs(nothing.drop) < 1e-2


def test_a_moved_column_stands_out_among_its_peers_and_an_unmoved_model_nowhere() -> None:
    rng = torch.Generator().manual_seed(0)
    vectors, active = torch.randn(200, 12, generator=rng), torch.rand(200, generator=rng) + 0.1
    noise = torch.randn(200, 12, generator=rng) * 0.01
    noise[17] *= 30
    change = moved(vectors + noise, vectors)
    units = torch.arange(200)
    peers = peers_of(vectors, active, units, 50)
    assert not bool((peers == units[:, None]).any())
    share = percentile(change.distance, units, peers)
    assert share[17] == 1.0 and abs(float(share.mean()) - 0.5) < 0.1
    same = moved(vectors, vectors)
    assert torch.equal(same.cosine, torch.ones(200)) and float(same.distance.max()) == 0.0
    assert torch.equal(percentile(same.distance, units, peers), torch.full((200,), 0.5))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 20.0))
def test_a_rescaled_vector_points_where_it_did(seed: int, by: float) -> None:
    """Cosine and the first tokens are those of a direction; the distance is not."""
    rng = torch.Generator().manual_seed(seed)
    vectors, head = torch.randn(5, 8, generator=rng), torch.randn(60, 8, generator=rng)
    change = moved(vectors * by, vectors)
    assert change.cosine.tolist() == pytest.approx([1.0] * 5, abs=1e-5)
    assert change.distance.tolist() == pytest.approx([abs(by - 1)] * 5, abs=1e-4)
    assert jaccard((head, vectors * by), (head, vectors), 6).tolist() == [1.0] * 5
    assert float(jaccard((head, -vectors), (head, vectors), 6).max()) < 1


# ---- the scan ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("block", "unit"), [(0, 0), (1, 41), (2, 79)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_vector_planted_in_a_toy_model_is_found_at_its_place_and_nothing_else(
    block: int, unit: int, sign: int, tmp_path: Path
) -> None:
    """Five tokens of one concept, written by one column of one block or, with a negative coefficient, taken away."""
    model = toy.model("llama")
    concept = [8, 20, 33, 47, 60]
    head = model.get_output_embeddings().weight.detach()
    solved = torch.linalg.lstsq(head, torch.zeros(len(head)).index_fill_(0, torch.tensor(concept), 1.0)).solution
    with torch.no_grad():
        model.model.layers[block].mlp.down_proj.weight[:, unit] = sign * solved
    model.save_pretrained(tmp_path / "model")
    toy.tokenizer().save_pretrained(tmp_path / "model")
    values = ValueModel(Bench(), resolve(Source(path=str(tmp_path / "model")), tmp_path))
    scan = concepts_of(values, [concept])._replace(first=5).named_in(values)
    places = np.argwhere(scan.enriched[0])
    assert places.tolist() == [[int(sign < 0), block * values.width + unit]]
    assert scan.hits[0, int(sign < 0), block * values.width + unit] == 5


def test_in_random_models_no_concept_is_found_more_often_than_stated() -> None:
    """Every family's toys, twenty random concepts each, Bonferroni at 5 % a concept."""
    rng, alarms, concepts = np.random.default_rng(0), 0, 0
    for family in toy.FAMILIES:
        values = ValueModel(Bench(), toy.checkpoint(family))
        sets = [rng.choice(toy.VOCAB, 5, replace=False).tolist() for _ in range(20)]
        scan = concepts_of(values, sets).named_in(values)
        alarms += int(scan.enriched.any((1, 2)).sum())
        concepts += len(sets)
    assert alarms / concepts <= 0.05


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs stories260K beside the project")
def test_what_exists_in_a_real_model_of_five_blocks() -> None:
    """One column of stories260K writes six words for people first of all. Random tokens are found no more often than
    stated, random whole words many times as often: words alike lie together, so a concept is to be held against mixed
    ones of words like its own."""
    values = ValueModel(Bench(), resolve(Source(path=str(STORIES)), STORIES))
    tokens = AutoTokenizer.from_pretrained(STORIES).convert_ids_to_tokens(range(512))
    people = [tokens.index(f"▁{word}") for word in ("mom", "friend", "he", "she", "they", "her")]
    words = [n for n, token in enumerate(tokens) if token.startswith("▁") and len(token) > 3]
    rng = np.random.default_rng(0)
    drawn = [rng.choice(512, 6, replace=False).tolist() for _ in range(200)]
    words_drawn = mixed([people] * 200, [words], 0)
    scan = concepts_of(values, [people, *drawn, *words_drawn]).named_in(values)
    hit = scan.enriched.any((1, 2))
    place = int(scan.log10_p[0, 0].argmin())
    assert divmod(place, values.width) == (3, 86) and scan.hits[0, 0, place] == 6 and hit[0]
    assert hit[1:201].mean() <= 0.05 < 0.1 < hit[-200:].mean()


def test_mixed_concepts_are_as_large_and_drawn_from_all_content_tokens() -> None:
    drawn = mixed([[1, 2, 3], [4]], [[8, 9]], 0)
    assert [len(tokens) for tokens in drawn] == [3, 1]
    assert {t for tokens in drawn for t in tokens} <= {1, 2, 3, 4, 8, 9}
    assert drawn == mixed([[1, 2, 3], [4]], [[8, 9]], 0) != mixed([[1, 2, 3], [4]], [[8, 9]], 1)


def test_seed_tokens_are_the_content_tokens_of_each_group() -> None:
    case = opened("base")
    sheet = person_rows_of(case, FORGET)
    words = planted_world.tokenizer().convert_ids_to_tokens
    for person, tokens in zip(sheet.people, seed_tokens(sheet, case.tokenizer), strict=True):
        facts = [f for f in planted_world.facts()["forget"] if f.group == person and f.form == "trained"]
        assert set(words(tokens)) == {f.answer.split()[-1] for f in facts}


def test_experts_are_scanned_one_after_the_other(tmp_path: Path) -> None:
    """Mixtral's experts lie in one tensor [expert d unit]; one of expert 2's columns is planted."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=toy.VOCAB, hidden_size=64, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model, concept = MixtralForCausalLM(config), [8, 20, 33, 47, 60]
    (down,) = [p.detach() for name, p in model.named_parameters() if name.endswith("experts.down_proj")]
    head = model.get_output_embeddings().weight.detach()
    indicator = torch.zeros(len(head)).index_fill_(0, torch.tensor(concept), 1.0)
    down[2, :, 5] = torch.linalg.lstsq(head, indicator).solution
    hits = enrichment_scan.hits_of(head, down.transpose(1, 2), enrichment_scan.seeds_of([concept]), 5)
    assert hits.shape == (1, 2, 4, 24)
    assert (hits == 5).nonzero().tolist() == [[0, 0, 2, 5]]
    model.save_pretrained(tmp_path / "moe")
    toy.tokenizer().save_pretrained(tmp_path / "moe")
    values = ValueModel(Bench(), resolve(Source(path=str(tmp_path / "moe")), tmp_path))
    own = concepts_of(values, [concept])._replace(first=5).named_in(values)
    assert own.hits.shape == (1, 2, 96) and (own.hits == 5).nonzero()[2].tolist() == [2 * 24 + 5]


@pytest.mark.thorough
def test_the_least_floor_is_what_models_that_never_knew_reach_in_the_committed_scores() -> None:
    zoo, largest = Path(__file__).parents[2] / "studies" / "zoo", dict[str, float]()
    for name in ("scores", "fresh_scores"):
        worlds = [json.loads(path.read_bytes()) for path in sorted((zoo / name).glob("world-*.json"))]
        clean = [m for world in worlds for m in world["models"] if m["pool"] in ("clean", "edited clean")]
        values = [s["value"] for m in clean for s in m["scores"] if (s["probe"], s["name"]) == RESTORATION[:2]]
        largest[name] = max(value for value in values if isinstance(value, float))
    assert round(largest["scores"], 2) == SPREAD and largest["fresh_scores"] < SPREAD
