"""The native wrapper: parts found by structure, hooks that tell the truth, on six families and on others."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from audit.schema import AuditError, Part, Site
from audit.wrappers import Batch, NativeWrapper, Resume, Stop, Tap
from audit.wrappers.families.causal_lm import load_folder
from audit.wrappers.load_checks import check
from tests import toy

STREAM: tuple[Part, ...] = ("resid_in", "resid_mid", "resid_out", "attn_in", "mlp_in", "attn_out", "mlp_out")
ALL: frozenset[Part] = frozenset({*STREAM, "embed", "final_in", "logits", "q", "k", "v", "z", "mlp_hidden"})


@pytest.fixture(params=toy.FAMILIES)
def wrapper(request: pytest.FixtureRequest) -> NativeWrapper:
    return NativeWrapper(toy.model(request.param))


def _batch(n: int = 3) -> Batch:
    rows = toy.rows(n)
    return Batch(rows.ids, rows.mask)


@torch.no_grad()
def _states(wrapper: NativeWrapper, sites: list[Site], taps: tuple[Tap, ...] = (), **how: object) -> dict[Site, Tensor]:
    found: dict[Site, Tensor] = {}

    def keep(site: Site) -> Callable[[Tensor], None]:
        return lambda state: found.update({site: state.clone()})

    wrapper.forward(_batch(), [*taps, *(Tap(s, keep(s)) for s in sites)], **how)  # type: ignore[arg-type]
    return found


def _out(block: int) -> Site:
    return Site(part="resid_out", block=block)


FINAL = Site(part="final_in")


def test_every_part_is_found_in_six_families(wrapper: NativeWrapper) -> None:
    lacking = ALL - wrapper.parts
    assert lacking == ({"resid_mid"} if wrapper.model.config.model_type == "gpt_neox" else set())


def test_the_residual_stream_is_the_sum_of_its_parts(wrapper: NativeWrapper) -> None:
    for block in range(wrapper.n_blocks):
        parts: list[Part] = ["resid_in", "attn_out", "mlp_out", "resid_out"]
        seen = {s.part: x for s, x in _states(wrapper, [Site(part=p, block=block) for p in parts]).items()}
        torch.testing.assert_close(seen["resid_in"] + seen["attn_out"] + seen["mlp_out"], seen["resid_out"])


def test_the_embed_site_is_what_enters_the_first_block_and_embeds_can_replace_ids(wrapper: NativeWrapper) -> None:
    first = Site(part="resid_in", block=0)
    seen = _states(wrapper, [Site(part="embed"), first, FINAL])
    assert torch.equal(seen[Site(part="embed")], seen[first])
    again: list[Tensor] = []
    batch = _batch()
    with torch.no_grad():
        wrapper.forward(batch._replace(embeds=wrapper.embed(batch.ids)), [Tap(FINAL, again.append)])
    assert torch.equal(again[0], seen[FINAL])


def test_reads_agree_with_the_model_s_own_hidden_states_and_logits(wrapper: NativeWrapper) -> None:
    batch = _batch()
    with torch.no_grad():
        own = wrapper.model(input_ids=batch.ids, output_hidden_states=True)
    seen = _states(wrapper, [*map(_out, range(wrapper.n_blocks)), FINAL])
    for block in range(wrapper.n_blocks - 1):
        torch.testing.assert_close(seen[_out(block)], own.hidden_states[block + 1])
    torch.testing.assert_close(seen[FINAL], own.hidden_states[-1])
    assert not torch.allclose(seen[_out(wrapper.n_blocks - 1)], own.hidden_states[-1])
    torch.testing.assert_close(wrapper.norm(seen[_out(wrapper.n_blocks - 1)]), seen[FINAL])
    torch.testing.assert_close(wrapper.head(seen[FINAL]), own.logits)


def test_patching_a_model_into_itself_changes_nothing_at_every_block(wrapper: NativeWrapper) -> None:
    plain = _states(wrapper, [*map(_out, range(wrapper.n_blocks)), FINAL])
    for block in range(wrapper.n_blocks):
        patch = Tap(_out(block), lambda _, block=block: plain[_out(block)])
        assert torch.equal(_states(wrapper, [FINAL], (patch,))[FINAL], plain[FINAL])
        resumed = _states(wrapper, [FINAL], resume=Resume(block, plain[_out(block)]))
        assert torch.equal(resumed[FINAL], plain[FINAL])


def test_identity_writes_change_nothing_and_other_writes_do_at_every_part(wrapper: NativeWrapper) -> None:
    plain = _states(wrapper, [FINAL])[FINAL]
    for part in sorted(ALL & wrapper.parts - {"logits"}):
        site = Site(part=part, block=None if part in ("embed", "final_in") else 1)
        same = _states(wrapper, [FINAL], (Tap(site, lambda x: x.clone()),))[FINAL]
        moved = _states(wrapper, [FINAL], (Tap(site, lambda x: x * 1.5 + 0.1),))[FINAL]
        torch.testing.assert_close(same, plain)
        assert not torch.allclose(moved, plain, atol=1e-4), part


def test_a_write_in_the_middle_of_a_block_reaches_both_the_norm_and_the_sum(wrapper: NativeWrapper) -> None:
    if "resid_mid" not in wrapper.parts:
        pytest.skip("a parallel block has no middle")
    mid, mlp, out = (Site(part=p, block=1) for p in ("resid_mid", "mlp_out", "resid_out"))
    seen = _states(wrapper, [mid, mlp, out], (Tap(mid, lambda x: 0.5 * x),))
    torch.testing.assert_close(seen[mid] + seen[mlp], seen[out])
    plain = _states(wrapper, [mid, mlp])
    torch.testing.assert_close(seen[mid], 0.5 * plain[mid])
    assert not torch.allclose(seen[mlp], plain[mlp])


def test_z_is_the_pattern_times_v(wrapper: NativeWrapper) -> None:
    eager = toy.model(wrapper.model.config.model_type)
    eager.set_attn_implementation("eager")
    eager_wrapper = NativeWrapper(eager, "eager")
    pattern, v, z = (Site(part=p, block=2) for p in ("pattern", "v", "z"))
    seen = _states(eager_wrapper, [pattern, v, z])
    assert torch.allclose(seen[pattern].sum(-1), torch.ones(()))
    heads = seen[z].shape[2] // seen[v].shape[2]
    values = seen[v].repeat_interleave(heads, 2)
    torch.testing.assert_close(torch.einsum("rhqk,rkhd->rqhd", seen[pattern], values), seen[z])
    uniform = torch.full_like(seen[pattern], 1 / seen[pattern].shape[-1])
    written = _states(eager_wrapper, [z], (Tap(pattern, lambda _: uniform),))[z]
    torch.testing.assert_close(written, torch.einsum("rhqk,rkhd->rqhd", uniform, values))


def test_a_pattern_needs_eager_attention_and_the_error_says_so() -> None:
    wrapper = NativeWrapper(toy.model("llama"))
    with pytest.raises(AuditError, match="eager"):
        _states(wrapper, [Site(part="pattern", block=0)])


def test_nothing_above_stop_and_nothing_below_the_start_is_computed(wrapper: NativeWrapper) -> None:
    ran: list[int] = []
    for i, block in enumerate(wrapper.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    state = _states(wrapper, [_out(0)], stop=Stop(0))[_out(0)]
    assert ran == []  # the pass ended inside block 0, before anybody else's hooks
    _states(wrapper, [_out(2)], resume=Resume(0, state), stop=Stop(2))
    assert ran == [1]
    with pytest.raises(AuditError, match="not computed"):
        _states(wrapper, [_out(0)], resume=Resume(1, state))


def test_the_model_is_as_it_was_after_a_tap_raises(wrapper: NativeWrapper) -> None:
    plain = _states(wrapper, [FINAL])[FINAL]
    blocks = list(wrapper.blocks)

    def broken(state: Tensor) -> None:
        raise ZeroDivisionError

    sites = [Site(part=p, block=1) for p in sorted({*STREAM, "q", "z"} & wrapper.parts)]
    with pytest.raises(ZeroDivisionError):
        _states(wrapper, sites, (Tap(_out(2), broken),), resume=Resume(0, torch.zeros(3, 14, 48)))
    assert list(wrapper.blocks) == blocks
    assert all("forward" not in vars(m) for m in wrapper.model.modules())
    hooks = [m for m in wrapper.model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooks == [] and torch.equal(_states(wrapper, [FINAL])[FINAL], plain)


def test_edits_are_seen_by_hooks_that_were_there_before() -> None:
    wrapper = NativeWrapper(toy.model("gpt2"))
    seen: list[Tensor] = []
    wrapper.blocks[1].register_forward_hook(lambda module, args, output: seen.append(output))
    _states(wrapper, [FINAL], (Tap(_out(1), lambda x: torch.zeros_like(x)),))
    assert float(seen[0].abs().max()) == 0


def test_the_checks_pass_on_six_families(wrapper: NativeWrapper) -> None:
    check(wrapper)


def _breaking(wrapper: NativeWrapper, block: int, change: Callable[[Tensor], Tensor]) -> None:
    own = wrapper.blocks[block].forward
    wrapper.blocks[block].forward = lambda *a, **k: change(own(*a, **k))


def test_a_model_that_sees_the_future_is_refused() -> None:
    wrapper = NativeWrapper(toy.model("llama"))
    _breaking(wrapper, 1, lambda x: x + x.mean(1, keepdim=True))
    with pytest.raises(AuditError, match="Llama.*right of a position") as error:
        check(wrapper)
    assert error.value.code == 2


def test_an_edit_that_does_not_move_the_logits_is_refused_and_its_block_named() -> None:
    wrapper = NativeWrapper(toy.model("llama"))
    frozen = torch.randn(16, 32, 48)
    wrapper.blocks[2].forward = lambda state, **_: frozen[: len(state), : state.shape[1]].clone()
    with pytest.raises(AuditError, match="edit of block 0"):
        check(wrapper)


def test_a_block_whose_output_depends_on_being_watched_is_refused_and_named() -> None:
    wrapper = NativeWrapper(toy.model("llama"))
    forward, calls = wrapper.forward, iter(range(100))

    def unsteady(batch: Batch, taps: list[Tap], *rest: object) -> None:
        nudged = Tap(_out(1), lambda x: x + 1.0)
        forward(batch, [*taps, nudged] if next(calls) == 4 else taps, *rest)  # type: ignore[arg-type]

    wrapper.forward = unsteady  # type: ignore[method-assign]
    with pytest.raises(AuditError, match="block"):
        check(wrapper)


def test_other_decoders_are_found_by_structure() -> None:
    shape = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "pad_token_id": None}
    others = [
        transformers.Olmo2Config(**shape, num_attention_heads=4),  # no norm before the parts, one after them
        transformers.PhiConfig(**shape, num_attention_heads=4),  # parallel, one norm for both
        transformers.Qwen3Config(**shape, num_attention_heads=4, num_key_value_heads=2, head_dim=8),
        transformers.GPTJConfig(vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=32, rotary_dim=4),
        transformers.OPTConfig(vocab_size=40, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
                               word_embed_proj_dim=32),  # a decoder inside the base model, no module for the mlp
    ]  # fmt: skip
    for config in others:
        wrapper = NativeWrapper(transformers.AutoModelForCausalLM.from_config(config))
        check(wrapper)
        wanted = {"attn_in", "attn_out", "mlp_out", "z", "q", "k", "v"}
        assert wanted <= wrapper.parts or config.model_type == "opt", config.model_type


def test_a_model_without_blocks_is_refused() -> None:
    from audit.wrappers.block_chain import block_lists

    with pytest.raises(AuditError, match="no list of blocks"):
        block_lists(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("changed", "code", "told"),
    [
        ({"intermediate_size": 96}, 3, "tensors as its config asks for them"),
        ({"num_attention_heads": "four"}, 2, "expected int, got str"),
        ({"model_type": "foo"}, 2, "does not recognize this architecture"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused(
    tmp_path: Path, changed: dict[str, object], code: int, told: str
) -> None:
    shutil.copytree(toy.folder("llama"), tmp_path / "odd")
    config = tmp_path / "odd" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changed))
    with pytest.raises(AuditError, match=told) as caught:
        load_folder(tmp_path / "odd", torch.float32, "default")
    assert caught.value.code == code and "\n  what to do" in str(caught.value)
    assert "\n" not in caught.value.what


# ---- families that hand on more than states, or less -------------------------------------------------------------
_SIZES = {
    "vocab_size": toy.VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
BESIDE_STATES: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
    "router logits of Mixtral": lambda: transformers.MixtralConfig(
        num_local_experts=4, num_experts_per_tok=2, **_SIZES
    ),
    "router logits of Qwen": lambda: transformers.Qwen2MoeConfig(
        num_experts=4, shared_expert_intermediate_size=24, **_EXPERTS, **_SIZES
    ),
    "router logits asked for": lambda: transformers.MixtralConfig(
        num_local_experts=4, num_experts_per_tok=2, output_router_logits=True, **_SIZES
    ),
    "the cache of Mamba": lambda: transformers.MambaConfig(
        vocab_size=toy.VOCAB, hidden_size=32, state_size=8, num_hidden_layers=2, pad_token_id=0
    ),
}


def _fresh(config: transformers.PreTrainedConfig) -> transformers.PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("case", BESIDE_STATES)
def test_whatever_a_family_hands_on_beside_its_states_the_head_runs_on_states_alone(case: str) -> None:
    wrapper = NativeWrapper(_fresh(BESIDE_STATES[case]()))
    check(wrapper)
    final: list[Tensor] = []
    with torch.no_grad():
        wrapper.forward(_batch(), [Tap(FINAL, lambda state: final.append(state.clone()))])
        own = wrapper.model(_batch().ids, attention_mask=_batch().mask, use_cache=False).logits
        torch.testing.assert_close(wrapper.head(final[0])[_batch().mask], own[_batch().mask], rtol=1e-4, atol=1e-5)


NO_PLACE: dict[str, Callable[[], transformers.PreTrainedConfig]] = {
    "blocks that see more positions than tokens": lambda: transformers.CpmAntConfig(
        vocab_size=toy.VOCAB, hidden_size=32, num_attention_heads=4, dim_head=8, dim_ff=48, num_hidden_layers=2
    ),
}


@pytest.mark.parametrize("case", NO_PLACE)
def test_a_family_without_a_place_for_hooks_is_refused_in_a_sentence(case: str) -> None:
    with pytest.raises(AuditError) as caught:
        check(NativeWrapper(_fresh(NO_PLACE[case]())))
    assert caught.value.code == 2 and caught.value.do
