"""Classifiers of images behind hooks: parts found by structure, hooks that tell the truth, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    PreTrainedModel,
    SwinConfig,
    SwinForImageClassification,
)

from audit.schema import AuditError, Op, Part, Site
from audit.wrappers import Batch, Resume, Stop, Tap, Wrapper, open_wrapper, wrap
from audit.wrappers.load_checks import check
from audit.wrappers.native_image import NativeImageWrapper
from tests import image_toy

ROWS = image_toy.rows(4)
BATCH = Batch(ROWS.ids, ROWS.mask, None, ROWS.extra)
FINAL = Site(part="final_in")
STREAM: tuple[Part, ...] = ("resid_in", "resid_mid", "resid_out", "attn_in", "mlp_in", "attn_out", "mlp_out")
ALL: frozenset[Part] = frozenset({*STREAM, "embed", "final_in", "logits", "q", "k", "v", "z", "mlp_hidden"})
LAST = image_toy.N_BLOCKS - 1


def site(part: Part, block: int | None = 1) -> Site:
    return Site(part=part, block=None if part in ("embed", "final_in", "logits") else block)


@pytest.fixture(params=image_toy.TRANSFORMERS)
def wrapper(request: pytest.FixtureRequest) -> NativeImageWrapper:
    return NativeImageWrapper(image_toy.model(request.param))


@torch.no_grad()
def read(wrapper: Wrapper, sites: list[Site], taps: tuple[Tap, ...] = (), **how: Any) -> dict[Site, Tensor]:
    found: dict[Site, Tensor] = {}

    def keep(at: Site) -> Callable[[Tensor], None]:
        return lambda state: found.update({at: state.clone()})

    wrapper.forward(BATCH, [*taps, *(Tap(s, keep(s)) for s in sites)], **how)
    return found


def test_every_part_is_found_although_attention_sees_both_ways(wrapper: NativeImageWrapper) -> None:
    assert wrapper.parts >= ALL and wrapper.head_tower == "vision" and wrapper.vocab_size == image_toy.CLASSES
    tower = wrapper.tower()
    assert not tower.by_token and tower.summary == "class"
    assert tower.positions - tower.leading == image_toy.PATCHES, "a distillation token is no patch"
    assert Op.GENERATE not in wrapper.supports and Op.EMBEDS not in wrapper.supports


def test_the_stream_is_the_sum_of_its_parts(wrapper: NativeImageWrapper) -> None:
    for block in range(wrapper.n_blocks):
        seen = {s.part: x for s, x in read(wrapper, [site(p, block) for p in STREAM]).items()}
        torch.testing.assert_close(seen["resid_in"] + seen["attn_out"] + seen["mlp_out"], seen["resid_out"])
        torch.testing.assert_close(seen["resid_in"] + seen["attn_out"], seen["resid_mid"])


def test_states_and_logits_are_the_model_s_own(wrapper: NativeImageWrapper) -> None:
    with torch.no_grad():
        own = wrapper.model(pixel_values=ROWS.extra["pixel_values"], output_hidden_states=True)
    seen = read(wrapper, [site("resid_out", b) for b in range(LAST + 1)] + [site("embed"), FINAL])
    torch.testing.assert_close(seen[site("embed")], own.hidden_states[0])
    for block in range(LAST):
        torch.testing.assert_close(seen[site("resid_out", block)], own.hidden_states[block + 1])
    torch.testing.assert_close(wrapper.norm(seen[site("resid_out", LAST)]), seen[FINAL])
    torch.testing.assert_close(wrapper.head(wrapper.tower().summarised(seen[FINAL])), own.logits)


def test_hooks_that_are_gone_leave_the_logits_as_they_were_bit_for_bit(wrapper: NativeImageWrapper) -> None:
    pixels = ROWS.extra["pixel_values"]
    with torch.no_grad():
        before = wrapper.model(pixel_values=pixels).logits
        read(wrapper, [site(p) for p in sorted(ALL - {"logits"})], (Tap(site("resid_out", 0), lambda x: 2 * x),))
        assert torch.equal(wrapper.model(pixel_values=pixels).logits, before)
    assert all("forward" not in vars(m) for m in wrapper.model.modules())


def test_a_state_of_its_own_changes_nothing_and_another_one_does_at_every_part(wrapper: NativeImageWrapper) -> None:
    plain = read(wrapper, [FINAL])[FINAL]
    for part in sorted(ALL - {"logits"}):
        same = read(wrapper, [FINAL], (Tap(site(part), lambda x: x.clone()),))[FINAL]
        moved = read(wrapper, [FINAL], (Tap(site(part), lambda x: x * 1.5 + 0.1),))[FINAL]
        assert torch.equal(same, plain), part
        assert not torch.allclose(moved[:, 0], plain[:, 0], atol=1e-4), part


def test_a_pass_goes_on_from_a_block_and_ends_after_one(wrapper: NativeImageWrapper) -> None:
    whole = read(wrapper, [site("resid_out", b) for b in range(LAST + 1)] + [FINAL])
    for block in range(LAST + 1):
        ran: list[int] = []
        noting = [lambda *_, i=i, ran=ran: ran.append(i) for i in range(LAST + 1)]
        handles = [b.register_forward_hook(note) for b, note in zip(wrapper.blocks, noting, strict=True)]
        resumed = read(wrapper, [FINAL], resume=Resume(block, whole[site("resid_out", block)], "vision"))
        for handle in handles:
            handle.remove()
        assert torch.equal(resumed[FINAL], whole[FINAL]) and ran == list(range(block + 1, LAST + 1))
        ended = read(wrapper, [site("resid_out", block)], stop=Stop(block, "vision"))
        assert torch.equal(ended[site("resid_out", block)], whole[site("resid_out", block)])


def test_q_k_and_v_make_the_pattern_and_z(wrapper: NativeImageWrapper) -> None:
    net = image_toy.model(wrapper.model.config.model_type)
    net.set_attn_implementation("eager")
    eager = NativeImageWrapper(net, "eager")
    q, k, v, z, pattern = (site(p) for p in ("q", "k", "v", "z", "pattern"))
    seen = read(eager, [q, k, v, z, pattern])
    scores = torch.einsum("rqhd,rkhd->rhqk", seen[q], seen[k]) / seen[q].shape[-1] ** 0.5
    torch.testing.assert_close(scores.softmax(-1), seen[pattern])
    torch.testing.assert_close(torch.einsum("rhqk,rkhd->rqhd", seen[pattern], seen[v]), seen[z])


def test_embedded_images_in_place_of_pixels_give_the_same_pass(wrapper: NativeImageWrapper) -> None:
    with torch.no_grad():
        embeds = wrapper.inputs(BATCH)
    assert torch.equal(embeds, read(wrapper, [site("embed")])[site("embed")])
    other: list[Tensor] = []
    with torch.no_grad():
        wrapper.forward(BATCH._replace(embeds=2 * embeds), [Tap(FINAL, other.append)])
    assert not torch.allclose(other[0], read(wrapper, [FINAL])[FINAL])
    again: list[Tensor] = []
    with torch.no_grad():
        wrapper.forward(BATCH._replace(embeds=embeds), [Tap(FINAL, again.append)])
    assert torch.equal(again[0], read(wrapper, [FINAL])[FINAL])


# ---- load checks and refusals ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", image_toy.KINDS)
def test_a_checkpoint_is_opened_and_checked(kind: str) -> None:
    wrapper = open_wrapper(image_toy.checkpoint(kind))
    check(wrapper)
    assert set(wrapper.parameters()) == {name for name, _ in image_toy.model(kind).named_parameters()}


def test_a_block_whose_edits_do_not_reach_the_logits_is_named(wrapper: NativeImageWrapper) -> None:
    own = wrapper.blocks[1].forward
    held = read(wrapper, [site("resid_out", 1)])
    each = torch.arange(1.0, 99.0)[:, None, None]  # rows differ, whatever was read
    wrapper.blocks[2].forward = lambda *a, **k: wrapper.inputs(wrapper.trial(len(a[0]))) * each[: len(a[0])]
    with pytest.raises(AuditError, match="block [01]'s output does not move the logits") as caught:
        check(wrapper)
    assert caught.value.code == 2 and own is not None and held


def test_a_head_that_reads_more_than_final_in_is_refused(wrapper: NativeImageWrapper) -> None:
    own = wrapper.model.forward
    wrapper.model.forward = lambda *a, **k: _plus_one(own(*a, **k))  # type: ignore[method-assign]
    wrapper.head = lambda states: wrapper.model.classifier(states)  # type: ignore[method-assign]
    with pytest.raises(AuditError, match="does not give the model's own logits"):
        check(wrapper)


def _plus_one(out: Any) -> Any:
    out.logits = out.logits + 1
    return out


def _swin() -> PreTrainedModel:
    return SwinForImageClassification(
        SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=2)
    )


def _teacher() -> PreTrainedModel:
    config = image_toy.model("deit").config
    return DeiTForImageClassificationWithTeacher(DeiTConfig(**config.to_dict()))


@pytest.mark.parametrize(
    ("build", "words"),
    [(_swin, "SwinForImageClassification: its blocks attend within windows"),
     (_teacher, "DeiTForImageClassificationWithTeacher")],
)  # fmt: skip
def test_what_has_no_plain_class_token_is_refused_by_name(build: Callable[[], PreTrainedModel], words: str) -> None:
    with pytest.raises(AuditError, match=words) as caught:
        wrap(build())
    assert caught.value.code == 2


def test_tokens_are_nothing_to_a_model_of_images(wrapper: NativeImageWrapper) -> None:
    with pytest.raises(AuditError, match="has no embeddings of tokens"):
        wrapper.embed(ROWS.ids)
    with pytest.raises(AuditError, match="the rows bring no pixel_values"):
        wrapper.forward(BATCH._replace(extra={}), [])
    with pytest.raises(AuditError, match="has no text tower: it has vision"):
        wrapper.forward(BATCH, [Tap(Site(part="resid_out", block=0, tower="text"), lambda _: None)])
    with pytest.raises(AuditError, match="would ignore sound: it reads pixel_values"):
        wrapper.forward(BATCH._replace(extra={**BATCH.extra, "sound": ROWS.ids}), [])
