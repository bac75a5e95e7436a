"""Every write against plain torch hooks on the transformers model, or against what it must mean."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, Edges, Forward, LowRank, Replace, Start, Write
from audit.bench.results import Pass
from audit.bench.writes.features import Dictionary, Features, placed
from audit.bench.writes.logit_bias import LogitBias
from audit.bench.writes.prefix import Prefix
from audit.bench.writes.scale import Scale
from audit.case import Rows
from audit.schema import AuditError, Part, Read, Site
from audit.wrappers import NativeWrapper
from tests import toy

ROWS = toy.rows(6)
OUT = Site(part="resid_out", block=1)
LOGPROB = Read(site=Site(part="logits"), at="answer", reduce="logprob")
BENCH = Bench(token_budget=40)  # several batches, so that every write is cut to its rows


@pytest.fixture(params=["llama", "gpt2", "gpt_neox", "gemma2"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def _logprob(family: str, *writes: Write, rows: Rows = ROWS, start: Start | None = None) -> Tensor:
    return BENCH.run(toy.checkpoint(family), rows, [LOGPROB], writes, start)[LOGPROB]


@torch.no_grad()
def _oracle(family: str, change: Callable[[Tensor], Tensor], bias: Tensor | None = None) -> Tensor:
    """The same answers' log-probabilities from the plain model with a plain hook on block 1."""
    model = toy.model(family)
    block = NativeWrapper(model).blocks[1]
    handle = block.register_forward_hook(lambda module, args, output: change(output))
    logits = model(input_ids=ROWS.ids, attention_mask=ROWS.mask.long()).logits
    handle.remove()
    row, target = ROWS.targets("answer")
    logits = logits if bias is None else logits + bias
    return logits.log_softmax(-1)[row, target - 1, ROWS.ids[row, target]]


def _close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


def test_low_rank_is_an_affine_change_of_the_state_on_its_rows_only(family: str) -> None:
    u, v, b = torch.randn(2, 48), torch.randn(2, 48), torch.randn(48)
    chosen = torch.tensor([True, False, True, True, False, False])
    found = _logprob(family, LowRank(OUT, u, v, b, chosen))
    expected = _oracle(family, lambda h: torch.where(chosen[:, None, None], h + h @ v.T @ u + b, h))
    _close(found, expected)
    _close(_logprob(family, LowRank(OUT, u, v, b)), _oracle(family, lambda h: h + h @ v.T @ u + b))


def test_scale_multiplies_columns_by_one_factor_or_one_a_row(family: str) -> None:
    columns, factor, per_row = torch.tensor([3, 7, 40]), torch.tensor([0.0, 2.0, -1.0]), torch.randn(6, 3)

    def scaled(by: Tensor) -> Callable[[Tensor], Tensor]:
        def change(h: Tensor) -> Tensor:
            h = h.clone()
            h[..., columns] *= by
            return h

        return change

    _close(_logprob(family, Scale(OUT, columns, factor)), _oracle(family, scaled(factor)))
    _close(_logprob(family, Scale(OUT, columns, per_row, per_row=True)), _oracle(family, scaled(per_row[:, None])))


def test_logit_bias_shifts_every_logit(family: str) -> None:
    bias = torch.randn(toy.VOCAB)
    found = _logprob(family, LogitBias(0.25 * bias), LogitBias(0.75 * bias))
    _close(found, _oracle(family, lambda h: h, bias))


class _Dictionary:
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.w = torch.randn(48, 96, generator=generator) / 7
        self.d = torch.randn(96, 48, generator=generator) / 7

    def encode(self, x: Tensor) -> Tensor:
        return (x @ self.w).relu()

    def decode(self, feature_acts: Tensor) -> Tensor:
        return feature_acts @ self.d


def test_features_move_the_state_by_what_their_scaled_features_decode_to(family: str) -> None:
    sae, columns = _Dictionary(), torch.arange(40)
    change = torch.ones(96)
    change[columns] = -2.0
    found = _logprob(family, Features(OUT, sae, columns, -2.0))
    _close(found, _oracle(family, lambda h: h + sae.decode(sae.encode(h) * change) - sae.decode(sae.encode(h))))


def test_features_act_at_their_positions_on_their_rows_only(family: str) -> None:
    sae, columns, rows = _Dictionary(), torch.arange(40), torch.tensor([True, False, True, True, False, False])
    change = torch.ones(96)
    change[columns] = 0.0
    where = torch.zeros_like(ROWS.mask)
    row, target = ROWS.targets("answer")
    where[row, target - 1] = True
    where &= rows[:, None]

    def changed(h: Tensor) -> Tensor:
        return h + where[..., None] * (sae.decode(sae.encode(h) * change) - sae.decode(sae.encode(h)))

    _close(_logprob(family, Features(OUT, sae, columns, 0.0, positions="answer", rows=rows)), _oracle(family, changed))


class _Module(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        plain = _Dictionary()
        self.w, self.d = torch.nn.Parameter(plain.w), torch.nn.Parameter(plain.d)
        self.register_buffer("seen", torch.zeros(96, dtype=torch.long))

    encode, decode = _Dictionary.encode, _Dictionary.decode


@pytest.mark.parametrize("kind", [_Dictionary, _Module])
def test_a_dictionary_computes_where_and_as_the_state_does_and_stays_as_it_is(kind: type[Dictionary]) -> None:
    sae, bench, ckpt = kind(), Bench(dtype="float64"), toy.checkpoint("llama")
    w, before = sae.w, sae.w.clone()  # type: ignore[attr-defined]
    write = Features(OUT, sae, torch.arange(40), -2.0)
    found = bench.run(ckpt, ROWS, [LOGPROB], [write])[LOGPROB]
    _close(found.float(), _logprob("llama", write).float())
    assert sae.w is w and torch.equal(w, before) and w.dtype == torch.float32  # type: ignore[attr-defined]
    elsewhere = placed(sae, torch.device("meta"), torch.bfloat16)
    assert elsewhere.w.is_meta and elsewhere.d.dtype == torch.bfloat16  # type: ignore[attr-defined]
    assert placed(sae, w.device, w.dtype) is sae


def test_gradients_flow_through_a_dictionary_that_a_pass_has_copied() -> None:
    bench, write = Bench(dtype="float64"), Features(OUT, _Module(), torch.arange(40), -2.0)

    def summed(forward: Forward) -> Tensor:
        return torch.zeros(len(ROWS), dtype=forward.logprob.dtype).index_add(0, forward.row, forward.logprob)

    bench.run(toy.checkpoint("llama"), ROWS, [LOGPROB], [write])
    grads = bench.gradients(toy.checkpoint("llama"), ROWS, "inputs", summed, [write])
    assert grads.at_inputs is not None and (grads.at_inputs[ROWS.mask].abs().sum(-1) > 0).any()


def test_a_pattern_has_no_positions_to_write_at() -> None:
    site = Site(part="pattern", block=1)
    for write in (
        Replace(site, torch.zeros(6, 48), "last"),
        Features(site, _Dictionary(), torch.arange(2), 0.0, positions="last"),
    ):
        with pytest.raises(AuditError, match="attention pattern"):
            Bench(attention="eager").run(toy.checkpoint("llama"), ROWS, [LOGPROB], [write])


def _all(family: str, seed: int, site: Site, rows: Rows = ROWS) -> Tensor:
    read = Read(site=site, at="all")
    return BENCH.run(toy.checkpoint(family, seed), rows, [read])[read]


@pytest.mark.parametrize("at", ["last", "answer", "key", "all"])
def test_replace_puts_another_model_s_state_at_its_positions_only(family: str, at: str) -> None:
    other = _all(family, 1, OUT)
    if at == "all":
        where = ROWS.mask.clone()
    else:
        where = torch.zeros_like(ROWS.mask)
        row, position = (torch.arange(6), ROWS.lengths) if at == "last" else ROWS.targets(at)  # type: ignore[arg-type]
        where[row, position - 1] = True
    expected = _oracle(family, lambda h: torch.where(where[..., None], other, h))
    by_name = _logprob(family, Replace(OUT, toy.checkpoint(family, 1), at))  # type: ignore[arg-type]
    packed = other if at == "all" else other[where]
    _close(by_name, expected)
    _close(_logprob(family, Replace(OUT, packed, at)), expected)  # type: ignore[arg-type]


def test_replacing_a_head_changes_that_head_only() -> None:
    z, one = Site(part="z", block=1), Site(part="z", block=1, head=2)
    own, other = _all("llama", 0, z), _all("llama", 1, z)
    mixed = own.clone()
    mixed[:, :, 2] = other[:, :, 2]
    by_head = _logprob("llama", Replace(one, toy.checkpoint("llama", 1), "all"))
    _close(by_head, _logprob("llama", Replace(z, mixed, "all")))
    assert not torch.allclose(by_head, _logprob("llama"), atol=1e-3)


def test_a_pass_that_starts_from_its_own_state_is_the_pass_itself(family: str) -> None:
    plain, ckpt = _logprob(family), toy.checkpoint(family)
    for block in range(3):
        site = Site(part="resid_out", block=block)
        _close(_logprob(family, start=Start(site, ckpt)), plain)
        _close(_logprob(family, start=Start(site, _all(family, 0, site))), plain)
        _close(_logprob(family, Replace(site, ckpt, "all")), plain)


def test_a_pass_that_starts_from_another_model_reads_that_model_s_state(family: str) -> None:
    other = _all(family, 1, OUT)
    expected = _oracle(family, lambda h: other)
    _close(_logprob(family, start=Start(OUT, toy.checkpoint(family, 1))), expected)


def _prefixed(family: str, emb: Tensor, at: list[int]) -> list[Tensor]:
    """Row by row, unpadded: the answers' log-probabilities with the virtual tokens put in by hand."""
    model, found = toy.model(family), []
    for i, place in enumerate(at):
        own = model.get_input_embeddings()(ROWS.ids[i, : ROWS.lengths[i]])
        logits = model(inputs_embeds=torch.cat([own[:place], emb[i], own[place:]])[None]).logits[0]
        start, end = ROWS.answer_spans[i].tolist()
        predicts = [t - 1 + len(emb[i]) * (t >= place) for t in range(start, end)]
        found.append(logits.log_softmax(-1)[predicts, ROWS.ids[i, start:end]].detach())
    return found


def test_a_prefix_stands_before_everything_or_before_each_row_s_place(family: str) -> None:
    emb = torch.randn(6, 3, 48)
    _close(_logprob(family, Prefix(emb)), torch.cat(_prefixed(family, emb, [0] * 6)))
    at = torch.minimum(ROWS.answer_spans[:, 0], torch.tensor([1, 2, 3, 4, 5, 99]))  # the last: right before its answer
    _close(_logprob(family, Prefix(emb, at)), torch.cat(_prefixed(family, emb, at.tolist())))


def test_reads_beside_a_prefix_are_of_the_real_tokens() -> None:
    emb = torch.randn(6, 2, 48)
    reads = [Read(site=OUT, at=at) for at in ("all", "mean", "last")]
    found = BENCH.run(toy.checkpoint("gpt2"), ROWS, reads, [Prefix(emb)])
    whole, mean, last = (found[r] for r in reads)
    assert whole.shape == (6, ROWS.ids.shape[1], 48)
    _close(mean, whole.sum(1) / ROWS.lengths[:, None])
    _close(last, whole[torch.arange(6), ROWS.lengths - 1])


# ---- edges ------------------------------------------------------------------------------------------------------
def _writers(family: str, seed: int) -> Pass:
    parts: list[Site] = [Site(part="embed")]
    parts += [Site(part=p, block=b) for b in range(3) for p in ("attn_out", "mlp_out")]  # type: ignore[misc]
    return BENCH.run(toy.checkpoint(family, seed), ROWS, [Read(site=s, at="all") for s in parts])


def _keep() -> Tensor:
    return torch.ones(7, 7, dtype=torch.bool)


def test_keeping_every_edge_changes_nothing(family: str) -> None:
    """To rounding: a pass without writes runs no tokens but those that its reads need."""
    _close(_logprob(family, Edges(_keep(), _writers(family, 1))), _logprob(family))


def test_cutting_edges_to_the_same_run_changes_nothing(family: str) -> None:
    _close(_logprob(family, Edges(~_keep(), _writers(family, 0))), _logprob(family))


def test_cutting_every_edge_out_of_a_writer_is_replacing_what_it_writes(family: str) -> None:
    other = _writers(family, 1)
    for writer, (part, block) in {0: ("embed", None), 3: ("attn_out", 1), 4: ("mlp_out", 1)}.items():
        keep = _keep()
        keep[writer] = False
        site = Site(part=part, block=block)  # type: ignore[arg-type]
        replaced = _logprob(family, Replace(site, other[Read(site=site, at="all")], "all"))
        _close(_logprob(family, Edges(keep, other)), replaced)


def test_cutting_every_edge_into_the_output_gives_the_other_run_s_stream() -> None:
    keep = _keep()
    keep[:, 6] = False
    final = Site(part="resid_out", block=2)
    expected = _logprob("llama", Replace(final, _all("llama", 1, final), "all"))
    _close(_logprob("llama", Edges(keep, _writers("llama", 1))), expected)


def test_one_edge_is_cut_in_its_reader_s_input_and_nowhere_else() -> None:
    keep, other = _keep(), _writers("llama", 1)
    keep[2, 3] = False  # mlp_0 into mlp_1
    reads = [Read(site=Site(part=p, block=1), at="all") for p in ("resid_mid", "attn_in", "mlp_in")]  # type: ignore[misc]
    plain = BENCH.run(toy.checkpoint("llama"), ROWS, reads)
    cut = BENCH.run(toy.checkpoint("llama"), ROWS, reads, [Edges(keep, other)])
    assert torch.equal(plain[reads[0]], cut[reads[0]]) and torch.equal(plain[reads[1]], cut[reads[1]])
    wrote = Read(site=Site(part="mlp_out", block=0), at="all")
    own = BENCH.run(toy.checkpoint("llama"), ROWS, [wrote])[wrote]
    norm = toy.model("llama").model.layers[1].post_attention_layernorm
    expected = norm(plain[reads[0]] + other[wrote] - own).masked_fill(~ROWS.mask[..., None], 0)
    _close(cut[reads[2]], expected.detach())


# ---- what cannot be written -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("writes", "start", "says"),
    [
        ([Prefix(torch.zeros(6, 1, 48)), Prefix(torch.zeros(6, 1, 48))], None, "two prefixes"),
        ([Prefix(torch.zeros(5, 1, 48))], None, "does not fit"),
        ([Replace(OUT, torch.zeros(4, 48), "last")], None, "length 4 for 6"),
        ([Replace(OUT, torch.zeros(6, 48), "mean")], None, "cannot be replaced"),
        ([Replace(Site(part="logits"), torch.zeros(6, 68), "last")], None, "LogitBias"),
        ([Edges(torch.ones(3, 3, dtype=torch.bool), Pass(ROWS, {}))], None, "7 writers"),
        ([Edges(torch.ones(7, 7, dtype=torch.bool), Pass(ROWS, {}))], None, "lacks text.embed"),
        ([Prefix(torch.zeros(6, 1, 48))], Start(OUT, torch.zeros(6, 14, 48)), "no place for a Prefix"),
        ([], Start(Site(part="mlp_out", block=1), torch.zeros(6, 14, 48)), "cannot start"),
    ],
)
def test_a_write_that_makes_no_sense_is_refused_with_a_reason(
    writes: Sequence[Write], start: Start | None, says: str
) -> None:
    with pytest.raises(AuditError, match=says):
        _logprob("llama", *writes, start=start)


PARTS: tuple[Part, ...] = ("resid_in", "resid_mid", "attn_in", "mlp_in", "attn_out", "mlp_hidden", "mlp_out", "q", "z")


@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_replaced_by_itself_and_by_another(part: Part) -> None:
    site = Site(part=part, block=1)
    _close(_logprob("gemma2", Replace(site, toy.checkpoint("gemma2"), "answer")), _logprob("gemma2"))
    moved = _logprob("gemma2", Replace(site, toy.checkpoint("gemma2", 1), "answer"))
    assert not torch.allclose(moved, _logprob("gemma2"), atol=1e-3)
