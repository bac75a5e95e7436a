"""Usable information of read-outs' scores, row by row, and the part that two models say in common."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audit.readouts import usable_information as ui


def rows(seed: int, n: int, classes: int, signal: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores that point at the class of each row by so much, labels, which rows are retained, and cohorts."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.cat([torch.arange(classes), torch.randint(classes, (n - classes,), generator=rng)])
    scores = signal * torch.nn.functional.one_hot(label, classes).double()
    scores += 0.3 * torch.randn(n, classes, generator=rng, dtype=torch.float64)
    cohort = torch.arange(n) % 3
    return scores, label, cohort == 1, cohort


def prior(label: Tensor) -> Tensor:
    return torch.bincount(label).double() / len(label)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(12, 80), st.integers(2, 6), st.floats(-2.0, 3.0))
def test_no_cohort_has_less_than_nothing_and_no_row_more_than_its_class_says(
    seed: int, n: int, classes: int, signal: float
) -> None:
    scores, label, retained, cohort = rows(seed, n, classes, signal)
    said = ui.information(scores, label, retained, cohort)
    assert torch.isfinite(said).all()
    assert (said <= -prior(label).log()[label] + 1e-9).all()
    for number in range(3):
        assert said[cohort == number].mean() >= -1e-6, "knowing nothing is in the family"
    other = ui.information(*rows(seed + 1, n, classes, 0.5)[:1], label, retained, cohort)
    both = ui.redundant(said, other)
    for number in range(3):
        own = cohort == number
        assert both[own].mean() <= min(said[own].mean(), other[own].mean()) + 1e-12
    assert torch.equal(ui.redundant(said, said), said)


def test_scores_that_are_no_number_or_overflow_are_no_crash() -> None:
    scores, label, retained, cohort = rows(3, 40, 3, 1.0)
    broken = scores.clone()
    broken[5] = torch.nan
    assert ui.information(broken, label, retained, cohort).isnan().any()
    told = ui.information(scores.float() * 1e38, label, retained, cohort)
    assert told.shape == label.shape, "scaled, they are infinite"


def test_scores_that_are_the_same_for_every_row_say_nothing() -> None:
    _, label, retained, cohort = rows(0, 60, 4, 1.0)
    said = ui.information(torch.tensor([[0.6, 0.1, 0.2, 0.1]]).double().expand(60, -1), label, retained, cohort)
    assert said.abs().max() < 1e-9
    assert ui.information(torch.zeros(60, 4).double(), label, retained, cohort).abs().max() == 0


def test_scores_that_are_always_right_say_all_of_the_class() -> None:
    scores, label, retained, cohort = rows(1, 90, 5, 5.0)
    said = ui.information(scores, label, retained, cohort)
    assert torch.allclose(said, -prior(label).log()[label], atol=0.02)


def test_a_cohort_of_which_nothing_is_known_does_not_pay_for_scores_that_others_may_trust() -> None:
    scores, label, retained, cohort = rows(2, 300, 5, 3.0)
    rng = torch.Generator().manual_seed(3)
    unknown = cohort == 0
    scores[unknown] = scores[unknown][torch.randperm(int(unknown.sum()), generator=rng)]
    said = ui.information(scores, label, retained, cohort)
    assert abs(float(said[unknown].mean())) < 0.1 and float(said[unknown].min()) > -1.0
    assert float(said[~unknown].mean()) > 0.9 * float(-prior(label).log()[label][~unknown].mean())


def test_the_redundant_part_of_what_two_say_of_different_rows_is_nothing() -> None:
    scores, label, _, cohort = rows(4, 400, 4, 3.0)
    half = torch.arange(400) % 2 == 0
    silent = torch.zeros_like(scores)
    parts = [torch.where((half if first else ~half)[:, None], scores, silent) for first in (True, False)]
    a, b = (ui.information(part, label, torch.ones(400, dtype=torch.bool), cohort) for part in parts)
    assert min(float(a.mean()), float(b.mean())) > 0.3 * math.log(4)
    assert float(ui.redundant(a, b).mean()) < 0.02
