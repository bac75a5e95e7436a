"""States of whole texts against plain hooks and loops, row by row."""

from pathlib import Path

import pytest
import torch

from audit.bench import Bench
from audit.checkpoints import resolve
from audit.probing import COORDINATES, text_reads
from audit.schema import Read, Site, Source
from studies.families.tiny_configs import tiny_model
from tests import toy


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_coordinates_equal_a_loop_over_rows(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, ckpt, rows = Bench(), toy.checkpoint(family), toy.rows(7, seed=3)
    sites = [Site(part="embed"), *(Site(part="resid_out", block=b) for b in range(toy.N_BLOCKS))]
    whole = text_reads.text_states(bench, ckpt, ckpt, rows, sites)
    monkeypatch.setattr(text_reads, "_TOKENS_AT_ONCE", 2 * rows.ids.shape[1])
    in_portions = text_reads.text_states(bench, ckpt, ckpt, rows, sites)
    torch.testing.assert_close(in_portions, whole, rtol=0, atol=1e-5)
    assert whole.shape[:3] == (len(COORDINATES), len(sites), 7)
    wrapper = bench.open(ckpt)
    for s, site in enumerate(sites):
        read = Read(site=site, at="all")
        every = bench.run(ckpt, rows, (read,))[read].double()
        for i in range(7):
            start, end = rows.answer_spans[i].tolist()
            last = every[i, int(rows.lengths[i]) - 1]
            torch.testing.assert_close(whole[0, s, i], last, rtol=0, atol=1e-5)
            torch.testing.assert_close(whole[1, s, i], every[i, start:end].mean(0), rtol=0, atol=1e-5)
            matches = []
            for at in rows.key[i].nonzero()[:, 0].tolist():
                token = int(rows.ids[i, at])
                unit = torch.stack([wrapper.head(e)[token] for e in torch.eye(wrapper.d_model)])
                row = (unit - wrapper.head(torch.zeros(wrapper.d_model))[token]).detach().double()
                matches.append(every[i, at - 1] * row)
            torch.testing.assert_close(whole[2, s, i], torch.stack(matches).mean(0), rtol=1e-4, atol=1e-4)


def test_a_match_of_the_final_state_adds_up_to_the_tokens_logit() -> None:
    bench, ckpt, rows = Bench(), toy.checkpoint("llama"), toy.rows(4, seed=5)
    site = Site(part="final_in")
    match = text_reads.text_states(bench, ckpt, ckpt, rows, [site])[2, 0].sum(-1)
    logits = Read(site=Site(part="logits"), at="all")
    found = bench.run(ckpt, rows, (logits,))[logits]
    for i in range(4):
        at = rows.key[i].nonzero()[:, 0]
        expected = found[i, at - 1, rows.ids[i, at]].double().mean()
        assert match[i] == pytest.approx(float(expected), rel=1e-4, abs=1e-4)


def test_of_several_streams_each_is_matched_with_the_tokens_row(tmp_path: Path) -> None:
    tiny_model("gemma3n_text").save_pretrained(tmp_path / "model")
    bench, ckpt, rows = Bench(), resolve(Source(path="model"), tmp_path), toy.rows(3, seed=5)
    site = Site(part="resid_out", block=1)
    match = text_reads.text_states(bench, ckpt, ckpt, rows, [site])[2, 0]
    wrapper = bench.open(ckpt)
    streams = wrapper.tower().widths[1] // wrapper.d_model
    read = Read(site=site, at="all")
    every = bench.run(ckpt, rows, (read,))[read].double().unflatten(-1, (streams, wrapper.d_model))
    by_token = text_reads.head_rows(bench, ckpt, rows)
    assert streams > 1
    for i in range(3):
        at = rows.key[i].nonzero()[:, 0]
        directions = torch.stack([by_token[int(token)] for token in rows.ids[i, at]])
        for stream, part in enumerate(match[i].unflatten(0, (streams, wrapper.d_model))):
            expected = (every[i, at - 1, stream] * directions).mean(0)
            torch.testing.assert_close(part, expected, rtol=1e-5, atol=1e-6)
