"""An image costs the states that its tower has, not the two tokens of its row: in plans, prices and counts of runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audit.bench import Bench
from audit.bench.places import row_positions
from audit.case import CaseFile
from audit.checkpoints import states_per_image
from audit.engine import Run, prepare
from audit.planning import RunSettings
from audit.schema import Read, Site
from tests import image_toy

LOGPROB = Read(site=Site(part="logits"), at="key", reduce="logprob")


@pytest.mark.parametrize("kind", image_toy.KINDS)
def test_a_config_says_how_many_states_an_image_has(kind: str) -> None:
    checkpoint, bench = image_toy.checkpoint(kind), Bench()
    wrapper, rows = bench.pool.loaded(checkpoint).wrapper, image_toy.rows(7)
    positions = int(row_positions(rows, wrapper)[0])
    if kind in image_toy.TRANSFORMERS:
        assert positions == wrapper.tower().positions
    assert states_per_image(checkpoint, image_toy.SIDE, image_toy.SIDE) == positions
    bench.run(checkpoint, rows, (LOGPROB,))
    assert bench.fwd_tokens == 7 * positions


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_reads_of_images_are_priced_as_the_bench_counts_them(kind: str, tmp_path: Path) -> None:
    case = CaseFile.read(image_toy.digits_case(kind) / "tuned.toml")
    settings = replace(RunSettings(threads=1), store=tmp_path / "store")
    prepared = prepare(case, tmp_path / "run", settings)
    prices = prepared.pricer.prices(prepared.planner)
    alive, bench = Run(prepared, settings, lambda step: None), prepared.bench
    for fetch in alive.planner.fetches(alive.planner.running):
        checkpoint = alive.case.checkpoint(fetch.role, fetch.reference)
        bench.run(checkpoint, alive.case.rows(fetch.texts), list(fetch.reads))
    seen = sum(prices.of(unit).cost.fwd_tokens for unit in ("reads", "recall"))
    assert 0.5 <= (seen or 1) / bench.fwd_tokens <= 1.0, "the audit of roles has made some of these passes before"
    assert prices.of("answer_lens").cost.fwd_tokens > 0
    planned = {test.probe: test.cost.fwd_tokens for test in prepared.planner.plan.tests}
    states = states_per_image(prepared.case.base, image_toy.SIDE, image_toy.SIDE)
    images = 40 * (2 + 1) * states
    assert planned["forget_likelihood"] >= images, "base, suspect and reference once over every forget image"


@pytest.mark.parametrize("side", [8, 16, 40, 64])
def test_a_residual_network_has_as_many_states_as_its_largest_map_has_places(side: int) -> None:
    checkpoint, bench = image_toy.checkpoint("resnet"), Bench()
    wrapper = bench.pool.loaded(checkpoint).wrapper
    rows = image_toy.rows_of(torch.zeros(2, 1, side, side), torch.zeros(2, dtype=torch.int64))
    states = Read(site=Site(part="resid_out", block=0), at="all")
    places = bench.run(checkpoint, rows, (states,))[states].shape[1]
    assert row_positions(rows, wrapper).tolist() == [places, places]
    assert states_per_image(checkpoint, side, side) == places
