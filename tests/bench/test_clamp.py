"""Columns of a state held at another model's values, against the same done by hand."""

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, Clamp, Replace
from audit.schema import AuditError, Positions, Read, Site
from tests import toy

ROWS = toy.rows(6)
HIDDEN = Site(part="mlp_hidden", block=1)
LOGPROB = Read(site=Site(part="logits"), at="answer", reduce="logprob")
BENCH = Bench(token_budget=40)  # several batches, so that every clamp is cut to its rows
COLUMNS = torch.tensor([[3, 7, -1], [0, -1, -1], [79, 1, 0], [-1, -1, -1], [5, 6, 7], [2, 40, -1]])
POSITIONS: tuple[Positions, ...] = ("key", "answer", "last", "all")


def hidden(seed: int, family: str = "llama") -> Tensor:
    read = Read(site=HIDDEN, at="all")
    return BENCH.run(toy.checkpoint(family, seed), ROWS, [read])[read]


def marked(positions: Positions) -> Tensor:
    """Which states a clamp at these positions touches, [row pos]."""
    if positions == "all":
        return ROWS.mask
    at = torch.zeros_like(ROWS.mask)
    if positions == "last":
        at[torch.arange(len(ROWS)), ROWS.lengths - 1] = True
    else:
        row, target = ROWS.targets(positions)
        at[row, target - 1] = True
    return at


def by_hand(own: Tensor, other: Tensor, positions: Positions) -> Tensor:
    """The states as they should be, one row and one column at a time."""
    expected = own.clone()
    for row, columns in enumerate(COLUMNS.tolist()):
        for column in columns:
            if column >= 0:
                expected[row, marked(positions)[row], column] = other[row, marked(positions)[row], column]
    return expected


def values(states: Tensor, positions: Positions) -> Tensor:
    """Another model's values of every row's columns, as a clamp takes them."""
    chosen = states.gather(2, COLUMNS.clamp_min(0)[:, None].expand(-1, states.shape[1], -1))
    return chosen if positions == "all" else chosen[marked(positions)]


@pytest.mark.sampled
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_columns_take_the_values_that_they_have_in_another_model(family: str, positions: Positions) -> None:
    read = Read(site=HIDDEN, at="all")
    own, other = hidden(0, family), hidden(1, family)
    expected = by_hand(own, other, positions)
    assert not torch.equal(expected, own)
    for source in (toy.checkpoint(family, 1), values(other, positions)):
        states = BENCH.run(toy.checkpoint(family), ROWS, [read], [Clamp(HIDDEN, COLUMNS, source, positions)])[read]
        torch.testing.assert_close(states, expected, atol=2e-5, rtol=1e-5)


def test_a_model_held_at_its_own_values_is_as_it_was() -> None:
    plain = BENCH.run(toy.checkpoint("llama"), ROWS, [LOGPROB])[LOGPROB]
    held = BENCH.run(toy.checkpoint("llama"), ROWS, [LOGPROB], [Clamp(HIDDEN, COLUMNS, toy.checkpoint("llama"))])
    other = BENCH.run(toy.checkpoint("llama"), ROWS, [LOGPROB], [Clamp(HIDDEN, COLUMNS, toy.checkpoint("llama", 1))])
    assert torch.equal(held[LOGPROB], plain)
    assert not torch.allclose(other[LOGPROB], plain, atol=1e-4)


def test_every_column_held_is_the_whole_state_replaced() -> None:
    every, other = torch.arange(80).repeat(len(ROWS), 1), toy.checkpoint("llama", 1)
    held, replaced = (
        BENCH.run(toy.checkpoint("llama"), ROWS, [LOGPROB], [write])[LOGPROB]
        for write in (Clamp(HIDDEN, every, other), Replace(HIDDEN, other, "key"))
    )
    torch.testing.assert_close(held, replaced)


def test_no_column_bites_nothing() -> None:
    nobody = torch.full((6, 2), -1)
    assert not Clamp(HIDDEN, nobody, toy.checkpoint("llama", 1)).bites()
    assert Clamp(HIDDEN, COLUMNS, toy.checkpoint("llama", 1)).bites()
    plain, held = (
        BENCH.run(toy.checkpoint("llama"), ROWS, [LOGPROB], writes)[LOGPROB]
        for writes in ([], [Clamp(HIDDEN, nobody, toy.checkpoint("llama", 1))])
    )
    assert torch.equal(plain, held)


@pytest.mark.parametrize(
    ("columns", "given"),
    [(COLUMNS[:5], None), (COLUMNS, torch.zeros(3, 3)), (COLUMNS, torch.zeros(len(ROWS.targets("key")[0]), 2))],
)
def test_a_clamp_that_does_not_fit_the_rows_is_refused_in_words(columns: Tensor, given: Tensor | None) -> None:
    source = toy.checkpoint("llama", 1) if given is None else given
    with pytest.raises(AuditError, match="a clamp of shape"):
        BENCH.run(toy.checkpoint("llama"), ROWS, [LOGPROB], [Clamp(HIDDEN, columns, source)])


def test_a_clamp_at_the_mean_is_refused() -> None:
    with pytest.raises(AuditError, match="cannot be clamped at 'mean'"):
        BENCH.run(toy.checkpoint("llama"), ROWS, [LOGPROB], [Clamp(HIDDEN, COLUMNS, torch.zeros(6, 3), "mean")])
