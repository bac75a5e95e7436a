"""The bench on classifiers of images: class token, patches, patching, resuming, scores, gradients and training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, Edges, Forward, LogitBias, LowRank, Replace, Start, TrainData, TrainingRecipe
from audit.bench.results import Pass
from audit.bench.writes.features import Features
from audit.bench.writes.prefix import Prefix
from audit.schema import AuditError, Checkpoint, Positions, Read, Site
from audit.storage import Store
from tests import image_toy

ROWS = image_toy.rows(7)
LOGITS, FINAL = Site(part="logits"), Site(part="final_in")
LOGPROB = Read(site=LOGITS, at="key", reduce="logprob")
LAST = image_toy.N_BLOCKS - 1
kinds = pytest.mark.parametrize("kind", image_toy.KINDS)
transformers = pytest.mark.parametrize("kind", image_toy.TRANSFORMERS)


def out(block: int) -> Site:
    return Site(part="resid_out", block=block)


def ckpt(kind: str, seed: int = 0) -> Checkpoint:
    return image_toy.checkpoint(kind, seed)


@pytest.fixture(scope="module")
def bench() -> Bench:
    """A small budget makes several batches, whose rows must come back in their order."""
    return Bench(token_budget=60)


def logits(kind: str, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return image_toy.model(kind, seed)(pixel_values=ROWS.extra["pixel_values"]).logits


@kinds
def test_scores_are_those_of_the_model_s_own_logits(kind: str, bench: Bench) -> None:
    rank = Read(site=LOGITS, at="answer", reduce="rank")
    whole = Read(site=LOGITS, at="last")
    found = bench.run(ckpt(kind), ROWS, [LOGPROB, rank, whole])
    own, label = logits(kind), ROWS.ids[:, 1]
    torch.testing.assert_close(found[whole], own)
    torch.testing.assert_close(found[LOGPROB], own.log_softmax(-1).gather(1, label[:, None])[:, 0])
    assert torch.equal(found[rank], (own > own.gather(1, label[:, None])).sum(1).float())


@transformers
def test_positions_are_the_class_token_the_patches_and_their_mean(kind: str, bench: Bench) -> None:
    every: tuple[Positions, ...] = ("all", "patches", "mean", "last", "answer", "key")
    reads = {at: Read(site=out(1), at=at) for at in every}
    found = bench.run(ckpt(kind), ROWS, list(reads.values()))
    whole = found[reads["all"]]
    leading = whole.shape[1] - image_toy.PATCHES
    assert whole.shape == (7, image_toy.PATCHES + leading, image_toy.WIDTH) and leading == 1 + (kind == "deit")
    assert torch.equal(found[reads["patches"]], whole[:, leading:])
    torch.testing.assert_close(found[reads["mean"]], whole.mean(1))
    for at in ("last", "answer", "key"):
        assert torch.equal(found[reads[at]], whole[:, 0]), at
    parts = [Read(site=Site(part="z", block=0), at="key"), Read(site=Site(part="q", block=0, head=1), at="all")]
    heads = bench.run(ckpt(kind), ROWS, parts)
    assert heads[parts[0]].shape == (7, 4, 8) and heads[parts[1]].shape == (7, whole.shape[1], 8)
    pattern = Read(site=Site(part="pattern", block=0), at="all")
    torch.testing.assert_close(bench.run(ckpt(kind), ROWS, [pattern])[pattern].sum(-1), torch.ones(7, 4, len(whole[0])))


@kinds
def test_a_site_of_the_vision_tower_is_the_same_by_name_and_by_default(kind: str, bench: Bench) -> None:
    named = Read(site=Site(part="resid_out", block=LAST, tower="vision"), at="all")
    default = Read(site=out(0), at="all")
    both = bench.run(ckpt(kind), ROWS, [default, named, Read(site=out(LAST), at="all")])
    assert torch.equal(both[named], both[Read(site=out(LAST), at="all")])
    with pytest.raises(AuditError, match="has no text tower: it has vision"):
        bench.run(ckpt(kind), ROWS, [Read(site=Site(part="resid_out", block=0, tower="text"))])


@kinds
def test_a_pass_from_its_own_state_and_a_state_replaced_by_itself_are_the_plain_pass(kind: str, bench: Bench) -> None:
    plain = bench.run(ckpt(kind), ROWS, [LOGPROB])[LOGPROB]
    for block in range(LAST + 1):
        assert torch.equal(bench.run(ckpt(kind), ROWS, [LOGPROB], start=Start(out(block), ckpt(kind)))[LOGPROB], plain)
        for at in ("answer", "patches", "all", "last"):
            write = Replace(out(block), ckpt(kind), at)
            assert torch.equal(bench.run(ckpt(kind), ROWS, [LOGPROB], [write])[LOGPROB], plain), (block, at)


@transformers
def test_another_model_s_state_is_put_where_it_is_asked_for_and_nowhere_else(kind: str, bench: Bench) -> None:
    mine, other = (ckpt(kind, seed) for seed in (0, 1))
    whole = Read(site=out(1), at="all")
    a, b = (bench.run(c, ROWS, [whole])[whole] for c in (mine, other))
    leading = a.shape[1] - image_toy.PATCHES
    for at, there in (("key", slice(0, 1)), ("patches", slice(leading, None)), ("all", slice(None))):
        seen = bench.run(mine, ROWS, [whole, LOGPROB], [Replace(out(1), other, at)])  # type: ignore[arg-type]
        expected = a.clone()
        expected[:, there] = b[:, there]
        torch.testing.assert_close(seen[whole], expected)
        given = bench.run(mine, ROWS, [LOGPROB], start=Start(out(1), expected))[LOGPROB]
        torch.testing.assert_close(given, seen[LOGPROB])
        packed = b[:, 0] if at == "key" else b[:, there]
        tensor = bench.run(mine, ROWS, [LOGPROB], [Replace(out(1), packed, at)])[LOGPROB]  # type: ignore[arg-type]
        torch.testing.assert_close(tensor, seen[LOGPROB])
    read_on = bench.run(mine, ROWS, [LOGPROB], start=Start(out(1), other))[LOGPROB]
    torch.testing.assert_close(read_on, bench.run(mine, ROWS, [LOGPROB], start=Start(out(1), b))[LOGPROB])


@transformers
def test_other_writes_do_what_they_do_on_tokens(kind: str, bench: Bench) -> None:
    bias = torch.zeros(image_toy.CLASSES)
    bias[3] = -50
    shifted = (logits(kind) + bias).log_softmax(-1).gather(1, ROWS.ids[:, 1:])[:, 0]
    torch.testing.assert_close(bench.run(ckpt(kind), ROWS, [LOGPROB], [LogitBias(bias)])[LOGPROB], shifted)
    d, whole = image_toy.WIDTH, Read(site=out(0), at="all")
    plain = bench.run(ckpt(kind), ROWS, [whole])[whole]
    u, v, b = (torch.randn(*s, generator=torch.Generator().manual_seed(0)) for s in ((2, d), (2, d), (d,)))
    chosen = torch.arange(7) < 3
    edited = bench.run(ckpt(kind), ROWS, [whole], [LowRank(out(0), u, v, b, chosen)])[whole]
    expected = torch.where(chosen[:, None, None], plain + plain @ v.T @ u + b, plain)
    torch.testing.assert_close(edited, expected)
    doubled = Features(out(0), _Identity(), torch.arange(d), 2.0, positions="patches", rows=chosen)
    scaled, leading = bench.run(ckpt(kind), ROWS, [whole], [doubled])[whole], plain.shape[1] - image_toy.PATCHES
    expected = plain.clone()
    expected[:3, leading:] *= 2
    torch.testing.assert_close(scaled, expected)


class _Identity:
    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, feature_acts: Tensor) -> Tensor:
        return feature_acts


@kinds
def test_gradients_are_those_of_the_model_s_own_code(kind: str, bench: Bench) -> None:
    def chosen(forward: Forward) -> Tensor:
        assert all(state.ndim == 3 for state in forward.states.values())
        assert (forward.at is None) == (kind == "resnet") and (forward.at is None or not forward.at.any())
        return torch.zeros(int(forward.row.max()) + 1).index_add(0, forward.row, forward.logprob)

    model, label = image_toy.model(kind), ROWS.ids[:, 1]
    own = model(pixel_values=ROWS.extra["pixel_values"]).logits.log_softmax(-1).gather(1, label[:, None])[:, 0]
    own.sum().backward()
    found = bench.gradients(ckpt(kind), ROWS, "params", chosen)
    torch.testing.assert_close(found.value, own.detach())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found.at_params[name], parameter.grad, atol=1e-4, rtol=1e-3)
    at = bench.gradients(ckpt(kind), ROWS, [out(0)], chosen).at_sites[out(0)]
    step = 1e-3 * torch.randn(at.shape, generator=torch.Generator().manual_seed(0))
    whole = Read(site=out(0), at="all")
    state = bench.run(ckpt(kind), ROWS, [whole])[whole]
    up, down = (bench.run(ckpt(kind), ROWS, [LOGPROB], start=Start(out(0), state + s))[LOGPROB] for s in (step, -step))
    torch.testing.assert_close((up - down) / 2, (at * step).sum((1, 2)), atol=2e-4, rtol=0.05)
    assert bench.gradients(ckpt(kind), ROWS, "inputs", chosen).at_inputs.shape == at.shape  # type: ignore[union-attr]


@kinds
def test_gradients_at_the_pixels_are_those_of_the_model_s_own_code_in_the_order_of_the_rows(
    kind: str, bench: Bench
) -> None:
    pixels = ROWS.extra["pixel_values"].clone().requires_grad_()
    own = image_toy.model(kind)(pixel_values=pixels).logits.log_softmax(-1).gather(1, ROWS.ids[:, 1:2])[:, 0]
    (expected,) = torch.autograd.grad(own.sum(), [pixels])

    def summed(forward: Forward) -> Tensor:
        return torch.zeros(int(forward.row.max()) + 1).index_add(0, forward.row, forward.logprob)

    found = bench.gradients(ckpt(kind), ROWS, "pixels", summed)
    assert found.at_pixels is not None and found.at_inputs is None and not ROWS.extra["pixel_values"].requires_grad
    torch.testing.assert_close(found.at_pixels, expected, atol=1e-5, rtol=1e-3)
    with pytest.raises(AuditError, match="the rows bring no pixel_values"):
        bench.gradients(ckpt(kind), replace(ROWS, extra={}), "pixels", summed)


@pytest.mark.thorough
@kinds
def test_training_lowers_the_loss_of_the_class_and_comes_back_as_an_edit(kind: str, tmp_path: Path) -> None:
    bench = Bench()

    def loss(forget: Forward | None, *_: Forward | None) -> Tensor:
        assert forget is not None
        return -forget.logprob.mean()

    recipe = TrainingRecipe("fit", loss, steps=12, lr=1e-2, batch=7, warmup_steps=1)
    before = bench.run(ckpt(kind), ROWS, [LOGPROB])[LOGPROB].mean()
    (record,) = bench.train([ckpt(kind)], [recipe], TrainData(ROWS), [12], tmp_path)
    edited = ckpt(kind).model_copy(update={"edits": (record,), "edits_from": str(tmp_path / "0-fit-12")})
    assert bench.run(edited, ROWS, [LOGPROB])[LOGPROB].mean() > before + 0.5
    names = {name for name, (a, b) in bench.weights(ckpt(kind), edited) if not torch.equal(a, b)}
    assert any("layers.0" in name for name in names), "tensors are told apart by the names of the model"


def test_what_a_model_of_images_cannot_do_is_refused_in_words(bench: Bench) -> None:
    vit, other = ckpt("vit"), Pass(ROWS, {})
    with pytest.raises(AuditError, match="a model of image cannot do 'generate'"):
        bench.generate(vit, ROWS, 1)
    with pytest.raises(AuditError, match="edges are not cut in ViT"):
        bench.run(vit, ROWS, [LOGPROB], [Edges(torch.ones(7, 7, dtype=torch.bool), other)])
    with pytest.raises(AuditError, match="has no embeddings of tokens"):
        bench.run(vit, ROWS, [LOGPROB], [Prefix(torch.zeros(7, 1, 32))])
    with pytest.raises(AuditError, match="the rows bring no pixel_values"):
        bench.run(vit, replace(ROWS, extra={}), [LOGPROB])


def test_reads_are_kept_by_the_pixels_and_the_class(tmp_path: Path) -> None:
    bench = Bench(store=Store(tmp_path))
    first = bench.run(ckpt("vit"), ROWS, [LOGPROB])[LOGPROB]
    spent = bench.fwd_tokens
    assert torch.equal(bench.run(ckpt("vit"), ROWS, [LOGPROB])[LOGPROB], first) and bench.fwd_tokens == spent
    brighter = replace(ROWS, extra={"pixel_values": ROWS.extra["pixel_values"] + 0.1})
    assert not torch.equal(bench.run(ckpt("vit"), brighter, [LOGPROB])[LOGPROB], first)


def test_a_batch_costs_the_positions_of_its_images() -> None:
    runs: list[int] = []
    bench = Bench(token_budget=3 * (image_toy.PATCHES + 1))
    wrapper = bench.open(ckpt("vit"))
    handle = wrapper.blocks[0].register_forward_pre_hook(lambda _, args: runs.append(len(args[0])))  # type: ignore[attr-defined]
    bench.run(ckpt("vit"), ROWS, [LOGPROB])
    handle.remove()
    assert max(runs) == 3 and sum(runs) == len(ROWS)
