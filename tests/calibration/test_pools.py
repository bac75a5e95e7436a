"""Scores of models of known truth: what is kept of a measurement, and that a world's file is read back as written."""

from pathlib import Path

import pytest

from audit.calibration import Score, ScoredModel, WorldScores, read_pool, world_path, write_world
from audit.schema import AuditError, Control, Count, Domain, Interval, Measurement, Missing, Overall, PeopleKept, Power

GONE = Missing(missing="not measured")
DOMAIN = Domain(
    architecture="llama", parameters=1000, blocks=2, d=8, vocabulary=100, forget_people=16, null="reference",
    references=2, control_effect=0.8,
)  # fmt: skip


def measurement(found: bool) -> Measurement:
    return Measurement(
        probe="asked", name="effect", kind="causal", statistic="s", value=0.123456789, unit="effect",
        scale="effect", ci95=Interval(lo=-0.000123456789, hi=1 / 3), n=Count(scored=16),
        unit_of_replication="person", units=16, seed=0,
        p=1 / 3, p_below=GONE, null=GONE, positive_control=Control(value=1.0, ci95=GONE, found=found), floor=2 / 3,
        overall=Overall(value=1 / 7, ci95=Interval(lo=1 / 7, hi=2 / 7), floor=GONE), items=GONE,
        readings={"largest_person": 1 / 9},
    )  # fmt: skip


def world(number: int) -> WorldScores:
    scored = ScoredModel(
        world=number, model="base", mechanism="base", pool="knowing", kept=16, audited=16, domain=DOMAIN,
        scores=(Score.of(measurement(True)),),
    )  # fmt: skip
    return WorldScores(
        world=number, recipe={"lr": 0.1}, stages_cpu_s={"train": 1.0}, behaviours={"asked": "0" * 64}, models=(scored,)
    )


def test_a_score_keeps_the_numbers_to_five_digits_and_what_is_missing() -> None:
    score = Score.of(measurement(True))
    assert score.value == 0.12346 and score.p == 0.33333 and score.floor == 0.66667
    assert score.ci95 == Interval(lo=-0.00012346, hi=0.33333)
    assert score.overall == Overall(value=0.14286, ci95=Interval(lo=0.14286, hi=0.28571), floor=GONE)
    assert score.p_below == GONE and score.control_found and score.readings == {"largest_person": 0.11111}
    assert not Score.of(measurement(False)).control_found
    assert not Score.of(measurement(True).model_copy(update={"positive_control": GONE})).control_found


def test_a_score_keeps_power_and_people_and_names_only_those_it_may() -> None:
    power = Power(share=1 / 3, people=GONE, of=32, power=0.8)
    people = PeopleKept(kept=1 / 3, ci95=Interval(lo=0, hi=1 / 3), level=2 / 3, log10_ratio=1 / 7, named=("x", "y"),
                        fdr=0.05, of=32)  # fmt: skip
    measured = measurement(True).model_copy(update={"power": power, "people": people})
    score = Score.of(measured, {"y": "forget-003"})
    assert score.power == Power(share=0.33333, people=GONE, of=32, power=0.8)
    assert score.people == PeopleKept(kept=0.33333, ci95=Interval(lo=0, hi=0.33333), level=0.66667, log10_ratio=0.14286,
                                      named=("forget-003",), fdr=0.05, of=32)  # fmt: skip
    assert isinstance(told := Score.of(measured).people, PeopleKept) and told.named == ()
    for apart in ({"kind": "context"}, {"form": "paraphrase"}, {"mode": "paper"}):
        other = Score.of(measured.model_copy(update=apart), {"y": "forget-003"})
        assert isinstance(other.power, Missing) and isinstance(other.people, Missing), apart
    assert (score.restored().power, score.restored().people) == (score.power, score.people)


def test_a_pool_is_read_back_as_written_and_in_the_order_of_its_worlds(tmp_path: Path) -> None:
    assert read_pool(tmp_path / "nowhere") == ()
    for number in (112, 100):
        write_world(world_path(tmp_path, number), world(number))
    assert read_pool(tmp_path) == (world(100), world(112))
    before = world_path(tmp_path, 100).read_bytes()
    write_world(world_path(tmp_path, 100), world(100))
    assert world_path(tmp_path, 100).read_bytes() == before


def test_a_broken_file_of_scores_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "world-0100.json").write_text('{"world": 100')
    with pytest.raises(AuditError, match=r"world-0100\.json") as raised:
        read_pool(tmp_path)
    assert raised.value.code == 3
