"""Vision-language models behind hooks: the library's own states, starts and ends in each tower, and refusals."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoProcessor, PreTrainedModel

from audit.case import Rows
from audit.schema import AuditError, Part, Site, TowerName
from audit.wrappers import Batch, Resume, Stop, Tap, Wrapper, open_wrapper, wrap
from audit.wrappers.load_checks import check
from audit.wrappers.native_vlm import VisionLanguageWrapper
from tests import toy_vlm

kinds = pytest.mark.parametrize("kind", toy_vlm.KINDS)
merging = pytest.mark.parametrize("kind", toy_vlm.MERGED)
FINAL = Site(part="final_in")
READ = {"llava_clip": (2,), "llava_siglip": (2,), "gemma3": (3,), "mllama": (0, 2, 5)}
"""The vision blocks that reach the language model."""
N_VISION = {**dict.fromkeys(toy_vlm.MERGED, toy_vlm.N_VISION), "mllama": 6}


def at(tower: TowerName, block: int | None = None, part: Part = "resid_out") -> Site:
    return Site(part=part, block=block, tower=tower)


@cache
def plain(kind: str) -> PreTrainedModel:
    return toy_vlm.model(kind)


@cache
def opened(kind: str) -> VisionLanguageWrapper:
    wrapper = wrap(copy.deepcopy(plain(kind)))
    assert isinstance(wrapper, VisionLanguageWrapper)
    return wrapper


@cache
def rows(kind: str, images: bool = True) -> Rows:
    return toy_vlm.rows(kind, images=images)


def batch_of(found: Rows) -> Batch:
    return Batch(found.ids, found.mask, None, found.extra)


@torch.no_grad()
def read(
    wrapper: Wrapper, batch: Batch, sites: list[Site], taps: tuple[Tap, ...] = (), **how: Any
) -> dict[Site, Tensor]:
    found: dict[Site, Tensor] = {}

    def keep(site: Site) -> Callable[[Tensor], None]:
        return lambda state: found.update({site: state.clone()})

    wrapper.forward(batch, [*taps, *(Tap(site, keep(site)) for site in sites)], **how)
    return found


def modules(kind: str, model: PreTrainedModel) -> dict[Site, nn.Module]:
    """The modules whose outputs the sites are, by the names of each class in the library."""
    base: Any = model.base_model
    if kind == "mllama":
        vision = [*base.vision_model.transformer.layers, *base.vision_model.global_transformer.layers]
    else:
        vision = list(base.vision_tower.encoder.layers)
    found: dict[Site, nn.Module] = {at("vision", n): block for n, block in enumerate(vision)}
    found |= {at("text", n): block for n, block in enumerate(base.language_model.layers)}
    return found | {at("projector", None, "final_in"): base.multi_modal_projector, FINAL: base.language_model.norm}


class Oracle(dict[Site, Tensor]):
    """What forward hooks of the library's own model see, under its processor's inputs."""

    logits: Tensor


@cache
@torch.no_grad()
def oracle(kind: str, images: bool = True) -> Oracle:
    model, seen = copy.deepcopy(plain(kind)), Oracle()
    for site, module in modules(kind, model).items():
        module.register_forward_hook(lambda _m, _i, out, site=site: seen.update({site: out.detach().clone()}))
    seen.logits = model(**toy_vlm.own_inputs(kind, rows(kind, images)), use_cache=False).logits
    return seen


@contextmanager
def counted(wrapper: VisionLanguageWrapper, kind: str) -> Iterator[list[Site]]:
    """The blocks that compute inside, by their attention."""
    ran: list[Site] = []
    handles = []
    for site, module in modules(kind, wrapper.model).items():
        inside = getattr(module, "self_attn", None) or getattr(module, "cross_attn", None)
        if inside is not None:
            handles.append(inside.register_forward_hook(lambda *_, site=site: ran.append(site)))
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


# ---- the same as the library ----------------------------------------------------------------------------------------
@kinds
@pytest.mark.parametrize("images", [True, False], ids=["images", "texts"])
def test_states_and_logits_are_those_of_the_library_s_own_forward(kind: str, images: bool) -> None:
    truth, found = oracle(kind, images), rows(kind, images)
    wanted = [site for site in truth if site.tower == "text" or site == FINAL or images]
    got = read(opened(kind), batch_of(found), wanted)
    order = getattr(opened(kind).vision, "order", None)
    for site in wanted:
        own = truth[site]
        if site.tower == "projector":
            own = own.flatten(1, -2)
        if site.tower == "vision" and order is not None:
            own = order.shown(own)
        real = found.mask if site.tower == "text" or site == FINAL else slice(None)
        torch.testing.assert_close(got[site][real], own[real], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        logits = opened(kind).head(got[FINAL])
    torch.testing.assert_close(logits[found.mask], truth.logits[found.mask], atol=1e-5, rtol=1e-5)


@kinds
def test_the_processor_s_own_inputs_give_the_same_logits(kind: str) -> None:
    """The inputs that rows do not bring (types of tokens, masks of tiles) are those that the processor makes."""
    processor: Any = AutoProcessor.from_pretrained(toy_vlm.folder(kind), local_files_only=True)
    for first, second in ((0, 1), (1, 2), (2, 0)):
        shapes = [toy_vlm.picture(n, *((20, 20), (16, 36), (40, 18))[n]) for n in (first, second)]
        texts = [f"who {toy_vlm.marker(kind)} is anna", f"{toy_vlm.marker(kind)} city"]
        made = processor(images=[[shape] for shape in shapes], text=texts, return_tensors="pt", padding=True)
        mask = made["attention_mask"].bool()
        batch = Batch(made["input_ids"], mask, None, {name: made[name] for name in toy_vlm.INPUTS[kind]})
        with torch.no_grad():
            own = plain(kind)(**made, use_cache=False).logits
            got = opened(kind).head(read(opened(kind), batch, [FINAL])[FINAL])
        torch.testing.assert_close(got[mask], own[mask], atol=1e-5, rtol=1e-5)
        wrapper: Any = opened(kind)
        if kind == "mllama":
            assert torch.equal(wrapper.cross_mask(batch)[mask], made["cross_attention_mask"][mask])
        if kind == "gemma3":
            assert torch.equal(wrapper.types_of(batch), made["token_type_ids"])


def test_without_its_types_gemma3_is_causal_over_the_image() -> None:
    found, causal = rows("gemma3"), {**toy_vlm.own_inputs("gemma3", rows("gemma3")), "use_cache": False}
    del causal["token_type_ids"]
    with torch.no_grad():
        other = plain("gemma3")(**causal).logits
    assert float((other - oracle("gemma3").logits)[found.mask].abs().max()) > 0.1
    embeds = opened("gemma3").embed(found.ids)
    got = read(opened("gemma3"), batch_of(found)._replace(embeds=embeds), [FINAL])[FINAL]
    assert torch.equal(got, read(opened("gemma3"), batch_of(found), [FINAL])[FINAL]), "input embeddings keep the types"


@kinds
def test_towers_are_described_as_they_are(kind: str) -> None:
    towers = opened(kind).towers
    assert towers["vision"].read == READ[kind] and towers["vision"].n_blocks == N_VISION[kind]
    shapes = {"llava_clip": (10, 1), "llava_siglip": (9, 0), "gemma3": (16, 0), "mllama": (32, 14)}
    assert (towers["vision"].positions, towers["vision"].leading) == shapes[kind]
    assert towers["projector"].positions == {"mllama": 20}.get(kind, toy_vlm.IMAGE_TOKENS[kind])
    assert opened(kind).head_tower == "text" and opened(kind).image_tokens == toy_vlm.IMAGE_TOKENS[kind]
    given: Any = opened(kind).model.get_output_embeddings()
    assert opened(kind).vocab_size == len(given.weight)


@kinds
def test_a_padded_row_alone_is_the_row_in_its_batch(kind: str) -> None:
    found = rows(kind)
    together = read(opened(kind), batch_of(found), [FINAL])[FINAL]
    for n in range(len(found)):
        own = found.take(torch.tensor([n]))
        length = int(own.lengths)
        alone = Batch(own.ids[:, :length], own.mask[:, :length], None, own.extra)
        torch.testing.assert_close(read(opened(kind), alone, [FINAL])[FINAL], together[n : n + 1, :length])


# ---- starts, ends and edits -----------------------------------------------------------------------------------------
@kinds
def test_a_pass_goes_on_after_every_block_that_it_can_start_after(kind: str) -> None:
    wrapper, batch = opened(kind), batch_of(rows(kind))
    vision = [at("vision", n) for n in range(READ[kind][0] + 1)]
    text = [at("text", n) for n in range(wrapper.n_blocks)]
    whole = read(wrapper, batch, [*vision, *text, FINAL])
    for site in (*vision, *text):
        assert site.block is not None and site.tower is not None
        with counted(wrapper, kind) as ran:
            resumed = read(wrapper, batch, [FINAL], resume=Resume(site.block, whole[site], site.tower))[FINAL]
        torch.testing.assert_close(resumed, whole[FINAL], atol=1e-6, rtol=1e-6)
        below = [other for other in ran if other.tower == site.tower and (other.block or 0) <= site.block]
        assert not below, "a block below the start computes"
        if site.tower == "text" and kind != "mllama":
            assert not [other for other in ran if other.tower == "vision"], "no image is read again"


@pytest.mark.parametrize("kind", ["llava_clip", "llava_siglip"])
def test_a_start_after_a_block_that_nobody_reads_is_refused(kind: str) -> None:
    batch = batch_of(rows(kind))
    state = read(opened(kind), batch, [at("vision", 3)])[at("vision", 3)]
    with pytest.raises(AuditError, match="cannot start after vision block 3: block 2 before it is read too"):
        read(opened(kind), batch, [FINAL], resume=Resume(3, state, "vision"))


@pytest.mark.parametrize("block", [1, 2, 3, 4, 5])
def test_a_start_above_a_block_that_is_read_too_is_refused_by_name(block: int) -> None:
    batch, site = batch_of(rows("mllama")), at("vision", block)
    state = read(opened("mllama"), batch, [site])[site]
    with pytest.raises(AuditError, match=f"vision block {block}: block 0 before it is read too") as caught:
        read(opened("mllama"), batch, [FINAL], resume=Resume(block, state, "vision"))
    assert caught.value.code == 2 and "start after block 0 at the latest" in caught.value.do


@kinds
def test_a_pass_ends_where_it_is_told_and_computes_nothing_above(kind: str) -> None:
    wrapper, batch = opened(kind), batch_of(rows(kind))
    ends: list[tuple[Site, Stop]] = [
        (at("vision", 1), Stop(1, "vision")), (at("projector", None, "final_in"), Stop(None, "projector")),
        (at("text", 1), Stop(1, "text")),
    ]  # fmt: skip
    whole = read(wrapper, batch, [site for site, _ in ends])
    for site, stop in ends:
        with counted(wrapper, kind) as ran:
            ended = read(wrapper, batch, [site], stop=stop)
        assert torch.equal(ended[site], whole[site])
        assert not [o for o in ran if o.tower == stop.tower and stop.block is not None and (o.block or 0) > stop.block]
        assert stop.tower == "text" or not [other for other in ran if other.tower == "text"]


@kinds
def test_blocks_that_reach_nothing_are_not_computed_unless_they_are_read(kind: str) -> None:
    wrapper, batch = opened(kind), batch_of(rows(kind))
    last = N_VISION[kind] - 1
    for sites, deepest in (([FINAL], READ[kind][-1]), ([at("vision", last), FINAL], last)):
        with counted(wrapper, kind) as ran:
            read(wrapper, batch, sites)
        assert {site.block for site in ran if site.tower == "vision"} == set(range(deepest + 1))


@kinds
@pytest.mark.parametrize("tower", ["vision", "text"])
def test_an_edit_bites_where_the_block_is_read_and_nowhere_else(kind: str, tower: TowerName) -> None:
    wrapper, batch = opened(kind), batch_of(rows(kind))
    before = read(wrapper, batch, [FINAL])[FINAL]
    n_blocks = wrapper.tower(tower).n_blocks
    for block in range(n_blocks):
        same = read(wrapper, batch, [FINAL], (Tap(at(tower, block), lambda state: state.clone()),))[FINAL]
        moved = read(wrapper, batch, [FINAL], (Tap(at(tower, block), lambda state: state.roll(1, -1)),))[FINAL]
        assert torch.equal(same, before)
        dead = tower == "vision" and block > READ[kind][-1]
        for row in range(len(batch.ids)):
            assert torch.equal(moved[row], before[row]) == dead, (block, row)
    assert torch.equal(read(wrapper, batch, [FINAL])[FINAL], before), "hooks that are gone leave nothing behind"
    assert all("forward" not in vars(module) for module in wrapper.model.modules())
    with torch.no_grad():
        own = wrapper.model(**toy_vlm.own_inputs(kind, rows(kind)), use_cache=False).logits
    assert torch.equal(own, oracle(kind).logits)


@kinds
def test_the_projector_is_read_and_written_by_position(kind: str) -> None:
    wrapper, batch = opened(kind), batch_of(rows(kind))
    given = at("projector", None, "final_in")
    before = read(wrapper, batch, [at("projector", None, "embed"), given, FINAL])
    assert before[given].shape[1:] == (wrapper.tower("projector").positions, toy_vlm.WIDTH)
    assert before[at("projector", None, "embed")].ndim == 3
    for site in (at("projector", None, "embed"), given):
        moved = read(wrapper, batch, [FINAL], (Tap(site, lambda state: state.roll(1, -1)),))[FINAL]
        assert not torch.allclose(moved, before[FINAL], atol=1e-3)


@pytest.mark.parametrize("kind", toy_vlm.MERGED)
def test_every_part_of_a_vision_block_is_shown_and_can_be_edited(kind: str) -> None:
    wrapper, batch = opened(kind), batch_of(rows(kind))
    parts: list[Part] = ["resid_in", "resid_mid", "resid_out", "attn_in", "mlp_in", "attn_out", "mlp_out"]
    assert wrapper.tower("vision").parts >= {*parts, "q", "k", "v", "z", "mlp_hidden"}
    seen = {site.part: state for site, state in read(wrapper, batch, [at("vision", 1, part) for part in parts]).items()}
    torch.testing.assert_close(seen["resid_in"] + seen["attn_out"] + seen["mlp_out"], seen["resid_out"])
    before = read(wrapper, batch, [FINAL])[FINAL]
    for part in (*parts, "q", "k", "v", "z", "mlp_hidden"):
        moved = read(wrapper, batch, [FINAL], (Tap(at("vision", 1, part), lambda x: x * 1.5 + 0.1),))[FINAL]
        assert not torch.allclose(moved, before, atol=1e-4), part


@kinds
def test_gradients_reach_vision_states(kind: str) -> None:
    wrapper, batch, site = opened(kind), batch_of(rows(kind)), at("vision", READ[kind][0])
    states: list[Tensor] = []

    def keep(state: Tensor) -> Tensor:
        states.append(state.detach().requires_grad_())
        return states[0]

    def value(change: Tensor | float) -> Tensor:
        final: list[Tensor] = []
        wrapper.forward(batch, [Tap(site, lambda state: keep(state) if isinstance(change, float) else state + change),
                                Tap(FINAL, final.append)])  # fmt: skip
        return (final[0].double() ** 2)[batch.mask].sum()

    gradient = torch.autograd.grad(value(0.0), states[0])[0]
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        slope = (value(1e-3 * direction) - value(-1e-3 * direction)) / 2e-3
    torch.testing.assert_close(float((gradient * direction).sum()), float(slope), atol=0.05, rtol=0.02)


# ---- what is refused ------------------------------------------------------------------------------------------------
def _refused(kind: str, batch: Batch, words: str, **how: Any) -> None:
    with pytest.raises(AuditError, match=words) as caught:
        read(opened(kind), batch, [FINAL], **how)
    assert caught.value.code == 2


@kinds
def test_image_tokens_are_counted_row_by_row(kind: str) -> None:
    found, n = rows(kind), toy_vlm.IMAGE_TOKENS[kind]
    ids = found.ids.clone()
    first, second = ((ids[row] == toy_vlm.IMAGE_ID).nonzero()[:, 0] for row in (0, 1))
    moved = ids.clone()  # one token more in a row and one fewer in another: the sum over the batch is right
    moved[0, int(first[-1]) + 1], moved[1, int(second[-1])] = toy_vlm.IMAGE_ID, 5
    _refused(kind, batch_of(replace(found, ids=moved)), f"row 0 of a batch has {n + 1} image tokens.*takes {n}")
    swapped = ids.clone()
    swapped[0, first], swapped[1, int(second[-1]) + 1 :][: len(first)] = 5, toy_vlm.IMAGE_ID
    _refused(kind, batch_of(replace(found, ids=swapped)), "row 0 of a batch has 0 image tokens")
    _refused(kind, batch_of(replace(found, ids=torch.where(ids == toy_vlm.IMAGE_ID, 5, ids))), "has 0 image tokens")


@kinds
def test_places_of_an_image_are_those_of_its_tokens_whatever_their_embeddings_are(kind: str) -> None:
    """The library finds them by equality with the placeholder's embedding where input embeddings are given."""
    found, wrapper = rows(kind), opened(kind)
    plain_final = read(wrapper, batch_of(found), [FINAL])[FINAL]
    embeds = wrapper.embed(found.ids)
    noise = torch.randn(embeds.shape, generator=torch.Generator().manual_seed(0))
    image = (found.ids == toy_vlm.IMAGE_ID)[..., None]
    edited = batch_of(found)._replace(embeds=torch.where(image, noise, embeds).to(torch.bfloat16).to(embeds.dtype))
    final = read(wrapper, edited, [FINAL])[FINAL]
    assert torch.isfinite(final).all()
    if kind != "mllama":  # there the token itself is read
        torch.testing.assert_close(final[found.mask], plain_final[found.mask], atol=0.2, rtol=0.2)


@kinds
def test_image_tokens_without_pixels_are_refused(kind: str) -> None:
    _refused(kind, batch_of(replace(rows(kind), extra={})), "image tokens without an image")


@kinds
def test_images_of_another_size_are_refused(kind: str) -> None:
    found = rows(kind)
    pixels = found.extra["pixel_values"]
    # one column fewer, twice as wide, and another shape with as many patches
    halves = pixels.unflatten(-2, (2, -1)).transpose(-3, -2).flatten(-2)
    for other in (pixels[..., :-1], pixels.repeat_interleave(2, -1), halves):
        batch = batch_of(replace(found, extra={**found.extra, "pixel_values": other}))
        _refused(kind, batch, "and its vision tower takes 3 x ")


def test_llama_vision_asks_for_one_image_of_tiles_a_row() -> None:
    found = rows("mllama")
    bare = {"pixel_values": found.extra["pixel_values"]}
    _refused("mllama", batch_of(replace(found, extra=bare)), "the rows bring no aspect_ratio_ids, aspect_ratio_mask")
    two = {**found.extra, "pixel_values": found.extra["pixel_values"].repeat(1, 2, 1, 1, 1, 1)}
    _refused("mllama", batch_of(replace(found, extra=two)), "are no single image of tiles a row")


@kinds
def test_vision_sites_of_rows_without_an_image_or_of_a_pass_from_text_are_refused(kind: str) -> None:
    texts, images = batch_of(rows(kind, images=False)), batch_of(rows(kind))
    with pytest.raises(AuditError, match="vision.1.resid_out is not computed in this pass: the rows bring no image"):
        read(opened(kind), texts, [at("vision", 1)])
    state = read(opened(kind), images, [at("text", 1)])[at("text", 1)]
    with pytest.raises(AuditError, match="vision.1.resid_out is not computed in this pass: the pass starts after it"):
        read(opened(kind), images, [at("vision", 1)], resume=Resume(1, state, "text"))


def test_cross_attention_blocks_hand_on_what_texts_give_them() -> None:
    texts = batch_of(rows("mllama", images=False))
    sites = [at("text", n, part) for n in range(4) for part in ("resid_in", "resid_out")]
    seen = read(opened("mllama"), texts, sites)
    for block in toy_vlm.CROSS_BLOCKS:
        assert torch.equal(seen[at("text", block)], seen[at("text", block, "resid_in")])
    layers = opened("mllama").model.base_model.language_model.cross_attention_layers
    assert tuple(layers) == toy_vlm.CROSS_BLOCKS, "restored"


@pytest.mark.parametrize(("layer", "consumed"), [(1, (0,)), (-1, (3,)), ([-2, -4], (0, 2)), ([1, 2, 4], (0, 1, 3))])
def test_layers_are_consumed_as_the_config_says(layer: Any, consumed: tuple[int, ...]) -> None:
    wrapper = wrap(toy_vlm.model("llava_clip", vision_feature_layer=layer))
    check(wrapper)
    assert wrapper.tower("vision").read == consumed


@pytest.mark.parametrize("layer", [0, [0, -2]])
def test_layer_0_is_refused_by_name(layer: Any) -> None:
    with pytest.raises(AuditError, match="vision_feature_layer is .*TypeError") as caught:
        wrap(toy_vlm.model("llava_clip", vision_feature_layer=layer))
    assert caught.value.code == 2


# ---- load checks ----------------------------------------------------------------------------------------------------
@kinds
def test_a_checkpoint_is_opened_and_checked(kind: str) -> None:
    wrapper = open_wrapper(toy_vlm.checkpoint(kind))
    check(wrapper)
    assert set(wrapper.parameters()) == {n for n, _ in plain(kind).named_parameters(remove_duplicate=False)}


@pytest.mark.sampled
@kinds
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_checkpoint_is_opened_in_half_precision(kind: str, dtype: str) -> None:
    wrapper = open_wrapper(toy_vlm.checkpoint(kind), dtype=dtype)
    check(wrapper)
    assert wrapper.tower("vision").read == READ[kind]


def _broken(kind: str, words: str, change: Callable[[Any], None]) -> None:
    wrapper = wrap(toy_vlm.model(kind))
    change(wrapper)
    with pytest.raises(AuditError, match=words) as caught:
        check(wrapper)
    assert caught.value.code == (3 if "attention" in caught.value.what else 2)


@kinds
def test_a_tower_that_is_read_elsewhere_than_it_says_fails_the_check(kind: str) -> None:
    def says(read: tuple[int, ...]) -> Callable[[Any], None]:
        return lambda w: w.towers.update(vision=w.towers["vision"]._replace(read=read))

    _broken(kind, "an edit of vision block .'s output moves the logits, and nothing", says((READ[kind][-1] - 1,)))
    if READ[kind][-1] + 1 < N_VISION[kind]:
        _broken(kind, "an edit of vision block 3's output does not move the logits", says((*READ[kind], 3)))


def test_types_that_are_not_passed_fail_the_check() -> None:
    def forget(wrapper: Any) -> None:
        wrapper.types_of = lambda batch: torch.zeros_like(batch.ids)
        own = wrapper.own_inputs
        types = lambda batch: {"token_type_ids": (batch.ids == wrapper.image_token).long()}  # noqa: E731
        wrapper.own_inputs = lambda batch: {**own(batch), **types(batch)} if batch.extra else own(batch)

    _broken("gemma3", "does not give the model's own logits", forget)


def test_attention_that_differs_by_implementation_fails_the_check() -> None:
    def forget(wrapper: Any) -> None:
        own: Callable[[Batch], Mapping[str, Any]] = wrapper.own_inputs
        wrapper.own_inputs = lambda batch: {k: v for k, v in own(batch).items() if k != "cross_attention_mask"}
        wrapper._run = lambda batch, stack: wrapper.base(
            inputs_embeds=batch.embeds, use_cache=False,
            cross_attention_states=batch.extra.get("cross_attention_states"),
        )  # fmt: skip

    _broken("mllama", "does not give the model's own logits|eager and sdpa attention give other logits", forget)
