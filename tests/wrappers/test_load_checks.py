"""The numbers by which the checks of hooks decide: how far apart two states are, and how far they may be."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from audit.schema import AuditError, ExitCode, SilentModelError
from audit.wrappers.interface import Batch, Wrapper
from audit.wrappers.load_checks import _check_head, _check_says, _gap, _tolerance


@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [(torch.float64, 1e-4), (torch.float32, 1e-4), (torch.bfloat16, 5e-2), (torch.float16, 5e-2)],
)
def test_half_precision_may_be_off_by_a_twentieth_and_all_else_by_a_ten_thousandth(
    dtype: torch.dtype, allowed: float
) -> None:
    assert _tolerance(dtype) == allowed


def test_a_gap_is_the_largest_difference_of_a_row_over_the_largest_entry_of_both() -> None:
    a = torch.tensor([[[1.0, -2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 1.0]]])
    b = torch.tensor([[[1.0, -2.0], [3.5, 4.0]], [[0.0, -8.0], [0.0, 1.0]]])
    assert torch.equal(_gap(a, b), torch.tensor([0.5 / 8, 8.0 / 8])) and torch.equal(_gap(a, b), _gap(b, a))
    assert torch.equal(_gap(a, a), torch.zeros(2))
    assert torch.equal(_gap(torch.zeros(3, 2), torch.zeros(3, 2)), torch.zeros(3))
    small = _gap(1e-3 * a, 1e-3 * b)
    assert torch.allclose(small, _gap(a, b)), "relative: a model of small states is as suspect as one of large ones"
    assert torch.equal(_gap(a.bfloat16(), b.bfloat16()), _gap(a, b))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([[1.0, 2.0]], None), ([[1.0, 2.0], [1.0, 3.0]], None), ([[1.0, 2.0], [1.0, 2.0]], "says the same"),
        ([[1.0, 2.0]] * 5, "says the same"), ([[1.0, 2.0]] * 4 + [[1.0, 2.1]], None),
        ([[-INF, 1.0], [0.0, -INF]], None),
        ([[NAN, 1.0], [1.0, 2.0]], "no numbers"), ([[INF, 1.0], [1.0, 2.0]], "no numbers"),
        ([[-INF, -INF], [-INF, -INF]], "no numbers"), ([[-INF, 1.0], [-INF, 1.0]], "says the same"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("by_position", [True, False])
def test_outputs_have_to_be_numbers_and_of_two_places_or_more_not_all_the_same(
    rows: list[list[float]], fault: str | None, by_position: bool
) -> None:
    """Rows of one text's positions (batch, position, word), or of texts (batch, class)."""
    wrapper = Mock(spec=Wrapper)
    wrapper.name, wrapper.dtype = "m", torch.float16
    logits = torch.tensor(rows)[None] if by_position else torch.tensor(rows)
    if fault is None:
        _check_says(wrapper, logits)
        return
    with pytest.raises(AuditError, match=rf"^m: .*{fault}") as caught:
        _check_says(wrapper, logits)
    assert caught.value.code == ExitCode.INTEGRITY
    assert isinstance(caught.value, SilentModelError) == (fault == "says the same")
    assert ("torch.float16" in caught.value.what) == (fault == "no numbers")


@pytest.mark.parametrize(("off", "refused"), [(0.0, False), (0.9e-4, False), (1.5e-4, True), (1.0, True)])
def test_the_head_on_what_it_reads_has_to_give_the_models_own_logits(off: float, refused: bool) -> None:
    wrapper, final = Mock(spec=Wrapper), torch.tensor([[[1.0, -0.5], [0.25, 0.0]]])
    wrapper.name, wrapper.dtype = "m", torch.float32
    wrapper.tower.return_value.summary, wrapper.own_inputs.return_value = None, {"x": 1}
    wrapper.head = lambda state: 2 * state
    batch = Batch(torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool), None, {})
    _check_head(wrapper, batch, final)  # no model of its own to be held against
    wrapper.model = lambda *, x: SimpleNamespace(logits=2 * final + torch.tensor([0.0, 2 * off * x]))
    if not refused:
        _check_head(wrapper, batch, final)
        return
    with pytest.raises(AuditError, match="the head on final_in does not give the model's own logits") as caught:
        _check_head(wrapper, batch, final)
    assert caught.value.code == ExitCode.INPUT
