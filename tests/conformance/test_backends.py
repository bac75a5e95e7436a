"""Every backend gives the same states and takes the same writes, on six families, and as a plain forward does."""

import copy
import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from audit.schema import TOWERS, AuditError, Op, Part, Site, TowerName
from audit.schema.site import GLOBAL_PARTS
from audit.wrappers import Batch, Resume, Stop, Tap, Wrapper, wrap
from audit.wrappers.backends import BACKENDS
from tests import toy

OTHERS = [name for name in BACKENDS if name != "native"]
ROWS = toy.rows(5)
BATCH = Batch(ROWS.ids, ROWS.mask)
FINAL = Site(part="final_in")
MIDDLE = 1
LEAST = {"embed", "resid_in", "resid_out", "attn_out", "mlp_out", "final_in", "q", "k", "v", "z"}

families = pytest.mark.parametrize("family", toy.FAMILIES)
backends = pytest.mark.parametrize("backend", BACKENDS)
others = pytest.mark.parametrize("backend", OTHERS)


@cache
def plain(family: str) -> PreTrainedModel:
    model = toy.model(family)
    model.set_attn_implementation("eager")
    return model


@cache
def opened(family: str, backend: str) -> Wrapper:
    return wrap(copy.deepcopy(plain(family)), backend, "eager")


class Reference(NamedTuple):
    hidden: tuple[Tensor, ...]
    logits: Tensor


@cache
def reference(family: str) -> Reference:
    with torch.no_grad():
        out = plain(family)(input_ids=ROWS.ids, attention_mask=ROWS.mask.long(), output_hidden_states=True)
    return Reference(out.hidden_states, out.logits)


def site(part: Part, block: int = MIDDLE) -> Site:
    return Site(part=part, block=None if part in GLOBAL_PARTS else block)


def sites(wrapper: Wrapper) -> list[Site]:
    blocks = range(wrapper.n_blocks)
    return [site(part, b) for part in sorted(wrapper.parts) for b in (blocks if part not in GLOBAL_PARTS else [0])]


def read(wrapper: Wrapper, where: list[Site], writes: tuple[Tap, ...] = (), **how: object) -> dict[Site, Tensor]:
    seen: dict[Site, Tensor] = {}
    batch = how.pop("batch", BATCH)

    def keep(s: Site) -> Tap:
        return Tap(s, lambda state: seen.__setitem__(s, state.clone()))

    with torch.no_grad():
        wrapper.forward(batch, [*writes, *(keep(s) for s in where)], **how)
    return seen


def close(a: Tensor, b: Tensor, part: Part) -> None:
    """Equal to 1e-5 at real positions; rows of a pattern are queries."""
    assert a.shape == b.shape
    real = ROWS.mask[:, None].expand(a.shape[:3]) if part == "pattern" else ROWS.mask
    torch.testing.assert_close(a[real], b[real], atol=1e-5, rtol=1e-5)


def low_rank(width: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(width)
    u, v, b = (torch.randn(shape, generator=rng) for shape in ((2, width), (2, width), (width,)))
    return u, v / width, b


def along_heads(edit: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same edit on a pattern's heads instead of its last axis."""
    return lambda h: edit(h.transpose(1, -1)).transpose(1, -1)


@families
@backends
def test_reads_are_those_of_a_plain_forward(family: str, backend: str) -> None:
    wrapper, truth = opened(family, backend), reference(family)
    got = read(wrapper, [site("resid_in", b) for b in range(wrapper.n_blocks)] + [FINAL])
    for b in range(wrapper.n_blocks):
        close(got[site("resid_in", b)], truth.hidden[b], "resid_in")
    close(got[FINAL], truth.hidden[-1], "final_in")
    row, position = ROWS.targets("key")
    with torch.no_grad():
        scored = wrapper.head(got[FINAL][row, position - 1]).log_softmax(-1)
    target = ROWS.ids[row, position]
    expected = truth.logits[row, position - 1].log_softmax(-1).gather(-1, target[:, None])
    torch.testing.assert_close(scored.gather(-1, target[:, None]), expected, atol=1e-5, rtol=1e-5)


@families
@others
def test_every_declared_part_reads_as_on_the_native_backend(family: str, backend: str) -> None:
    wrapper, native = opened(family, backend), opened(family, "native")
    assert LEAST <= wrapper.parts <= native.parts
    ours, theirs = read(wrapper, sites(wrapper)), read(native, sites(wrapper))
    assert list(sorted(map(str, ours))) == sorted(map(str, sites(wrapper)))
    for where, state in ours.items():
        close(state, theirs[where], where.part)


@pytest.mark.sampled
@families
@others
def test_the_same_write_gives_the_same_logits_at_every_part(family: str, backend: str) -> None:
    wrapper, native = opened(family, backend), opened(family, "native")
    untouched = reference(family).hidden[-1][ROWS.mask]
    for part in sorted(wrapper.parts - {"logits"}):
        state = read(native, [site(part)])[site(part)]
        u, v, b = low_rank(state.shape[-1])
        if part == "pattern":  # heads are mixed, not keys: weight on padding would read states that mean nothing
            state, u, v, b = state.transpose(1, -1), torch.eye(4), torch.eye(4).roll(1, 0), torch.zeros(4)
        donor = state.flip(-1)
        for edit in (lambda h, u=u, v=v, b=b: h + (h @ v.T) @ u + b, lambda _, donor=donor: donor):
            if part == "pattern":
                edit = along_heads(edit)
            ours, theirs = (read(w, [FINAL], (Tap(site(part), edit),))[FINAL] for w in (wrapper, native))
            close(ours, theirs, "final_in")
            with torch.no_grad():
                close(wrapper.head(ours), native.head(theirs), "logits")
            assert (theirs[ROWS.mask] - untouched).abs().max() > 1e-3, part


@families
@backends
def test_taps_at_one_site_run_in_the_given_order(family: str, backend: str) -> None:
    wrapper = opened(family, backend)
    for part in ("resid_in", "attn_out", "resid_out", "final_in"):
        got: list[Tensor] = []
        taps = [
            Tap(site(part), torch.zeros_like),
            Tap(site(part), lambda h: h + 1),
            Tap(site(part), lambda h: 3 * h),
            Tap(site(part), got.append),
        ]
        with torch.no_grad():
            wrapper.forward(BATCH, taps)
        assert torch.equal(got[0], torch.full_like(got[0], 3.0))


@families
@backends
def test_logits_are_read_after_all_writes_and_never_written(family: str, backend: str) -> None:
    wrapper, logits = opened(family, backend), Site(part="logits")
    double = Tap(FINAL, lambda h: 2 * h)
    with torch.no_grad():
        expected = wrapper.head(2 * reference(family).hidden[-1])
    close(read(wrapper, [logits], (double,))[logits], expected, "logits")
    with pytest.raises(AuditError, match="LogitBias"):
        wrapper.forward(BATCH, [Tap(logits, lambda x: 0 * x)])


@families
@backends
def test_a_pass_stops_where_it_is_told(family: str, backend: str) -> None:
    wrapper = opened(family, backend)
    below = [site(part, b) for part in ("resid_in", "attn_out", "resid_out") for b in range(wrapper.n_blocks)]
    got = read(wrapper, [*below, FINAL], stop=Stop(MIDDLE))
    assert set(got) == {s for s in below if s.block is not None and s.block <= MIDDLE}
    whole = read(wrapper, below)
    assert all(torch.equal(got[s], whole[s]) for s in got)


@families
@backends
def test_resuming_is_exact_where_it_is_declared_and_refused_where_not(family: str, backend: str) -> None:
    wrapper = opened(family, backend)
    state = read(wrapper, [site("resid_out", 0)])[site("resid_out", 0)]
    if Op.RESUME not in wrapper.supports:
        with pytest.raises(AuditError, match="cannot resume"):
            wrapper.forward(BATCH, [], resume=Resume(0, state))
        return
    above = [site("resid_out", 0), site("attn_out", 1), site("resid_out", 2), FINAL]
    whole, resumed = read(wrapper, above), read(wrapper, above, resume=Resume(0, state))
    assert all(torch.equal(whole[s], resumed[s]) for s in above)
    other = read(wrapper, [FINAL], resume=Resume(0, state.flip(-1)))[FINAL]
    replaced = read(wrapper, [FINAL], (Tap(site("resid_out", 0), lambda h: state.flip(-1)),))[FINAL]
    close(other, replaced, "final_in")
    with pytest.raises(AuditError):
        read(wrapper, [site("attn_out", 0)], resume=Resume(0, state))
    again = read(wrapper, above)
    assert all(torch.equal(whole[s], again[s]) for s in above)


@families
@backends
def test_embeddings_in_place_of_tokens_give_the_same_pass(family: str, backend: str) -> None:
    wrapper = opened(family, backend)
    with torch.no_grad():
        embeds = wrapper.embed(ROWS.ids)
    where = [Site(part="embed"), site("resid_out"), FINAL]
    ours = read(wrapper, where, batch=BATCH._replace(embeds=embeds))
    for s, state in read(wrapper, where).items():
        close(ours[s], state, s.part)
    assert not torch.equal(read(wrapper, [FINAL], batch=BATCH._replace(embeds=2 * embeds))[FINAL], ours[FINAL])


@families
@others
def test_gradients_at_a_site_are_those_of_the_native_backend(family: str, backend: str) -> None:
    def gradient(wrapper: Wrapper, part: Part) -> Tensor:
        kept: list[Tensor] = []
        final: list[Tensor] = []

        def watch(state: Tensor) -> Tensor:
            kept.append(state.detach().clone().requires_grad_(True))
            return kept[0] * 1.0

        with torch.enable_grad():
            wrapper.forward(BATCH, [Tap(site(part), watch), Tap(FINAL, final.append)])
            score = (wrapper.head(final[0]) * ROWS.mask[..., None]).square().sum()
            return torch.autograd.grad(score, kept[0])[0]

    for part in ("resid_in", "attn_out", "mlp_out", "z"):
        ours, theirs = gradient(opened(family, backend), part), gradient(opened(family, "native"), part)
        scale = theirs.abs().max()
        close(ours / scale, theirs / scale, part)


@families
@backends
def test_what_is_not_declared_is_refused(family: str, backend: str) -> None:
    wrapper = opened(family, backend)
    absent = [site(part) for part in ("pattern", "resid_mid", "mlp_hidden", "q") if part not in wrapper.parts]
    for s in [*absent, site("resid_out", toy.N_BLOCKS), site("attn_out", toy.N_BLOCKS)]:
        with pytest.raises(AuditError):
            wrapper.forward(BATCH, [Tap(s, lambda _: None)])
    assert Op.PATTERN not in wrapper.supports or "pattern" in wrapper.parts


@pytest.mark.parametrize("tower", [name for name in TOWERS if name != "text"])
@backends
def test_a_tower_that_the_model_lacks_is_refused_wherever_it_is_named(tower: TowerName, backend: str) -> None:
    wrapper = opened("llama", backend)
    absent, state = Site(part="resid_out", block=MIDDLE, tower=tower), torch.zeros(5, ROWS.ids.shape[1], 48)
    elsewhere: dict[str, Callable[[], None]] = {
        "a read": lambda: wrapper.forward(BATCH, [Tap(absent, lambda _: None)]),
        "a write": lambda: wrapper.forward(BATCH, [Tap(absent, torch.zeros_like)]),
        "an end": lambda: wrapper.forward(BATCH, [], stop=Stop(MIDDLE, tower)),
        "a start": lambda: wrapper.forward(BATCH, [], resume=Resume(MIDDLE, state, tower)),
    }
    for what, names_it in elsewhere.items():
        with pytest.raises(AuditError) as caught:
            names_it()
        assert f"{wrapper.name} has no {tower} tower: it has text" in caught.value.what, what
    assert wrapper.name == type(plain("llama")).__name__ and set(wrapper.towers) == {"text"}


@backends
def test_inputs_that_the_model_would_ignore_are_refused(backend: str) -> None:
    wrapper = opened("llama", backend)
    with pytest.raises(AuditError, match="would ignore pixel_values: it reads tokens alone"):
        wrapper.forward(BATCH._replace(extra={"pixel_values": torch.zeros(5, 3, 2, 2)}), [])


@others
def test_a_backend_never_changes_the_model_it_is_given_beyond_its_hooks(backend: str) -> None:
    model = copy.deepcopy(plain("gpt2"))
    before = {name: p.clone() for name, p in model.named_parameters()}
    wrap(model, backend)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(torch.equal(after[name], p) for name, p in before.items())
    with torch.no_grad():
        out = model(input_ids=ROWS.ids, attention_mask=ROWS.mask.long())
    torch.testing.assert_close(out.logits, reference("gpt2").logits)


def test_booting_a_bridge_restores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.delenv("UV_OFFLINE", raising=False)
    before = dict(os.environ)
    wrap(copy.deepcopy(plain("llama")), "transformer_lens")
    assert dict(os.environ) == before


def test_the_bridge_says_what_it_cannot_do() -> None:
    wrapper = opened("gpt2", "transformer_lens")
    with pytest.raises(AuditError, match="checkpoint names"):
        wrapper.parameters()
    with pytest.raises(AuditError, match="eager"):
        wrap(plain("gpt2"), "transformer_lens", "sdpa")


def test_an_unknown_backend_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(AuditError) as caught:
        wrap(plain("gpt2"), "jax")
    assert all(name in str(caught.value) for name in BACKENDS)
