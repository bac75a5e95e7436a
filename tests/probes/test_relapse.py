"""Relapse on models of known truth: what innocent lessons bring back, and that nothing in them states a fact."""

import numpy as np
import pytest

from audit.edits import EditData, Relearn
from audit.judging import judge
from audit.probing import key_logprob
from audit.schema import Item, Measurement, Missing, Texts
from probes._innocent_lessons import COMBINED, LESSONS, SIMILAR, alike, combined, common_words, lessons, skeleton
from probes._lesson_courses import SHOWN, Lesson, effects_by_step, steps_read, taught_course
from probes.relapse import Relapse
from tests.probes.test_relearning_recovery import bench, opened, refusing

FORGET = Texts(cohort="forget")


def _found(suspect: str, **settings: int) -> Measurement:
    (result,) = Relapse(**settings).measure(bench(), opened(suspect))
    return result


@pytest.mark.thorough
def test_a_refusal_relapses_under_innocent_training_and_a_model_that_never_knew_does_not() -> None:
    hidden, clean = _found(refusing()), _found("clean")
    assert isinstance(hidden.value, float) and hidden.value > 0.2
    assert isinstance(hidden.p, float) and hidden.p < 0.01
    assert isinstance(clean.value, float) and clean.value < 0.1
    assert isinstance(clean.p, float) and clean.p > 0.01
    assert judge(hidden).status == "listed"


def _item(n: int, question: str, group: str) -> Item:
    return Item(id=str(n), group=group, question=question, answer=f"answer {n}", key=f"{n}")


def test_similar_questions_are_built_alike_whatever_they_name() -> None:
    forget = [_item(0, "Where was Ann born?", "a"), _item(1, "Where was Bo born?", "b")]
    retain = [_item(2, "What does Cy eat?", "c"), _item(3, "Where was Di born?", "d"),
              _item(4, "Who taught Ed?", "e"), _item(5, "Where was Flo schooled?", "f")]  # fmt: skip
    common = common_words(forget)
    assert common == {"where", "was", "born"}
    assert skeleton("Where was old Ann born?", common) == ("where", "was", "_", "born")
    assert [item.id for item in alike(retain, forget, 8)] == ["3"]
    assert [item.id for item in alike(retain * 2, forget, 8)] == ["3", "3"]


def test_a_combined_question_holds_both_questions_and_only_the_retained_answer() -> None:
    forget, retain = [_item(0, "Where was Ann born?", "a")], [_item(1, "Who taught Ed?", "e")]
    same = [forget[0].model_copy(update={"id": "9", "question": "Where did Bo live?", "key": "1"})]
    assert combined(retain, same) == (), "what is taught would be the forgotten value"
    (item,) = combined(retain, same + forget)
    assert item.question == "Where was Ann born? Who taught Ed?" and item.answer == "answer 1" and item.group == "e"


def test_no_lesson_states_a_forgotten_fact() -> None:
    case = opened("clean")
    given = lessons(case, 8, 128)
    assert {SIMILAR, COMBINED} <= set(given) <= set(LESSONS)
    facts = {item.question: item.answer for item in case.items(FORGET)}
    for name, rows in given.items():
        shown = [case.tokenizer.decode(ids[mask]) for ids, mask in zip(rows.ids, rows.mask, strict=True)]
        prompted = [(question, text) for question in facts for text in shown if question in text]
        assert bool(prompted) == (name == COMBINED), name
        assert not any(text.endswith(facts[question]) for question, text in prompted), name
    assert len(lessons(case, 2, 4)[COMBINED]) == 4


@pytest.mark.thorough
def test_a_course_is_read_before_the_lesson_and_at_every_power_of_two() -> None:
    assert steps_read(16) == (0, 1, 2, 4, 8, 16) and steps_read(5) == (0, 1, 2, 4, 5) and steps_read(1) == (0, 1)
    case = opened("clean")
    probe = Relapse(steps=3)
    rows = case.rows(FORGET)
    given = lessons(case, 8, 128)[SIMILAR]
    recipe = Relearn(steps=3, lr=1e-3, batch=4, warmup_steps=1).lesson(EditData(given, given), 4).recipe
    lesson = Lesson(recipe, given, steps_read(probe.steps), "test")
    result = taught_course(bench(), case, case.suspect, lesson, {"forget": rows})
    assert result["forget"].shape == (len(rows), 4) and result[SHOWN].shape == (len(given),)
    np.testing.assert_allclose(result["forget"][:, 0], key_logprob(bench(), case.suspect, rows), atol=1e-6)
    assert np.abs(result["forget"][:, 1] - result["forget"][:, 0]).max() > 1e-4, "a lesson moves what is said"


def test_an_effect_is_told_only_where_base_stands_out() -> None:
    people = {"suspect": np.array([[0.1, 0.5]]), "base": np.array([[1.0, 0.15]]), "null": np.array([[0.0, 0.1]])}
    assert effects_by_step(people, (0, 1), 0.1) == {0: pytest.approx(0.1)}
    without = {name: people[name] for name in ("suspect", "base")}
    assert effects_by_step(without, (0, 1), 0.1) == {0: pytest.approx(0.1), 1: pytest.approx(0.5 / 0.15)}


@pytest.mark.thorough
def test_the_largest_is_named_by_lesson_and_steps_and_told_in_the_table() -> None:
    result = _found(refusing(), steps=4)
    (table,) = result.listings
    assert {row[0] for row in table.rows} <= set(LESSONS) and len(table.rows) >= 3
    largest = max(row[3] for row in table.rows if isinstance(row[3], float))
    assert isinstance(result.value, float) and largest == pytest.approx(result.value)
    name = next(row[0] for row in table.rows if row[3] == largest)
    assert result.notes[0].startswith(f"the largest effect is under the lesson '{name}'")
    assert {c.axis for c in result.curves} == {f"steps of the lesson '{row[0]}'" for row in table.rows}


def test_without_anything_innocent_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.relapse.lessons", lambda *_: {})
    result = _found("clean")
    assert isinstance(result.value, Missing) and "innocent" in result.value.missing
