"""The backends on vision-language models: equal states, edits, starts and gradients, or a refusal by name."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from audit.bench import Bench
from audit.schema import AuditError, Site
from audit.wrappers import Batch, Resume, Stop, Tap, Wrapper, wrap
from audit.wrappers.load_checks import check
from tests import toy_vlm

FINAL = Site(part="final_in")
kinds = pytest.mark.parametrize("kind", toy_vlm.MERGED)
few = pytest.mark.parametrize(
    "kind", ["gemma3", *(pytest.param(k, marks=pytest.mark.slow) for k in toy_vlm.MERGED[:2])]
)


@cache
def wrapped(kind: str, backend: str) -> Wrapper:
    return wrap(toy_vlm.model(kind), backend)


def read(
    wrapper: Wrapper, batch: Batch, sites: list[Site], taps: tuple[Tap, ...] = (), **how: Any
) -> dict[Site, Tensor]:
    found: dict[Site, Tensor] = {}

    def keep(site: Site) -> Callable[[Tensor], None]:
        return lambda state: found.update({site: state.detach().clone()})

    with torch.no_grad():
        wrapper.forward(batch, [*taps, *(Tap(site, keep(site)) for site in sites)], **how)
    return found


def batch_of(kind: str, images: bool = True) -> Batch:
    rows = toy_vlm.rows(kind, images=images)
    return Batch(rows.ids, rows.mask, None, rows.extra)


def same(batch: Batch, ours: dict[Site, Tensor], theirs: dict[Site, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for site, state in ours.items():
        real = slice(None) if site.tower == "vision" else batch.mask
        torch.testing.assert_close(theirs[site][real], state[real], atol=1e-5, rtol=1e-5)


@kinds
@pytest.mark.parametrize("images", [True, False], ids=["images", "texts"])
def test_nnsight_sees_what_the_native_hooks_see_in_both_towers(kind: str, images: bool) -> None:
    native, other = wrapped(kind, "native"), wrapped(kind, "nnsight")
    if images:
        check(other)
    batch = batch_of(kind, images)
    sites = [Site(part=part, block=1) for part in sorted(other.parts - {"embed", "final_in", "logits"})] + [FINAL]
    if images:
        parts = sorted(other.tower("vision").parts - {"embed"})
        assert {"q", "k", "v", "z", "attn_out", "mlp_out", "mlp_hidden"} <= set(parts)
        sites += [Site(part=part, block=1, tower="vision") for part in parts]
        sites += [Site(part="resid_out", block=n, tower="vision") for n in range(toy_vlm.N_VISION)]
    same(batch, read(native, batch, sites), read(other, batch, sites))
    edits = [Site(part="resid_out", block=2), *([Site(part="attn_out", block=1, tower="vision")] if images else [])]
    for at in edits:
        taps = (Tap(at, lambda state: 0.5 * state.roll(1, -1)),)
        ours = read(native, batch, [FINAL], taps)
        assert not torch.allclose(ours[FINAL], read(native, batch, [FINAL])[FINAL], atol=1e-3)
        same(batch, ours, read(other, batch, [FINAL], taps))


@few
def test_nnsight_starts_and_ends_in_both_towers_as_the_native_hooks_do(kind: str) -> None:
    native, other = wrapped(kind, "native"), wrapped(kind, "nnsight")
    batch = batch_of(kind)
    for tower, block in (("vision", 0), ("vision", native.tower("vision").read[-1]), ("text", 1)):
        site = Site(part="resid_out", block=block, tower=tower)
        state = read(native, batch, [site])[site].roll(1, -1)
        resume = Resume(block, state, tower)
        same(batch, read(native, batch, [FINAL], resume=resume), read(other, batch, [FINAL], resume=resume))
        stop = Stop(block, tower)
        same(batch, read(native, batch, [site], stop=stop), read(other, batch, [site], stop=stop))


@few
def test_the_bench_reads_gradients_alike_through_both(kind: str) -> None:
    sites = [Site(part="resid_out", block=1, tower="vision"), Site(part="resid_out", block=1)]
    rows = toy_vlm.rows(kind)

    def summed(forward: Any) -> Tensor:
        return torch.zeros(len(rows)).index_add(0, forward.row, forward.logprob)

    native, other = (
        Bench(backend=name).gradients(toy_vlm.checkpoint(kind), rows, sites, summed).at_sites
        for name in ("native", "nnsight")
    )
    for site in sites:
        assert float(native[site].abs().max()) > 0
        torch.testing.assert_close(other[site], native[site], atol=1e-5, rtol=1e-4)


def test_what_nnsight_has_no_place_for_is_refused_by_name() -> None:
    with pytest.raises(AuditError, match="opens no MllamaForConditionalGeneration: .*blocks of two kinds") as caught:
        wrap(toy_vlm.model("mllama"), "nnsight")
    assert caught.value.code == 2
    other, batch = wrapped("llava_clip", "nnsight"), batch_of("llava_clip")
    with pytest.raises(AuditError, match="has no projector tower: it has vision and text"):
        read(other, batch, [Site(part="final_in", tower="projector")])
    with pytest.raises(AuditError, match="row 0 of a batch has 0 image tokens"):
        read(other, batch._replace(ids=torch.where(batch.ids == toy_vlm.IMAGE_ID, 5, batch.ids)), [FINAL])
