"""Passes that end where their reads do and run common beginnings once say what passes of whole rows say."""

from dataclasses import replace

import pytest
import torch

from audit.bench import Bench
from audit.bench.prefix_sharing import token_plan
from audit.case import Rows
from audit.schema import Read, Site
from tests import toy

GROUPS, SIZE, HEADER = 40, 6, 2
KEY = Read(site=Site(part="logits"), at="key", reduce="logprob")
ANSWER = Read(site=Site(part="logits"), at="answer", reduce="logprob")
SCORES = tuple(
    Read(site=Site(part="logits"), at=at, reduce=reduce)  # type: ignore[arg-type]
    for at in ("key", "answer")
    for reduce in ("logprob", "rank", "entropy", "margin")
)
STATES = (
    Read(site=Site(part="resid_out", block=1), at="key"),
    Read(site=Site(part="attn_out", block=2), at="answer"),
    Read(site=Site(part="final_in"), at="last"),
)


def alike(groups: int = GROUPS) -> Rows:
    """Rows that begin alike in groups, after a header that all have; some are equal, some a beginning of another."""
    rows = toy.rows(groups * SIZE, 3, 30)
    rows = rows.take(rows.lengths.argsort())
    ids = rows.ids.view(groups, SIZE, -1).clone()
    start = rows.answer_spans[:, 0].view(groups, SIZE)
    for group, first in zip(ids, start.amin(1).tolist(), strict=True):
        group[:, :first] = group[0, :first]
    ids = ids.flatten(0, 1)
    ids[:, :HEADER] = ids[0, :HEADER]
    return replace(rows, ids=ids.masked_fill(~rows.mask, 0))


def of_whole_rows(family: str, rows: Rows, reads: tuple[Read, ...]) -> dict[Read, torch.Tensor]:
    """The same reads beside one that needs all positions, so that whole rows go forward."""
    beside = Read(site=Site(part="resid_out", block=2), at="all")
    bench = Bench()
    scores = bench.run(toy.checkpoint(family), rows, (*reads, beside))
    assert bench.fwd_tokens == int(rows.mask.sum())
    return {read: scores[read] for read in reads}


@pytest.mark.parametrize("family", toy.FAMILIES)
def test_shared_beginnings_say_what_whole_rows_say(family: str) -> None:
    rows, bench = alike(), Bench(token_budget=400 if family == "gpt2" else 16384)
    plain = of_whole_rows(family, rows, (*SCORES, *STATES))
    for reads in (SCORES, (*SCORES, *STATES)):
        assert token_plan(rows, reads, lambda: True).stems
        scores = bench.run(toy.checkpoint(family), rows, reads)
        for read in reads:
            torch.testing.assert_close(scores[read], plain[read], atol=1e-5, rtol=1e-5)


def test_what_goes_forward_is_counted_and_is_less_than_the_rows() -> None:
    rows, bench = alike(), Bench()
    bench.run(toy.checkpoint("llama"), rows, (ANSWER,))
    plan = token_plan(rows, (ANSWER,), lambda: True)
    assert plan.stems
    assert bench.fwd_tokens == plan.tokens < 0.6 * int(rows.mask.sum())


def test_each_position_that_is_needed_goes_forward_once() -> None:
    rows = alike()
    for reads in ((ANSWER,), (KEY,), STATES):
        plan = token_plan(rows, reads, lambda: True)
        inside = torch.cat([stem.tails for stem in plan.stems])
        carriers = torch.cat([plan.unshared, inside])
        assert sorted(carriers.tolist()) == sorted(set(plan.carrier.tolist()))
        for row, carrier in enumerate(plan.carrier.tolist()):
            end = int(plan.ends[row])
            assert end <= int(plan.ends[carrier])
            assert torch.equal(rows.ids[row, :end], rows.ids[carrier, :end])
        for stem in plan.stems:
            heads = stem.heads[stem.head_of]
            assert torch.equal(rows.ids[heads, : stem.cut], rows.ids[stem.tails, : stem.cut])
            assert int(plan.ends[stem.tails].min()) > stem.cut
            assert len(stem.heads) == len(torch.unique(rows.ids[stem.heads, : stem.cut], dim=0))


def test_rows_end_where_their_last_target_is_predicted() -> None:
    rows, bench = toy.rows(5), Bench()
    bench.run(toy.checkpoint("gpt2"), rows, (KEY,))
    last = torch.where(rows.key, torch.arange(rows.ids.shape[1]), 0).amax(1)
    assert bench.fwd_tokens == int(last.sum())


def test_few_rows_are_not_cut_into_many_passes() -> None:
    assert not token_plan(alike(2), (ANSWER,), lambda: True).stems


def test_a_model_that_does_not_go_on_runs_whole_rows() -> None:
    plan = token_plan(alike(), (ANSWER,), lambda: False)
    assert not plan.stems and torch.equal(plan.unshared, plan.carrier.unique())


def test_a_plan_is_found_once_for_all_models_and_anew_for_other_positions_and_other_rows() -> None:
    plan = token_plan(alike(), (ANSWER,), lambda: True)
    again = token_plan(alike(), (ANSWER,), lambda: True)
    assert again is plan, "rows of the same tokens, whoever made them"
    full = token_plan(alike(), (ANSWER,), lambda: False)
    carriers = torch.cat([plan.unshared, *(stem.tails for stem in plan.stems)]).sort().values
    assert not full.stems and torch.equal(full.unshared, carriers) and torch.equal(full.carrier, plan.carrier)
    last = token_plan(alike(), (Read(site=Site(part="final_in"), at="last"),), lambda: True)
    assert not torch.equal(last.ends, plan.ends)
    assert len(token_plan(alike(20), (ANSWER,), lambda: True).ends) == 20 * SIZE
