"""What the bench gives is what plain forwards of single unpadded rows give, whatever the batches and the backend."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, LowRank, Replace, Start
from audit.bench.results import Pass
from audit.bench.writes.logit_bias import LogitBias
from audit.bench.writes.prefix import Prefix
from audit.bench.writes.scale import Scale
from audit.case import Rows
from audit.checkpoints import write_edited
from audit.schema import AuditError, Checkpoint, Op, Part, Positions, Read, Site
from audit.schema.requirements import Reduce
from audit.wrappers.backends import BACKENDS
from tests import toy

ROWS = toy.rows(7, seed=3, longest=16)
SMALL = 33
"""A token budget that cuts seven rows into several batches of different widths."""

families = pytest.mark.parametrize("family", toy.FAMILIES)
backends = pytest.mark.parametrize("backend", BACKENDS)
PAIRS = [(f, b) for b in BACKENDS for f in (toy.FAMILIES if b == "native" else ("gpt2", "gemma2"))]
pairs = pytest.mark.parametrize(("family", "backend"), PAIRS)
budgets = pytest.mark.parametrize("budget", [SMALL, 16384])


@cache
def bench(backend: str = "native", budget: int = SMALL, attention: str = "default") -> Bench:
    return Bench(backend=backend, token_budget=budget, attention=attention)


class Single(NamedTuple):
    """One row alone, unpadded: residual states before and after every block, normed final states, logits."""

    streams: list[Tensor]
    final: Tensor
    logits: Tensor


@cache
def alone(family: str, seed: int = 0) -> list[Single]:
    model, found = toy.model(family, seed), []
    states: list[Tensor] = []
    layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    handles = [layer.register_forward_hook(lambda _m, _a, out: states.append(out)) for layer in layers]
    for row, length in zip(ROWS.ids, ROWS.lengths.tolist(), strict=True):
        states.clear()
        with torch.no_grad():
            out = model(input_ids=row[None, :length], output_hidden_states=True)
        found.append(Single([s[0] for s in (out.hidden_states[0], *states)], out.hidden_states[-1][0], out.logits[0]))
    for handle in handles:
        handle.remove()
    return found


def read(part: Part, at: Positions, reduce: Reduce = "state", block: int | None = 1) -> Read:
    site = Site(part=part, block=None if part in ("logits", "final_in", "embed") else block)
    return Read(site=site, at=at, reduce=reduce)


def pooled(rows: Rows, per_row: list[Tensor], at: Positions) -> Tensor:
    if at == "last":
        return torch.stack([s[-1] for s in per_row])
    if at == "mean":
        return torch.stack([s.mean(0) for s in per_row])
    if at == "all":
        return torch.stack([torch.nn.functional.pad(s, (0, 0, 0, rows.ids.shape[1] - len(s))) for s in per_row])
    row, position = rows.targets(at)
    return torch.stack([per_row[r][p - 1] for r, p in zip(row.tolist(), position.tolist(), strict=True)])


def scores(rows: Rows, per_row: list[Tensor], at: Positions) -> tuple[Tensor, Tensor]:
    """Log-probability and rank of the targets, from logits row by row."""
    logits = pooled(rows, per_row, at)
    row, position = rows.targets(at)
    target = rows.ids[row, position][:, None]
    own = logits.gather(1, target)
    return logits.log_softmax(-1).gather(1, target)[:, 0], (logits > own).sum(1).float()


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pairs
def test_reads_at_all_positions_are_those_of_single_rows(family: str, backend: str) -> None:
    everywhere: tuple[Positions, ...] = ("last", "mean", "all", "answer", "key")
    reads = [read(part, at) for at in everywhere for part in ("resid_in", "resid_out", "final_in", "logits")]
    got = bench(backend).run(toy.checkpoint(family), ROWS, reads)
    rows = alone(family)
    for r in reads:
        states = {
            "resid_in": [s.streams[1] for s in rows], "resid_out": [s.streams[2] for s in rows],
            "final_in": [s.final for s in rows], "logits": [s.logits for s in rows],
        }[r.site.part]  # fmt: skip
        same(got[r], pooled(ROWS, states, r.at))
        assert got[r].device.type == "cpu" and got[r].dtype == torch.float32


@pairs
def test_scores_and_the_logit_lens_can_be_read_in_one_pass(family: str, backend: str) -> None:
    kinds: tuple[Reduce, ...] = ("logprob", "rank")
    reads = [read(part, "key", kind, 0) for part in ("logits", "resid_out", "final_in") for kind in kinds]
    got = bench(backend).run(toy.checkpoint(family), ROWS, [*reads, read("final_in", "all"), read("logits", "last")])
    model = toy.model(family)
    rows = alone(family)
    with torch.no_grad():
        norm = [m for name, m in model.base_model.named_children() if name in ("norm", "ln_f", "final_layer_norm")][0]
        cap = getattr(model.config, "final_logit_softcapping", None)
        read_out = [model.get_output_embeddings()(norm(s.streams[1])) for s in rows]
        read_out = [x if cap is None else torch.tanh(x / cap) * cap for x in read_out]
    own = [s.logits for s in rows]
    for part, logits in (("logits", own), ("resid_out", read_out), ("final_in", own)):
        logprob, rank = scores(ROWS, logits, "key")
        same(got[read(part, "key", "logprob", 0)], logprob)
        assert torch.equal(got[read(part, "key", "rank", 0)], rank)
    same(got[read("final_in", "all")], pooled(ROWS, [s.final for s in rows], "all"))


@budgets
@pytest.mark.parametrize("positions", ["last", "all", "answer", "key"])
def test_another_models_state_is_put_where_it_belongs(budget: int, positions: Positions) -> None:
    """Replaced by name, by tensor, and by hand in single rows: the same."""
    site, base, other = Site(part="resid_out", block=1), toy.checkpoint("llama"), toy.checkpoint("llama", 1)
    donors, out = [s.streams[2] for s in alone("llama", 1)], read("logits", "answer", "logprob")
    model = toy.model("llama")
    expected: list[Tensor] = []
    target_row, target_position = ROWS.targets(positions) if positions in ("answer", "key") else (None, None)
    for i, (own, donor) in enumerate(zip(alone("llama"), donors, strict=True)):
        state = own.streams[2].clone()
        if positions == "all":
            state = donor
        elif positions == "last":
            state[-1] = donor[-1]
        else:
            assert target_row is not None and target_position is not None
            here = target_position[target_row == i] - 1
            state[here] = donor[here]
        handle = model.model.layers[1].register_forward_hook(lambda _m, _a, _o, state=state: state[None])
        with torch.no_grad():
            expected.append(model(input_ids=ROWS.ids[i : i + 1, : len(state)]).logits[0])
        handle.remove()
    logprob, _ = scores(ROWS, expected, "answer")
    given = pooled(ROWS, donors, positions)
    for source in (other, given):
        got = bench(budget=budget).run(base, ROWS, [out], [Replace(site, source, positions)])
        same(got[out], logprob)


@pytest.mark.sampled
@families
def test_starting_from_a_state_is_replacing_it_everywhere(family: str) -> None:
    base, other, site = toy.checkpoint(family), toy.checkpoint(family, 1), Site(part="resid_out", block=0)
    reads = [read("resid_out", "all"), read("logits", "key", "logprob")]
    b = bench()
    replaced = b.run(base, ROWS, reads, [Replace(site, other, "all")])
    started = b.run(base, ROWS, reads, start=Start(site, other))
    states = b.run(other, ROWS, [read("resid_out", "all", block=0)])[read("resid_out", "all", block=0)]
    by_tensor = b.run(base, ROWS, reads, start=Start(site, states))
    for r in reads:
        same(started[r], replaced[r])
        same(by_tensor[r], replaced[r])


@pairs
def test_patching_a_model_into_itself_changes_nothing_at_every_block(family: str, backend: str) -> None:
    ckpt, reads = toy.checkpoint(family), [read("logits", "answer", "logprob"), read("final_in", "all")]
    plain = bench(backend).run(ckpt, ROWS, reads)
    for block in range(toy.N_BLOCKS):
        patch = Replace(Site(part="resid_out", block=block), ckpt, "all" if backend == "native" else "key")
        again = bench(backend).run(ckpt, ROWS, reads, [patch])
        assert all(torch.equal(plain[r], again[r]) for r in reads)


@backends
def test_writes_that_name_rows_follow_their_rows_into_batches(backend: str) -> None:
    ckpt, site = toy.checkpoint("gpt2"), Site(part="resid_out", block=1)
    rng = torch.Generator().manual_seed(0)
    u, v, b = torch.randn(2, 48, generator=rng), torch.randn(2, 48, generator=rng) / 48, torch.randn(48, generator=rng)
    chosen = torch.tensor([True, False, False, True, True, False, True])
    columns, factor = torch.tensor([3, 40]), torch.randn(7, 2, generator=rng)
    r = read("resid_out", "all")
    before = bench(backend).run(ckpt, ROWS, [r])[r]
    got = bench(backend).run(ckpt, ROWS, [r], [LowRank(site, u, v, b, chosen)])[r]
    edited = before + (before @ v.T) @ u + b
    same(got, torch.where(chosen[:, None, None], edited, before) * ROWS.mask[..., None])
    got = bench(backend).run(ckpt, ROWS, [r], [Scale(site, columns, factor, per_row=True)])[r]
    scaled = before.clone()
    scaled[..., columns] *= factor[:, None]
    same(got, scaled)


@families
def test_one_head_is_written_and_the_others_are_not(family: str) -> None:
    ckpt, whole, one = toy.checkpoint(family), read("z", "all"), Site(part="z", block=1, head=2)
    before = bench().run(ckpt, ROWS, [whole])[whole]
    donor = before[:, :, 0] + 1
    got = bench().run(ckpt, ROWS, [whole, Read(site=one, at="all")], [Replace(one, donor, "all")])
    expected = before.clone()
    expected[:, :, 2] = donor
    same(got[whole], expected * ROWS.mask[..., None, None])
    same(got[Read(site=one, at="all")], got[whole][:, :, 2])


@backends
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_prefix_before_each_row_is_its_embeddings_before_it(family: str, backend: str) -> None:
    emb = torch.randn(len(ROWS), 3, 48, generator=torch.Generator().manual_seed(1)) * 0.2
    model, logits = toy.model(family), []
    for i, length in enumerate(ROWS.lengths.tolist()):
        with torch.no_grad():
            own = model.get_input_embeddings()(ROWS.ids[i : i + 1, :length])
            logits.append(model(inputs_embeds=torch.cat([emb[i : i + 1], own], 1)).logits[0, 3:])
    r, states = read("logits", "key", "logprob"), read("logits", "mean")
    got = bench(backend).run(toy.checkpoint(family), ROWS, [r, states], [Prefix(emb)])
    same(got[r], scores(ROWS, logits, "key")[0])
    same(got[states], pooled(ROWS, logits, "mean"))


def both(family: str, rows: list[int], budget: int) -> Pass:
    index = torch.tensor(rows)
    reads = [read("resid_out", "mean"), read("logits", "key", "logprob")]
    return bench("native", budget).run(toy.checkpoint(family), ROWS.take(index), reads)


@families
def test_the_order_and_company_of_rows_do_not_matter(family: str) -> None:
    forward, backward = both(family, [0, 1, 2, 3], SMALL), both(family, [6, 3, 2, 1, 0], 16384)
    r = read("resid_out", "mean")
    same(forward[r], backward[r].flip(0)[[0, 1, 2, 3]])
    same(forward[r][2:3], both(family, [2], SMALL)[r])


def edited(tmp_path: Path, plays: str, tensors: dict[str, Tensor]) -> Checkpoint:
    return write_edited(tmp_path / plays, toy.checkpoint("qwen2"), plays, {}, plays, tensors)


@pytest.mark.thorough
@backends
def test_an_edited_checkpoint_is_the_model_with_its_edit(tmp_path: Path, backend: str) -> None:
    """A tied head edited alone, a bias on the logits, a low-rank edit of a state: each against a plain forward."""
    rng, model = torch.Generator().manual_seed(5), toy.model("qwen2")
    head, bias = torch.randn(toy.VOCAB, 48, generator=rng) * 0.3, torch.randn(toy.VOCAB, generator=rng)
    r, plain = read("logits", "key", "logprob"), bench(backend)
    rows = alone("qwen2")
    got = plain.run(edited(tmp_path, "weights", {"lm_head.weight": head}), ROWS, [r])[r]
    same(got, scores(ROWS, [s.final @ head.T for s in rows], "key")[0])
    got = plain.run(edited(tmp_path, "logit_bias", {"bias": bias}), ROWS, [r])[r]
    same(got, scores(ROWS, [s.logits + bias for s in rows], "key")[0])
    u, v, b = (torch.randn(shape, generator=rng) * 0.3 for shape in ((2, 48), (2, 48), (48,)))
    write = LowRank(Site(part="resid_out", block=2), u, v, b)
    got = plain.run(edited(tmp_path, "low_rank", write.to_delta()), ROWS, [r])[r]
    with torch.no_grad():
        states = [model.model.norm(s.streams[3] + (s.streams[3] @ v.T) @ u + b) for s in rows]
        same(got, scores(ROWS, [model.lm_head(s) for s in states], "key")[0])
    same(plain.run(toy.checkpoint("qwen2"), ROWS, [r])[r], scores(ROWS, [s.logits for s in rows], "key")[0])
    got = plain.run(toy.checkpoint("qwen2"), ROWS, [r], [LogitBias(bias)])[r]
    same(got, scores(ROWS, [s.logits + bias for s in rows], "key")[0])


@backends
def test_bench_and_backend_agree_on_what_is_possible(backend: str) -> None:
    b = bench(backend)
    assert {Op.READ, Op.WRITE, Op.STOP} <= b.supports
    pattern, default = read("pattern", "all"), Bench(backend=backend)
    if Op.PATTERN in b.supports:
        found = default.run(toy.checkpoint("llama"), ROWS, [pattern])[pattern]
        torch.testing.assert_close(found.sum(-1), ROWS.mask[:, None].expand(-1, 4, -1).float())
        return
    with pytest.raises(AuditError, match="pattern"):
        default.run(toy.checkpoint("llama"), ROWS, [pattern])


def test_half_precision_reads_are_those_of_a_half_precision_forward() -> None:
    ckpt, r, last = toy.checkpoint("llama"), read("resid_out", "mean"), read("resid_out", "last")
    got = Bench(dtype="bfloat16", token_budget=10_000).run(ckpt, ROWS, [r, last])
    model, states = toy.model("llama", dtype=torch.bfloat16), []
    handle = model.model.layers[1].register_forward_hook(lambda _m, _a, out: states.append(out))
    with torch.no_grad():
        model(input_ids=ROWS.ids)
    handle.remove()
    rows = [s[:n].float() for s, n in zip(states[0], ROWS.lengths.tolist(), strict=True)]
    assert got[r].dtype == torch.float32
    torch.testing.assert_close(got[r], pooled(ROWS, rows, "mean"), atol=0.02, rtol=0.02)
    torch.testing.assert_close(got[last], pooled(ROWS, rows, "last"), atol=0.05, rtol=0.05)
