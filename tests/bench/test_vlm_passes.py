"""What the bench does with vision-language models, on rows with images and on texts: each held against the library."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, CausalLearner, Forward, LowRank, Replace, Start, TrainData, TrainingRecipe
from audit.bench.edges.attribution import Attribution
from audit.bench.integrated_gradients import Effort
from audit.bench.inversion.climb import SearchRows, SoftBudget
from audit.bench.inversion.hard_string import HardBudget, PlacedTokens
from audit.bench.inversion.soft_prefix import Arm
from audit.bench.inversion.soft_shift import ShiftPlace
from audit.bench.sampling import Draw
from audit.case import Rows
from audit.checkpoints import delta_of, write_edited
from audit.schema import AuditError, Checkpoint, Read, Site
from audit.wrappers import wrap
from audit.wrappers.native_vlm import VisionLanguageWrapper
from tests import toy_vlm

kinds = pytest.mark.parametrize("kind", toy_vlm.KINDS)
few = pytest.mark.parametrize(
    "kind", ["gemma3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in toy_vlm.KINDS if kind != "gemma3")]
)
both = pytest.mark.parametrize("images", [True, False], ids=["images", "texts"])
LOGPROB = Read(site=Site(part="logits"), at="key", reduce="logprob")
VISION, TEXT = Site(part="resid_out", block=0, tower="vision"), Site(part="resid_out", block=1)


@cache
def opened(budget: int = 40) -> Bench:
    """A bench for all tests: each model is opened and checked once."""
    return Bench(token_budget=budget)


def summed(forward: Forward) -> Tensor:
    return torch.zeros(int(forward.row.max()) + 1).index_add(0, forward.row, forward.logprob)


def own_logprob(kind: str, rows: Rows, model: Any = None) -> Tensor:
    """Log-probabilities of the content tokens by the library's own forward."""
    row, position = rows.targets("key")
    model = toy_vlm.model(kind) if model is None else model
    logits: Tensor = model(**toy_vlm.own_inputs(kind, rows), use_cache=False).logits
    return logits[row, position - 1].log_softmax(-1).gather(-1, rows.ids[row, position, None])[:, 0]


@kinds
@both
def test_scores_do_not_depend_on_batches_and_are_the_library_s(kind: str, images: bool) -> None:
    rows, ckpt = toy_vlm.rows(kind, images=images), toy_vlm.checkpoint(kind)
    with torch.no_grad():
        own = own_logprob(kind, rows)
    for budget in (40, 10_000):
        torch.testing.assert_close(opened(budget).run(ckpt, rows, [LOGPROB])[LOGPROB], own, atol=1e-5, rtol=1e-5)


@pytest.mark.sampled
@kinds
def test_states_of_an_image_are_read_put_and_started_from(kind: str) -> None:
    rows, ckpt, bench = toy_vlm.rows(kind), toy_vlm.checkpoint(kind), opened()
    reads = [Read(site=VISION, at=at) for at in ("all", "patches", "mean")] + [
        Read(site=Site(part="final_in", tower="projector"), at="all"), LOGPROB
    ]  # fmt: skip
    seen = bench.run(ckpt, rows, reads)
    whole, tower = seen[reads[0]], bench.open(ckpt).tower("vision")
    assert whole.shape[1] == tower.positions and torch.equal(seen[reads[1]], whole[:, tower.leading :])
    torch.testing.assert_close(seen[reads[2]], whole.mean(1))
    assert seen[reads[3]].shape[1] == bench.open(ckpt).tower("projector").positions
    again = bench.run(ckpt, rows, [LOGPROB], start=Start(VISION, whole))[LOGPROB]
    torch.testing.assert_close(again, seen[LOGPROB], atol=1e-6, rtol=1e-6)
    text = bench.run(ckpt, rows, [LOGPROB], start=Start(TEXT, ckpt))[LOGPROB]
    torch.testing.assert_close(text, seen[LOGPROB], atol=1e-6, rtol=1e-6)
    other = toy_vlm.checkpoint(kind, 1)
    started = bench.run(ckpt, rows, [LOGPROB], start=Start(VISION, other))[LOGPROB]
    put = bench.run(ckpt, rows, [LOGPROB], [Replace(VISION, other, "all")])[LOGPROB]
    torch.testing.assert_close(put, started, atol=1e-6, rtol=1e-6)
    write = LowRank(VISION, torch.eye(32)[1:2], torch.eye(32)[:1], torch.zeros(32))
    assert float((bench.run(ckpt, rows, [LOGPROB], [write])[LOGPROB] - seen[LOGPROB]).abs().max()) > 1e-3
    with pytest.raises(AuditError, match="cannot be read at 'last'"):
        bench.run(ckpt, rows, [Read(site=VISION, at="last")])


@kinds
@both
def test_gradients_of_weights_are_those_of_the_library(kind: str, images: bool) -> None:
    rows, ckpt = toy_vlm.rows(kind, images=images), toy_vlm.checkpoint(kind)
    model = toy_vlm.model(kind)
    row, position = rows.targets("answer")
    logits: Tensor = model(**toy_vlm.own_inputs(kind, rows), use_cache=False).logits
    logits[row, position - 1].log_softmax(-1).gather(-1, rows.ids[row, position, None]).sum().backward()
    found = opened().gradients(ckpt, rows, "params", summed).at_params
    for name, parameter in model.named_parameters():
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[name], own, atol=1e-3, rtol=1e-3, msg=name)
    assert any("vision" in name and bool(found[name].any()) for name in found) == images


@pytest.mark.sampled
@kinds
@both
def test_weights_are_trained_on_rows_with_images_and_on_texts(kind: str, images: bool, tmp_path: Path) -> None:
    rows, ckpt, bench = toy_vlm.rows(kind, images=images), toy_vlm.checkpoint(kind), opened(10_000)

    def rising(forget: Forward | None, *_: object) -> Tensor:
        assert forget is not None
        return -forget.logprob.mean()

    recipe = TrainingRecipe("taught", rising, steps=4, lr=1e-2, batch=3)
    (record,) = bench.train([ckpt], [recipe], TrainData(forget=rows), [4], tmp_path)
    edited = Checkpoint.model_validate(
        {**ckpt.model_dump(), "edits": (record,), "edits_from": str(next(tmp_path.iterdir()))}
    )
    before, after = (bench.run(c, rows, [LOGPROB])[LOGPROB].mean() for c in (ckpt, edited))
    assert float(after - before) > 0.3
    changed = delta_of(edited, edited.edits[0])
    assert any("vision" in name for name in changed) == images


@kinds
@both
def test_a_live_model_scores_answers_as_the_bench_does(kind: str, images: bool) -> None:
    rows = toy_vlm.rows(kind, images=images)
    got = CausalLearner(toy_vlm.model(kind)).answers(rows)
    bench = opened(10_000).run(
        toy_vlm.checkpoint(kind), rows, [Read(site=Site(part="logits"), at="answer", reduce="logprob")]
    )
    torch.testing.assert_close(got.logprob.detach(), next(iter(bench.reads.values())), atol=1e-5, rtol=1e-5)
    assert got.logprob.requires_grad


@kinds
@both
def test_what_is_said_is_what_the_library_says_step_by_step(kind: str, images: bool) -> None:
    rows, ckpt, model = toy_vlm.rows(kind, 3, images=images), toy_vlm.checkpoint(kind), toy_vlm.model(kind)
    said = opened().generate(ckpt, rows, 3)
    for n, tokens in enumerate(said):
        own = rows.take(torch.tensor([n]))
        ids = own.ids[:, : int(own.answer_spans[0, 0])]
        for token in [*tokens, None]:
            real = torch.ones_like(ids, dtype=torch.bool)
            inputs = toy_vlm.own_inputs(kind, replace(own, ids=ids, mask=real, key=real))
            with torch.no_grad():
                logits: Tensor = model(**inputs, use_cache=False).logits[0, -1]
            if len(logits) > toy_vlm.IMAGE_ID:
                logits[toy_vlm.IMAGE_ID] = float("-inf")
            if token is None:
                assert len(tokens) == 3 or int(logits.argmax()) == 2
                break
            assert int(logits.argmax()) == token
            ids = torch.cat([ids, torch.tensor([[token]])], 1)


@kinds
def test_a_model_that_would_say_an_image_says_its_next_word(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, ckpt = toy_vlm.rows(kind, 3, images=False), toy_vlm.checkpoint(kind)
    own = VisionLanguageWrapper.head

    def head(self: VisionLanguageWrapper, states: Tensor) -> Tensor:
        logits = own(self, states)
        return logits.index_fill(-1, torch.tensor([min(toy_vlm.IMAGE_ID, logits.shape[-1] - 1)]), 1e4)

    bench = opened(10_000)
    plain = (bench.generate(ckpt, rows, 2), bench.sample(ckpt, rows, Draw(2, 2)))
    if kind != "mllama":  # its head says no image
        monkeypatch.setattr(VisionLanguageWrapper, "head", head)
        assert (bench.generate(ckpt, rows, 2), bench.sample(ckpt, rows, Draw(2, 2))) == plain


@kinds
@both
def test_draws_see_the_image(kind: str, images: bool) -> None:
    """A draw at a small temperature is the greedy continuation, image and all."""
    rows, ckpt, bench = toy_vlm.rows(kind, 3, images=images), toy_vlm.checkpoint(kind), opened(10_000)
    drawn = bench.sample(ckpt, rows, Draw(2, 2, temperature=1e-4))
    assert drawn == [[tokens, tokens] for tokens in bench.generate(ckpt, rows, 2)]


def _searches(kind: str, rows: Rows) -> dict[str, Callable[[], object]]:
    ckpt, bench, n = toy_vlm.checkpoint(kind), opened(10_000), len(rows)
    sides = SearchRows(rows.take(torch.tensor([0, 1])), rows.take(torch.tensor([2, 3])))
    moved = torch.zeros_like(rows.mask)
    moved[:, 1] = True
    arms = [Arm(2, "start"), Arm(1, "within", torch.tensor([2, 2]), torch.tensor([2, 2]))]
    soft = SoftBudget(steps=2, restarts=1)
    placed, hard = PlacedTokens(torch.tensor([5, 6]), "start"), HardBudget(steps=1, candidates=4)
    return {
        "integrated": lambda: bench.integrated(ckpt, rows, moved, Effort(4, 4)).attribution,
        "soft prefixes": lambda: bench.soft_prefixes(ckpt, sides, arms, summed, soft, 0)[1].prefix,
        "soft shift": lambda: bench.soft_shift(ckpt, sides, ShiftPlace(1, 2), summed, soft, 0).course,
        "hard string": lambda: bench.hard_string(ckpt, sides, placed, summed, hard, 0).ids,
        "insertions": lambda: torch.tensor(bench.insertions(ckpt, rows, [torch.tensor([5])], torch.ones(n).long())),
    }  # fmt: skip


@few
@pytest.mark.parametrize("search", ["integrated", "soft prefixes", "soft shift", "hard string", "insertions"])
def test_searches_of_texts_take_rows_with_images(kind: str, search: str) -> None:
    """They see the image: other pixels, other numbers."""
    rows = toy_vlm.rows(kind)
    other = replace(rows, extra={**rows.extra, "pixel_values": rows.extra["pixel_values"].flip(-1)})
    first, again, second = (_searches(kind, given)[search]() for given in (rows, rows, other))
    assert isinstance(first, Tensor) and torch.equal(first, again)  # type: ignore[arg-type]
    assert search == "hard string" or not torch.equal(first, second)  # type: ignore[arg-type]
    if search != "integrated":
        assert _searches(kind, toy_vlm.rows(kind, images=False))[search]() is not None


@kinds
def test_inserted_tokens_are_scored_under_the_image(kind: str) -> None:
    from audit.case import row_means, with_tokens

    rows, string, at = toy_vlm.rows(kind), torch.tensor([5, 6]), torch.ones(5, dtype=torch.long)
    found = torch.tensor(opened(10_000).insertions(toy_vlm.checkpoint(kind), rows, [string], at))[0]
    longer = with_tokens(rows, string, at)
    with torch.no_grad():
        own = row_means(own_logprob(kind, longer), longer)
    torch.testing.assert_close(found.float(), torch.as_tensor(own).float(), atol=1e-5, rtol=1e-5)


@kinds
def test_edges_refuse_rows_with_images_and_blocks_of_two_kinds(kind: str) -> None:
    rows, ckpt = toy_vlm.rows(kind), toy_vlm.checkpoint(kind)
    words = "no edges for this model" if kind == "mllama" else "would ignore pixel_values"
    with pytest.raises(AuditError, match=words):
        opened(10_000).edge_scores(ckpt, rows, rows, summed, Attribution())
    if kind != "mllama":
        texts = toy_vlm.rows(kind, images=False)
        assert opened(10_000).mean_states(ckpt, texts) is not None


@pytest.mark.parametrize("kind", toy_vlm.MERGED)
def test_attention_patterns_are_read_in_both_towers(kind: str) -> None:
    rows, ckpt = toy_vlm.rows(kind), toy_vlm.checkpoint(kind)
    for tower, positions in (("vision", 16 if kind == "gemma3" else 10 if kind == "llava_clip" else 9), ("text", None)):
        read = Read(site=Site(part="pattern", block=1, tower=tower), at="all")  # type: ignore[arg-type]
        found = opened(10_000).run(ckpt, rows, [read])[read]
        assert positions is None or found.shape[-2:] == (positions, positions)
        if tower == "vision":
            torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]))


@pytest.mark.sampled
@kinds
def test_weights_are_named_as_in_the_opened_model(kind: str) -> None:
    """Files hold old names (``language_model.lm_head`` ...); streams of weights have the modules' own."""
    first, second = toy_vlm.checkpoint(kind), toy_vlm.checkpoint(kind, 1)
    model = wrap(toy_vlm.model(kind))
    names = {name for name, _ in opened(10_000).weights(first, second)}
    assert names <= set(model.parameters()) and {n for n, _ in toy_vlm.model(kind).named_parameters()} == names
    for name, (ours, _) in opened(10_000).weights(first, second):
        assert torch.equal(ours, model.parameters()[name])
    assert len(list(opened(10_000).weight_differences(first, second))) == len(names)


@few
def test_gradients_at_the_pixels_are_those_of_the_library(kind: str) -> None:
    rows, model = toy_vlm.rows(kind), toy_vlm.model(kind)
    pixels = rows.extra["pixel_values"].clone().requires_grad_()
    row, position = rows.targets("answer")
    given = replace(rows, extra={**rows.extra, "pixel_values": pixels})
    logits: Tensor = model(**toy_vlm.own_inputs(kind, given), use_cache=False).logits
    said = logits[row, position - 1].log_softmax(-1).gather(-1, rows.ids[row, position, None])
    (expected,) = torch.autograd.grad(said.sum(), [pixels])
    found = opened().gradients(toy_vlm.checkpoint(kind), rows, "pixels", summed).at_pixels
    assert found is not None and not rows.extra["pixel_values"].requires_grad
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@few
def test_an_edit_of_the_tower_acts_where_there_is_an_image_and_lets_a_text_pass(kind: str, tmp_path: Path) -> None:
    parent, bench = toy_vlm.checkpoint(kind), opened()
    tower = bench.open(parent).tower("vision")
    site = Site(part="resid_out", block=tower.read[-1], tower="vision")
    v = torch.randn(1, tower.d_model, generator=torch.Generator().manual_seed(1))
    delta = LowRank(site, v, v, torch.zeros(tower.d_model)).to_delta()
    edited = write_edited(tmp_path / "edited", parent, "filter", {}, "low_rank", delta)
    for images in (True, False):
        rows = toy_vlm.rows(kind, images=images)
        plain, behind = (bench.run(model, rows, [LOGPROB])[LOGPROB] for model in (parent, edited))
        assert torch.equal(plain, behind) != images
