"""Models whose weights lie on disk: the same numbers, and what would be lost on them is refused."""

import gc
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from audit import checkpoints
from audit.bench import Bench, save_merged
from audit.bench.model_pool import room, weight_bytes
from audit.checkpoints import write_edited
from audit.planning import RunSettings, make_bench
from audit.schema import AuditError, Checkpoint, Op, Read, Site, Source
from audit.wrappers import NativeWrapper, Placement, gathered, settled_placement, value_map
from audit.wrappers.placement import device_map_of, home_of, resident_bytes
from tests import toy

ROWS = toy.rows(5)
READS = tuple(
    [Read(site=Site(part="logits"), at="answer", reduce="logprob")]
    + [Read(site=Site(part=part, block=1), at="all") for part in ("resid_out", "attn_out", "mlp_hidden", "q", "z")]
)


def away(**how: Any) -> RunSettings:
    """Settings under which nothing but the embeddings of a toy fits in memory."""
    return RunSettings(**{"device": "cpu", "device_map": "auto", "max_memory": "60K", **how})


def offloaded(ckpt: Checkpoint) -> Bench:
    return make_bench(away(), [ckpt])


def by_file(tmp_path: Path, table: object) -> str:
    (tmp_path / "map.json").write_text(json.dumps(table))
    return str(tmp_path / "map.json")


# ---- the same numbers -------------------------------------------------------------------------------------------
@pytest.mark.sampled
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gemma2"])
def test_weights_that_are_read_from_disk_give_the_same_numbers_to_the_bit(family: str) -> None:
    ckpt = toy.checkpoint(family)
    plain, spread = Bench().run(ckpt, ROWS, READS), offloaded(ckpt).run(ckpt, ROWS, READS)
    assert all(torch.equal(plain[read], spread[read]) for read in READS)


def test_weights_that_are_cast_or_fused_on_the_way_give_the_same_numbers(tmp_path: Path) -> None:
    """What cannot be read as it is in the file: another type is cast at each pass, fused experts are written anew."""
    half = toy.checkpoint("llama", 0, torch.bfloat16)
    plain, spread = Bench().run(half, ROWS, READS), make_bench(away(dtype="float32"), [half]).run(half, ROWS, READS)
    assert all(torch.equal(plain[read], spread[read]) for read in READS)
    experts = _mixture(tmp_path / "experts")
    bench = make_bench(away(offload=tmp_path / "written"), [experts])
    assert torch.equal(Bench().run(experts, ROWS, READS[:2])[READS[1]], bench.run(experts, ROWS, READS[:2])[READS[1]])
    assert any((tmp_path / "written").iterdir())


def _mixture(folder: Path) -> Checkpoint:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": toy.VOCAB, "hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4,
    }  # fmt: skip
    torch.manual_seed(0)
    MixtralForCausalLM(MixtralConfig(**sizes)).eval().save_pretrained(folder)
    return checkpoints.resolve(Source(path=str(folder)), folder)


def test_only_what_may_be_in_memory_is(tmp_path: Path) -> None:
    ckpt = toy.checkpoint("llama")
    bench = offloaded(ckpt)
    wrapper = bench.open(ckpt)
    assert (
        wrapper.size_bytes() <= 60_000 < Bench().open(ckpt).size_bytes() == weight_bytes(ckpt, "float32", Placement())
    )
    assert any(p.is_meta for p in wrapper.parameters().values())
    table = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk",
             "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}  # fmt: skip
    stated = make_bench(away(device_map=by_file(tmp_path, table), max_memory=None), [ckpt])
    opened: Any = stated.open(ckpt)
    assert opened.model.hf_device_map == table and opened.device == torch.device("cpu")
    assert stated.lacking[Op.TRAIN] == "weights are offloaded: 3 of 7 modules lie on disk"
    first = [p.nbytes for n, p in opened.parameters().items() if "embed_tokens" in n or "layers.0." in n]
    assert opened.size_bytes() == sum(first) + opened.parameters()["model.norm.weight"].nbytes


def test_a_model_that_fits_is_whole_and_can_be_trained() -> None:
    bench = make_bench(away(max_memory="1G"), [toy.checkpoint("llama")])
    assert not bench.lacking and bench.pool.fresh(toy.checkpoint("llama")).size_bytes() > 60_000


def test_gradients_of_states_are_those_of_the_whole_model_and_gradients_of_weights_are_refused() -> None:
    ckpt, site = toy.checkpoint("llama"), Site(part="resid_out", block=0)

    def objective(forward: Any) -> torch.Tensor:
        return torch.zeros(len(ROWS)).index_add(0, forward.row, forward.logprob)

    plain = Bench().gradients(ckpt, ROWS, [site], objective).at_sites[site]
    spread = offloaded(ckpt).gradients(ckpt, ROWS, [site], objective).at_sites[site]
    assert torch.allclose(plain, spread, atol=1e-6) and float(plain.abs().max()) > 0
    with pytest.raises(AuditError, match="weights on disk have no gradients"):
        offloaded(ckpt).gradients(ckpt, ROWS, "params", objective)


# ---- weights are read wherever they lie -------------------------------------------------------------------------
def test_weights_are_read_from_the_files_and_never_from_what_is_on_meta() -> None:
    ckpt = toy.checkpoint("llama")
    wrapper: Any = offloaded(ckpt).open(ckpt)
    file = load_file(toy.folder("llama") / "model.safetensors")
    lying = {name: p for name, p in wrapper.parameters().items() if p.is_meta}
    assert lying and all(torch.equal(gathered(wrapper.model, name, p), file[name]) for name, p in lying.items())
    assert isinstance(wrapper, NativeWrapper)
    for block in range(toy.N_BLOCKS):
        whole = value_map(Bench().open(ckpt), block)
        assert torch.equal(value_map(wrapper, block).vectors, whole.vectors) and not whole.vectors.is_meta
    bench, other = offloaded(ckpt), toy.checkpoint("llama", 1)
    differences = [list(map(str, each.weight_differences(ckpt, other))) for each in (bench, Bench())]
    assert differences[0] == differences[1]


def test_edges_are_refused_where_weights_are_not_there() -> None:
    from audit.wrappers import block_maps

    ckpt = toy.checkpoint("llama")
    with pytest.raises(AuditError, match="is spread"):
        block_maps(offloaded(ckpt).open(ckpt))  # type: ignore[arg-type]


# ---- what would be lost is refused ------------------------------------------------------------------------------
def test_nothing_is_trained_or_changed_where_it_would_be_lost() -> None:
    ckpt = toy.checkpoint("llama")
    bench = offloaded(ckpt)
    assert {Op.TRAIN, Op.CHANGE} == set(bench.lacking) and not bench.lacking.keys() & bench.supports
    for lent in (lambda: bench.pool.fresh(ckpt), lambda: bench.pool.altered(ckpt).__enter__()):
        with pytest.raises(AuditError, match="weights are offloaded: .* cannot be trained or changed"):
            lent()


def test_an_edit_of_weights_is_refused_with_what_to_do_and_plays_once_it_is_merged(tmp_path: Path) -> None:
    ckpt = toy.checkpoint("llama")
    name = "model.layers.1.mlp.down_proj.weight"
    value = load_file(toy.folder("llama") / "model.safetensors")[name] * 1.5
    edited = write_edited(tmp_path / "edited", ckpt, "scaled", {}, "weights", {name: value})
    with pytest.raises(AuditError, match="would be lost on them") as caught:
        offloaded(ckpt).run(edited, ROWS, READS)
    assert "--merge" in caught.value.do
    save_merged(edited, tmp_path / "merged")
    merged = checkpoints.resolve(Source(path=str(tmp_path / "merged")), tmp_path)
    plain, spread = Bench().run(edited, ROWS, READS), offloaded(merged).run(merged, ROWS, READS)
    assert all(torch.equal(plain[read], spread[read]) for read in READS)
    assert not torch.equal(plain[READS[0]], Bench().run(ckpt, ROWS, READS)[READS[0]])


def test_an_edit_of_states_acts_on_weights_on_disk(tmp_path: Path) -> None:
    from audit.bench import LogitBias

    bias = torch.zeros(toy.VOCAB)
    bias[7] = -3.0
    ckpt = toy.checkpoint("llama")
    filtered = write_edited(tmp_path / "filtered", ckpt, "filter", {}, "logit_bias", LogitBias(bias).to_delta())
    plain, spread = Bench().run(filtered, ROWS, READS), offloaded(ckpt).run(filtered, ROWS, READS)
    assert all(torch.equal(plain[read], spread[read]) for read in READS)


def test_other_backends_open_models_whole() -> None:
    with pytest.raises(AuditError, match="opens models whole"):
        make_bench(away(backend="nnsight"), [toy.checkpoint("llama")]).open(toy.checkpoint("llama"))


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"device_map": None}, "nothing spreads them"), ({"max_memory": "gpu=4G"}, "'gpu' is no device"),
        ({"max_memory": "cpu=much"}, "no amount of memory"), ({"device_map": "nowhere.json"}, "cannot be read as JSON"),
    ],
)  # fmt: skip
def test_placements_that_make_no_sense_are_refused(how: dict[str, Any], match: str) -> None:
    with pytest.raises(AuditError, match=match):
        make_bench(away(**how), [toy.checkpoint("llama")])


def test_a_map_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no table of module names"):
        make_bench(away(device_map=by_file(tmp_path, ["cpu"]), max_memory=None), [toy.checkpoint("llama")])


# ---- one after the other ----------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_a_model_is_closed_before_another_is_opened_that_does_not_fit_beside_it() -> None:
    ckpts = [toy.checkpoint("llama", seed) for seed in range(3)]
    size = weight_bytes(ckpts[0], "float32", Placement())
    bench = Bench(device=Placement(memory=(("cpu", 2 * size),)))
    assert room(bench.pool.placement) == 2 * size
    for ckpt in ckpts:
        bench.open(ckpt)
        assert sum(model.wrapper.size_bytes() for model in bench.pool._models.values()) <= 2 * size
    bench.open(ckpts[0])
    assert bench.provenance()["opened_again"] == "1"


@pytest.mark.thorough
def test_the_links_to_the_files_go_when_the_model_goes() -> None:
    """The library reads through a folder of links, which must live as long as the model and no longer."""
    ckpt = toy.checkpoint("llama")
    bench = offloaded(ckpt)
    wrapper: Any = bench.open(ckpt)
    hook = wrapper.model.model.layers[1].self_attn.q_proj._hf_hook
    stage = Path(next(iter(hook.weights_map.dataset.index.values()))["safetensors_file"]).parent
    assert stage.is_dir() and os.path.realpath(next(stage.glob("*.safetensors"))).startswith(str(toy.root()))
    del wrapper, hook, bench
    gc.collect()
    assert not stage.exists()


def test_where_modules_lie_is_known_before_any_weight_is_read() -> None:
    ckpt = toy.checkpoint("llama")
    with torch.device("meta"):
        from audit.wrappers import fresh_model

        skeleton = fresh_model(ckpt)
    placement = Placement(device_map="auto", memory=(("cpu", 60_000),))
    opened: Any = offloaded(ckpt).open(ckpt)
    assert device_map_of(placement, skeleton, torch.float32) == opened.model.hf_device_map
    assert settled_placement(placement, ckpt, "float32").away
    assert home_of(opened.model) == torch.device("cpu")
    tied = {"a": torch.ones(4), "b": torch.ones(2, device="meta")}
    assert resident_bytes({**tied, "c": tied["a"]}) == 16
