"""Representation similarity on models of known truth: texts of people, and digits of which one was never seen."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from audit.bench import Bench
from audit.case import CaseFile, OpenCase, open_case
from audit.judging import judge
from audit.schema import Case, Control, Interval, Measurement, Missing, Overall, Power, Source
from probes._answer_states import answering
from probes._class_readouts import Task, informed
from probes.representation_similarity import (
    DECIDED,
    NOT_IN_PROPORTION,
    NOT_JUDGED,
    PARTS,
    RepresentationSimilarity,
    _as_shares,
)
from tests import image_toy, planted_world


def measured(case: OpenCase, **settings: int | bool) -> dict[str, Measurement]:
    found = RepresentationSimilarity.model_validate({"judged": True} | settings).measure(Bench(), case)
    return {m.name: m for m in found}


def planted(out: Path, suspect: str, **given: object) -> dict[str, Measurement]:
    case = planted_world.case(suspect, **given)  # type: ignore[arg-type]
    return measured(open_case(case, planted_world.root(), out))


def digits(kind: str, suspect: str, out: Path, reference: bool = True) -> OpenCase:
    root = image_toy.digits_case(kind)
    case: Case = CaseFile.read(root / "tuned.toml").case
    roles = case.roles.model_copy(update={"suspect": Source(path=suspect)})
    if not reference:
        roles = roles.model_copy(update={"references": ()})
    return open_case(case.model_copy(update={"roles": roles}), root, out)


# ---- texts --------------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_base_in_the_suspects_place_is_base_in_every_reading(tmp_path: Path) -> None:
    of = planted(tmp_path, "base")
    placement, transfer, shared = of["placement"], of["transfer_gap"], of["shared_information"]
    assert (placement.value, placement.ci95) == (1.0, Interval(lo=1.0, hi=1.0))
    assert placement.readings["cka_suspect_base_forget"] == placement.readings["cka_suspect_base_retain"] == 1.0
    assert placement.readings["position_forget"] == 0.0
    assert shared.value == pytest.approx(1.0, abs=1e-12) and judge(shared).status == "trace"
    assert isinstance(shared.positive_control, Control) and shared.positive_control.found
    assert transfer.value == transfer.readings["gap_neighbours_base"] > 0.5


@pytest.mark.sampled
@pytest.mark.parametrize("holdout", [True, False])
@pytest.mark.parametrize("suspect", ["clean", "floor"])
def test_a_model_that_never_knew_shares_nothing_and_lies_with_the_references(
    suspect: str, holdout: bool, tmp_path: Path
) -> None:
    others = [name for name in ("null", "floor", "clean") if name != suspect]
    of = planted(tmp_path, suspect, references=others, holdout=holdout)
    shared, placement = of["shared_information"], of["placement"]
    assert isinstance(shared.value, float) and abs(shared.value) < 0.1
    assert judge(shared).status in (("silent", "blunt") if holdout else ("listed",)), "neither a trace nor open"
    assert shared.people == PARTS and NOT_IN_PROPORTION in shared.notes
    assert isinstance(placement.value, float) and placement.value < 0.3
    assert placement.readings["retain_collapsed"] == 0.0
    assert isinstance(of["transfer_gap"].value, float) and of["transfer_gap"].value < 0.2


@pytest.mark.thorough
def test_the_redundant_part_is_never_more_than_what_either_says(tmp_path: Path) -> None:
    for suspect in ("base", "clean", "destroyed"):
        readings = planted(tmp_path, suspect)["shared_information"].readings
        for name in ("base", "suspect", "null", "floor0"):
            least = min(readings["information_nats_base"], readings[f"information_nats_{name}"])
            assert -1e-12 <= readings[f"redundant_nats_{name}"] <= max(least, 0.0) + 1e-12
    assert readings["information_nats_base"] > 2


@pytest.mark.thorough
def test_a_broken_model_is_unlike_both_ends_and_said_to_be(tmp_path: Path) -> None:
    placement = planted(tmp_path, "destroyed")["placement"]
    assert placement.readings["retain_collapsed"] == 1.0 and any("damaged" in note for note in placement.notes)
    assert isinstance(placement.value, Missing) or placement.value < 0.5


@pytest.mark.thorough
def test_by_default_it_is_listed_and_says_why(tmp_path: Path) -> None:
    case = open_case(planted_world.case("base"), planted_world.root(), tmp_path)
    of = measured(case, judged=False)
    assert {m.kind for m in of.values()} == {"context"} and NOT_JUDGED in of["shared_information"].notes
    assert RepresentationSimilarity().groups_tested(case) is None
    assert RepresentationSimilarity(judged=True).groups_tested(case) is not None


@pytest.mark.thorough
def test_with_one_reference_or_none_there_is_no_placement_and_the_reason_is_said(tmp_path: Path) -> None:
    single, none = (planted(tmp_path, "clean", references=names) for names in (("null",), ()))
    for of, words in ((single, "two models that never knew"), (none, "no model that never knew")):
        assert isinstance(of["placement"].value, Missing) and words in of["placement"].value.missing
        assert of["placement"].readings["cka_suspect_base_forget"] < 0.5, "similarity is reported all the same"
    assert isinstance(single["shared_information"].value, float)
    assert isinstance(none["shared_information"].value, float), "forget people less holdout people"
    assert isinstance(none["transfer_gap"].value, Missing) and none["transfer_gap"].readings["neighbours_base"] > 0.5
    neither = planted(tmp_path, "clean", references=(), holdout=False)["shared_information"]
    assert isinstance(neither.value, Missing)


@pytest.mark.thorough
def test_an_ancestor_stands_for_a_reference(tmp_path: Path) -> None:
    of = planted(tmp_path, "clean", references=("ancestor",))
    assert isinstance(of["shared_information"].value, float) and of["shared_information"].value < 0.1
    assert {curve.role for curve in of["shared_information"].curves} == {"base", "suspect", "ancestor"}


@pytest.mark.thorough
def test_answers_that_nobody_shares_make_no_classes(tmp_path: Path) -> None:
    root = tmp_path / "world"
    shutil.copytree(planted_world.root(), root)
    for cohort in ("forget", "retain", "holdout"):
        lines = [json.loads(line) for line in (root / f"{cohort}.jsonl").read_text().splitlines()]
        first = {line["key"]: line for line in reversed(lines)}
        (root / f"{cohort}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in first.values()))
    case = open_case(planted_world.case("clean"), root, tmp_path)
    of = measured(case, least_groups=4)
    assert isinstance(of["placement"].value, float), "how alike states are needs no classes"
    for name in ("transfer_gap", "shared_information"):
        value = of[name].value
        assert isinstance(value, Missing) and "make no classes" in value.missing
        assert (of[name].n.scored, of[name].n.unscored) == (0, of["placement"].n.scored)


@pytest.mark.thorough
def test_the_price_is_what_is_read(tmp_path: Path) -> None:
    case, bench = open_case(planted_world.case("clean"), planted_world.root(), tmp_path), Bench()
    probe = RepresentationSimilarity()
    before = bench.fwd_tokens
    probe.measure(bench, case)
    price = probe.cost(case)
    assert 0.5 * price.fwd_tokens < bench.fwd_tokens - before <= price.fwd_tokens and price.kind == "upper"
    fewer = RepresentationSimilarity(most_rows=20)
    assert 0 < fewer.cost(case).fwd_tokens < probe.cost(case).fwd_tokens


# ---- images -------------------------------------------------------------------------------------------------------
@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_an_edit_of_the_head_alone_leaves_states_exactly_base(kind: str, tmp_path: Path) -> None:
    of = measured(digits(kind, "head_bias", tmp_path))
    readings = of["placement"].readings
    assert readings["cka_suspect_base_forget"] == readings["cka_suspect_base_retain"] == 1.0
    assert readings["cka_suspect_reference_forget"] == readings["cka_base_reference_forget"]
    transfer = of["transfer_gap"].readings
    for way in ("neighbours", "ridge", "neighbours_retain", "ridge_retain"):
        assert transfer[f"{way}_suspect"] == transfer[f"{way}_base"]
    shared = of["shared_information"]
    assert shared.value == pytest.approx(1.0, abs=1e-12)
    assert shared.kind == "context" and DECIDED in shared.notes, "one class, which no retained image has"


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_last_block_of_random_weights_is_seen_on_retained_images(kind: str, tmp_path: Path) -> None:
    root = image_toy.digits_case(kind)
    net, fresh = AutoModelForImageClassification.from_pretrained(root / "base"), image_toy.fresh(kind, 9)
    last, other = ((m.vit.layers if kind == "vit" else m.resnet.encoder.stages[-1].layers)[-1] for m in (net, fresh))
    with torch.no_grad():
        last.load_state_dict({k: v * (10 if v.ndim > 1 else 1) for k, v in other.state_dict().items()})
    folder = root / "last_block"
    net.save_pretrained(folder)
    image_toy.processor().save_pretrained(folder)
    placement = measured(digits(kind, "last_block", tmp_path))["placement"]
    assert placement.readings["retain_collapsed"] == 1.0 and any("damaged" in note for note in placement.notes)
    retained = next(c for c in placement.curves if c.unit == "CKA with base, retained items" and c.role == "suspect")
    assert retained.y[:2] == (1.0, 1.0) and max(retained.y[2:]) < 0.8, "the blocks before it are base's"
    tuned = measured(digits(kind, "tuned", tmp_path))["placement"]
    assert tuned.readings["retain_collapsed"] == 0.0 and tuned.readings["cka_suspect_base_retain"] > 0.9


# ---- what the numbers rest on -------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_a_row_ends_where_its_answer_begins_so_that_no_state_reads_the_answer(tmp_path: Path) -> None:
    root = tmp_path / "world"
    shutil.copytree(planted_world.root(), root)
    for cohort in ("forget", "retain", "holdout"):
        lines = [json.loads(line) for line in (root / f"{cohort}.jsonl").read_text().splitlines()]
        longer = [line | {"answer": f"{line['key']} and {line['key']}", "key": f"{line['key']} and {line['key']}"}
                  for line in lines]  # fmt: skip
        (root / f"{cohort}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in longer))
    case = open_case(planted_world.case("clean"), root, tmp_path)
    part = answering(case, "forget")
    assert part is not None and {len(content) for content in part.content} == {3}
    assert (part.rows.key.sum(1) == 1).all()
    assert (part.rows.key.int().argmax(1) == part.rows.lengths - 1).all(), "nothing comes after the first"
    shared = measured(case)["shared_information"]
    assert shared.readings["information_nats_null"] < 0.3 and shared.readings["information_nats_suspect"] < 0.3


@pytest.mark.thorough
def test_the_bound_and_the_power_are_shares_of_people(tmp_path: Path) -> None:
    plain = planted(tmp_path, "clean")["shared_information"].model_copy(
        update={
            "overall": Overall(value=0.25, ci95=Interval(lo=-0.04, hi=0.36), floor=0.01),
            "power": Power(share=0.04, people=4, of=16, power=0.8),
        }
    )
    shown = _as_shares(plain)
    assert shown.overall == Overall(value=0.5, ci95=Interval(lo=-0.04, hi=0.6), floor=0.1)
    assert shown.power == Power(share=0.2, people=8, of=16, power=0.8)
    assert (shown.value, shown.ci95, shown.p) == (plain.value, plain.ci95, plain.p)


def test_the_effect_grows_as_the_square_of_the_share_of_people_who_are_known() -> None:
    rng = np.random.default_rng(0)
    forgotten, d, classes = 600, 40, 8
    retained = torch.arange(forgotten + 200) >= forgotten
    label = torch.from_numpy(rng.integers(0, classes, len(retained))) + classes * retained
    code = torch.from_numpy(rng.normal(size=(2 * classes, d)))
    noise = torch.from_numpy(rng.normal(size=(len(retained), d)) * 2)
    sides = torch.nn.functional.one_hot(label, 2 * classes).double()
    of = Task(label, torch.arange(len(retained)), retained.long(), retained, sides)
    luck = torch.from_numpy(rng.random(len(retained)))

    def nats(share: float) -> torch.Tensor:
        known = (luck < share) | retained
        return informed([code[label] * known[:, None] + noise], of, 1.0)[:, 0]

    base = nats(1.0)
    levels = {s: float(torch.minimum(base, nats(s))[~retained].mean()) for s in (0.0, 0.25, 0.5, 0.75, 1.0)}
    effects = {s: (level - levels[0.0]) / (levels[1.0] - levels[0.0]) for s, level in levels.items()}
    assert all(abs(effects[s] - s**2) < 0.1 for s in effects)
