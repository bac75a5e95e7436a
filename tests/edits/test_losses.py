"""Every unlearning loss against a dense computation from logits that shares no code with it.

The second half takes the logits of whole rows from a tiny model, prompt and padding included, and walks the answers in
plain loops: what a loss must leave out is there to be counted by mistake.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import entr, expit, log_softmax, rel_entr, softmax
from torch import Tensor

from audit.bench import CausalLearner, Forward
from audit.case import Rows, stacked
from audit.edits import _losses
from audit.edits._descent import paired
from audit.schema import AuditError
from tests import toy

VOCAB = 11


def forward_of(seed: int, lengths: tuple[int, ...]) -> Forward:
    """Random scored answers of the given lengths; every third token is content, and each row has one."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    logits = 3 * torch.randn(n, VOCAB, generator=generator)
    target = torch.randint(VOCAB, (n,), generator=generator)
    row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    key = torch.arange(n) % 3 == 0
    return Forward(logits.log_softmax(-1).gather(-1, target[:, None])[:, 0], logits, target, row, key, {})


def dense_nll(forward: Forward) -> np.ndarray:
    """Per-token negative log-likelihood by scipy, in double precision."""
    scores = log_softmax(forward.logits.double().numpy(), axis=-1)
    return -scores[np.arange(len(scores)), forward.target.numpy()]


lengths = st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), lengths)
def test_nll_is_the_token_mean_and_ascent_its_negative(seed: int, lengths: tuple[int, ...]) -> None:
    some = forward_of(seed, lengths)
    assert _losses.nll(some).item() == pytest.approx(dense_nll(some).mean(), rel=1e-5)
    assert _losses.ascent(some).item() == pytest.approx(-dense_nll(some).mean(), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), lengths, st.floats(0.01, 1))
def test_npo_sums_over_the_sequence_and_averages_over_rows(seed: int, lengths: tuple[int, ...], beta: float) -> None:
    live, frozen = forward_of(seed, lengths), forward_of(seed + 1, lengths)
    frozen = frozen._replace(target=live.target)
    frozen = frozen._replace(logprob=torch.tensor(-dense_nll(frozen), dtype=torch.float32))
    borders = np.cumsum(lengths)[:-1]
    gains = [a.sum() - b.sum() for a, b in zip(
        np.split(dense_nll(live), borders), np.split(dense_nll(frozen), borders), strict=True
    )]  # fmt: skip
    expected = np.mean([-(2 / beta) * np.log(expit(beta * gain)) for gain in gains])
    assert _losses.npo(live, frozen, beta).item() == pytest.approx(expected, rel=1e-4)


def test_npo_at_the_start_is_two_log_two_over_beta() -> None:
    some = forward_of(3, (4, 2))
    assert _losses.npo(some, some, 0.1).item() == pytest.approx(2 / 0.1 * np.log(2), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), lengths)
def test_unlikelihood_counts_content_tokens_only(seed: int, lengths: tuple[int, ...]) -> None:
    some = forward_of(seed, lengths)
    p = np.exp(-dense_nll(some))[some.key.numpy()]
    assert _losses.unlikelihood(some).item() == pytest.approx(np.mean(-np.log1p(-p)), rel=1e-3)


def test_unlikelihood_of_a_certain_token_stays_finite() -> None:
    logits = torch.tensor([[60.0, 0.0]], requires_grad=True)
    some = Forward(logits.log_softmax(-1)[:, 0], logits, torch.tensor([0]), torch.tensor([0]), torch.tensor([True]), {})
    assert torch.isfinite(_losses.unlikelihood(some))


def test_gradient_difference_climbs_forget_and_descends_retain() -> None:
    forget, retain = forward_of(1, (3, 4)), forward_of(2, (2, 5))
    expected = -0.5 * dense_nll(forget).mean() + 2 * dense_nll(retain).mean()
    assert _losses.grad_diff(forget, retain, gamma=0.5, alpha=2).item() == pytest.approx(expected, rel=1e-5)


def test_replacement_descends_both_sides() -> None:
    other, retain = forward_of(1, (3, 4)), forward_of(2, (2, 5))
    expected = 0.5 * dense_nll(other).mean() + 2 * dense_nll(retain).mean()
    assert _losses.replacement(other, retain, gamma=0.5, alpha=2).item() == pytest.approx(expected, rel=1e-5)


def test_sequence_nll_adds_each_rows_tokens() -> None:
    some = forward_of(5, (1, 4, 2))
    parts = np.split(dense_nll(some), [1, 5])
    assert _losses.sequence_nll(some, 3).numpy() == pytest.approx([part.sum() for part in parts], rel=1e-5)


# ---- whole rows of a tiny model -----------------------------------------------------------------------------------
class Seen(NamedTuple):
    """What a loss sees of some rows, and next to it, row by row, the logits [token vocab] and targets of the answer."""

    forward: Forward
    logits: tuple[np.ndarray, ...]
    targets: tuple[np.ndarray, ...]

    def nll(self) -> list[np.ndarray]:
        """Per row, the negative log-likelihood of its answer tokens."""
        return [
            np.array([-log_softmax(z)[t] for z, t in zip(logits, targets, strict=True)])
            for logits, targets in zip(self.logits, self.targets, strict=True)
        ]


def rows_of(part: str) -> Rows:
    """Rows of uneven length with answers of 2 to 4 tokens; ``pairs`` are six forget rows beside six others."""
    if part == "pairs":
        return paired(toy.rows(6, seed=3, longest=11), toy.rows(6, seed=1))
    return toy.rows(6, seed={"forget": 1, "retain": 2}[part])


@cache
def seen(part: str, model_seed: int) -> Seen:
    rows, model = rows_of(part), toy.model("llama", model_seed)
    assert len(set((rows.answer_spans[:, 1] - rows.answer_spans[:, 0]).tolist())) > 1, "uneven answers"
    with torch.no_grad():
        forward = CausalLearner(model).answers(rows)
        full = model(input_ids=rows.ids, attention_mask=rows.mask.long()).logits.double().numpy()
    logits, targets = [], []
    for i, (start, end) in enumerate(rows.answer_spans.tolist()):
        logits.append(np.stack([full[i, position - 1] for position in range(start, end)]))
        targets.append(rows.ids[i, start:end].numpy())
    return Seen(forward, tuple(logits), tuple(targets))


def close(ours: Tensor, expected: float) -> None:
    assert ours.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_preference_is_of_whole_answers_against_the_start(beta: float) -> None:
    live, frozen = seen("pairs", 0), seen("pairs", 1)
    total = [now.sum() - then.sum() for now, then in zip(live.nll(), frozen.nll(), strict=True)]
    losses = [-(2 / beta) * np.log(expit(beta * (total[i + 1] - total[i]))) for i in range(0, len(total), 2)]
    close(_losses.dpo(live.forward, frozen.forward, beta), float(np.mean(losses)))


def test_preference_without_a_preferred_answer_is_npo() -> None:
    live, frozen = seen("pairs", 0).forward, seen("pairs", 1).forward
    preferred = live.row % 2 == 0
    same = frozen._replace(logprob=torch.where(preferred, live.logprob, frozen.logprob))

    def rejected(some: Forward) -> Forward:
        return some._replace(logprob=some.logprob[~preferred], row=some.row[~preferred] // 2)

    close(_losses.dpo(live, same), _losses.npo(rejected(live), rejected(frozen)).item())


@pytest.mark.parametrize(("beta", "delta"), [(4.5, 0.0), (0.5, 2.0)])
def test_simnpo_averages_within_each_answer_first(beta: float, delta: float) -> None:
    live = seen("forget", 0)
    losses = [-(2 / beta) * np.log(expit(beta * (nll.mean() - delta))) for nll in live.nll()]
    close(_losses.simnpo(live.forward, beta, delta), float(np.mean(losses)))


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_weighted_ascent_weighs_tokens_by_their_probability(beta: float) -> None:
    live = seen("forget", 0)
    nll = np.concatenate(live.nll())
    close(_losses.weighted_ascent(live.forward, beta), float(-np.mean([np.exp(-x) ** beta * x for x in nll])))
    close(_losses.weighted_ascent(live.forward, 0.0), _losses.ascent(live.forward).item())


def test_divergence_is_from_the_start_over_answer_tokens_alone() -> None:
    live, frozen = seen("retain", 0), seen("retain", 1)
    kl = [
        rel_entr(softmax(then), softmax(now)).sum()
        for logits, start in zip(live.logits, frozen.logits, strict=True)
        for now, then in zip(logits, start, strict=True)
    ]
    close(_losses.divergence(live.forward, frozen.forward), float(np.mean(kl)))
    assert _losses.divergence(live.forward, live.forward).item() == pytest.approx(0, abs=1e-6)


def adjusted(frozen: Seen, beta: float) -> list[np.ndarray]:
    """The start's distributions with the target's logit lowered, token by token."""
    found = []
    for logits, targets in zip(frozen.logits, frozen.targets, strict=True):
        for z, target in zip(logits, targets, strict=True):
            lowered = z.copy()
            lowered[target] -= beta
            found.append(softmax(lowered))
    return found


def test_distillation_lowers_the_answer_tokens_alone() -> None:
    live, frozen = seen("forget", 0), seen("forget", 1)
    said = [log_softmax(z) for logits in live.logits for z in logits]
    expected = [-(p * q).sum() for p, q in zip(adjusted(frozen, 10.0), said, strict=True)]
    close(_losses.undial(live.forward, frozen.forward, 10.0), float(np.mean(expected)))


def test_distillation_rests_at_the_adjusted_distribution() -> None:
    frozen = seen("forget", 1)
    teacher = adjusted(frozen, 10.0)
    logits = torch.tensor(np.log(np.stack(teacher)), requires_grad=True)
    loss = _losses.undial(with_logits(frozen.forward, logits), frozen.forward, 10.0)
    assert loss.item() == pytest.approx(np.mean([entr(p).sum() for p in teacher]), rel=1e-4)
    loss.backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-6


# ---- gradients ----------------------------------------------------------------------------------------------------
def with_logits(forward: Forward, logits: Tensor) -> Forward:
    """The same tokens scored by other logits, gradients included."""
    logprob = logits.log_softmax(-1).gather(-1, forward.target[:, None])[:, 0]
    return forward._replace(logits=logits, logprob=logprob)


def in_double(forward: Forward) -> Forward:
    return with_logits(forward, forward.logits.double())


def gradient(loss: Callable[[Forward], Tensor], forward: Forward) -> Tensor:
    """Of the loss, with respect to the logits [token vocab]."""
    logits = forward.logits.double().requires_grad_(True)
    loss(with_logits(forward, logits)).backward()
    assert logits.grad is not None
    return logits.grad


def start(part: str) -> Forward:
    """What another model says of the same rows."""
    return in_double(seen(part, 1).forward)


SMOOTH: dict[str, tuple[str, Callable[[Forward], Tensor]]] = {
    "npo": ("forget", lambda live: _losses.npo(live, start("forget"))),
    "simnpo": ("forget", _losses.simnpo),
    "dpo": ("pairs", lambda live: _losses.dpo(live, start("pairs"))),
    "divergence": ("retain", lambda live: _losses.divergence(live, start("retain"))),
    "undial": ("forget", lambda live: _losses.undial(live, start("forget"))),
    "unlikelihood": ("forget", _losses.unlikelihood),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    part, loss = SMOOTH[name]
    live = in_double(seen(part, 0).forward)
    found, step = gradient(loss, live), 1e-5
    draws = np.random.default_rng(0).integers(0, live.logits.shape, (40, 2))
    for token, word in draws.tolist():
        values = []
        for sign in (1, -1):
            logits = live.logits.clone()
            logits[token, word] += sign * step
            values.append(loss(with_logits(live, logits)).item())
        assert found[token, word].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", ["npo", "simnpo", "undial", "unlikelihood", "weighted_ascent"])
def test_the_first_step_down_the_loss_makes_forgotten_tokens_less_likely(name: str) -> None:
    live = start("forget")
    loss = SMOOTH[name][1] if name in SMOOTH else _losses.weighted_ascent
    change = with_logits(live, live.logits - 0.1 * gradient(loss, live)).logprob - live.logprob
    assert change[live.key].max() < 0


def test_preference_lifts_the_preferred_and_lowers_the_rejected_answer() -> None:
    live = in_double(seen("pairs", 0).forward)
    after = with_logits(live, live.logits - 0.1 * gradient(SMOOTH["dpo"][1], live))
    preferred, rejected = (
        (after.logprob - live.logprob)[live.row % 2 == 0],
        (after.logprob - live.logprob)[live.row % 2 == 1],
    )
    assert preferred.min() > 0 and rejected.max() < 0


def test_the_weight_of_weighted_ascent_takes_no_gradient() -> None:
    live = in_double(seen("forget", 0).forward)
    p = live.logits.softmax(-1)
    likely = p.gather(-1, live.target[:, None])
    onehot = torch.zeros_like(p).scatter(-1, live.target[:, None], 1.0)
    torch.testing.assert_close(gradient(_losses.weighted_ascent, live), likely * (onehot - p) / len(p))


# ---- pairs --------------------------------------------------------------------------------------------------------
def test_pairs_hold_the_preferred_row_and_the_rejected_row_of_the_same_item() -> None:
    preferred, rejected = toy.rows(4, seed=3, longest=11), toy.rows(4, seed=1)
    twice = stacked([preferred, preferred.take(torch.tensor([2, 0]))])
    rows = paired(twice, rejected.take(torch.tensor([3, 1, 0, 2])))
    assert rows.item_ids == tuple(f"item{i}" for i in (0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 0, 0))
    for k, i in enumerate((0, 1, 2, 3, 2, 0)):
        for row, source in ((2 * k, preferred), (2 * k + 1, rejected)):
            n = int(source.lengths[i])
            assert torch.equal(rows.ids[row, :n], source.ids[i, :n]) and int(rows.lengths[row]) == n
            assert torch.equal(rows.answer_spans[row], source.answer_spans[i])
            assert torch.equal(rows.key[row, :n], source.key[i, :n]) and not rows.key[row, n:].any()


def test_an_item_without_its_other_answer_is_an_error_that_names_it() -> None:
    with pytest.raises(AuditError, match="item4, item5"):
        paired(toy.rows(4, seed=3), toy.rows(6, seed=1))
    with pytest.raises(AuditError, match="item3"):
        paired(toy.rows(4, seed=3), toy.rows(3, seed=1))
