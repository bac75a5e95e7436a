"""Edits are played back exactly, and undone to the byte."""

import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from audit.bench import Bench, LowRank, edit_delta
from audit.bench.edit_playback import opened, play
from audit.bench.weight_journal import WeightJournal
from audit.bench.weight_stream import weights
from audit.bench.writes.logit_bias import LogitBias
from audit.bench.writes.prefix import Prefix
from audit.bench.writes.write import Write
from audit.checkpoints import resolve, write_edited
from audit.schema import AuditError, Checkpoint, Read, Site, Source
from tests import toy, toy_vlm

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"


def bits(model: PreTrainedModel) -> dict[str, bytes]:
    return {
        name: p.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        for name, p in model.named_parameters(remove_duplicate=False)
    }


def fresh(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(toy.folder(family), dtype=dtype).eval()


def parameter(model: PreTrainedModel, name: str) -> Tensor:
    return dict(model.named_parameters(remove_duplicate=False))[name].detach()


def edited(tmp_path: Path, family: str, tensors: Mapping[str, Tensor], plays: str = "weights") -> Checkpoint:
    return write_edited(tmp_path / "edited", toy.checkpoint(family), "test_edit", {}, plays, tensors)


def noisy(family: str, name: str, seed: int = 0) -> Tensor:
    value = parameter(fresh(family), name)
    return value + torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))


@contextmanager
def played(ckpt: Checkpoint, model: PreTrainedModel) -> Generator[tuple[Write, ...]]:
    with WeightJournal() as journal:
        yield play(ckpt, model, journal)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_edit_is_played_and_undone_to_the_byte(tmp_path: Path, dtype: torch.dtype) -> None:
    model, new = fresh("llama", dtype), noisy("llama", DOWN)
    before, objects = bits(model), dict(model.named_parameters())
    with played(edited(tmp_path, "llama", {DOWN: new}), model) as writes:
        assert writes == ()
        assert torch.equal(parameter(model, DOWN), new.to(dtype))
        assert [name for name, b in bits(model).items() if b != before[name]] == [DOWN]
    assert bits(model) == before
    assert all(p is objects[name] for name, p in model.named_parameters())


def test_bytes_are_restored_when_the_block_fails(tmp_path: Path) -> None:
    model = fresh("llama", torch.bfloat16)
    before = bits(model)
    with pytest.raises(KeyError), played(edited(tmp_path, "llama", {DOWN: noisy("llama", DOWN)}), model):
        raise KeyError
    assert bits(model) == before


def test_odd_bits_survive_an_edit(tmp_path: Path) -> None:
    model = fresh("llama")
    with torch.no_grad():
        parameter(model, DOWN)[0, :3] = torch.tensor([float("nan"), -0.0, 1e-45])
    before = bits(model)
    with played(edited(tmp_path, "llama", {DOWN: noisy("llama", DOWN)}), model):
        assert bits(model) != before
    assert bits(model) == before


def test_opening_keeps_the_edit(tmp_path: Path) -> None:
    model, new = fresh("llama"), noisy("llama", DOWN)
    assert opened(edited(tmp_path, "llama", {DOWN: new}), model) == ()
    assert torch.equal(parameter(model, DOWN), new)


def test_edits_are_played_in_order_and_undone_in_reverse(tmp_path: Path) -> None:
    first = edited(tmp_path / "a", "llama", {DOWN: noisy("llama", DOWN, 1), EMBED: noisy("llama", EMBED)})
    second = write_edited(tmp_path / "b", first, "second", {}, "weights", {DOWN: noisy("llama", DOWN, 2)})
    model = fresh("llama")
    before = bits(model)
    with played(second, model):
        assert torch.equal(parameter(model, DOWN), noisy("llama", DOWN, 2))
        assert torch.equal(parameter(model, EMBED), noisy("llama", EMBED))
    assert bits(model) == before


def test_a_tied_name_follows_the_tensor_it_is_tied_to(tmp_path: Path) -> None:
    model, new = fresh("qwen2"), noisy("qwen2", EMBED)
    with played(edited(tmp_path, "qwen2", {EMBED: new}), model):
        assert torch.equal(parameter(model, HEAD), new)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_both_names_of_a_tied_weight_with_one_value_stay_tied(tmp_path: Path) -> None:
    model, new = fresh("qwen2"), noisy("qwen2", EMBED)
    opened(edited(tmp_path, "qwen2", {EMBED: new, HEAD: new.clone()}), model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(parameter(model, HEAD), new)


def test_an_edited_head_leaves_tied_embeddings_alone_and_is_tied_again(tmp_path: Path) -> None:
    model, new = fresh("qwen2"), noisy("qwen2", EMBED)
    before, rows = bits(model), toy.rows(2)
    embeddings = parameter(model, EMBED).clone()
    with torch.no_grad(), played(edited(tmp_path, "qwen2", {HEAD: new}), model):
        assert torch.equal(parameter(model, HEAD), new)
        assert torch.equal(parameter(model, EMBED), embeddings)
        hidden = model.model(input_ids=rows.ids).last_hidden_state
        torch.testing.assert_close(model(input_ids=rows.ids).logits, hidden @ new.T)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert bits(model) == before


def test_an_edit_that_rounds_away_is_an_error(tmp_path: Path) -> None:
    model = fresh("llama", torch.bfloat16)
    tiny = parameter(fresh("llama"), DOWN).bfloat16().float() * (1 + 1e-6)
    before = bits(model)
    with pytest.raises(AuditError, match="changes no byte") as caught:
        opened(edited(tmp_path, "llama", {DOWN: tiny}), model)
    assert caught.value.code == 2
    assert bits(model) == before


def test_a_second_edit_that_fails_takes_the_first_back(tmp_path: Path) -> None:
    new = noisy("llama", DOWN)
    first = edited(tmp_path / "a", "llama", {DOWN: new})
    unknown = write_edited(tmp_path / "b", first, "second", {}, "weights", {"model.layers.9.w": new})
    model = fresh("llama")
    before = bits(model)
    with pytest.raises(AuditError, match="no parameter"):
        opened(unknown, model)
    assert bits(model) == before


def test_a_delta_of_another_shape_is_an_error(tmp_path: Path) -> None:
    model = fresh("llama")
    with pytest.raises(AuditError, match="the model has") as caught:
        opened(edited(tmp_path, "llama", {DOWN: torch.ones(2, 2)}), model)
    assert caught.value.code == 3


def test_a_changed_delta_is_an_integrity_error(tmp_path: Path) -> None:
    ckpt = edited(tmp_path, "llama", {DOWN: noisy("llama", DOWN)})
    save_file({DOWN: noisy("llama", DOWN, 7)}, tmp_path / "edited" / "delta.safetensors")
    model = fresh("llama")
    before = bits(model)
    with pytest.raises(AuditError) as caught:
        opened(ckpt, model)
    assert caught.value.code == 3
    assert bits(model) == before


def test_hook_edits_come_back_as_writes(tmp_path: Path) -> None:
    bias = torch.linspace(-1, 1, toy.VOCAB)
    (write,) = opened(edited(tmp_path / "a", "gpt2", {"bias": bias}, "logit_bias"), fresh("gpt2"))
    assert isinstance(write, LogitBias)
    assert torch.equal(write.bias, bias)
    u, v, b = torch.randn(2, 48), torch.randn(2, 48), torch.randn(48)
    given_writes = [LowRank(Site(part="resid_out", block=1), u, v, b), LowRank(Site(part="final_in"), v, u, b)]
    ckpt = edited(tmp_path / "b", "gpt2", edit_delta(given_writes), "low_rank")
    back = {w.site: w for w in opened(ckpt, fresh("gpt2")) if isinstance(w, LowRank)}
    assert set(back) == {w.site for w in given_writes}
    for w in given_writes:
        assert all(torch.equal(getattr(back[w.site], name), getattr(w, name)) for name in "uvb")


def test_a_hook_that_changes_no_state_is_an_error(tmp_path: Path) -> None:
    site, zero = Site(part="resid_out", block=1), torch.zeros(2, 48)
    tensors = edit_delta([LowRank(site, zero, torch.ones(2, 48), torch.zeros(48))])
    with pytest.raises(AuditError, match="no hook"):
        opened(edited(tmp_path, "gpt2", tensors, "low_rank"), fresh("gpt2"))


@pytest.mark.parametrize(
    ("plays", "names"), [("logit_bias", ["bais"]), ("low_rank", ["text.1.resid_out.u"]), ("low_rank", ["u", "v", "b"])]
)
def test_a_hook_delta_with_other_arrays_is_an_error(tmp_path: Path, plays: str, names: list[str]) -> None:
    ckpt = edited(tmp_path, "gpt2", {name: torch.ones(2, 48) for name in names}, plays)
    with pytest.raises(AuditError, match="should hold|no site"):
        opened(ckpt, fresh("gpt2"))


def test_writes_at_one_place_or_on_some_rows_are_not_stored_in_one_record() -> None:
    site, u, b = Site(part="resid_out", block=1), torch.ones(2, 48), torch.ones(48)
    write, bias = LowRank(site, u, u, b), LogitBias(torch.ones(toy.VOCAB))
    for pair in ([write, LowRank(site, u, u, b)], [bias, bias], [write, bias]):
        with pytest.raises(AuditError, match="one record"):
            edit_delta(pair)
    with pytest.raises(AuditError, match="all rows"):
        edit_delta([LowRank(site, u, u, b, torch.tensor([True, False]))])


@pytest.mark.parametrize(("plays", "says"), [("no_such_write", "neither 'weights' nor"), ("scale", "cannot be stored")])
def test_an_edit_of_a_kind_that_cannot_be_played_is_an_error(tmp_path: Path, plays: str, says: str) -> None:
    ckpt = edited(tmp_path, "gpt2", {"bias": torch.ones(toy.VOCAB)}, plays)
    with pytest.raises(AuditError, match=says) as caught:
        opened(resolve(Source(path=str(tmp_path / "edited")), tmp_path), fresh("gpt2"))
    assert caught.value.code == 3 and ckpt.edits[-1].plays == plays


def test_a_stored_hook_puts_no_tokens_into_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prefix, "from_delta", lambda delta: (Prefix(delta["emb"]),))
    with pytest.raises(AuditError, match="only a single pass"):
        opened(edited(tmp_path, "gpt2", {"emb": torch.ones(2, 1, 48)}, "prefix"), fresh("gpt2"))


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-3, 3, width=16)), max_size=8))
def test_a_journal_undoes_any_sequence_of_writes(steps: list[tuple[int, float]]) -> None:
    tensors = [torch.full((3,), float(i), dtype=torch.bfloat16) for i in range(4)]
    before = [t.clone() for t in tensors]
    with WeightJournal() as journal:
        for i, value in steps:
            bites = journal.overwrite(tensors[i], torch.full((3,), value, dtype=torch.bfloat16))
            assert bites or tensors[i][0] == value
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


# ---- the weight stream ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_the_stream_gives_a_models_parameters(family: str) -> None:
    stream = {name: both for name, both in weights(toy.checkpoint(family), toy.checkpoint(family, seed=1))}
    live = [dict(toy.model(family, seed).named_parameters()) for seed in (0, 1)]
    assert set(stream) == set(live[0])
    assert all(torch.equal(t, p[name]) for name, both in stream.items() for t, p in zip(both, live, strict=True))


def test_the_stream_applies_edits_as_playback_does(tmp_path: Path) -> None:
    head, both = noisy("qwen2", EMBED, 1), noisy("qwen2", EMBED, 2)
    together = edited(tmp_path / "a", "qwen2", {EMBED: both, HEAD: both.clone()})
    moved = write_edited(tmp_path / "b", together, "embeddings", {}, "weights", {EMBED: head})
    apart = write_edited(tmp_path / "c", moved, "head", {}, "weights", {HEAD: noisy("qwen2", EMBED, 3)})
    for ckpt in (together, moved, apart):
        model = fresh("qwen2")
        opened(ckpt, model)
        stream = dict(weights(ckpt, toy.checkpoint("qwen2")))
        for name, p in model.named_parameters():
            assert torch.equal(stream[name][0], p), name
        assert (HEAD in stream) == (ckpt is apart)
    assert torch.equal(dict(weights(apart, toy.checkpoint("qwen2")))[HEAD][1], parameter(fresh("qwen2"), EMBED))


def test_files_of_a_bare_base_model_are_streamed_by_the_models_names(tmp_path: Path) -> None:
    whole = toy.model("gpt2")
    shutil.copytree(toy.folder("gpt2"), tmp_path / "bare")
    bare = {name: p.detach().clone() for name, p in whole.transformer.named_parameters()}
    save_file({**bare, "h.0.attn.bias": torch.ones(1)}, tmp_path / "bare" / "model.safetensors")
    stream = dict(weights(resolve(Source(path=str(tmp_path / "bare")), tmp_path)))
    assert set(stream) == {name for name, _ in whole.named_parameters()}


def test_checkpoints_of_different_architectures_cannot_be_streamed_together() -> None:
    with pytest.raises(AuditError, match="has no tensor"):
        weights(toy.checkpoint("llama"), toy.checkpoint("gpt2"))


@pytest.mark.sampled
@pytest.mark.parametrize("kind", toy_vlm.KINDS)
@pytest.mark.parametrize("part", ["vision", "projector"])
def test_an_edit_of_what_sees_pictures_leaves_words_without_one_alone(kind: str, part: str, tmp_path: Path) -> None:
    """A text on a vision-language model that is edited in its vision tower, or at its projector, is as on its parent;
    a question about a picture is not."""
    parent, bench, rng = toy_vlm.checkpoint(kind), Bench(), torch.Generator().manual_seed(0)
    tower = bench.open(parent).tower(part)
    site = Site(part="final_in", tower="projector") if part == "projector" else Site(
        part="resid_out", block=tower.read[0], tower="vision"
    )  # fmt: skip
    u, v = (torch.randn(1, tower.d_model, generator=rng) for _ in range(2))
    edited = write_edited(
        tmp_path / "edited", parent, "push", {}, "low_rank", LowRank(site, u, v, torch.zeros(tower.d_model)).to_delta()
    )
    read = Read(site=Site(part="logits"), at="answer", reduce="logprob")
    for images in (False, True):
        rows = toy_vlm.rows(kind, 3, images=images)
        before, after = (bench.run(model, rows, [read])[read] for model in (parent, edited))
        assert torch.allclose(before, after, atol=1e-5) != images
