"""Dictionaries of images: whose rows they are, at which places, and what a feature is most active at."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.bench import Bench
from audit.case import CaseFile, OpenCase, open_case
from audit.cli import main
from audit.probing import n_blocks
from audit.schema import AuditError, Item, Read, Site
from audit.storage import Store
from saes import (
    BenchActivations,
    CaseTexts,
    PatchActivations,
    PatchSample,
    SparseCoder,
    TrainingSettings,
    texts_of_case,
    top_items,
    train,
)
from tests import image_toy, toy
from tests.saes.planted_rows import random_coder


def opened(kind: str, out: Path) -> OpenCase:
    file = CaseFile.read(image_toy.digits_case(kind) / "tuned.toml")
    return open_case(file.case, file.root, out)


def images(n: int, seed: int = 0) -> CaseTexts:
    rows = image_toy.rows(n, seed)
    items = tuple(Item(id=f"image{i}", group=f"g{i // 2}", question="", answer=str(i % 10)) for i in range(n))
    return CaseTexts(rows, items, ("retain",) * n)


def sites(*blocks: int) -> list[Site]:
    return [Site(part="resid_out", block=n) for n in blocks]


@pytest.mark.parametrize("kind", ["vit", "resnet", pytest.param("deit", marks=pytest.mark.slow)])
def test_an_image_has_one_state_that_the_head_reads_and_its_row_belongs_to_it(kind: str, tmp_path: Path) -> None:
    case = opened(kind, tmp_path)
    base, blocks = case.checkpoint("base"), n_blocks(case)
    texts, bench = texts_of_case(case, base), Bench()
    assert blocks == image_toy.N_BLOCKS == bench.open(base).n_blocks
    assert {item.answer for item, cohort in zip(texts.items, texts.cohorts, strict=True) if cohort == "forget"} == {"3"}
    source = BenchActivations(bench, base, texts, sites(0, blocks - 1), chunk_bytes=4 * 64 * 50)
    whole = bench.run(base, texts.rows, [Read(site=s, at="last") for s in sites(0, blocks - 1)])
    assert source.rows == len(texts.items) == 160 and len(source.sizes) > 1
    for n in range(len(source.sizes)):
        for name, site in source.sites.items():
            states = whole[Read(site=site, at="last")][source.owners(n)]
            torch.testing.assert_close(source.chunk(n)[name], states, atol=1e-4, rtol=1e-4)
        assert source.spot_name(source.names[0], int(source.spots(n, source.names[0])[0])) == ""


@pytest.mark.thorough
@pytest.mark.parametrize("kind", image_toy.KINDS)
@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 9), count=st.integers(1, 20), seed=st.integers(0, 50), chunk=st.integers(1, 4))
def test_rows_of_patches_are_the_models_states_at_places_that_seed_and_image_decide(
    kind: str, n: int, count: int, seed: int, chunk: int
) -> None:
    bench, base, texts = Bench(), image_toy.checkpoint(kind), images(n, seed)
    per_image_bytes = 4 * (4 * 16 + 32 if kind == "resnet" else 2 * 16 * 32)
    sample = PatchSample(count=count, seed=seed)
    source = PatchActivations(bench, base, texts, sites(0, 2), sample, chunk * per_image_bytes)
    whole = bench.run(base, texts.rows, [Read(site=s, at="patches") for s in sites(0, 2)])
    grids = [4, 1] if kind == "resnet" else [16, 16]
    assert list(source.positions.values()) == grids and source.per_image == min(count, *grids)
    assert source.sizes == tuple(min(chunk, n - start) * source.per_image for start in range(0, n, chunk))
    seen: dict[str, list[tuple[int, int]]] = {name: [] for name in source.names}
    for part in range(len(source.sizes)):
        for name, site in source.sites.items():
            owners, spots = source.owners(part), source.spots(part, name)
            states = whole[Read(site=site, at="patches")][owners, spots]
            torch.testing.assert_close(source.chunk(part)[name], states, atol=1e-4, rtol=1e-4)
            seen[name] += zip(owners.tolist(), spots.tolist(), strict=True)
    for name in source.names:
        assert len(set(seen[name])) == len(seen[name]) == source.rows, "no place twice"
        assert [image for image, _ in seen[name]] == sorted(image for image, _ in seen[name])
    uncut = PatchActivations(bench, base, texts, sites(0, 2), sample)
    assert torch.equal(uncut.spots(0, uncut.names[0]), torch.tensor([spot for _, spot in seen[source.names[0]]]))


def test_other_weights_are_read_at_the_same_places_and_another_seed_draws_others() -> None:
    bench, texts = Bench(), images(12)
    first, second, third = (
        PatchActivations(bench, image_toy.checkpoint("vit", weights), texts, sites(1), PatchSample(count=3, seed=seed))
        for weights, seed in ((0, 0), (1, 0), (0, 1))
    )
    name = first.names[0]
    assert torch.equal(first.spots(0, name), second.spots(0, name))
    assert not torch.equal(first.spots(0, name), third.spots(0, name))
    assert len({first.key, second.key, third.key}) == 3
    spots = first.spots(0, name).view(12, 3)
    assert len({tuple(row) for row in spots.tolist()}) > 6, "every image has places of its own"


def test_the_store_holds_what_was_drawn_and_no_other_place(tmp_path: Path) -> None:
    bench = Bench(store=Store(tmp_path))
    make = lambda: PatchActivations(bench, image_toy.checkpoint(), images(40), sites(1), PatchSample(count=2))  # noqa: E731
    once = make().chunk(0)["text.1.resid_out"].clone()
    ran = bench.fwd_tokens
    assert torch.equal(make().chunk(0)["text.1.resid_out"], once)
    assert bench.fwd_tokens - ran <= image_toy.PATCHES + 1, "but for one image, whose states say how wide they are"
    held = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert once.nbytes <= held < 1.5 * once.nbytes + 4096


def test_patches_of_texts_are_refused() -> None:
    texts = CaseTexts(toy.rows(3), tuple(Item(id=str(n), group=str(n), question="q", answer="a") for n in range(3)),
                      ("retain",) * 3)  # fmt: skip
    with pytest.raises(AuditError, match="places of images") as refused:
        PatchActivations(Bench(), toy.checkpoint("llama"), texts, sites(0), PatchSample(count=2))
    assert refused.value.code == 2


@pytest.mark.thorough
@given(seed=st.integers(0, 200), chunk=st.integers(1, 5), kind=st.sampled_from(["topk", "jumprelu", "relu"]))
@settings(max_examples=20, deadline=None)
def test_top_items_are_those_of_the_largest_code_of_all_their_rows(seed: int, chunk: int, kind: str) -> None:
    texts, bench = images(7, seed), Bench()
    source = PatchActivations(
        bench, image_toy.checkpoint(), texts, sites(1), PatchSample(count=5, seed=seed), chunk * 4 * 16 * 32
    )
    coder, (name,) = random_coder(kind, d=32, seed=seed), source.names
    rows = [
        (owner, spot, code)
        for part in range(len(source.sizes))
        for owner, spot, code in zip(
            source.owners(part).tolist(), source.spots(part, name).tolist(),
            coder.encode(source.chunk(part)[name]), strict=True,
        )
    ]  # fmt: skip
    for feature, listed in top_items(coder, source, name, range(coder.features), 3).items():
        best = {n: max((float(code[feature]), -spot) for owner, spot, code in rows if owner == n) for n in range(7)}
        order = sorted((n for n in best if best[n][0] > 0), key=lambda n: (-best[n][0], n))[:3]
        assert [(top.item.id, top.code) for top in listed] == [(f"image{n}", best[n][0]) for n in order]
        for top, n in zip(listed, order, strict=True):
            row, column = divmod(-best[n][1], 4)
            assert top.spot == f"row {row + 1} of 4, column {column + 1} of 4" and top.item.group == f"g{n // 2}"
            active = sum(float(code[feature]) > 0 for owner, _, code in rows if owner == n)
            assert top.share == pytest.approx(active / 5)


@pytest.mark.thorough
def test_a_dictionary_of_patches_is_trained_and_its_record_says_of_which(tmp_path: Path) -> None:
    case = opened("vit", tmp_path)
    base, bench, sample = case.checkpoint("base"), Bench(), PatchSample(count=6, seed=2)
    training, held_out = texts_of_case(case, base).split(0)
    source = PatchActivations(bench, base, training, sites(1), sample)
    settings = TrainingSettings(features=96, k=8, rows=40_000, batch=64)
    held = PatchActivations(bench, base, held_out, sites(1), sample)
    (stored,) = train(source, held, settings, tmp_path / "d", source.sites)
    assert stored.record is not None and stored.record.patches == sample and stored.record.held_out.rows == 60
    assert stored.record.held_out.fve > 0.6 and source.rows == 900


def test_a_feature_written_for_one_class_is_most_active_at_images_of_it(tmp_path: Path) -> None:
    """A dictionary whose one wide feature reads the class out of the class token, by the mean of its images."""
    case = opened("vit", tmp_path)
    base = case.checkpoint("base")
    texts = texts_of_case(case, base)
    source = BenchActivations(Bench(), base, texts, sites(2))
    states = source.chunk(0)[source.names[0]][source.owners(0).argsort()]
    of_class = torch.tensor([item.answer == "3" for item in texts.items])
    direction = states[of_class].mean(0) - states[~of_class].mean(0)
    both = torch.stack([direction, -direction])
    coder = SparseCoder(both.T.contiguous(), torch.zeros(2), both, states.mean(0), "relu")
    top = top_items(coder, source, source.names[0], [0, 1], 20)
    assert {each.item.answer for each in top[0]} == {"3"} and {each.cohort for each in top[0]} == {"forget"}
    assert "3" not in {each.item.answer for each in top[1]} and top[0][0].spot == ""
    assert np.all(np.diff([each.code for each in top[0]]) <= 0)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_the_command_trains_of_images_and_masks_those_to_be_forgotten(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = image_toy.digits_case(kind) / "tuned.toml", tmp_path / "d"
    call: Callable[..., int] = lambda *words: main(["sae", *map(str, words), "--store", "none"])  # noqa: E731
    flags = ("--site", "0", "--width", "24", "--k", "4", "--rows", "4000", "--patches", "3")
    assert call("train", case, *flags, "-o", out, "-q", "--json") == 0
    (trained,) = json.loads(capsys.readouterr().out)["dictionaries"]
    assert trained["record"]["patches"] == {"count": 3, "seed": 0} and trained["record"]["cached_rows"] == 450
    assert call("show", out, case, "--json", "-q") == 0
    text = capsys.readouterr().out
    (view,) = json.loads(text)["dictionaries"]
    assert view["validity"]["base"]["rows"] == 480
    items = [top for feature in view["top_features"] for top in feature["top_texts"]]
    assert {top["cohort"] for top in items} == {"forget", "retain"}
    for top in items:
        assert top["text"].startswith("‹masked") == (top["cohort"] == "forget")
        assert "column" in top["spot"] and (top["cohort"] == "forget" or "retain-" in top["text"])
    assert "forget-" not in text
