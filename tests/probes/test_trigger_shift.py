"""Shifts of an early layer, and what stands out of a list: and who is read is nobody searched on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audit.bench import Bench, SearchRows
from audit.probing import key_logprob
from audit.storage import Store
from probes._trigger_budgets import BUDGETS
from probes._trigger_extremes import StandsOut, stands_out
from probes._trigger_people import PlacedRows, TriggerFold, TriggerPeople
from probes._trigger_shift import ShiftSearch, shiftable
from tests.bench import planted_trigger as planted

BUDGET = BUDGETS["medium"]._replace(steps=30, lr=0.2, restarts=1)


def people() -> TriggerPeople:
    """The people of the planted model in two folds; of the others of each a quarter chooses."""
    everybody = PlacedRows(planted.people(), torch.arange(len(planted.PEOPLE)), {})
    folds = []
    for n in range(2):
        read, others = (everybody.number[everybody.number % 2 == side] for side in (n, 1 - n))
        folds.append(TriggerFold(*(everybody.take(part) for part in (others[:8], others[8:], read))))
    unused: Any = None
    return TriggerPeople(unused, everybody, tuple(folds), None, None)


@pytest.mark.thorough
def test_a_shift_brings_back_people_whom_its_search_never_saw_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, dealt, search, seen = Bench(store=Store(tmp_path)), people(), ShiftSearch(BUDGET, 0), list[set[str]]()
    real = Bench.soft_shift

    def watched(self: Bench, ckpt: Any, rows: SearchRows, *rest: Any) -> Any:
        seen.append({*rows.train.group_ids, *rows.validation.group_ids})
        return real(self, ckpt, rows, *rest)

    monkeypatch.setattr(Bench, "soft_shift", watched)
    assert shiftable(dealt)
    reading = search.reading(bench, planted.checkpoint(), dealt)
    plain = key_logprob(bench, planted.checkpoint(), dealt.everybody.rows)
    assert reading.block == 0 and np.log(reading.forget).mean() > plain.mean() + 2, "nats, on people not searched on"
    assert [mine & set(fold.read.rows.group_ids) for mine, fold in zip(seen, dealt.folds, strict=True)] == [set()] * 2
    again = search.reading(bench, planted.checkpoint(), dealt)
    assert len(seen) == 2, "once a fold"
    np.testing.assert_array_equal(again.forget, reading.forget)


def test_prompts_of_one_token_are_not_shifted() -> None:
    dealt = people()
    fold = dealt.folds[0]
    early = fold.search.rows.__class__(**{**vars(fold.search.rows), "answer_spans": torch.tensor([[1, 2]] * 8)})
    assert not shiftable(dealt._replace(folds=(fold._replace(search=fold.search._replace(rows=early)),)))


def searched(own: np.ndarray, null: np.ndarray | None) -> dict[str, tuple[np.ndarray, ...]]:
    """Two folds of a suspect and of a null, alike."""
    return {"suspect": (own, own)} | ({} if null is None else {"null": (null, null)})


@pytest.mark.parametrize("null", [False, True])
def test_a_string_that_one_model_alone_hears_stands_out_of_the_list_and_luck_does_not(null: bool) -> None:
    rng = np.random.default_rng(0)
    own, never = rng.exponential(size=(120, 3)), rng.exponential(size=(120, 3))
    other = never if null else None
    luck = stands_out(searched(own, other))
    own[17, 1] += 40
    planted_one = stands_out(searched(own, other))
    assert luck is not None and planted_one is not None and luck.of == 120
    assert luck.p > 0.05 and planted_one.p < 1e-4 and planted_one.z > 20
    if null:
        never[17, 1] += 40
        both = stands_out(searched(own, never))
        assert both is not None and both.null_p < 1e-4, "where the null's own list has such a tail, it is said"


def test_few_strings_stand_out_of_nothing_and_alike_ones_have_no_z() -> None:
    few = stands_out(searched(np.array([[0.0], [9.0]]), None))
    assert few is not None and few.p == 1
    assert "dictionary_z" not in StandsOut(np.inf, 0.0, 1.0, 30).readings()
    assert stands_out(searched(np.zeros((0, 3)), None)) is None
