"""What is said of a concept before pictures with and without it, under attacks that no read picture was fitted to."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.probing import case_models_of
from audit.schema import Interval, Measurement, Missing
from audit.storage import Store
from probes import _concept_perturbation as perturbation
from probes._concept_accuracy import Answered, Parts, parts_of, sheet_of, yes_rates
from probes._concept_answers import always_no
from probes._concept_attacks import LETTERS, PLAIN, attacks_of
from probes._concept_perturbation import Budget, bounds_of, shifted, under_perturbation
from probes._concept_scene import ConceptScene, Pair
from probes.concept_erasure import ConceptErasure
from tests import colour_world

PROBE = ConceptErasure(rows=6000, permutations=999)


@cache
def bench() -> Bench:
    return Bench(store=Store(colour_world.root() / "store"))


def opened(suspect: str) -> OpenCase:
    root = colour_world.root()
    return open_case(colour_world.case(suspect, holdout=False), root, Path(tempfile.mkdtemp(dir=root)))


def scene(suspect: str = "refusal", most: int = 48) -> ConceptScene:
    case = opened(suspect)
    return ConceptScene(bench(), case, case_models_of(case), most)


@cache
def measured(suspect: str) -> dict[str, Measurement]:
    return {m.name: m for m in PROBE.measure(bench(), opened(suspect))}


@pytest.mark.thorough
def test_refusal_is_recovered_by_another_wording_or_among_options_and_a_model_that_never_knew_is_not() -> None:
    refusing, clean = (measured(name)["recovery"] for name in ("refusal", "clean"))
    assert refusing.readings["plain_suspect"] < 0.1 < 0.9 < refusing.readings["plain_base"]
    assert refusing.readings["effect_options"] > 0.4 and refusing.findings[0].holds is True
    assert isinstance(refusing.value, float) and refusing.value > 0.5
    assert isinstance(refusing.ci95, Interval) and refusing.ci95.lo > 0.2
    assert isinstance(clean.value, float) and abs(clean.value) < 0.1 and clean.findings[0].holds is False
    assert isinstance(clean.p, float) and clean.p >= 0.01
    for result in (refusing, clean):
        (table,) = result.listings
        assert {"choice", "caption", "yes_no", "options", "crop", "perturbation"} <= {row[0] for row in table.rows}
        assert not {PLAIN, LETTERS} & {row[0] for row in table.rows}, "controls are no attacks"


def test_accuracy_by_manner_falls_where_it_is_refused_and_what_is_kept_stays() -> None:
    refusing, clean = (measured(name) for name in ("refusal", "clean"))
    assert clean["accuracy"].readings["unlearning_accuracy_open"] > 0.9
    assert refusing["accuracy"].readings["greedy_open_suspect"] < 0.1, "by itself it refuses"
    assert refusing["accuracy"].readings["accuracy_choice_suspect"] > 0.8, "among options it does not"
    retained = refusing["retained_accuracy"]
    assert isinstance(retained.value, float) and retained.value > 0.95
    flips = refusing["flips"]
    assert isinstance(flips.value, float) and flips.value < 0.1 and flips.readings["flips_null"] > flips.value


def test_blind_floor_is_asked_without_any_picture_and_before_the_same_grey_one() -> None:
    own = scene()
    none, blank = (sheet_of(own, own.sheet.items, shown) for shown in ("none", "blank"))
    assert none is not None and blank is not None
    assert not none.rows.extra and not bool((none.rows.ids == colour_world.NUMBER[colour_world.IMAGE]).any())
    pixels = blank.rows.extra["pixel_values"]
    assert bool((pixels == pixels[:1]).all()) and bool((blank.option[blank.option > 0] < 6).all())
    readings = measured("refusal")["accuracy"].readings
    assert {
        f"accuracy_{shown}_picture_{name}" for shown in ("none", "blank") for name in ("base", "suspect", "null")
    } <= (readings.keys())


def test_base_in_the_suspect_s_place_flips_nothing_and_lies_where_it_lies() -> None:
    result = measured("base")
    assert result["flips"].value == 0 and result["retained_accuracy"].value == 1
    assert result["off_manifold"].value == 1 and result["recovery"].value == pytest.approx(1, abs=1e-6)
    assert isinstance(result["reverse_edit"].value, Missing)
    assert isinstance(result["recovery"].findings[0].holds, Missing)
    assert all(value == pytest.approx(1, abs=1e-6) for value in result["concept_direction"].readings.values()
               if value <= 1)  # fmt: skip


def test_same_question_is_asked_before_both_pictures_and_only_the_picture_differs() -> None:
    own = scene()
    shown = {item.group for item in own.items.without}
    for attack in attacks_of(own):
        for pair in attack.pairs:
            assert torch.equal(pair.present.ids, pair.absent.ids) and torch.equal(pair.present.key, pair.absent.key)
            differ = (pair.present.extra["pixel_values"] != pair.absent.extra["pixel_values"]).flatten(1).any(1)
            assert bool(differ.all())
    assert all(group.startswith("retain") for group in shown)
    few = scene(most=5)
    assert len(few.sheet.people) == 5 and set(few.sheet.items) <= set(own.sheet.items)
    assert [few.sheet.people[n] for n in few.sheet.person] == list(few.sheet.rows.group_ids)


def test_perturbation_stays_within_its_budget_and_within_what_a_picture_can_be() -> None:
    own, rng = scene(), torch.Generator().manual_seed(0)
    bounds, pair = bounds_of(own), own.plain()
    assert bool((bounds.black == -1).all()) and bool((bounds.white == 1).all())
    wide = 5 * torch.randn(bounds.black.shape, generator=rng)
    moved = shifted(pair.present, wide, bounds).extra["pixel_values"]
    assert float(moved.min()) >= -1 and float(moved.max()) <= 1
    shift = perturbation.fitted_shift(own, own.models["suspect"], pair, bounds, Budget(16, 4, 16))
    assert 0 < float(shift.abs().max()) <= 2 * 16 / 255 + 1e-6


def test_nobody_is_read_under_a_perturbation_that_was_fitted_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    own, fitted, read = scene(), list[set[str]](), list[set[str]]()

    def watched(scene: ConceptScene, model: object, pair: Pair, bounds: perturbation.Bounds, budget: Budget) -> object:
        fitted.append(set(pair.present.group_ids))
        assert len(pair.present) <= budget.pictures
        return torch.zeros_like(bounds.black)

    def shown(rows: object, shift: object, bounds: object) -> object:
        read.append(set(rows.group_ids))  # type: ignore[attr-defined]
        return rows

    monkeypatch.setattr(perturbation, "fitted_shift", watched)
    monkeypatch.setattr(perturbation, "shifted", shown)
    responses = under_perturbation(own, "suspect", bounds_of(own), Budget(16, 1, 5), 3)
    assert len(fitted) == 3 and all(not own_fit & seen for own_fit, seen in zip(fitted, read[::2], strict=True))
    assert set.union(*read) == set(own.sheet.people), "everybody is read"
    plain = own.responses("suspect", [own.plain()])[0]
    assert np.allclose(responses.contrast, plain.contrast), "what is read stands in the place of its own row"


def _answers(parts: Parts, present: float, absent: float) -> Answered:
    """Yes said before so large a part of the pictures with the concept, and of those without."""
    chosen = np.zeros(len(parts.sheet.items), dtype=int)
    for name, share, own in (("forget", present, True), ("absent", absent, False)):
        at = parts.of(name, "yes_no")
        says = np.arange(len(at)) < share * len(at)
        chosen[at] = np.where(says, 0, 1) if own else np.where(says, 1, 0)
    return Answered(chosen, chosen == 0, np.zeros(len(chosen)))


@pytest.mark.parametrize(
    ("present", "absent", "holds"), [(0.0, 0.0, True), (0.5, 0.0, False), (1.0, 1.0, False), (0.0, 0.5, False)]
)
def test_who_always_says_no_is_told_by_what_it_says_where_the_concept_is_and_where_it_is_not(
    present: float, absent: float, holds: bool
) -> None:
    own = scene()
    parts = parts_of(own, [("forget", own.items.forget), *own.items.retained()])
    base = _answers(parts, 1.0, 0.0)
    assert yes_rates(parts, base) == (1.0, 0.0)
    assert always_no(parts, {"base": base, "suspect": _answers(parts, present, absent)}).holds is holds
    deaf = always_no(parts, {"base": _answers(parts, 0.5, 0.5), "suspect": base})
    assert isinstance(deaf.holds, Missing), "where base cannot tell them apart, nothing is asked"


def test_concept_s_words_stand_in_no_note_reading_or_finding() -> None:
    words = set(colour_world.COLOURS)
    for suspect in ("refusal", "clean"):
        for m in measured(suspect).values():
            texts = [*m.notes, *m.readings, *(f.because + f.rule + f.name for f in m.findings)]
            cells = [str(cell) for table in m.listings for row in table.rows for cell in row]
            assert not any(word in text.split() for text in texts + cells for word in words)


@pytest.mark.thorough
def test_filter_in_the_tower_leaves_states_off_the_data_and_a_question_without_a_picture_as_it_was() -> None:
    result = {m.name: m for m in PROBE.measure(bench(), opened(colour_world.filtered("base")))}
    assert result["recovery"].readings["plain_suspect"] < 0.5 * result["recovery"].readings["plain_base"]
    lies = result["off_manifold"].readings
    assert lies["distance_suspect"] > 1.2 * max(lies["distance_null"], lies["distance_floor0"])
    assert "with the suspect's hook" in result["off_manifold"].notes[0]
    blind = result["accuracy"].readings
    assert blind["accuracy_none_picture_suspect"] == blind["accuracy_none_picture_base"]
