"""Many writes on the same rows: what they share runs once, and every one gives what it gives alone."""

from pathlib import Path

import pytest
import torch

from audit.bench import Bench, LogitBias, Prefix, Replace, Scale, Start, Write
from audit.schema import Read, Site
from audit.storage import Store
from tests import toy

ROWS = toy.rows(9)
KEY = Read(site=Site(part="logits"), at="key", reduce="logprob")
LOW = Read(site=Site(part="resid_out", block=0), at="last")
Variants = list[tuple[tuple[Write, ...], Start | None]]


def after(block: int) -> Site:
    return Site(part="resid_out", block=block)


def variants(family: str) -> Variants:
    """Every kind of variant: of another model's states, of given ones, of none, from a start."""
    other, width = toy.checkpoint(family, 1), 48
    several: Variants = []
    for block in range(toy.N_BLOCKS):
        several += [
            ((Replace(after(block), other, "key"),), None),
            ((), Start(after(block), other)),
            ((Scale(Site(part="mlp_out", block=block), torch.arange(5), torch.zeros(5)),), None),
        ]
    return [
        *several,
        ((), None),
        ((Prefix(torch.randn(len(ROWS), 2, width)),), None),
        ((Replace(Site(part="embed"), other, "all"),), None),
        ((Replace(Site(part="final_in"), other, "key"), LogitBias(torch.randn(toy.VOCAB))), None),
    ]


@pytest.mark.parametrize("family", toy.FAMILIES)
def test_variants_give_together_what_each_gives_alone(family: str) -> None:
    ckpt, requests, one = toy.checkpoint(family), variants(family), Bench()
    together = Bench(token_budget=60).run_variants(ckpt, ROWS, (KEY,), requests)
    for (writes, start), variant in zip(requests, together, strict=True):
        single = one.run(ckpt, ROWS, (KEY,), writes, start)
        torch.testing.assert_close(variant[KEY], single[KEY], atol=1e-5, rtol=1e-5)


def test_a_read_below_the_change_is_there_too() -> None:
    ckpt, requests = toy.checkpoint("llama"), variants("llama")[2::3]
    for (writes, start), variant in zip(requests, Bench().run_variants(ckpt, ROWS, (KEY, LOW), requests), strict=True):
        single = Bench().run(ckpt, ROWS, (KEY, LOW), writes, start)
        for read in (KEY, LOW):
            torch.testing.assert_close(variant[read], single[read], atol=1e-5, rtol=1e-5)


def blocks_run(bench: Bench, *models: str) -> list[int]:
    """Every block that runs from now on, by its number."""
    ran: list[int] = []
    for n in range(len(models)):
        for i, block in enumerate(bench.open(toy.checkpoint("llama", n)).blocks):  # type: ignore[attr-defined]
            block.register_forward_pre_hook(lambda *_, i=i: ran.append(i))
    return ran


def test_no_block_below_the_first_change_runs_again() -> None:
    bench, ckpt = Bench(), toy.checkpoint("llama")
    given = torch.zeros(len(ROWS.targets("key")[0]), 48)
    requests: Variants = [((Replace(after(block), given, "key"),), None) for block in range(3)]
    ran = blocks_run(bench, "reader")
    bench.run_variants(ckpt, ROWS, (KEY,), requests)
    assert ran == [0, 1, 2, 1, 2, 2]


def test_another_model_runs_once_for_all_that_it_gives() -> None:
    bench, other = Bench(), toy.checkpoint("llama", 1)
    ran = blocks_run(bench, "reader", "source")
    bench.run_variants(toy.checkpoint("llama"), ROWS, (KEY,), [((), Start(after(block), other)) for block in range(3)])
    assert ran == [0, 1, 2, 1, 2, 2]


def test_variants_are_kept_and_found_one_by_one(tmp_path: Path) -> None:
    ckpt, requests, bench = toy.checkpoint("llama"), variants("llama"), Bench(store=Store(tmp_path))
    done = bench.run_variants(ckpt, ROWS, (KEY,), requests)
    ran = bench.fwd_tokens
    for (writes, start), variant in zip(requests, done, strict=True):
        assert torch.equal(bench.run(ckpt, ROWS, (KEY,), writes, start)[KEY], variant[KEY])
    bench.run_variants(ckpt, ROWS, (KEY,), requests)
    assert bench.fwd_tokens == ran


def test_a_variant_that_the_store_has_is_not_run(tmp_path: Path) -> None:
    ckpt, requests, bench = toy.checkpoint("llama"), variants("llama")[:3], Bench(store=Store(tmp_path))
    bench.run(ckpt, ROWS, (KEY,), requests[0][0])
    ran = bench.fwd_tokens
    bench.run_variants(ckpt, ROWS, (KEY,), requests)
    assert bench.fwd_tokens - ran == 2 * int(ROWS.mask.sum())
