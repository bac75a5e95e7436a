"""The restoration probe on models of known truth: digits of which one class was hidden, and people that were not."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audit.bench import Bench
from audit.case import CaseFile, OpenCase, open_case
from audit.judging import judge
from audit.probing import case_models_of
from audit.schema import AuditError, Case, Measurement, Missing, Source
from audit.storage import Store
from probes import sae_restoration
from probes._decision import NOTHING, RETAINED
from probes._restoration import Scene
from probes.sae_restoration import SaeRestoration
from saes import donated, write_dictionary
from tests import image_toy, planted_world
from tests.saes.planted_rows import random_coder

PROBE = SaeRestoration(sets=40, paper_sets=10, rows=20_000)


@cache
def store() -> Store:
    return Store(Path(tempfile.mkdtemp(dir=planted_world.root())))


def opened(suspect: str, kind: str = "vit", second: bool = True) -> OpenCase:
    """The digits; ``suspect`` is any model of the folder."""
    read = CaseFile.read(image_toy.digits_case(kind) / "head_bias.toml")
    references = read.case.roles.references
    if kind == "vit" and second:
        references += (Source(path=clean(6)),)
    roles = read.case.roles.model_copy(update={"suspect": Source(path=suspect), "references": references})
    case: Case = read.case.model_copy(update={"roles": roles})
    return open_case(case, read.root, Path(tempfile.mkdtemp(dir=planted_world.root())))


@cache
def clean(seed: int = 5) -> str:
    """Another model that never saw the class, from the same initialisation."""
    data = image_toy.digits()
    known = data.labels != image_toy.FORGOTTEN
    folder = planted_world.root() / f"digits-clean-{seed}"
    image_toy.train(
        image_toy.fresh("vit", 0), image_toy.Digits(data.images[known], data.labels[known]), 300, seed=seed
    ).save_pretrained(folder)
    image_toy.processor().save_pretrained(folder)
    return str(folder)


@cache
def measured(suspect: str, kind: str = "vit") -> dict[str, Measurement]:
    return {m.name: m for m in PROBE.measure(Bench(store=store()), opened(suspect, kind))}


def value(measurement: Measurement) -> float:
    assert not isinstance(measurement.value, Missing), measurement.value
    return measurement.value


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_hidden_class_is_restored_by_nothing_published_and_read_in_the_states(kind: str) -> None:
    seen = measured("head_bias", kind)
    published = seen["published_restoration"].readings
    assert value(seen["published_restoration"]) == 0 and published["suspect_experts_alpha10"] == 0
    assert abs(value(seen["donor_restoration"])) < 1e-3
    assert value(seen["dictionary_reverse"]) == pytest.approx(1, abs=1e-5)
    assert judge(seen["dictionary_reverse"]).outcome == "trace found"
    assert value(seen["decision_table"]) == RETAINED


@pytest.mark.thorough
def test_a_model_that_never_saw_the_class_restores_in_the_published_mode_as_strength_grows() -> None:
    published = measured("head_bias")["published_restoration"].readings
    weak, strong = (published[f"null_experts_alpha{alpha}"] for alpha in (1, 5))
    assert strong > weak and strong > 0.3
    assert published["null_empty_alpha5"] > 0.3, "and without any feature"
    assert published["null_summary_only_alpha5"] > 0.3, "by the state that predicts the answer"


@pytest.mark.thorough
def test_a_model_that_never_saw_the_class_is_no_evidence() -> None:
    seen = measured(clean())
    assert judge(seen["dictionary_reverse"]).outcome != "trace found"
    assert seen["few_shot_readout"].kind == "context", "it would be a trace here: never-saw models differ that much"
    assert value(seen["decision_table"]) in (0, NOTHING)


def test_a_fresh_head_is_placed_where_two_models_that_never_knew_say_how_far_they_differ() -> None:
    judged = measured("head_bias")["few_shot_readout"]
    assert value(judged) == pytest.approx(1, abs=1e-6)
    assert not isinstance(judged.floor, Missing) and judged.floor > 0, "by size, whichever of the two learns more"
    unjudged = {m.name: m for m in PROBE.measure(Bench(store=store()), opened("head_bias", second=False))}
    missing = unjudged["few_shot_readout"].value
    assert isinstance(missing, Missing) and "no second one" in missing.missing
    assert unjudged["few_shot_readout"].readings["hit_rate_suspect_5_shots"] > 0.9


@pytest.mark.thorough
def test_a_fresh_head_that_reads_nobody_at_every_number_of_shots_has_a_reason_and_no_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some rows are read with few shots, and others with many: no person has facts that both read."""
    whole = sae_restoration.by_shots

    def parted(*given: Any) -> Any:
        counts, rates = whole(*given)
        for rate in rates.values():
            rate[::2, 0], rate[1::2, -1] = np.nan, np.nan
        return counts, rates

    monkeypatch.setattr(sae_restoration, "by_shots", parted)
    seen = {m.name: m for m in PROBE.measure(Bench(store=store()), opened("head_bias", second=False))}
    readout = seen["few_shot_readout"]
    assert isinstance(readout.value, Missing) and "nobody has facts" in readout.value.missing and not readout.readings


@pytest.mark.thorough
def test_base_has_lost_nothing_and_every_intervention_leaves_it_as_it_is() -> None:
    seen = measured("base")
    donor = seen["donor_restoration"]
    assert isinstance(donor.value, Missing) and "nothing was lost" in donor.value.missing
    unedited = donor.readings["suspect_unedited"]
    for key in ("suspect_experts", "suspect_random_sets", "control_whole_swap", "control_summary_swap",
                "control_reconstruction_with_error", "control_wrong_class_0"):  # fmt: skip
        assert donor.readings[key] == pytest.approx(unedited, abs=1e-6), key
    published = seen["published_restoration"].readings
    assert published["suspect_summary_only_alpha5"] == published["suspect_unedited"]


@pytest.mark.thorough
def test_what_is_described_by_no_dictionary_is_not_judged(tmp_path: Path) -> None:
    write_dictionary(tmp_path / "noise", random_coder("topk", image_toy.WIDTH, 64, 4))
    probe = PROBE.model_copy(update={"dictionary": str(tmp_path / "noise")})
    seen = {m.name: m for m in probe.measure(Bench(store=store()), opened("head_bias"))}
    reverse = seen["dictionary_reverse"].value
    assert isinstance(reverse, Missing) and "not valid" in reverse.missing


def test_a_dictionary_of_another_width_is_refused_by_name(tmp_path: Path) -> None:
    write_dictionary(tmp_path / "narrow", random_coder("topk", 8, 64, 4))
    probe = PROBE.model_copy(update={"dictionary": str(tmp_path / "narrow")})
    with pytest.raises(AuditError, match="width 8, and base's states are 32 wide") as caught:
        probe.measure(Bench(store=store()), opened("head_bias"))
    assert caught.value.code == 2


def test_stacked_sets_equal_a_run_each() -> None:
    case = opened("tuned")
    scene = Scene(Bench(store=store()), case, case_models_of(case), 1, random_coder("topk", image_toy.WIDTH, 64, 4))
    pair, codes = scene.pair("suspect", "base"), (scene.codes("suspect"), scene.codes("base"))
    sets = torch.randint(64, (3, len(scene.sheet.rows), 5), generator=torch.Generator().manual_seed(0))
    scene.experts = scene.experts._replace(scored=np.ones(len(scene.sheet.rows), dtype=bool))
    together = scene.run_many("suspect", sets, lambda columns: donated(scene.coder, pair, codes, columns))
    for n, columns in enumerate(sets):
        own = scene.run_on("suspect", donated(scene.coder, pair, codes, columns)).probability
        assert together[n] == pytest.approx(own, abs=1e-6)


@pytest.mark.thorough
def test_logits_are_what_they_were_once_the_hooks_are_gone() -> None:
    case = opened("tuned")
    bench = Bench()
    model = bench.open(case.suspect)
    pixels = case.rows(next(t for t in case.every_texts() if t.cohort == "forget")).extra["pixel_values"]
    before = model.model(pixel_values=pixels).logits.detach().clone()  # type: ignore[attr-defined]
    PROBE.measure(bench, case)
    after = bench.open(case.suspect).model(pixel_values=pixels).logits.detach()  # type: ignore[attr-defined]
    assert torch.equal(before, after)


@pytest.mark.thorough
@pytest.mark.parametrize(("suspect", "found"), [("clean", False), ("base", True)])
def test_facts_of_people_by_the_same_measurements(suspect: str, found: bool) -> None:
    case = open_case(planted_world.case(suspect), planted_world.root(), Path(tempfile.mkdtemp()))
    seen = {m.name: m for m in PROBE.measure(Bench(store=store()), case)}
    assert (judge(seen["dictionary_reverse"]).outcome == "trace found") == found
    published = seen["published_restoration"].readings
    assert published["null_experts_alpha1"] > 0.3, "a model that never knew restores by its answer's own state"
