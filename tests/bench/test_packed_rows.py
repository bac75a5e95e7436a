"""Several sets of rows in one pass: each gives, and keeps, what it gives alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audit.bench import Bench
from audit.case import Rows
from audit.schema import Read, Site
from audit.storage import Store
from tests import toy
from tests.bench.test_prefix_sharing import ANSWER, KEY, SCORES, SIZE, alike

LENS = Read(site=Site(part="resid_out", block=1), at="key", reduce="logprob")
STATE = Read(site=Site(part="resid_out", block=1), at="key")
Asked = list[tuple[Rows, tuple[Read, ...]]]


def alternates() -> Asked:
    """The rows of one group each in a set of its own, which ask for different reads."""
    rows = alike()
    sets = [rows.take(torch.arange(n, len(rows), SIZE)) for n in range(SIZE)]
    return list(zip(sets, [(KEY,), (KEY, ANSWER), SCORES, (LENS, KEY), (LENS, KEY), (STATE, KEY)], strict=True))


def of_whole_rows(bench: Bench, rows: Rows, reads: tuple[Read, ...]) -> dict[Read, torch.Tensor]:
    """The same of whole rows, alone."""
    read_of = bench.run(toy.checkpoint("llama"), rows, (*reads, replace_at(STATE)))
    return {read: read_of[read] for read in reads}


def replace_at(read: Read) -> Read:
    """The same state at all positions, for which whole rows go forward."""
    return read.model_copy(update={"at": "all"})


@pytest.mark.parametrize("stored", [True, False])
def test_a_set_gives_in_company_what_it_gives_alone(stored: bool, tmp_path: Path) -> None:
    requests, ckpt = alternates(), toy.checkpoint("llama")
    bench = Bench(store=Store(tmp_path) if stored else None)
    done, single = bench.run_together(ckpt, requests), Bench()
    for (rows, reads), read_of in zip(requests, done, strict=True):
        assert read_of.rows is rows and set(read_of.reads) == set(reads)
        for read, values in of_whole_rows(single, rows, reads).items():
            torch.testing.assert_close(read_of[read], values, atol=1e-5, rtol=1e-5)


def test_what_went_forward_together_is_found_by_who_asks_for_one(tmp_path: Path) -> None:
    requests, ckpt, bench = alternates(), toy.checkpoint("llama"), Bench(store=Store(tmp_path))
    done = bench.run_together(ckpt, requests)
    ran = bench.fwd_tokens
    for (rows, reads), read_of in zip(requests, done, strict=True):
        again = bench.run(ckpt, rows, reads)
        assert all(torch.equal(again[read], read_of[read]) for read in reads)
    bench.run_together(ckpt, requests)
    assert bench.fwd_tokens == ran


def test_what_the_store_has_goes_forward_no_more(tmp_path: Path) -> None:
    requests, ckpt, bench = alternates()[:3], toy.checkpoint("llama"), Bench(store=Store(tmp_path))
    for rows, reads in requests[:2]:
        bench.run(ckpt, rows, reads)
    single, ran = Bench(), bench.fwd_tokens
    single.run(ckpt, *requests[2])
    bench.run_together(ckpt, requests)
    assert bench.fwd_tokens - ran == single.fwd_tokens


def test_what_sets_begin_with_alike_goes_forward_once_and_is_priced_so() -> None:
    requests, ckpt = alternates(), toy.checkpoint("llama")
    together, single = Bench(), Bench()
    together.run_together(ckpt, requests)
    for rows, reads in requests:
        single.run(ckpt, rows, reads)
    assert together.fwd_tokens < 0.8 * single.fwd_tokens
    assert together.tokens_of(ckpt, requests, like=ckpt) == together.fwd_tokens


def test_the_same_rows_asked_twice_are_one_set(tmp_path: Path) -> None:
    rows, ckpt = toy.rows(5), toy.checkpoint("gpt2")
    bench, once = Bench(store=Store(tmp_path)), Bench()
    twice = bench.run_together(ckpt, [(rows, (KEY,)), (replace(rows), (ANSWER,))])
    once.run(ckpt, rows, (KEY, ANSWER))
    assert bench.fwd_tokens == once.fwd_tokens
    assert [list(each.reads) for each in twice] == [[KEY], [ANSWER]]
