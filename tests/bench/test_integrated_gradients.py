"""Integrated gradients: complete, those of Captum called by hand on the plain model, and the same behind every door."""

from functools import cache
from pathlib import Path

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor
from transformers import PreTrainedModel

from audit.bench import Bench, Effort, LogitBias, LowRank
from audit.bench.integrated_gradients import integrated
from audit.bench.passes import LoadedModel
from audit.case import Rows
from audit.checkpoints import resolve
from audit.schema import AuditError, Checkpoint, Op, Site, Source
from tests import toy

ROWS = toy.rows(4)
PROMPT = torch.arange(ROWS.ids.shape[1]) < ROWS.answer_spans[:, :1]
ORDINARY = PROMPT & (torch.arange(ROWS.ids.shape[1]) > 0)
"""All of a prompt but its BOS."""
BENCH = Bench(token_budget=400)


@cache
def model_of(family: str) -> PreTrainedModel:
    return toy.model(family)


def plain(family: str, rows: Rows, n: int, embeds: Tensor) -> Tensor:
    """Mean log-probability of row ``n``'s content tokens for every one of these embeddings, by the plain model."""
    logprob = model_of(family)(inputs_embeds=embeds).logits.log_softmax(-1)
    targets = rows.key[n].nonzero()[:, 0]
    return logprob[:, targets - 1, rows.ids[n, targets]].mean(1)


def ends(family: str, rows: Rows, moved: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The embeddings at both ends of a row's path, without its padding."""
    table = model_of(family).get_input_embeddings()(torch.arange(toy.VOCAB)).detach()  # some families scale it
    length = int(rows.lengths[n])
    own = table[rows.ids[n, :length]]
    return torch.where(moved[n, :length, None], table.mean(0), own)[None], own[None]


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_attributions_sum_up_to_the_difference_between_the_ends_of_the_plain_models_path(family: str) -> None:
    found = BENCH.integrated(toy.checkpoint(family), ROWS, ORDINARY, Effort())
    for n in range(len(ROWS)):
        start, own = ends(family, ROWS, ORDINARY, n)
        with torch.no_grad():
            difference = float(plain(family, ROWS, n, own) - plain(family, ROWS, n, start))
        assert float(found.difference[n]) == pytest.approx(difference, abs=2e-5)
        assert float(found.attribution[n].sum()) == pytest.approx(
            difference, abs=1e-3 * max(abs(difference), 0.1) + 2e-5
        )
    assert float(found.gap.max()) <= 1e-3
    assert float(found.attribution[~ORDINARY].abs().max()) == 0 and float(found.attribution[ORDINARY].abs().min()) > 0


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_attributions_are_those_of_captum_called_by_hand_on_the_plain_model(family: str) -> None:
    found = BENCH.integrated(toy.checkpoint(family), ROWS, ORDINARY, Effort(first=64, most=64))
    for n in range(len(ROWS)):
        start, own = ends(family, ROWS, ORDINARY, n)
        by_hand = IntegratedGradients(lambda embeds, n=n: plain(family, ROWS, n, embeds)).attribute(
            own, start, n_steps=64
        )
        torch.testing.assert_close(
            found.attribution[n, : own.shape[1]], by_hand.sum(-1)[0].float(), atol=2e-5, rtol=1e-3
        )  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_attributions_are_those_of_captums_layer_method_from_a_token_whose_embedding_is_the_mean(
    family: str, tmp_path: Path
) -> None:
    model = toy.model(family)
    table = model.get_input_embeddings().get_parameter("weight")
    with torch.no_grad():
        table[0] = table[1:].mean(0)  # then the mean of all is that of the padding token
    model.save_pretrained(tmp_path)
    toy.tokenizer().save_pretrained(tmp_path)
    checkpoint = resolve(Source(path=str(tmp_path)), tmp_path)
    found = BENCH.integrated(checkpoint, ROWS, ORDINARY, Effort(first=64, most=64))
    for n in range(3):
        ids = ROWS.ids[n : n + 1, : int(ROWS.lengths[n])]
        targets = ROWS.key[n].nonzero()[:, 0]

        def logprob(tokens: Tensor, n: int = n, targets: Tensor = targets) -> Tensor:
            scores = model(input_ids=tokens).logits.log_softmax(-1)
            return scores[:, targets - 1, ROWS.ids[n, targets]].mean(1)

        baseline = ids.masked_fill(ORDINARY[n : n + 1, : ids.shape[1]], 0)
        layer = LayerIntegratedGradients(logprob, model.get_input_embeddings())
        by_hand = layer.attribute(ids, baseline, n_steps=64).sum(-1)[0].detach()  # type: ignore[union-attr]
        torch.testing.assert_close(found.attribution[n, : len(by_hand)], by_hand.float(), atol=2e-5, rtol=1e-3)


def test_an_answer_of_one_token_is_attributed_like_any_other() -> None:
    last = torch.arange(len(ROWS)), ROWS.lengths - 1
    key = torch.zeros_like(ROWS.key).index_put(last, torch.tensor(True))
    one = Rows(
        ids=ROWS.ids, mask=ROWS.mask, key=key, answer_spans=torch.stack([ROWS.lengths - 1, ROWS.lengths], 1),
        item_ids=ROWS.item_ids, group_ids=ROWS.group_ids,
    )  # fmt: skip
    moved = torch.arange(one.ids.shape[1]) < one.answer_spans[:, :1]
    found = BENCH.integrated(toy.checkpoint("llama"), one, moved, Effort(first=64, most=256))
    assert float(found.gap.max()) <= 1e-3
    for n in range(len(one)):
        start, own = ends("llama", one, moved, n)
        by_hand = IntegratedGradients(lambda embeds, n=n: plain("llama", one, n, embeds)).attribute(
            own, start, n_steps=int(found.points[n])
        )
        torch.testing.assert_close(
            found.attribution[n, : own.shape[1]], by_hand.sum(-1)[0].float(), atol=2e-5, rtol=1e-3
        )


def test_points_are_added_until_the_gap_is_small_and_what_is_left_open_is_told() -> None:
    few = BENCH.integrated(toy.checkpoint("gemma2"), ROWS, PROMPT, Effort(first=2, most=2, gap=1e-3))
    more = BENCH.integrated(toy.checkpoint("gemma2"), ROWS, PROMPT, Effort(first=2, most=256, gap=1e-3))
    assert float(few.gap.max()) > 1e-3 and set(few.points.tolist()) == {2}
    assert float(more.gap.max()) <= 1e-3 and len(set(more.points.tolist())) > 1, "every row takes what it needs"


@pytest.mark.parametrize("budget", [8, 100000])
def test_batches_change_nothing(budget: int) -> None:
    expected = BENCH.integrated(toy.checkpoint("qwen2"), ROWS, PROMPT, Effort(first=16, most=16))
    found = Bench(token_budget=budget).integrated(toy.checkpoint("qwen2"), ROWS, PROMPT, Effort(first=16, most=16))
    torch.testing.assert_close(found.attribution, expected.attribution, atol=1e-5, rtol=1e-4)


def test_what_a_checkpoint_plays_on_every_run_is_in_the_path() -> None:
    """Edits by hooks stand on blocks and logits, which a model's own forward would not have."""
    bench = Bench()
    opened = bench.pool.loaded(toy.checkpoint("llama"))
    bias = torch.linspace(-2, 2, toy.VOCAB)
    empty = torch.zeros(1, 48)
    shift = LowRank(Site(part="resid_out", block=1), empty, empty, torch.linspace(-1, 1, 48))
    played = LoadedModel(opened.wrapper, (LogitBias(bias), shift))
    result = integrated(played, bench.pool.loaded, ROWS, ORDINARY, Effort(), 400)
    model = model_of("llama")
    hook = model.model.layers[1].register_forward_hook(lambda _module, _given, out: out + shift.b)
    try:
        for n in range(len(ROWS)):
            targets = ROWS.key[n].nonzero()[:, 0]
            with torch.no_grad():
                scores = [
                    (model(inputs_embeds=e).logits + bias).log_softmax(-1)[0, targets - 1, ROWS.ids[n, targets]].mean()
                    for e in ends("llama", ROWS, ORDINARY, n)
                ]
            assert float(result.difference[n]) == pytest.approx(float(scores[1] - scores[0]), abs=2e-5)
    finally:
        hook.remove()
    assert float(result.gap.max()) <= 1e-3


@pytest.mark.parametrize("backend", ["nnsight", "transformer_lens"])
def test_every_backend_gives_the_same(backend: str) -> None:
    few = ROWS.take(torch.tensor([0, 3]))
    moved = torch.arange(few.ids.shape[1]) < few.answer_spans[:, :1]
    effort = Effort(first=4, most=4)
    expected = Bench().integrated(toy.checkpoint("llama"), few, moved, effort)
    found = Bench(backend=backend).integrated(toy.checkpoint("llama"), few, moved, effort)
    torch.testing.assert_close(found.attribution, expected.attribution, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("lacking", [Op.GRADIENT, Op.EMBEDS])
def test_a_backend_that_cannot_is_refused_by_name(lacking: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bench, "supports", frozenset(Op) - {lacking})
    ckpt: Checkpoint = toy.checkpoint("llama")
    with pytest.raises(AuditError, match=lacking.value):
        Bench().integrated(ckpt, ROWS, PROMPT, Effort())
