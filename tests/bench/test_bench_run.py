"""Passes: what comes out, in which order, from which batches, out of the store, under small memory and other dtypes.

Measured tolerance to the composition of batches: 1e-5 in float32, on states of order 1 to 10 and on log-probabilities
in nats (largest difference seen on six families: 3.6e-6).
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audit.bench import Bench, Replace, Start
from audit.bench.batching import batches
from audit.bench.results import Pass
from audit.bench.writes.scale import Scale
from audit.checkpoints import resolve, write_edited
from audit.schema import AbsentPartError, AuditError, Checkpoint, Op, Positions, Read, Site, Source
from audit.storage import Store
from studies.families.tiny_configs import tiny_model
from tests import toy

ROWS = toy.rows(9)
STATES: tuple[Positions, ...] = ("last", "mean", "all", "answer", "key")
LOGPROB = Read(site=Site(part="logits"), at="key", reduce="logprob")
RANK = Read(site=Site(part="logits"), at="key", reduce="rank")


def _out(block: int, at: Positions = "last") -> Read:
    return Read(site=Site(part="resid_out", block=block), at=at)


def _own(family: str) -> tuple[list[Tensor], Tensor]:
    """Hidden states before the last block's output, and logits, of the plain model."""
    with torch.no_grad():
        out = toy.model(family)(input_ids=ROWS.ids, attention_mask=ROWS.mask.long(), output_hidden_states=True)
    return list(out.hidden_states), out.logits


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_a_pass_reads_what_the_plain_model_computes(family: str) -> None:
    hidden, logits = _own(family)
    found = Bench(token_budget=48).run(toy.checkpoint(family), ROWS, [*(_out(1, at) for at in STATES), LOGPROB, RANK])
    state, real = hidden[2], ROWS.mask[..., None]
    row, target = ROWS.targets("key")
    answer_row, answer = ROWS.targets("answer")
    expected = {
        "last": state[torch.arange(9), ROWS.lengths - 1], "all": state * real, "key": state[row, target - 1],
        "mean": (state * real).sum(1) / ROWS.lengths[:, None], "answer": state[answer_row, answer - 1],
    }  # fmt: skip
    for at in STATES:
        torch.testing.assert_close(found[_out(1, at)], expected[at], atol=1e-5, rtol=1e-5)
    own = logits[row, target - 1]
    told = ROWS.ids[row, target]
    torch.testing.assert_close(found[LOGPROB], own.log_softmax(-1).gather(1, told[:, None])[:, 0], atol=1e-5, rtol=1e-5)
    rank = (own > own.gather(1, told[:, None])).sum(1)
    assert torch.equal(found[RANK], rank.float())


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_results_do_not_depend_on_the_composition_of_batches(family: str) -> None:
    reads = [_out(2, at) for at in STATES] + [LOGPROB]
    whole, small, single = (Bench(token_budget=b).run(toy.checkpoint(family), ROWS, reads) for b in (10**6, 40, 1))
    for read in reads:
        for other in (small, single):
            torch.testing.assert_close(other[read], whole[read], atol=1e-5, rtol=1e-5)


def test_rows_come_back_in_the_order_they_came_in() -> None:
    order = torch.randperm(9)
    bench, ckpt = Bench(token_budget=40), toy.checkpoint("llama")
    straight, mixed = bench.run(ckpt, ROWS, [_out(0)]), bench.run(ckpt, ROWS.take(order), [_out(0)])
    torch.testing.assert_close(mixed[_out(0)], straight[_out(0)][order], atol=1e-5, rtol=1e-5)


@pytest.mark.thorough
def test_the_lens_at_the_last_block_is_the_output_itself() -> None:
    lens = [Read(site=Site(part="resid_out", block=2), at="answer", reduce=r) for r in ("logprob", "rank")]
    output = [Read(site=Site(part="logits"), at="answer", reduce=r) for r in ("logprob", "rank")]
    for family in toy.FAMILIES:
        found = Bench().run(toy.checkpoint(family), ROWS, lens + output)
        for a, b in zip(lens, output, strict=True):
            torch.testing.assert_close(found[a], found[b], atol=1e-5, rtol=1e-5)


def test_logits_heads_and_other_widths_can_be_read() -> None:
    hidden, logits = _own("llama")
    q, head = (Read(site=Site(part="q", block=1, head=h), at="last") for h in (None, 3))
    reads = [Read(site=Site(part="logits"), at=at) for at in ("last", "all", "mean")]
    found = Bench(token_budget=48).run(toy.checkpoint("llama"), ROWS, [q, head, *reads])
    assert torch.equal(found[q][:, 3], found[head])
    real = ROWS.mask[..., None]
    torch.testing.assert_close(found[reads[0]], logits[torch.arange(9), ROWS.lengths - 1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[reads[1]], logits * real, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[reads[2]], (logits * real).sum(1) / ROWS.lengths[:, None], atol=1e-5, rtol=1e-5)


def test_patterns_are_read_with_eager_attention_that_a_pass_asks_for_by_itself() -> None:
    read = Read(site=Site(part="pattern", block=1), at="all")
    eager = Bench(attention="eager", token_budget=40)
    found = eager.run(toy.checkpoint("llama"), ROWS, [read])[read]
    assert found.shape == (9, 4, 14, 14) and Op.PATTERN in eager.supports
    torch.testing.assert_close(found.sum(-1), ROWS.mask[:, None].expand(-1, 4, -1).float())
    assert torch.equal(Bench(token_budget=40).run(toy.checkpoint("llama"), ROWS, [read])[read], found)
    assert Op.PATTERN in Bench().supports and Op.PATTERN not in Bench(backend="nnsight").supports


PATTERN = Read(site=Site(part="pattern", block=1), at="all")


def test_a_part_that_the_family_has_nowhere_is_absent_and_one_that_a_backend_does_not_show_is_not(
    tmp_path: Path,
) -> None:
    tiny_model("mamba").save_pretrained(tmp_path / "mamba")
    with pytest.raises(AbsentPartError, match="'pattern' for this model: it was not found here"):
        Bench().run(resolve(Source(path="mamba"), tmp_path), ROWS, [PATTERN])
    with pytest.raises(AuditError, match="nnsight backend has no part 'pattern'") as caught:
        Bench(backend="nnsight").run(toy.checkpoint("llama"), ROWS, [PATTERN])
    assert not isinstance(caught.value, AbsentPartError)


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_a_pattern_beside_other_reads_changes_none_of_their_numbers_or_names(family: str, tmp_path: Path) -> None:
    ckpt, others = toy.checkpoint(family), [_out(2, "all"), LOGPROB]
    plain, eager = Bench().run(ckpt, ROWS, others), Bench(attention="eager")
    bench = _kept(tmp_path)
    found = bench.run(ckpt, ROWS, [others[0], PATTERN, others[1]])
    assert list(found.reads) == [others[0], PATTERN, others[1]]
    assert all(torch.equal(found[read], plain[read]) for read in others)
    assert torch.equal(found[PATTERN], eager.run(ckpt, ROWS, [PATTERN])[PATTERN])
    again, other = _kept(tmp_path), _kept(tmp_path, attention="eager")
    assert again.run(ckpt, ROWS, [*others, PATTERN])[PATTERN].equal(found[PATTERN])
    other.run(ckpt, ROWS, [PATTERN])
    assert not hasattr(again, "computed") and not hasattr(other, "computed"), "named as in an eager run"
    other.run(ckpt, ROWS, others)
    assert other.computed == [tuple(others)], "and the others are not"


@pytest.mark.thorough
def test_an_eager_pass_has_its_own_model_and_others_keep_theirs() -> None:
    bench, ckpt = Bench(), toy.checkpoint("llama")
    with bench.hold(ckpt) as (wrapper,):
        bench.run(ckpt, ROWS, [PATTERN, LOGPROB])
        assert bench.open(ckpt) is wrapper and "pattern" not in wrapper.parts
    whole = int(ROWS.mask.sum())
    assert len(bench.pool._models) == 2 and whole < bench.fwd_tokens <= 2 * whole
    assert [bench.passes_of(reads) for reads in ([PATTERN], [LOGPROB], [PATTERN, LOGPROB])] == [1, 1, 2]
    eager = Bench(attention="eager")
    eager.run(ckpt, ROWS, [PATTERN, LOGPROB])
    assert len(eager.pool._models) == 1 and eager.passes_of([PATTERN, LOGPROB]) == 1
    bridge = Bench(backend="transformer_lens")
    bridge.run(ckpt, ROWS, [PATTERN, LOGPROB])
    assert len(bridge.pool._models) == 1 and bridge.passes_of([PATTERN, LOGPROB]) == 1, "it is eager anyway"


def test_a_pass_that_writes_a_pattern_is_an_eager_one() -> None:
    ckpt, site = toy.checkpoint("llama"), Site(part="pattern", block=1)
    write = Scale(site, torch.arange(3), torch.full((3,), 0.5))
    written = [bench.run(ckpt, ROWS, [_out(1)], [write])[_out(1)] for bench in (Bench(), Bench(attention="eager"))]
    assert torch.equal(*written) and not torch.allclose(written[0], Bench().run(ckpt, ROWS, [_out(1)])[_out(1)])


@pytest.mark.thorough
def test_a_state_given_by_another_model_to_an_eager_pass_is_of_an_eager_model() -> None:
    ckpt, donor, site = toy.checkpoint("llama"), toy.checkpoint("llama", 1), Site(part="resid_in", block=1)
    both, write = (Bench(), Bench(attention="eager")), Replace(site, donor, "all")
    patterns = [bench.run(ckpt, ROWS, [PATTERN], [write])[PATTERN] for bench in both]
    assert torch.equal(*patterns) and not torch.equal(patterns[0], both[0].run(ckpt, ROWS, [PATTERN])[PATTERN])
    assert sorted(both[0].pool._models) == sorted(f"{model.key} eager" for model in (ckpt, donor))


def test_what_a_pass_returns_can_be_used_with_gradients_and_is_float32() -> None:
    for budget in (10**6, 40):
        found = Bench(token_budget=budget, dtype="bfloat16").run(
            toy.checkpoint("llama"), ROWS, [_out(0), _out(0, "all")]
        )
        weight = torch.ones(48, requires_grad=True)
        (found[_out(0)] @ weight).sum().backward()
        assert all(t.dtype == torch.float32 and not t.is_inference() for t in found.reads.values())


def test_half_precision_means_are_summed_in_float32() -> None:
    reads = [_out(1, "mean"), _out(1, "all")]
    found = Bench(dtype="bfloat16").run(toy.checkpoint("llama"), ROWS, reads)
    mean = found[reads[1]].sum(1) / ROWS.lengths[:, None]
    torch.testing.assert_close(found[reads[0]], mean, atol=1e-6, rtol=1e-5)


# ---- batches ----------------------------------------------------------------------------------------------------
def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = torch.randint(1, 60, (200,))
    found = [b for b in batches(lengths, 59, 300) if b is not None]
    assert torch.equal(torch.cat(found).sort().values, torch.arange(200))
    assert all(len(b) == 1 or len(b) * int(lengths[b].max()) <= 300 for b in found)
    assert batches(torch.full((4,), 9), 9, 36) == [None]
    assert len(batches(torch.full((4,), 9), 9, 35)) == 2


def test_memory_that_runs_out_halves_the_batch_and_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, ckpt = Bench(), toy.checkpoint("llama")
    expected = bench.run(ckpt, ROWS, [_out(1), LOGPROB])
    wrapper = bench.open(ckpt)
    forward = wrapper.forward

    def tight(batch, *rest):  # noqa: ANN001, ANN002, ANN202
        if len(batch.ids) > 3:
            raise torch.OutOfMemoryError("out of memory")
        forward(batch, *rest)

    monkeypatch.setattr(wrapper, "forward", tight)
    found = bench.run(ckpt, ROWS, [_out(1), LOGPROB])
    for read in (_out(1), LOGPROB):
        torch.testing.assert_close(found[read], expected[read], atol=1e-5, rtol=1e-5)
    assert bench.halvings > 0 and bench.provenance()["halvings"] == str(bench.halvings)

    def none(batch, *rest):  # noqa: ANN001, ANN002, ANN202
        raise RuntimeError("DefaultCPUAllocator: out of memory")

    monkeypatch.setattr(wrapper, "forward", none)
    with pytest.raises(AuditError, match="one row does not fit"):
        bench.run(ckpt, ROWS, [_out(1)])


def test_other_runtime_errors_are_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, ckpt = Bench(), toy.checkpoint("llama")

    def broken(*_):  # noqa: ANN002, ANN202
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(bench.open(ckpt), "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        bench.run(ckpt, ROWS, [_out(1)])


# ---- stop -------------------------------------------------------------------------------------------------------
def test_no_block_above_the_reads_is_run() -> None:
    bench, ckpt = Bench(), toy.checkpoint("gpt2")
    ran: list[int] = []
    blocks = bench.open(ckpt).blocks  # type: ignore[attr-defined]
    for i, block in enumerate(blocks):
        block.register_forward_pre_hook(lambda *_, i=i: ran.append(i))
    bench.run(ckpt, ROWS, [_out(0)])
    assert ran == [0]
    with pytest.raises(AuditError, match="above the block"):
        bench.run(ckpt, ROWS, [_out(1)], stop=0)
    with pytest.raises(AuditError, match="above the block"):
        bench.run(ckpt, ROWS, [LOGPROB], stop=2)


# ---- store ------------------------------------------------------------------------------------------------------
class _Counting(Bench):
    """A bench that remembers which reads it had to compute."""

    def _compute(self, ckpt: Checkpoint, job):  # noqa: ANN001, ANN202
        self.computed = [*getattr(self, "computed", []), job.reads]
        return super()._compute(ckpt, job)


def _kept(tmp_path: Path, **how: object) -> _Counting:
    return _Counting(store=Store(tmp_path), **how)  # type: ignore[arg-type]


def test_only_the_reads_that_are_missing_are_computed(tmp_path: Path) -> None:
    ckpt = toy.checkpoint("llama")
    first = _kept(tmp_path).run(ckpt, ROWS, [_out(0), LOGPROB])
    bench = _kept(tmp_path)
    again = bench.run(ckpt, ROWS, [LOGPROB, _out(1), _out(0)])
    assert bench.computed == [(_out(1),)]
    assert all(torch.equal(first[r], again[r]) for r in (_out(0), LOGPROB))
    bench.run(ckpt, ROWS, [_out(1)])
    assert len(bench.computed) == 1


@pytest.mark.thorough
def test_whatever_changes_the_numbers_changes_the_name(tmp_path: Path) -> None:
    ckpt, other = toy.checkpoint("llama"), toy.checkpoint("llama", 1)
    site = Site(part="resid_out", block=0)
    bench = _kept(tmp_path)
    runs = [
        (ckpt, ROWS, (), None), (other, ROWS, (), None), (ckpt, ROWS.take(torch.arange(8)), (), None),
        (ckpt, ROWS, (Replace(site, other, "key"),), None), (ckpt, ROWS, (Replace(site, other, "answer"),), None),
        (ckpt, ROWS, (Replace(site, ckpt, "key"),), None), (ckpt, ROWS, (), Start(site, other)),
    ]  # fmt: skip
    for one, rows, writes, start in runs:
        bench.run(one, rows, [LOGPROB], writes, start)
    assert len(bench.computed) == len(runs)
    for how in ({"dtype": "float64"}, {"attention": "eager"}):
        assert len((again := _kept(tmp_path, **how)).run(ckpt, ROWS, [LOGPROB]).reads) == 1 and len(again.computed) == 1


def test_states_at_all_positions_are_kept_only_while_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, ckpt = _out(0, "all"), toy.checkpoint("llama")
    monkeypatch.setattr("audit.bench.cache_keys.WHOLE_LIMIT_BYTES", 10)
    _kept(tmp_path).run(ckpt, ROWS, [read])
    bench = _kept(tmp_path)
    bench.run(ckpt, ROWS, [read])
    assert bench.computed == [(read,)]


def test_what_costs_more_than_a_pass_is_computed_once_whoever_asks(tmp_path: Path) -> None:
    computed: list[int] = []

    def compute() -> dict[str, np.ndarray]:
        computed.append(1)
        return {"rows": np.arange(6.0).reshape(2, 3).T, "empty": np.zeros((0, 2))}

    first = Bench(store=Store(tmp_path)).cached(("attack", 0.1), compute)
    again = Bench(store=Store(tmp_path)).cached(["attack", 0.1], compute)
    assert len(computed) == 1 and first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    others = [
        (Bench(store=Store(tmp_path)), ("attack", 0.2)),
        (Bench(store=Store(tmp_path), dtype="float64"), ("attack", 0.1)),
    ]
    for n, (bench, parts) in enumerate([*others, (Bench(), ("attack", 0.1)), (Bench(), ("attack", 0.1))]):
        bench.cached(parts, compute)
        assert len(computed) == 2 + n, "other parts, another bench, or no store"


def test_a_broken_entry_is_computed_again(tmp_path: Path) -> None:
    bench = Bench(store=Store(tmp_path))
    bench.cached(("a",), lambda: {"x": np.ones(3)})
    path = Store(tmp_path).path(bench.key("a"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert Bench(store=Store(tmp_path)).cached(("a",), lambda: {"x": np.zeros(3)})["x"].tolist() == [0.0, 0.0, 0.0]


# ---- models -----------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_models_that_are_held_stay_open_and_others_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.bench.model_pool.device_bytes", lambda device: 1)
    bench, a, b = Bench(), toy.checkpoint("llama"), toy.checkpoint("llama", 1)
    with bench.hold(a) as (held,):
        bench.open(b)
        assert bench.open(a) is held
    bench.open(b)
    assert bench.open(a) is not held


def test_an_edited_checkpoint_plays_its_edit_on_every_run(tmp_path: Path) -> None:
    base, bias = toy.checkpoint("llama"), torch.randn(toy.VOCAB)
    biased = write_edited(tmp_path / "bias", base, "logit_bias", {}, "logit_bias", {"bias": bias})
    u, v, b = torch.randn(2, 48), torch.randn(2, 48), torch.randn(48)
    tensors = {f"text.1.resid_out.{name}": t for name, t in (("u", u), ("v", v), ("b", b))}
    low = write_edited(tmp_path / "low", base, "low_rank", {}, "low_rank", tensors)
    bench = Bench()
    row, target = ROWS.targets("key")
    _, logits = _own("llama")
    expected = (logits + bias).log_softmax(-1)[row, target - 1, ROWS.ids[row, target]]
    torch.testing.assert_close(bench.run(biased, ROWS, [LOGPROB])[LOGPROB], expected, atol=1e-5, rtol=1e-5)
    plain, edited = (bench.run(c, ROWS, [_out(1)])[_out(1)] for c in (base, low))
    torch.testing.assert_close(edited, plain + plain @ v.T @ u + b, atol=1e-4, rtol=1e-4)
    given = bench.run(base, ROWS, [_out(1)], start=Start(Site(part="resid_out", block=1), low))[_out(1)]
    torch.testing.assert_close(given, edited, atol=1e-5, rtol=1e-5)
    plain_pass: Pass = bench.run(low, ROWS, [LOGPROB], start=Start(Site(part="resid_out", block=1), base))
    torch.testing.assert_close(plain_pass[LOGPROB], bench.run(base, ROWS, [LOGPROB])[LOGPROB], atol=1e-5, rtol=1e-5)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(AuditError, match="no backend"):
        _ = Bench(backend="magic").supports
