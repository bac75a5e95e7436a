"""Families whose blocks, streams or inputs are not those of a plain decoder, each against its own plain forward."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, OPTConfig, PreTrainedModel

from audit.bench import CausalLearner
from audit.checkpoints import modality_of, resolve
from audit.schema import AbsentPartError, AuditError, Op, Site, Source
from audit.wrappers import (
    Batch,
    NativeWrapper,
    Placement,
    Resume,
    Tap,
    core_of,
    fresh_model,
    gathered,
    load_checks,
    open_wrapper,
    reads_key_values,
    wrap,
)
from studies.families.tiny_configs import tiny_config, tiny_model
from tests import toy

FINAL = Site(part="final_in")
MIXED = ("jamba", "olmo_hybrid", "zamba", "zamba2", "nemotron_h", "recurrent_gemma", "qwen3_next", "llama4_text")
SEVERAL = ("deepseek_v4", "hy_v4", "gemma3n_text")
BY_TOKEN = ("deepseek_v4", "gemma4_text", "blt")
WHOLE = ("gemma3n_text", "openai-gpt", "hy_v4")
PADDED = ("recurrent_gemma", "rwkv", "mamba", "mamba2", "jamba", "lfm2")


@cache
def model(family: str) -> PreTrainedModel:
    """A tiny model; shared by the tests, none of which changes it."""
    return tiny_model(family)


@cache
def native(family: str) -> NativeWrapper:
    """The same behind the native backend."""
    return NativeWrapper(model(family))


def _batch(rows: int = 2, length: int = 6) -> Batch:
    ids = torch.arange(rows * length).view(rows, length) * 5 % 60 + 4
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool))


def _out(block: int) -> Site:
    return Site(part="resid_out", block=block)


def _seen(wrapper: NativeWrapper, sites: list[Site], taps: tuple[Tap, ...] = (), resume: Resume | None = None,
          batch: Batch | None = None) -> list[Tensor]:  # fmt: skip
    states: list[Tensor] = []
    reading = [Tap(site, lambda state: states.append(state.detach().clone())) for site in sites]
    with torch.no_grad():
        wrapper.forward(_batch() if batch is None else batch, [*taps, *reading], resume)
    return states


def _plain(family: str, change: Callable[[object], object] | None = None, block: int = 0) -> Tensor:
    """The model's own logits, one block's output changed by a plain hook."""
    handle = native(family).blocks[block].register_forward_hook(lambda _m, _a, out: change(out) if change else None)
    try:
        with torch.no_grad():
            return model(family)(input_ids=_batch().ids, use_cache=False).logits
    finally:
        handle.remove()


def _logits(family: str, *args: object, **settings: object) -> Tensor:
    with torch.no_grad():
        return native(family).head(_seen(native(family), [FINAL], *args, **settings)[0])  # type: ignore[arg-type]


@pytest.mark.sampled
@pytest.mark.parametrize("family", sorted({*MIXED, *SEVERAL, *BY_TOKEN, *WHOLE, *PADDED, "nanochat"}))
def test_the_checks_pass_and_the_logits_are_the_model_s_own(family: str) -> None:
    load_checks.check(native(family))
    torch.testing.assert_close(_logits(family), _plain(family), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", MIXED)
def test_of_several_kinds_of_blocks_each_is_read_at_its_own_modules(family: str) -> None:
    wrapper = native(family)
    assert len(wrapper.anatomy.kinds) > 1
    parts = sorted(wrapper.parts & {"attn_in", "mlp_in", "attn_out", "mlp_out"})
    for part in parts:
        for block, module in enumerate(wrapper.blocks):
            anatomy = wrapper.anatomy.at(block)
            path = {
                "attn_in": anatomy.attn, "mlp_in": anatomy.mlp, "attn_out": anatomy.attn_out,
                "mlp_out": anatomy.mlp_out,
            }[part]  # fmt: skip
            watched: list[Tensor] = []

            def watch(_m: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], out: object, part: str = part,
                      into: list[Tensor] = watched) -> None:  # fmt: skip
                state = out if part.endswith("out") else (args[0] if args else kwargs["hidden_states"])
                into.append(state[0] if isinstance(state, tuple) else state)  # type: ignore[arg-type]

            handle = module.get_submodule(path or "").register_forward_hook(watch, with_kwargs=True)
            try:
                shown = _seen(wrapper, [Site(part=part, block=block)])  # type: ignore[arg-type]
            finally:
                handle.remove()
            torch.testing.assert_close(shown[0], watched[0])


def test_heads_are_found_where_a_softmax_over_positions_runs_and_nowhere_else() -> None:
    heads = {"q", "k", "v", "z", "pattern"}
    assert not heads & native("mamba2").parts and not heads & native("jamba").parts
    kinds = [bool(native("jamba").anatomy.at(block).slots) for block in range(4)]
    assert any(kinds) and not all(kinds), "its attention blocks have heads, its state-space blocks none"
    assert {"q", "k", "v", "z"} <= native("llama4_text").parts


@pytest.mark.parametrize("family", SEVERAL)
def test_streams_beside_one_another_are_shown_as_one(family: str) -> None:
    wrapper, own = native(family), list[Tensor]()
    _plain(family, lambda out: own.append(out[0] if isinstance(out, tuple) else out), 1)
    shown = _seen(wrapper, [_out(1)])[0]
    n = wrapper.anatomy.streams.n
    assert n > 1 and shown.shape == (2, 6, n * wrapper.d_model) and wrapper.tower().widths == (n * wrapper.d_model,) * 4
    for stream in range(n):
        one = own[0][stream] if wrapper.anatomy.streams.place == "before" else own[0][:, :, stream]
        torch.testing.assert_close(shown[..., stream * wrapper.d_model : (stream + 1) * wrapper.d_model], one)

    def doubled(out: object) -> object:
        return (out[0] * 2, *out[1:]) if isinstance(out, tuple) else out * 2  # type: ignore[operator]

    written = _logits(family, (Tap(_out(1), lambda state: state * 2),))
    torch.testing.assert_close(written, _plain(family, doubled, 1), rtol=1e-4, atol=1e-5)
    with pytest.raises(AuditError, match="a mixture of what the blocks hand on") as caught:
        wrapper.norm(torch.zeros(2, n * wrapper.d_model))
    assert caught.value.code == 2


@pytest.mark.parametrize("family", BY_TOKEN)
def test_a_model_that_reads_more_than_embeddings_runs_from_tokens(family: str) -> None:
    wrapper = native(family)
    assert wrapper.by_ids and Op.EMBEDS not in wrapper.supports
    assert not native("llama4_text").by_ids and Op.EMBEDS in native("llama4_text").supports
    batch = _batch()._replace(embeds=torch.zeros(2, 6, wrapper.d_model))
    with pytest.raises(AbsentPartError, match="more of its tokens than their embeddings") as caught:
        wrapper.forward(batch, [])
    assert caught.value.code == 2


def test_what_is_run_in_two_parts_is_held_against_tokens() -> None:
    assert reads_key_values(toy.model("llama"), toy.VOCAB)
    assert not reads_key_values(model("deepseek_v4"), 96) and not reads_key_values(model("mamba"), 96)


@pytest.mark.parametrize("family", [*WHOLE, "jamba", "llama4_text"])
def test_a_pass_that_starts_from_a_state_says_what_a_patch_says(family: str) -> None:
    wrapper = native(family)
    assert wrapper.starts_whole == (family in WHOLE)
    state = _seen(wrapper, [_out(1)])[0].roll(1, 0)

    def patched(out: object) -> object:
        new = wrapper.anatomy.streams.handed(state)
        if isinstance(out, tuple | list):
            return (new, *out[1:]) if isinstance(out, tuple) else [new, *out[1:]]
        return new

    started = _logits(family, (), Resume(1, state))
    torch.testing.assert_close(started, _plain(family, patched, 1), rtol=1e-4, atol=1e-5)


def test_a_norm_that_runs_twice_is_seen_after_the_blocks() -> None:
    wrapper = native("nanochat")
    assert wrapper.anatomy.final_calls == 2
    with torch.no_grad():
        own = wrapper.core(input_ids=_batch().ids, use_cache=False).last_hidden_state  # type: ignore[operator]
    (state,) = _seen(wrapper, [FINAL])
    torch.testing.assert_close(state, own)


def test_a_base_model_under_another_name_is_found_and_trained_through() -> None:
    own = model("llama4_text")
    assert own.base_model is own and core_of(own) is own.model
    rows = toy.rows(3, longest=10)
    with torch.no_grad():
        scored = CausalLearner(own).answers(rows)
        logits = own(input_ids=rows.ids, use_cache=False).logits.log_softmax(-1)
    row, position = rows.targets("answer")
    expected = logits[row, position - 1, rows.ids[row, position]]
    torch.testing.assert_close(scored.logprob, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", PADDED)
def test_rows_padded_on_the_right_say_what_each_says_alone(family: str) -> None:
    wrapper, batch = native(family), _batch(3, 8)
    lengths = torch.tensor([8, 5, 3])
    mask = torch.arange(8) < lengths[:, None]
    padded = Batch(batch.ids.masked_fill(~mask, 0), mask)
    states = _seen(wrapper, [FINAL], batch=padded)[0]
    for row, length in enumerate(lengths.tolist()):
        with torch.no_grad():
            alone = model(family)(input_ids=batch.ids[row : row + 1, :length], use_cache=False).logits
            together = wrapper.head(states[row : row + 1, :length])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[PreTrainedModel], Path]:
    def save(made: PreTrainedModel) -> Path:
        made.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return save


def _opened(path: Path) -> None:
    load_checks.check(open_wrapper(resolve(Source(path=str(path)), Path("/"))))


@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_an_encoder_is_refused_by_name(family: str, folder: Callable[[PreTrainedModel], Path]) -> None:
    with pytest.raises(AuditError, match="is no decoder.*tokens see those that follow them") as caught:
        _opened(folder(tiny_model(family)))
    assert caught.value.code == 2 and ("is_decoder" in caught.value.what) == (family == "bert")


def test_an_encoder_that_was_made_a_decoder_is_opened(folder: Callable[[PreTrainedModel], Path]) -> None:
    config = tiny_config("bert")
    config.is_decoder = True
    _opened(folder(AutoModelForCausalLM.from_config(config)))


@pytest.mark.parametrize(
    ("family", "words"),
    [("reformer", "hands on more than the state"), ("hrm_text", "no list of blocks .* ran 12 times"),
     ("cpmant", "one state of every token")],
)  # fmt: skip
def test_a_family_that_no_hook_fits_is_refused_with_what_was_looked_for(family: str, words: str) -> None:
    with pytest.raises(AuditError, match=words) as caught:
        load_checks.check(wrap(tiny_model(family)))
    assert caught.value.code == 2


@pytest.mark.thorough
def test_a_text_class_saved_with_a_part_of_a_config_is_opened_by_its_own_name(
    folder: Callable[[PreTrainedModel], Path],
) -> None:
    made = tiny_model("emu3")
    path = folder(made)
    with pytest.raises(ValueError, match="Unrecognized configuration"):
        AutoModelForCausalLM.from_pretrained(path)
    _opened(path)
    ckpt, own = resolve(Source(path=str(path)), Path("/")), dict(made.named_parameters())
    assert {n: p.shape for n, p in fresh_model(ckpt).named_parameters()} == {n: p.shape for n, p in own.items()}
    opened = open_wrapper(ckpt, device=Placement(device_map="auto", memory=(("cpu", 20_000),)))
    away = {name: p for name, p in opened.parameters().items() if p.is_meta}
    assert away and all(torch.equal(gathered(opened.model, name, p), own[name]) for name, p in away.items())  # type: ignore[attr-defined]


def test_a_language_model_that_could_read_images_refuses_rows_that_bring_some() -> None:
    own = model("phi4_multimodal")
    stated = own.config.to_dict() | {"architectures": [type(own).__name__]}
    assert modality_of(stated) == "text" and modality_of(stated | {"architectures": []}) == "image+text"
    with pytest.raises(AuditError, match="would ignore pixel_values"):
        native("phi4_multimodal").forward(_batch()._replace(extra={"pixel_values": torch.zeros(2, 3)}), [])


@pytest.mark.parametrize("family", ["openai-gpt", "jamba", "gemma4_text"])
def test_nnsight_sees_the_same(family: str) -> None:
    pytest.importorskip("nnsight")
    other = wrap(tiny_model(family), "nnsight")
    load_checks.check(other)
    states: list[Tensor] = []
    with torch.no_grad():
        other.forward(_batch(), [Tap(_out(1), lambda state: states.append(state.clone()))])
    torch.testing.assert_close(states[0], _seen(native(family), [_out(1)])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["native", "nnsight"])
def test_blocks_that_are_wider_than_what_the_head_reads_say_so(backend: str) -> None:
    pytest.importorskip("nnsight")
    config = OPTConfig(
        vocab_size=toy.VOCAB, hidden_size=32, word_embed_proj_dim=16, num_hidden_layers=2, num_attention_heads=4,
        ffn_dim=48, max_position_embeddings=64, do_layer_norm_before=False,
    )  # fmt: skip
    wrapper, states = wrap(AutoModelForCausalLM.from_config(config).eval(), backend), list[Tensor]()
    load_checks.check(wrapper)
    with torch.no_grad():
        wrapper.forward(_batch(), [Tap(_out(1), lambda state: states.append(state.clone()))])
    assert states[0].shape[-1] == 32 and wrapper.tower().widths == (32, 32) and wrapper.d_model == 16


def test_nnsight_says_what_it_cannot_start_and_cannot_show() -> None:
    pytest.importorskip("nnsight")
    with pytest.raises(AuditError, match="several streams"):
        wrap(tiny_model("hy_v4"), "nnsight")
    with pytest.raises(AuditError, match="runs more than once"):
        wrap(tiny_model("nanochat"), "nnsight")
    other = wrap(tiny_model("openai-gpt"), "nnsight")
    with pytest.raises(AuditError, match="cannot start"):
        other.forward(_batch(), [], Resume(0, torch.zeros(2, 6, 32)))
