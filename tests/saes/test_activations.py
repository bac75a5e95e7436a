"""Rows chunk by chunk: every row once an epoch, the same order from any place, and the bench's own states."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from audit.bench import Bench
from audit.case import Rows
from audit.schema import AuditError, Item, Read, Site
from audit.storage import Store
from saes import BenchActivations, CaseTexts, TensorActivations, top_items
from saes.activations import RowStream, moments
from saes.bench_activations import _every_token
from tests import toy
from tests.saes.planted_rows import random_coder

SITES = [Site(part="resid_out", block=n) for n in (0, 2)]


def numbered(n: int) -> dict[str, torch.Tensor]:
    return {"a": torch.arange(float(n))[:, None], "b": torch.arange(float(n))[:, None] * 2}


@given(
    n=st.integers(1, 60), chunk=st.integers(1, 20), batch=st.integers(1, 25), seed=st.integers(0, 99),
    buffer_rows=st.integers(1, 30), first=st.integers(0, 130),
)  # fmt: skip
def test_order_is_a_function_of_seed_and_place_and_every_row_comes_once_an_epoch(
    n: int, chunk: int, batch: int, seed: int, buffer_rows: int, first: int
) -> None:
    stream = RowStream(TensorActivations(numbered(n), chunk), batch, seed, buffer_rows * 8)
    count = -(-(first + 2 * n) // batch) + 1
    source, later = stream.batches(), stream.batches(first)
    every = [next(source) for _ in range(count)]
    assert all(len(part["a"]) == batch and torch.equal(part["b"], 2 * part["a"]) for part in every)
    order = torch.cat([part["a"] for part in every])[:, 0]
    assert sorted(order[:n].tolist()) == sorted(order[n : 2 * n].tolist()) == list(range(n))
    after = torch.cat([next(later)["a"] for _ in range(2)])[:, 0]
    assert torch.equal(after[: len(order) - first], order[first : first + len(after)])


@given(seed=st.integers(0, 999), chunk=st.integers(1, 50), offset=st.sampled_from([0.0, 1e4]))
def test_means_and_deviations_are_those_of_all_rows_however_they_are_cut(seed: int, chunk: int, offset: float) -> None:
    x = torch.randn(70, 3, generator=torch.Generator().manual_seed(seed)) + offset
    x[:, 2] = 5.0
    found_moments = moments(TensorActivations({"x": x}, chunk))["x"]
    torch.testing.assert_close(found_moments.mean, x.double().mean(0))
    torch.testing.assert_close(found_moments.sd[:2], x.double().std(0, correction=0)[:2])
    assert found_moments.sd[2] == 1, "a channel that does not vary is centred and not blown up"


def test_a_batch_may_be_changed_without_touching_the_rows_it_came_from() -> None:
    source = TensorActivations(numbered(8), 8)
    next(RowStream(source, 4, 0).batches())["a"].zero_()
    assert torch.equal(source.chunk(0)["a"], numbered(8)["a"])


def texts(rows: Rows) -> CaseTexts:
    items = tuple(Item(id=str(n), group=str(n), question="q", answer="a") for n in range(len(rows)))
    return CaseTexts(rows, items, ("retain",) * len(rows))


def test_the_rows_are_the_models_own_states_at_every_token_but_bos() -> None:
    model, rows, bench = toy.checkpoint("llama"), toy.rows(7), Bench()
    rows.ids[:4, 0] = 1
    rows.ids[4:, 0] = 5
    source = BenchActivations(bench, model, texts(_every_token(rows, bos=1)), SITES, chunk_bytes=4 * 2 * 48 * 20)
    assert len(source.sizes) > 1 and source.rows == int(rows.mask.sum()) - 4
    with torch.no_grad():
        for place, site in enumerate(SITES):
            plain = bench.run(model, rows, [Read(site=site, at="all")])[Read(site=site, at="all")]
            for n in range(len(source.sizes)):
                owners, at = source.owners(n), 0
                for row in source.places[n].tolist():
                    states = plain[row, 1 if row < 4 else 0 : int(rows.lengths[row])]
                    own = source.chunk(n)[source.names[place]][at : at + len(states)]
                    torch.testing.assert_close(own, states, atol=1e-5, rtol=1e-5)
                    assert set(owners[at : at + len(states)].tolist()) == {row}
                    at += len(states)
                assert at == source.sizes[n]


def test_a_top_text_names_the_token_of_its_largest_code() -> None:
    model, rows, bench = toy.checkpoint("llama"), toy.rows(7), Bench()
    rows.ids[:4, 0] = 1
    rows.ids[4:, 0] = 5
    source = BenchActivations(bench, model, texts(_every_token(rows, bos=1)), SITES[1:], chunk_bytes=4 * 48 * 20)
    read = Read(site=SITES[1], at="all")
    plain, coder = bench.run(model, rows, [read])[read], random_coder("relu", d=48)
    for feature, listed in top_items(coder, source, source.names[0], range(coder.features), 7).items():
        for top in listed:
            row = int(top.item.id)
            first = 1 if row < 4 else 0
            codes = coder.encode(plain[row, first : int(rows.lengths[row])])[:, feature]
            assert top.spot == f"token {first + int(codes.argmax()) + 1}"
            assert abs(top.code - float(codes.max())) < 1e-4


def test_what_the_store_has_is_not_run_again(tmp_path: object) -> None:
    bench = Bench(store=Store(tmp_path))  # type: ignore[arg-type]
    make = lambda: BenchActivations(bench, toy.checkpoint("llama"), texts(_every_token(toy.rows(6), 1)), SITES)  # noqa: E731
    once = make().chunk(0)
    ran = bench.fwd_tokens
    again = make()
    assert ran > 0 and torch.equal(again.chunk(0)[again.names[1]], once[again.names[1]]) and bench.fwd_tokens == ran


def test_sites_of_different_widths_are_read_side_by_side() -> None:
    sites = [Site(part="mlp_hidden", block=1), Site(part="resid_out", block=1)]
    source = BenchActivations(Bench(), toy.checkpoint("llama"), texts(_every_token(toy.rows(6), 1)), sites)
    assert source.widths == (80, 48)
    assert [source.chunk(0)[name].shape for name in source.names] == [(source.sizes[0], d) for d in (80, 48)]


def test_two_models_or_other_texts_have_other_names() -> None:
    bench, rows = Bench(), _every_token(toy.rows(6), 1)
    keys = {
        BenchActivations(bench, model, texts(part), sites).key
        for model in (toy.checkpoint("llama"), toy.checkpoint("llama", 1))
        for part in (rows, rows.take(torch.arange(5)))
        for sites in (SITES, SITES[:1])
    }
    assert len(keys) == 8


def test_a_site_twice_or_none_is_refused() -> None:
    for sites in ([], [SITES[0], SITES[0]]):
        try:
            BenchActivations(Bench(), toy.checkpoint("llama"), texts(_every_token(toy.rows(4), 1)), sites)
        except AuditError as error:
            assert "each once" in error.do
        else:
            raise AssertionError("not refused")


@given(n=st.integers(1, 60), seed=st.integers(0, 50))
def test_held_out_texts_are_not_trained_on(n: int, seed: int) -> None:
    training, held = texts(toy.rows(n)).split(seed)
    ids = [item.id for item in training.items], [item.id for item in held.items]
    assert held.items and training.items
    assert n == 1 or sorted(map(int, ids[0] + ids[1])) == list(range(n))
    assert n == 1 or len(held.items) <= max(1, n // 8)
