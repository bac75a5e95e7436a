"""Question, answer and group alone: alternates by rule let the lens and the cross-sequence probe find what is there."""

import json
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.engine.report_builder import cohorts
from audit.probing import ALPHA
from audit.schema import Control, Measurement, Number
from probes.answer_lens import AnswerLens
from probes.cross_sequence import CrossSequence
from probes.forget_likelihood import ForgetLikelihood
from tests import planted_world

COHORTS = ("forget", "retain", "holdout")
PLAIN = ("id", "group", "question", "answer", "form")
BARE = (*PLAIN, "perturbed_answers")


@cache
def bench() -> Bench:
    return Bench()


@cache
def files(fields: tuple[str, ...]) -> dict[str, str]:
    """The planted world's data with these fields alone, as files beside it."""
    root, names = planted_world.root(), {}
    for cohort in COHORTS:
        lines = map(json.loads, (root / f"{cohort}.jsonl").read_text().splitlines())
        names[cohort] = f"{len(fields)}_fields_{cohort}.jsonl"
        kept = [json.dumps({field: line[field] for field in fields}) for line in lines]
        (root / names[cohort]).write_text("\n".join(kept))
    return names


def opened(
    suspect: str, fields: tuple[str, ...] = PLAIN, references: Sequence[str] = ("null", "floor"), holdout: bool = True
) -> OpenCase:
    case = planted_world.case(suspect, references=references, holdout=holdout)
    names = {cohort: name for cohort, name in files(fields).items() if holdout or cohort != "holdout"}
    case = case.model_copy(update={"data": case.data.model_copy(update=names)})
    return open_case(case, planted_world.root(), Path(tempfile.mkdtemp(dir=planted_world.root())))


def number(value: Number) -> float:
    assert isinstance(value, float)
    return value


def is_found(measurement: Measurement) -> bool:
    """Is base found by the same test?"""
    return isinstance(measurement.positive_control, Control) and measurement.positive_control.found


@cache
def lens(suspect: str, fields: tuple[str, ...] = PLAIN) -> Measurement:
    (found,) = AnswerLens().measure(bench(), opened(suspect, fields))
    return found


@cache
def direction(suspect: str) -> Measurement:
    return CrossSequence(swaps=99, battery=False).measure(bench(), opened(suspect))[0]


@pytest.mark.thorough
@pytest.mark.parametrize("of", [lens, direction])
def test_base_is_found_and_a_model_that_never_knew_carries_no_trace(of: Callable[[str], Measurement]) -> None:
    base, clean = of("base"), of("clean")
    assert is_found(base) and is_found(clean) and min(base.n.scored, clean.n.scored) >= 12
    assert base.value == pytest.approx(1) and number(base.p) < ALPHA
    assert abs(number(clean.value)) < 0.25 and number(clean.p) > ALPHA


@pytest.mark.parametrize("of", [lens, direction])
def test_the_notes_say_where_the_alternates_came_from_and_how_many_did_not_hold_up(
    of: Callable[[str], Measurement],
) -> None:
    said = " ".join(of("clean").notes)
    assert "32 by question form" in said and "values of other people" in said
    assert "read by a model that never knew and base" in said and "left out" in said


def test_the_report_counts_the_items_whose_alternates_came_by_rule() -> None:
    found = cohorts(opened("clean"))
    assert found["forget"]["items_with_alternates_by_rule"] == 32 and "retain" in found
    given = planted_world.case("clean")
    own = open_case(given, planted_world.root(), Path(tempfile.mkdtemp(dir=planted_world.root())))
    assert all("items_with_alternates_by_rule" not in counts for counts in cohorts(own).values())


@pytest.mark.thorough
def test_perturbed_answers_without_a_paraphrased_one_stand_against_the_answer_itself() -> None:
    base, clean = lens("base", BARE), lens("clean", BARE)
    assert is_found(base) and base.n.scored == 32 and number(base.p) < ALPHA
    assert number(clean.p) > ALPHA, "its size is another matter: these perturbed answers are worded otherwise"
    assert any("answer itself" in note for note in clean.notes)
    pairs = CrossSequence(swaps=99, battery=False).measure(bench(), opened("base", BARE))[0]
    assert isinstance(pairs.value, float) and any("32 by perturbed" in note for note in pairs.notes)


@pytest.mark.parametrize("fields", [PLAIN, BARE])
def test_without_any_model_or_person_that_never_knew_the_likelihood_is_taken_over_them(fields: tuple[str, ...]) -> None:
    case = opened("base", fields, references=(), holdout=False)
    first = ForgetLikelihood().measure(bench(), case)[0]
    assert first.name == "probability" and first.value == pytest.approx(1) and first.readings["mean_base"] > 0.8
