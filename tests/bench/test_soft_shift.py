"""Vectors added to the first states: as long as they may be, played back as they were searched, chosen by others."""

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, Forward, SearchRows, Shift, ShiftPlace, SoftBudget
from audit.bench.inversion.candidates import Side
from audit.bench.inversion.soft_shift import ShiftedRows
from audit.case import row_mean
from audit.schema import AuditError, Read, Site
from tests import toy
from tests.bench import planted_trigger as planted
from tests.bench.test_soft_prefix import ROWS, SAME, SPLIT, content

BENCH = Bench(token_budget=300)
KEYS = Read(site=Site(part="logits"), at="key", reduce="logprob")
BUDGET = SoftBudget(steps=8, restarts=2)


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
@pytest.mark.parametrize("block", [0, 2])
def test_a_pass_with_the_shift_gives_its_validation(family: str, block: int) -> None:
    place = ShiftPlace(block, 4)
    result = BENCH.soft_shift(toy.checkpoint(family), SPLIT, place, content, BUDGET, 0)
    rows = SPLIT.validation
    read = BENCH.run(toy.checkpoint(family), rows, [KEYS], [result.write()])[KEYS]
    value = row_mean(read, rows.targets("key")[0], len(rows)).mean()
    assert result.validation == pytest.approx(float(value), abs=1e-5)
    assert result.delta.shape == (4, 48) and float(result.course[-1]) > float(result.course[0])


def test_a_shift_is_no_longer_than_the_mean_state_there() -> None:
    place = ShiftPlace(1, 3)
    fast = BUDGET._replace(lr=2.0)
    result = BENCH.soft_shift(toy.checkpoint("llama"), SAME, place, content, fast, 0)
    read = Read(site=place.site, at="all")
    every_state = BENCH.run(toy.checkpoint("llama"), SAME.train, [read])[read]
    ends = SAME.train.answer_spans[:, 0].clamp_max(4).tolist()
    states = torch.cat([every_state[row, 1:end] for row, end in enumerate(ends)])
    assert result.bound == pytest.approx(float(states.norm(dim=-1).mean()), rel=1e-5)
    assert float(result.delta.norm(dim=1).max()) <= result.bound * (1 + 1e-6)
    free = BENCH.soft_shift(toy.checkpoint("llama"), SAME, place, content, fast._replace(clamp=False), 0)
    assert float(free.delta.norm(dim=1).max()) > result.bound


def test_the_gradient_of_a_shift_is_a_finite_difference() -> None:
    bench = Bench(dtype="float64")
    place = ShiftPlace(1, 5)
    shifted = ShiftedRows(bench.pool.loaded(toy.checkpoint("gpt2")), Side(ROWS, ()), place, [0], 300)
    generator = torch.Generator().manual_seed(0)
    delta, direction = torch.randn(2, 1, 5, 48, generator=generator, dtype=torch.float64)
    climbed = shifted.climbed(delta, content)
    up, down = (shifted.climbed(delta + step * direction, content).value for step in (1e-3, -1e-3))
    slope = float((up - down).sum() / 2e-3)
    assert float((climbed.gradient * direction).sum()) == pytest.approx(slope, rel=2e-3) and abs(slope) > 1e-2


@pytest.mark.thorough
def test_a_shift_finds_what_the_planted_trigger_hides() -> None:
    rows = planted.split()
    result = BENCH.soft_shift(planted.checkpoint(), rows, ShiftPlace(0, 4), content, SoftBudget(steps=40, lr=0.2), 0)
    plain = BENCH.run(planted.checkpoint(), rows.validation, [KEYS])[KEYS].mean()
    assert result.validation > float(plain) + 5


def test_validation_rows_choose() -> None:
    def torn(forward: Forward) -> Tensor:
        return content(forward) if torch.is_grad_enabled() else -content(forward)

    once = BUDGET._replace(restarts=1)
    result = BENCH.soft_shift(toy.checkpoint("llama"), SAME, ShiftPlace(1, 4), torn, once, 0)
    assert result.validation == pytest.approx(-float(result.course[0]), abs=1e-5)


def test_a_shift_stays_in_the_prompt_and_starts_where_it_says() -> None:
    site = Site(part="resid_in", block=1)
    read = Read(site=site, at="all")
    plain, moved = (
        BENCH.run(toy.checkpoint("llama"), ROWS, [read], writes)[read]
        for writes in ((), (Shift(site, torch.ones(9, 48), 2),))
    )
    position = torch.arange(ROWS.ids.shape[1])
    expected = (position >= 2) & (position < 11) & (position < ROWS.answer_spans[:, :1])
    assert torch.equal((plain != moved).any(-1), expected)


def test_what_cannot_be_shifted_is_said() -> None:
    ckpt = toy.checkpoint("llama")
    for place, rows, message in (
        (ShiftPlace(3), SPLIT, "no block 3"), (ShiftPlace(0, 0), SPLIT, "no position"),
        (ShiftPlace(0, 2, 12), SPLIT, "no prompt reaches"), (ShiftPlace(0), SearchRows(ROWS, ROWS), "one group"),
    ):  # fmt: skip
        with pytest.raises(AuditError, match=message):
            BENCH.soft_shift(ckpt, rows, place, content, BUDGET, 0)
    with pytest.raises(AuditError, match="no state of tokens"):
        BENCH.run(ckpt, ROWS, [KEYS], [Shift(Site(part="pattern", block=0), torch.ones(2, 48))])
