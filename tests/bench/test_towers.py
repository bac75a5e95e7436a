"""Sites by tower and inputs beside the tokens: what a model has is read there, what it has not is refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, CausalLearner, Forward, LowRank, Replace, Start, WrapperLearner, model_pool
from audit.bench.edges.attribution import mean_states
from audit.bench.model_pool import ModelPool
from audit.bench.passes import Job, LoadedModel, last_block
from audit.case import Rows
from audit.schema import AuditError, Checkpoint, Op, Part, Read, Site, TowerName
from audit.wrappers import Batch, NativeWrapper, Resume, Stop, Tap, Wrapper
from audit.wrappers.backends import BACKENDS
from audit.wrappers.interface import Tower
from tests import toy

ROWS = toy.rows(6)
STUB = Checkpoint(source="stub", family="stub", fingerprint="0" * 64)
WIDTHS: Mapping[TowerName, int] = {"vision": 3, "text": 5}
PARTS: frozenset[Part] = frozenset({"resid_out", "final_in", "logits", "embed"})
VISION, TEXT = (Site(part="resid_out", block=1, tower=tower) for tower in WIDTHS)
PIXELS = torch.arange(6.0)[:, None] + torch.arange(3.0) / 10


class _TwoTowers(Wrapper):
    """Vision states are the pixels, text states their sum, at every position. Remembers how it was run."""

    supports = frozenset(Op)
    takes = frozenset({"pixel_values"})
    name, backend, attention = "Stub", "native", "eager"
    vocab_size, device, dtype = toy.VOCAB, torch.device("cpu"), torch.float32

    def __init__(self, by_token: bool = True) -> None:
        self.towers = {name: Tower(name, width, 2, PARTS, by_token or name == "text") for name, width in WIDTHS.items()}
        self.calls: list[tuple[Batch, Resume | None, Stop | None]] = []

    def run_blocks(self, batch: Batch, taps: Sequence[Tap], resume: Resume | None, stop: Stop | None) -> None:
        self.calls.append((batch, resume, stop))
        pixels = batch.extra["pixel_values"][:, None].expand(-1, batch.ids.shape[1], -1)
        for tap in taps:
            tap.visit(pixels if tap.site.tower == "vision" else pixels.sum(-1, keepdim=True).expand(-1, -1, 5))

    def embed(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, 5)

    def norm(self, states: Tensor) -> Tensor:
        return states

    def head(self, states: Tensor) -> Tensor:
        return states.new_zeros(*states.shape[:-1], toy.VOCAB)

    def parameters(self) -> dict[str, Tensor]:
        return {}


def _with_pixels(rows: Rows = ROWS, values: Tensor = PIXELS, name: str = "pixel_values") -> Rows:
    return replace(rows, extra={name: values})


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Wrapper], Bench]:
    """A bench that opens one wrapper, whatever the checkpoint; a small budget makes several batches."""

    def bench(wrapper: Wrapper) -> Bench:
        monkeypatch.setattr(ModelPool, "_load", lambda *_: LoadedModel(wrapper, ()))
        monkeypatch.setattr(model_pool, "weight_bytes", lambda *_: wrapper.size_bytes())
        return Bench(token_budget=30, attention="eager")

    return bench


def _summed(forward: Forward) -> Tensor:
    return torch.zeros(len(ROWS)).index_add(0, forward.row, forward.logprob)


# ---- towers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_site_of_a_tower_that_the_model_lacks_is_refused_by_the_bench(backend: str) -> None:
    bench, ckpt = Bench(backend=backend), toy.checkpoint("llama")
    zeros, text = torch.zeros(6, 48), Read(site=TEXT)
    full = torch.zeros(6, ROWS.ids.shape[1], 48)
    elsewhere: dict[str, Callable[[], object]] = {
        "pooled": lambda: bench.run(ckpt, ROWS, [Read(site=VISION)]),
        "whole": lambda: bench.run(ckpt, ROWS, [Read(site=VISION, at="all")]),
        "scored": lambda: bench.run(ckpt, ROWS, [Read(site=VISION, at="key", reduce="logprob")]),
        "replaced": lambda: bench.run(ckpt, ROWS, [text], [Replace(VISION, zeros, "last")]),
        "from another model": lambda: bench.run(ckpt, ROWS, [text], [Replace(VISION, ckpt, "last")]),
        "written": lambda: bench.run(ckpt, ROWS, [text], [LowRank(VISION, zeros[:2], zeros[:2], zeros[0])]),
        "started from": lambda: bench.run(ckpt, ROWS, [text], start=Start(VISION, full)),
        "differentiated": lambda: bench.gradients(ckpt, ROWS, [VISION], _summed),
    }
    for what, names_it in elsewhere.items():
        with pytest.raises(AuditError, match="LlamaForCausalLM has no vision tower: it has text") as caught:
            names_it()
        assert caught.value.code == 2, what
    assert bench.run(ckpt, ROWS, [text])[text].shape == (6, 48)


def test_each_tower_is_read_at_its_own_width_in_one_pass(stubbed: Callable[[Wrapper], Bench]) -> None:
    wrapper = _TwoTowers()
    reads = [Read(site=site, at=at) for site in (VISION, TEXT) for at in ("last", "mean", "all")]
    found = stubbed(wrapper).run(STUB, _with_pixels(), reads)
    for read in reads:
        expected = PIXELS if read.site == VISION else PIXELS.sum(1, keepdim=True).expand(-1, 5)
        if read.at == "all":
            expected = expected[:, None] * ROWS.mask[..., None]
        torch.testing.assert_close(found[read], expected)
    assert len(wrapper.calls) > 1, "several batches"


def test_towers_are_passed_in_their_declared_order(stubbed: Callable[[Wrapper], Bench]) -> None:
    def stop(*sites: Site, at: int | None = None) -> Stop | None:
        return last_block(Job(ROWS, tuple(Read(site=site) for site in sites), (), None, at))

    end, first = Site(part="final_in", tower="vision"), Site(part="resid_in", block=0)
    assert stop(VISION) == Stop(1, "vision") and stop(end, VISION) == Stop(None, "vision")
    assert stop(VISION, first) == Stop(0, "text") and stop(end, first) == Stop(0, "text")
    assert stop(VISION, Site(part="resid_in", block=0, tower="projector")) == Stop(0, "projector")
    assert stop(first, Site(part="final_in")) is None and stop(Site(part="logits"), at=0) == Stop(0)
    assert stop(Site(part="resid_out", block=4)) == Stop(4) and stop() == Stop(0)
    wrapper = _TwoTowers()
    stubbed(wrapper).run(STUB, _with_pixels(), [Read(site=VISION)], start=Start(VISION, torch.zeros(6, 14, 3)))
    _, resume, end_of_pass = wrapper.calls[0]
    assert resume is not None and (resume.tower, resume.block) == ("vision", 1) and end_of_pass == Stop(1, "vision")
    with pytest.raises(AuditError, match="above the block 0"):
        stubbed(wrapper).run(STUB, _with_pixels(), [Read(site=TEXT), Read(site=VISION)], stop=0)


def test_token_positions_name_no_place_in_a_tower_of_patches(stubbed: Callable[[Wrapper], Bench]) -> None:
    bench = stubbed(_TwoTowers(by_token=False))
    with pytest.raises(AuditError, match="not those of the rows' tokens"):
        bench.run(STUB, _with_pixels(), [Read(site=VISION)])
    bench.run(STUB, _with_pixels(), [Read(site=TEXT)])


def test_only_the_text_tower_is_scored(stubbed: Callable[[Wrapper], Bench]) -> None:
    with pytest.raises(AuditError, match="of the text tower"):
        stubbed(_TwoTowers()).run(STUB, _with_pixels(), [Read(site=VISION, at="key", reduce="logprob")])


# ---- inputs beside the tokens ---------------------------------------------------------------------------------------
def test_what_a_model_takes_reaches_it_row_by_row(stubbed: Callable[[Wrapper], Bench]) -> None:
    wrapper = _TwoTowers()
    bench = stubbed(wrapper)
    found = bench.run(STUB, _with_pixels(), [Read(site=VISION)])
    assert torch.equal(found[Read(site=VISION)], PIXELS)
    shares = [batch.extra["pixel_values"] for batch, *_ in wrapper.calls]
    assert [len(share) for share in shares] == [len(batch.ids) for batch, *_ in wrapper.calls] and len(shares) > 1
    assert bench.generate(STUB, _with_pixels(), 1) and "pixel_values" in wrapper.calls[-1][0].extra
    WrapperLearner(wrapper).answers(_with_pixels())
    assert torch.equal(wrapper.calls[-1][0].extra["pixel_values"], PIXELS)


def test_what_a_model_would_ignore_is_refused_before_it_runs(stubbed: Callable[[Wrapper], Bench]) -> None:
    wrapper, rows = _TwoTowers(), _with_pixels(name="pixels")
    bench = stubbed(wrapper)
    with pytest.raises(AuditError, match="Stub would ignore pixels: it reads tokens and pixel_values"):
        bench.run(STUB, rows, [Read(site=TEXT)])
    with pytest.raises(AuditError, match="would ignore pixels"):
        bench.gradients(STUB, rows, "inputs", _summed)
    assert wrapper.calls == []


def test_pixels_on_a_model_of_text_are_refused_by_everything_that_runs_it() -> None:
    bench, ckpt, rows = Bench(), toy.checkpoint("llama"), _with_pixels()
    model = toy.model("llama")
    runs: dict[str, Callable[[], object]] = {
        "a pass": lambda: bench.run(ckpt, rows, [Read(site=TEXT)]),
        "gradients": lambda: bench.gradients(ckpt, rows, "params", _summed),
        "generation": lambda: bench.generate(ckpt, rows, 2),
        "training": lambda: CausalLearner(model).answers(rows),
        "training behind a backend": lambda: WrapperLearner(NativeWrapper(model)).answers(rows),
        "edges": lambda: mean_states(LoadedModel(NativeWrapper(model), ()), lambda _: pytest.fail(), rows, 100),
    }
    for what, run in runs.items():
        with pytest.raises(AuditError, match="would ignore pixel_values"):
            run()
            pytest.fail(what)


def test_the_names_of_further_inputs_are_part_of_the_rows_hash() -> None:
    a, b, c = _with_pixels(), _with_pixels(name="pixels"), _with_pixels(values=PIXELS + 1)
    assert len({a.hash, b.hash, c.hash, ROWS.hash}) == 4
