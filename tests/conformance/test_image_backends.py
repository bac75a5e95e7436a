"""The backends on vision transformers: equal activations, logits and gradients, or a refusal by name."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from audit.bench import Bench
from audit.schema import AuditError, Part, Site
from audit.wrappers import Batch, Resume, Stop, Tap, Wrapper, open_wrapper, wrap
from audit.wrappers.backends import BACKENDS
from audit.wrappers.load_checks import check
from tests import image_toy, torch_module_toy

ROWS = image_toy.rows(4)
BATCH = Batch(ROWS.ids, ROWS.mask, None, ROWS.extra)
FINAL = Site(part="final_in")
PARTS: tuple[Part, ...] = (
    "resid_in", "resid_mid", "resid_out", "attn_in", "mlp_in", "attn_out", "mlp_out", "q", "k", "v", "z", "mlp_hidden",
)  # fmt: skip
SITES = [Site(part="embed"), *(Site(part=part, block=1) for part in PARTS), FINAL]
kinds = pytest.mark.parametrize("kind", image_toy.TRANSFORMERS)


def read(wrapper: Wrapper, sites: list[Site], taps: tuple[Tap, ...] = (), **how: object) -> dict[Site, Tensor]:
    found: dict[Site, Tensor] = {}

    def keep(at: Site) -> Callable[[Tensor], None]:
        return lambda state: found.update({at: state.detach().clone()})

    with torch.no_grad():
        wrapper.forward(BATCH, [*taps, *(Tap(s, keep(s)) for s in sites)], **how)  # type: ignore[arg-type]
    return found


@kinds
def test_nnsight_and_native_hooks_see_the_same(kind: str) -> None:
    native, other = (wrap(image_toy.model(kind), backend) for backend in ("native", "nnsight"))
    check(other)
    ours, theirs = read(native, SITES), read(other, SITES)
    for at in SITES:
        torch.testing.assert_close(theirs[at], ours[at], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other.head(theirs[FINAL][:, 0]), native.head(ours[FINAL][:, 0]), atol=1e-5, rtol=1e-5)
    state, write = ours[Site(part="resid_out", block=1)], Tap(Site(part="attn_out", block=0), lambda x: 0.5 * x)
    for how in ({"resume": Resume(1, state, "vision")}, {"taps": (write,)}):
        first, second = read(native, [FINAL], **how), read(other, [FINAL], **how)  # type: ignore[arg-type]
        torch.testing.assert_close(second[FINAL], first[FINAL], atol=1e-5, rtol=1e-5)
    stopped = read(other, [Site(part="resid_out", block=0)], stop=Stop(0, "vision"))
    torch.testing.assert_close(stopped, read(native, [Site(part="resid_out", block=0)], stop=Stop(0, "vision")))


@kinds
def test_the_bench_reads_gradients_alike_through_both(kind: str) -> None:
    at = Site(part="resid_out", block=0)
    found = [
        Bench(backend=backend).gradients(image_toy.checkpoint(kind), ROWS, [at], lambda forward: forward.logprob)
        for backend in ("native", "nnsight")
    ]
    torch.testing.assert_close(found[1].at_sites[at], found[0].at_sites[at], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "native"])
def test_a_module_of_torch_is_opened_by_native_hooks_alone(backend: str) -> None:
    ckpt = torch_module_toy.checkpoint()
    model = open_wrapper(ckpt).model  # type: ignore[attr-defined]
    for way in (lambda: wrap(model, backend), lambda: open_wrapper(ckpt, backend)):
        with pytest.raises(AuditError, match=f"the {backend} backend opens no mod") as caught:
            way()
        assert caught.value.code == 2
        assert backend == "transformer_lens" or "no module of torch (cifar_resnet)" in caught.value.what


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "native"])
def test_a_backend_that_cannot_open_a_model_of_images_says_so_by_name(backend: str) -> None:
    with pytest.raises(AuditError, match=f"the {backend} backend opens no") as caught:
        wrap(image_toy.model("resnet"), backend)
    assert caught.value.code == 2
    if backend == "transformer_lens":
        with pytest.raises(AuditError, match="the transformer_lens backend opens no model of images"):
            Bench(backend=backend).open(image_toy.checkpoint("vit"))
