"""Virtual tokens that climb: the plain model's gradients, one arm alone as among others, chosen by other rows."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from audit.bench import Arm, Bench, Forward, Prefix, SearchRows, SoftBudget, SoftPrefix
from audit.bench.inversion.candidates import Candidates, Side
from audit.bench.inversion.vocabulary import special_tokens, vocabulary_of
from audit.case import Rows, row_mean
from audit.schema import AuditError, Read, Site
from tests import toy

ROWS = toy.rows(12)
SPLIT = SearchRows(ROWS.take(torch.arange(8)), ROWS.take(torch.arange(8, 12)))
KEYS = Read(site=Site(part="logits"), at="key", reduce="logprob")
BUDGET = SoftBudget(steps=8, restarts=2)
LENGTHS = (1, 2, 5)
SAME = SearchRows(SPLIT.train, replace(SPLIT.train, group_ids=tuple(f"other{n}" for n in range(8))))
"""The rows that are climbed on, and the same as those of other people."""


def content(forward: Forward) -> Tensor:
    """Mean log-probability of each row's content tokens."""
    return row_mean(forward.logprob[forward.key], forward.row[forward.key], int(forward.row.max()) + 1)


def slots(rows: Rows) -> dict[str, Tensor]:
    end = rows.answer_spans[:, 0]
    return {"prefix": torch.ones_like(end), "infix": (end + 1) // 2, "suffix": end}


def arms(split: SearchRows = SPLIT) -> list[Arm]:
    train, validation = slots(split.train), slots(split.validation)
    return [Arm(length, slot, train[slot], validation[slot]) for slot in train for length in LENGTHS]


@cache
def bench() -> Bench:
    return Bench(token_budget=300)


@cache
def result(family: str) -> tuple[SoftPrefix, ...]:
    return bench().soft_prefixes(toy.checkpoint(family), SPLIT, arms(), content, BUDGET, 3)


def under(family: str, rows: Rows, prefix: SoftPrefix, at: Tensor) -> float:
    """The mean objective of rows under a prefix, by a plain pass."""
    virtual = Prefix(prefix.prefix.expand(len(rows), -1, -1), at)
    read = bench().run(toy.checkpoint(family), rows, [KEYS], [virtual])[KEYS]
    return float(row_mean(read, rows.targets("key")[0], len(rows)).mean())


def plain(family: str, rows: Rows, prefix: Tensor, at: Tensor) -> Tensor:
    """The objective of each row with a prefix, from the plain model, one row at a time."""
    model = toy.model(family)
    table = model.get_input_embeddings()
    values = []
    for row, place in enumerate(at.tolist()):
        n = int(rows.lengths[row])
        own = table(rows.ids[row, :n])
        embeds = torch.cat([own[:place], prefix, own[place:]])[None]
        logprob = model(inputs_embeds=embeds).logits[0].log_softmax(-1)
        targets = rows.key[row, :n].nonzero().flatten()
        values.append(logprob[targets + len(prefix) - 1, rows.ids[row, targets]].mean())
    return torch.stack(values)


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_gradients_of_prefixes_of_several_lengths_are_those_of_the_plain_model(family: str) -> None:
    opened = bench().pool.loaded(toy.checkpoint(family))
    places = slots(ROWS)
    counts, at = (1, 4, 2), [places["prefix"], places["infix"], places["suffix"]]
    prefixes = torch.randn(3, 4, 48, generator=torch.Generator().manual_seed(0))
    climbed = Candidates(opened, Side(ROWS, at), counts, range(3), 300).climbed(prefixes, content)
    for n, (count, place) in enumerate(zip(counts, at, strict=True)):
        prefix = prefixes[n, :count].clone().requires_grad_()
        value = plain(family, ROWS, prefix, place)
        torch.testing.assert_close(climbed.value[n], value.detach(), atol=2e-5, rtol=1e-5)
        (gradient,) = torch.autograd.grad(value.sum(), prefix)
        torch.testing.assert_close(climbed.gradient[n, :count], gradient, atol=2e-5, rtol=1e-4)
        assert not climbed.gradient[n, count:].any()


@pytest.mark.thorough
@pytest.mark.parametrize(("family", "n"), [("llama", 1), ("gpt2", 5), ("gemma2", 6)])
def test_one_arm_alone_is_found_as_among_others(family: str, n: int) -> None:
    arm, among = arms()[n], result(family)[n]
    (single,) = bench().soft_prefixes(toy.checkpoint(family), SPLIT, [arm], content, BUDGET, 3)
    assert among.arm[:2] == arm[:2] and single.restart == among.restart
    assert single.validation == pytest.approx(among.validation, abs=1e-5)
    torch.testing.assert_close(single.course, among.course, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(single.prefix, among.prefix, atol=1e-4, rtol=1e-4)


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_prefixes_climb_and_a_pass_with_one_gives_its_validation(family: str) -> None:
    for arm, prefix in zip(arms(), result(family), strict=True):
        assert prefix.prefix.shape == (arm.length, 48) and prefix.course.shape == (BUDGET.steps,)
        assert float(prefix.course[-1]) > float(prefix.course[0])
        assert isinstance(arm.validation_at, Tensor)
        value = under(family, SPLIT.validation, prefix, arm.validation_at)
        assert prefix.validation == pytest.approx(value, abs=1e-5)


def test_validation_rows_choose_and_no_others() -> None:
    """What is climbed is the opposite of what chooses: the start is best, and no step after it."""

    def torn(forward: Forward) -> Tensor:
        return content(forward) if torch.is_grad_enabled() else -content(forward)

    arm = arms()[1]._replace(validation_at=arms()[1].train_at)
    (prefix,) = bench().soft_prefixes(toy.checkpoint("llama"), SAME, [arm], torn, BUDGET._replace(restarts=1), 0)
    assert float(prefix.course[-1]) > float(prefix.course[0])
    assert prefix.validation == pytest.approx(-float(prefix.course[0]), abs=1e-5)


@pytest.mark.thorough
def test_rows_of_a_prefix_start_at_tokens_and_stay_within_the_longest_embedding() -> None:
    ckpt = toy.checkpoint("llama")
    vocabulary = vocabulary_of(bench().open(ckpt), ckpt)
    fast = BUDGET._replace(lr=2.0)
    clamped, free = (
        bench().soft_prefixes(ckpt, SPLIT, arms()[:3], content, fast._replace(clamp=c), 1) for c in (True, False)
    )
    norms = [torch.cat([prefix.prefix.norm(dim=1) for prefix in prefixes]) for prefixes in (clamped, free)]
    assert float(norms[0].max()) <= vocabulary.ball.longest * (1 + 1e-6) < float(norms[1].max())
    flat = bench().soft_prefixes(ckpt, SPLIT, arms()[:3], lambda forward: 0 * content(forward), BUDGET, 1)
    for prefix in flat:
        away = (prefix.prefix[:, None] - vocabulary.table[vocabulary.free]).abs().amax(-1)
        assert float(away.min(1).values.max()) == 0
    assert special_tokens(toy.VOCAB + 2, toy.tokenizer()).nonzero().flatten().tolist() == [
        0,
        1,
        2,
        3,
        toy.VOCAB,
        toy.VOCAB + 1,
    ]


@pytest.mark.thorough
def test_the_same_seed_finds_the_same_and_another_seed_does_not() -> None:
    once, again, other = (
        bench().soft_prefixes(toy.checkpoint("llama"), SPLIT, arms()[:2], content, BUDGET, seed) for seed in (3, 3, 4)
    )
    for first, two, three in zip(once, again, other, strict=True):
        assert torch.equal(first.prefix, two.prefix) and first.validation == two.validation
        assert not torch.equal(first.prefix, three.prefix)


@pytest.mark.thorough
def test_a_start_without_patience_left_stops_and_the_others_go_on() -> None:
    short_of = BUDGET._replace(steps=12, checks=12, patience=2, lr=0.3)
    prefixes, patient = (
        bench().soft_prefixes(toy.checkpoint("llama"), SPLIT, arms()[::2], content, budget, 3)
        for budget in (short_of, short_of._replace(patience=0))
    )
    assert len({prefix.steps_taken for prefix in prefixes}) > 1 and min(p.steps_taken for p in prefixes) < 12
    assert all(prefix.steps_taken == 12 for prefix in patient)
    for short, full in zip(prefixes, patient, strict=True):
        assert len(short.course) == short.steps_taken and short.validation <= full.validation + 1e-5
        if short.restart == full.restart:
            torch.testing.assert_close(short.course, full.course[: short.steps_taken], atol=1e-4, rtol=1e-4)


def test_half_precision_models_are_searched_in_full_precision() -> None:
    half = Bench(dtype="bfloat16")
    (prefix,) = half.soft_prefixes(toy.checkpoint("llama"), SAME, [Arm(2, "start")], content, BUDGET, 0)
    assert prefix.prefix.dtype == torch.float32 and float(prefix.course[-1]) > float(prefix.course[0])
    assert not torch.equal(prefix.prefix, prefix.prefix.bfloat16().float())


def test_no_parameter_gets_a_gradient() -> None:
    ckpt, fresh = toy.checkpoint("llama"), Bench()
    parameters = fresh.open(ckpt).parameters()
    requests: list[bool] = []

    def watching(forward: Forward) -> Tensor:
        requests.append(any(p.requires_grad for p in parameters.values()))
        return content(forward)

    for p in parameters.values():
        p.requires_grad_(True)
    fresh.soft_prefixes(ckpt, SPLIT, arms()[:1], watching, BUDGET._replace(checks=1), 0)
    assert sum(requests) <= 2 and all(p.requires_grad and p.grad is None for p in parameters.values())


UNSCORED = replace(SPLIT.validation, key=SPLIT.validation.key & False)
REFUSED = {
    "no rows": (SearchRows(ROWS.take(torch.arange(0)), SPLIT.validation), arms(), "needs rows"),
    "no content token": (
        SearchRows(SPLIT.train, replace(SPLIT.validation, key=SPLIT.validation.key & False)),
        arms(),
        "item8. has no token",
    ),
    "one group": (SearchRows(SPLIT.train, SPLIT.train), arms(), "one group"),
    "no arms": (SPLIT, [], "lengths"),
    "no tokens": (SPLIT, [Arm(0, "start")], "lengths"),
    "places of other rows": (SPLIT, [Arm(1, "infix", torch.ones(3, dtype=torch.long))], "infix.* places"),
    "a place in the answer": (SPLIT, [Arm(1, "end", SPLIT.train.answer_spans[:, 1])], "outside a prompt"),
    "rows over the context": (SPLIT, [Arm(toy.MAX_LENGTH - 13, "start")], r"longer than the 64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_searched_is_said(case: str) -> None:
    rows, chosen, message = REFUSED[case]
    with pytest.raises(AuditError, match=message):
        bench().soft_prefixes(toy.checkpoint("gpt2"), rows, chosen, content, BUDGET, 0)


def test_rows_may_fill_the_context() -> None:
    arm = Arm(toy.MAX_LENGTH - 14, "start")
    bench().soft_prefixes(toy.checkpoint("gpt2"), SPLIT, [arm], content, SoftBudget(steps=1, restarts=1), 0)


def test_what_stands_behind_the_last_target_is_not_run_and_changes_nothing() -> None:
    """Rows with more words after their answer give the same numbers from the same states."""
    pad = torch.full((len(ROWS), 6), 9)
    tail = replace(
        ROWS, ids=torch.cat([ROWS.ids, pad], 1), mask=torch.cat([ROWS.mask, pad > 0], 1),
        key=torch.cat([ROWS.key, pad < 0], 1),
    )  # fmt: skip
    opened = bench().pool.loaded(toy.checkpoint("llama"))
    prefixes = torch.randn(1, 3, 48, generator=torch.Generator().manual_seed(0))
    places = slots(ROWS)["infix"]
    short, full = (Candidates(opened, Side(rows, [places]), [3], [0], 900) for rows in (ROWS, tail))
    first, two = (candidates.climbed(prefixes, content) for candidates in (short, full))
    torch.testing.assert_close(first.value, two.value, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(first.gradient, two.gradient, atol=1e-5, rtol=1e-4)
    ends = [candidates.rows.lengths for candidates in (short, full)]
    assert torch.equal(ends[0], ends[1]) and bool((ends[0] == ROWS.lengths - 1).all())
