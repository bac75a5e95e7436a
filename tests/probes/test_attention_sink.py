"""Heads at the first positions: what the first token shows whatever follows, what is planted there, and sinks."""

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, MambaConfig, PreTrainedModel

from audit.bench import Bench
from audit.case import OpenCase, Rows, open_case
from audit.checkpoints import resolve
from audit.schema import Case, Checkpoint, DataFiles, Measurement, Missing, Part, Read, Roles, Site, Source, Texts
from probes._sink_map import MAP_COLUMNS, MOST_CELLS, Shown, sink_map
from probes._sinks import (
    SHALLOW,
    SINK,
    Anomalies,
    anomalies,
    beside_tokens,
    first_token,
    heads_of,
    learned_sinks,
    sink_rates,
    sink_texts,
)
from probes.attention_sink import AttentionSink
from tests import toy
from tests.bench.test_reduced_reads import by_loops, sink_config

PLANTED_BLOCK, PLANTED_HEAD = 1, 1
KEYS_AND_VALUES: tuple[Part, ...] = ("k", "v")


@cache
def bench(backend: str = "native") -> Bench:
    return Bench(backend=backend)


@cache
def data() -> Path:
    """Items in words of the toys; every answer is of its own words."""
    root, rng = toy.root() / "sinks", np.random.default_rng(5)
    root.mkdir()
    for cohort in ("forget", "retain"):
        rows = [rng.choice(toy.WORDS, 12) for _ in range(40)]
        lines = [
            {"id": f"{cohort}{n}", "group": f"g{cohort}{n}", "question": " ".join(w[:8]), "answer": " ".join(w[8:])}
            for n, w in enumerate(rows)
        ]
        (root / f"{cohort}.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return root


def case(base: Path, suspect: Path, *references: Path, out: Path) -> OpenCase:
    sources = [Source(path=str(path)) for path in (base, suspect, *references)]
    roles = Roles(base=sources[0], suspect=sources[1], references=tuple(sources[2:]))
    files = DataFiles(forget="forget.jsonl", retain="retain.jsonl")
    return open_case(Case(name="sinks", roles=roles, data=files), data(), out)


def measured(opened: OpenCase, backend: str = "native") -> Measurement:
    (found,) = AttentionSink().measure(bench(backend), opened)
    assert Measurement.model_validate_json(found.model_dump_json()) == found
    return found


def saved(model: PreTrainedModel, out: Path) -> Path:
    model.save_pretrained(out)
    toy.tokenizer().save_pretrained(out)
    return out


def learned(out: Path, strength: float = 1.0) -> Path:
    """A whole model with learned sinks, of random weights."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(sink_config()).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):
            nn.init.constant_(parameter, strength)
    return saved(model, out)


def noisy(folder: Path, size: float, seed: int, out: Path) -> Path:
    """The same model with noise in every matrix: it moves what all tokens do."""
    shutil.copytree(folder, out)
    rng = torch.Generator().manual_seed(seed)
    tensors = load_file(out / "model.safetensors")
    moved = {
        name: t + size * t.std() * torch.randn(t.shape, generator=rng) if t.ndim == 2 else t
        for name, t in tensors.items()
    }
    save_file(moved, out / "model.safetensors", {"format": "pt"})
    return out


def planted(opened: OpenCase, out: Path, factor: float = 4.0) -> Path:
    """Base with one head's value of the first token made longer, and of other tokens as little as one direction can:
    that of the first token's state among all states (by ridge)."""
    texts = sink_texts(opened, 64, 64)
    site = Site(part="attn_in", block=PLANTED_BLOCK)
    states = bench().run(opened.base, texts, [Read(site=site, at="all")])[Read(site=site, at="all")]
    first, rest = states[0, 0].double(), states[:, 1:][texts.mask[:, 1:]].double()
    direction = torch.linalg.solve(rest.T @ rest / len(rest) + 1e-3 * torch.eye(rest.shape[1]).double(), first)
    direction /= direction @ first
    model = toy.model("llama")
    weight = model.get_parameter(f"model.layers.{PLANTED_BLOCK}.self_attn.v_proj.weight")
    width = weight.shape[0] // 2
    rows = slice(PLANTED_HEAD * width, (PLANTED_HEAD + 1) * width)
    with torch.no_grad():
        weight[rows] += (factor - 1) * torch.outer(weight[rows].double() @ first, direction).float()
    return saved(model, out)


# ---- the first token --------------------------------------------------------------------------------------------
def two_continuations() -> Rows:
    rows = toy.rows(2, seed=8, longest=12)
    ids = rows.ids.clone()
    ids[1] = (ids[0] + 7).remainder(toy.VOCAB - 4) + 4
    ids[:, 0] = 1
    rows = Rows(ids, torch.ones_like(rows.mask), rows.answer_spans, rows.key, rows.item_ids, rows.group_ids)
    assert (ids[0, 1:] != ids[1, 1:]).all()
    return rows


def check_independent(ckpt: Checkpoint, blocks: int) -> None:
    rows, parts = two_continuations(), KEYS_AND_VALUES
    reads = [Read(site=Site(part=part, block=b), at="all") for part in parts for b in range(blocks)]
    outputs = bench().run(ckpt, rows, reads)
    single = Rows(rows.ids[:1, :1], rows.mask[:1, :1], rows.answer_spans[:1], rows.key[:1, :1], ("a",), ("a",))
    by_itself = bench().run(ckpt, single, reads)
    for read in reads:
        first, other = outputs[read]
        assert torch.equal(first[0], other[0]), "exactly: not a bit of what follows"
        assert not torch.equal(first[1], other[1]), "what follows does move what stands there"
        torch.testing.assert_close(by_itself[read][0, 0], first[0], atol=1e-6, rtol=1e-5)


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_keys_and_values_of_the_first_token_are_exactly_independent_of_what_follows(family: str) -> None:
    """Of two texts of one batch the difference is exactly 0; a batch of another shape moves the last bits alone."""
    check_independent(toy.checkpoint(family), toy.N_BLOCKS)


def test_they_are_so_in_a_model_with_learned_sinks(tmp_path: Path) -> None:
    check_independent(resolve(Source(path=str(learned(tmp_path / "m"))), tmp_path), 2)


def test_texts_begin_as_rows_do_and_are_of_one_length(tmp_path: Path) -> None:
    opened = case(toy.folder("llama", 0), toy.folder("llama", 1), out=tmp_path)
    texts = sink_texts(opened, 8, 40)
    assert texts.lengths.tolist() == [40] * 8 and first_token(texts) == 1
    assert not (texts.ids[:, 1:] == 1).any(), "what every row begins with stands at the beginning alone"
    rows = [opened.rows(Texts(cohort=cohort)) for cohort in ("forget", "retain")]
    beginnings = {tuple(ids[:10].tolist()) for each in rows for ids in each.ids}
    assert {tuple(text[:10].tolist()) for text in texts.ids} <= beginnings
    every = sink_texts(opened, 1000, 64)
    assert len(every) < 1000 and int(every.mask.sum()) <= sum(int(each.mask.sum()) for each in rows)


# ---- planted, unchanged, changed everywhere ---------------------------------------------------------------------
@pytest.mark.thorough
def test_a_norm_planted_at_the_first_position_of_one_head_is_found_there(tmp_path: Path) -> None:
    plain = case(toy.folder("llama", 0), toy.folder("llama", 1), out=tmp_path)
    suspect = planted(plain, tmp_path / "planted")
    reference = noisy(toy.folder("llama", 0), 0.05, 1, tmp_path / "reference")
    found = measured(case(toy.folder("llama", 0), suspect, reference, out=tmp_path))
    (finding,) = found.findings
    assert finding.name == "sink anomaly" and finding.holds is True
    assert isinstance(found.value, float) and found.value == pytest.approx(np.log(4), rel=0.02)
    assert found.readings["first_value_block"] == PLANTED_BLOCK
    assert found.readings["first_value_head"] == PLANTED_HEAD
    cells = {tuple(row[:3]): row for row in found.listings[0].rows}
    assert [drawn.value for drawn in found.listings[0].maps] == ["z value norm", "attention received"]
    own = abs(cells[PLANTED_BLOCK, PLANTED_HEAD, 0][3])
    assert own > 10 and own == max(abs(row[3]) for row in cells.values())
    untouched = [row for (block, head, _), row in cells.items() if block <= PLANTED_BLOCK and head != PLANTED_HEAD]
    assert untouched and all(row[3] == row[4] == 0 for row in untouched), "that head, and no other"
    assert found.listings[1].rows[0][:4] == (PLANTED_BLOCK, PLANTED_HEAD, 0, "value")


@pytest.mark.thorough
@pytest.mark.parametrize("size", [0.0, 0.01, 0.1])
def test_an_unchanged_or_evenly_changed_model_has_no_anomaly(size: float, tmp_path: Path) -> None:
    """Noise in every matrix moves the first token's norms about as far as those of later tokens."""
    suspects = [noisy(toy.folder("llama", 0), size, seed, tmp_path / f"s{seed}") for seed in range(4)]
    reference = noisy(toy.folder("llama", 0), max(size, 0.01), 9, tmp_path / "reference")
    for suspect in suspects:
        found = measured(case(toy.folder("llama", 0), suspect, reference, out=tmp_path))
        assert found.findings[0].holds is False
        if size == 0:
            assert found.value == 0 and found.readings["largest_z_suspect"] == 0
            assert "no norm of its value differs from base's" in found.notes[0]


@pytest.mark.thorough
def test_the_anomaly_is_the_same_whatever_texts_are_read(tmp_path: Path) -> None:
    """The ratio of norms of the first token exactly; its spreads, which come from texts, nearly."""
    opened = case(toy.folder("llama", 0), toy.folder("llama", 1), out=tmp_path)
    results: list[Anomalies] = []
    for count, length in ((8, 64), (16, 40), (30, 20)):
        texts = sink_texts(opened, count, length)
        base, suspect = (heads_of(bench(), model, texts) for model in (opened.base, opened.suspect))
        results.append(anomalies(base, suspect, texts))
    for other in results[1:]:
        assert results[0].first is not None and other.first is not None
        np.testing.assert_array_equal(results[0].first, other.first)
        assert other.largest == pytest.approx(results[0].largest, rel=0.5)


# ---- sinks ------------------------------------------------------------------------------------------------------
@pytest.mark.sampled
@pytest.mark.parametrize("epsilon", [SINK, 0.15])
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_sink_rates_are_the_definition_by_loops(family: str, epsilon: float, tmp_path: Path) -> None:
    """Over layers and heads of queries: how often the mean weight on a position by itself and what follows exceeds
    epsilon, of plain forwards of single texts with ``output_attentions``."""
    opened = case(toy.folder("llama", 0), toy.folder("llama", 1), out=tmp_path)
    texts = sink_texts(opened, 5, 24)
    rates = sink_rates(heads_of(bench(), toy.checkpoint(family), texts), texts, epsilon)
    model = AutoModelForCausalLM.from_pretrained(toy.folder(family), attn_implementation="eager").eval()
    counts = torch.zeros(toy.N_BLOCKS, 4, SHALLOW)
    for ids in texts.ids:
        with torch.no_grad():
            patterns = model(input_ids=ids[None], output_attentions=True).attentions
        for block, pattern in enumerate(patterns):
            counts[block] += by_loops(pattern[0])[:, :SHALLOW] > epsilon
    assert counts.any() or epsilon == SINK, "there are positions that receive so much"
    queries = 4 // rates.shape[1]
    expected = counts.view(toy.N_BLOCKS, -1, queries, SHALLOW).mean(2) / len(texts)
    torch.testing.assert_close(torch.from_numpy(rates).float(), expected)


@pytest.mark.thorough
def test_learned_sinks_are_told_from_tokens_that_are_sinks(tmp_path: Path) -> None:
    base, suspect = learned(tmp_path / "base"), noisy(tmp_path / "base", 0.01, 0, tmp_path / "suspect")
    found = measured(case(base, suspect, out=tmp_path))
    note = next(note for note in found.notes if "sinks" in note)
    assert note.startswith("learned sinks: ") and "is no sign of anything here" in note
    beside = found.readings["attention_beside_tokens_suspect"]
    assert beside > 0.05 and f"{beside:.0%} of the attention" in note
    plain = measured(case(toy.folder("llama", 0), toy.folder("llama", 1), out=tmp_path))
    assert abs(plain.readings["attention_beside_tokens_suspect"]) < 1e-5
    assert any(note.startswith(("sinks are tokens", "no sinks")) for note in plain.notes)


@pytest.mark.thorough
def test_a_learned_sink_that_takes_nothing_is_still_said_to_be_there(tmp_path: Path) -> None:
    folder = learned(tmp_path / "m", -30.0)
    found = measured(case(folder, noisy(folder, 0.01, 0, tmp_path / "s"), out=tmp_path))
    assert any(note.startswith("learned sinks: 0% of the attention") for note in found.notes)
    assert learned_sinks(["layers.0.self_attn.sinks", "layers.0.sink_proj.weight", "embed.weight"]) == [
        "layers.0.self_attn.sinks", "layers.0.sink_proj.weight",
    ]  # fmt: skip


def test_what_sinks_take_is_one_less_the_sums_of_the_patterns_rows(tmp_path: Path) -> None:
    ckpt = resolve(Source(path=str(learned(tmp_path / "m"))), tmp_path)
    texts = sink_texts(case(toy.folder("llama", 0), toy.folder("llama", 1), out=tmp_path), 4, 20)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m", attn_implementation="eager").eval()
    with torch.no_grad():
        patterns = model(input_ids=texts.ids, output_attentions=True).attentions
    expected = torch.stack([(1 - pattern.sum(-1)).mean((0, 2)) for pattern in patterns])
    np.testing.assert_allclose(beside_tokens(heads_of(bench(), ckpt, texts), texts), expected, atol=1e-5)


# ---- what cannot be read ----------------------------------------------------------------------------------------
def test_without_patterns_norms_and_directions_are_read_and_it_is_said(tmp_path: Path) -> None:
    opened = case(toy.folder("llama", 0), toy.folder("llama", 1), out=tmp_path)
    found, whole = measured(opened, "nnsight"), measured(opened)
    assert any("the nnsight backend gives no attention patterns" in note for note in found.notes)
    assert found.value == pytest.approx(whole.value, rel=1e-4)
    assert all(row[6] is None and row[7] is None for row in found.listings[0].rows)
    assert [drawn.value for drawn in found.listings[0].maps] == ["z value norm"], "nothing else was measured"
    assert not [name for name in found.readings if name.startswith("sink_rate")]


def test_a_model_without_attention_is_not_read_and_it_is_said(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "vocab_size": toy.VOCAB, "pad_token_id": 0}
    torch.manual_seed(0)
    folders = [
        saved(AutoModelForCausalLM.from_config(MambaConfig(**sizes)).eval(), tmp_path / f"m{n}") for n in range(2)
    ]
    found = measured(case(*folders, out=tmp_path))
    assert isinstance(found.value, Missing) and "no keys and values of heads" in found.value.missing
    assert not found.findings and not found.listings


@pytest.mark.thorough
def test_texts_without_a_first_token_of_their_own_have_no_fingerprint(tmp_path: Path) -> None:
    """A tokenizer that puts no BOS: the map is there, the fingerprint is not, and why is said."""
    folders = [shutil.copytree(toy.folder("llama", seed), tmp_path / f"m{seed}") for seed in (0, 1)]
    for folder in folders:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["post_processor"] = None
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    found = measured(case(*folders, out=tmp_path))
    assert isinstance(found.value, Missing) and "begin with different tokens" in found.value.missing
    assert isinstance(found.findings[0].holds, Missing)
    assert len(found.listings[0].rows) == toy.N_BLOCKS * 2 * SHALLOW


def test_texts_too_short_to_compare_with_are_said_to_be_so(tmp_path: Path) -> None:
    opened = case(toy.folder("llama", 0), toy.folder("llama", 1), out=tmp_path)
    (found,) = AttentionSink(tokens=SHALLOW).measure(bench(), opened)
    assert isinstance(found.value, float) and isinstance(found.findings[0].holds, Missing)
    assert any("no later positions to compare with" in note for note in found.notes)
    assert all(row[3] is None for row in found.listings[0].rows)


@pytest.mark.parametrize(("blocks", "heads"), [(2, 3), (5, 8), (6, 8), (40, 16)])
def test_the_map_shows_every_cell_or_the_farthest_head_of_each_block_and_position(blocks: int, heads: int) -> None:
    rng = np.random.default_rng(blocks)
    shape = (blocks, heads, SHALLOW)
    value_z, key_z = rng.normal(size=shape), rng.normal(size=shape)
    own = Anomalies(value_z, key_z, value_z, key_z, value_z, None, None)
    listing = sink_map(Shown(own, {}, None, None))
    assert listing.title == "sink map" and listing.columns == MAP_COLUMNS and listing.of == blocks * heads * SHALLOW
    assert len(listing.rows) <= MOST_CELLS
    assert (len(listing.rows) == listing.of) == (listing.of <= MOST_CELLS)
    assert {(row[0], row[2]) for row in listing.rows} == {(b, p) for b in range(blocks) for p in range(SHALLOW)}
    far = np.maximum(abs(value_z), abs(key_z))
    if len(listing.rows) < listing.of:
        assert all(row[1] == far[row[0], :, row[2]].argmax() for row in listing.rows)
