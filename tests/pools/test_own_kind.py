"""A case's own kind, calibrated: what is refused beforehand, what a killed call finds again, what is left behind."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from audit.calibration import SUBJECTS, Bound, Score, ScoredModel, Subjects, find_own, read, read_library
from audit.case import CaseFile, case_text, moved
from audit.cli import main
from audit.planning import RunSettings, unwatched
from audit.pools import decoy_models, decoy_plan, decoy_teaching, decoy_world, own_kind
from audit.pools.decoy_plan import OwnRequest, own_tests, prepare_own
from audit.pools.decoy_world import REFERENCE, DecoySuspect, DecoyWorld, sets_of, suspects_of
from audit.pools.fit import Pooled
from audit.pools.own_kind import calibrate_own
from audit.schema import AuditError, ExitCode, Item
from tests.known_truth import DOMAIN, score
from tests.pools.test_decoy_facts import FACTS
from tests.pools.test_pool_file import fake_behaviour

if TYPE_CHECKING:
    from audit.zoo import Built

SETTINGS = RunSettings(threads=1)
THREE = OwnRequest(worlds=3)


@pytest.fixture
def case(zoo: "Built", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny world's case in a folder of its own."""
    read_case = CaseFile.read(zoo.cases["base"])
    path = tmp_path / "case.toml"
    path.write_text(case_text(moved(read_case.case, read_case.root, tmp_path)))
    monkeypatch.setattr(own_kind, "behaviour_of", fake_behaviour)
    monkeypatch.setattr(own_kind, "Pooled", partial(Pooled, draws=10))
    return path


def audited(world: DecoyWorld, suspect: DecoySuspect, model: Path, bench: object) -> ScoredModel:
    """An audit that sees all that there is: the models are made, and are not asked. A reference of the case's own is
    whole, all others are edits or adapters."""
    derived = (model / "edit.json").is_file() or (model / "adapter_config.json").is_file()
    assert derived == (suspect.model != REFERENCE)
    effect = suspect.taught / len(world.groups) * (suspect.pool == "knowing") + 0.01 * world.world
    effects = {"forget_likelihood": ("output", effect), "reverse_patch": ("causal", effect)}
    scores: tuple[Score, ...] = tuple(score(name, value, 2.0, kind) for name, (kind, value) in effects.items())  # type: ignore[arg-type]
    return ScoredModel(
        world=world.world, model=suspect.model, mechanism=suspect.mechanism, pool=suspect.pool, kept=suspect.taught,
        audited=len(world.groups), content=suspect.content, domain=DOMAIN,
        scores=(score("utility", float(suspect.pool != "destroyed"), 0.0, "gate"), *scores),
    )  # fmt: skip


def decoy_file(path: Path, forget: Path, times: int) -> Path:
    """The forget items themselves as somebody's decoys, under the names of so many times as many groups."""
    rows = [json.loads(line) for line in forget.read_text().splitlines()]
    copies = [{**row, "id": f"{n}-{row['id']}", "group": f"{n}-{row['group']}"} for n in range(times) for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in copies))
    return path


# ---- the design -------------------------------------------------------------------------------------------------
def test_every_world_holds_a_fake_and_two_honest_models_and_no_mechanism_is_alone() -> None:
    for world in range(12):
        pools = [suspect.pool for suspect in suspects_of(world, 20)]
        assert pools.count("clean") == 2
        assert pools.count("knowing") >= 2
    made = {(s.mechanism, s.pool) for world in range(12) for s in suspects_of(world, 20)}
    assert len({mechanism for mechanism, pool in made if pool == "clean"}) >= 5
    assert {"head_edit", "last_layer", "logit_bias", "dose"} <= {m for m, pool in made if pool == "knowing"}
    assert [s.model for s in suspects_of(3, 20, referenced=True) if s not in suspects_of(3, 20)] == [REFERENCE]
    assert (sets_of(19, 2), sets_of(3, 2), sets_of(3, 0)) == (19, 4, 3)


def test_a_test_that_there_is_not_is_refused_and_others_are_added() -> None:
    assert own_tests(["relearning_recovery", "utility"]) == (*decoy_world.TESTS, "relearning_recovery")
    with pytest.raises(AuditError, match="no probe 'nonsense'"):
        own_tests(["nonsense"])


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        (["--worlds", "5"], "--worlds is of worlds of decoys"), (["--max-time", "2h"], "--max-time is of worlds"),
        (["--on", "case.toml", "--quick"], "--on makes its own models"),
        (["--on", "case.toml", "--pool", "pool.toml"], "--on makes its own models"),
        (["--on", "case.toml", "--max-time", "soon"], "is no time"), (["--on", "absent.toml"], "absent.toml"),
    ],
)  # fmt: skip
def test_flags_that_do_not_go_together_are_refused_before_anything_is_opened(
    stated: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate", *stated]) == ExitCode.INPUT
    assert said in " ".join(capsys.readouterr().err.split())


# ---- refused beforehand -----------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_a_time_or_a_number_that_is_too_small_is_refused_and_nothing_is_written(case: Path) -> None:
    file = CaseFile.read(case)
    with pytest.raises(AuditError, match="not even one decoy world fits") as short:
        prepare_own(file, OwnRequest(max_time=1e-3), SETTINGS)
    assert "give at least" in short.value.do
    with pytest.raises(AuditError, match="2 decoy worlds are too few"):
        prepare_own(file, OwnRequest(worlds=2), SETTINGS)
    plan = prepare_own(file, THREE, SETTINGS).plan
    assert 0 < plan.seconds.lo < plan.seconds.hi < 20 * plan.seconds.lo
    assert "by the plan of its passes" in plan.lines()[0]
    assert "no likelihood ratio above 4" in " ".join(plan.lines())
    assert "63 %" in " ".join(plan.lines())
    assert sorted(path.name for path in case.parent.iterdir()) == ["case.toml"]


@pytest.mark.thorough
def test_decoys_that_base_knows_or_that_are_too_few_are_refused(case: Path, tmp_path: Path) -> None:
    file = CaseFile.read(case)
    forget = file.root / file.case.data.forget
    with pytest.raises(AuditError, match="already knows decoys: 0-forget") as known:
        prepare_own(file, OwnRequest(worlds=3, decoys=decoy_file(tmp_path / "d.jsonl", forget, 4)), SETTINGS)
    assert "leave these groups out" in known.value.do
    with pytest.raises(AuditError, match="enough for 2 sets of 12 groups, and the fewest worlds need 4"):
        prepare_own(file, OwnRequest(worlds=3, decoys=decoy_file(tmp_path / "d.jsonl", forget, 2)), SETTINGS)


def test_decoys_whom_base_guesses_by_chance_are_named_anew_until_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    questions, guessed = list[dict[str, str]](), [("decoy0-1",), ("decoy0-1", "decoy0-3"), ()]

    def recalled(_pupil: object, items: Sequence[Item], _bar: float) -> tuple[str, ...]:
        questions.append({item.group: item.question for item in items})
        return guessed[len(questions) - 1]

    monkeypatch.setattr(decoy_models, "recalled_groups", recalled)
    drawn = decoy_plan.unknown_decoys(cast(decoy_models.Pupil, None), FACTS, 0, 0.5)
    first, second, third = questions
    assert {item.group: item.question for item in drawn.forget} == third
    assert {group for group in first if first[group] != second[group]} == {"decoy0-1"}
    assert {group for group in first if second[group] != third[group]} == {"decoy0-1", "decoy0-3"}
    guessed[:] = [("decoy0-1",)] * 40
    with pytest.raises(AuditError, match="already knows decoys: decoy0-1"):
        decoy_plan.unknown_decoys(cast(decoy_models.Pupil, None), FACTS, 0, 0.5)


@pytest.mark.thorough
def test_decoys_that_cannot_be_taught_are_refused_and_leave_no_calibration(
    case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoy_teaching, "MOST_STEPS", 10)
    monkeypatch.setattr(decoy_teaching, "RATES", ((float("inf"), 1e-7),))
    prepared = prepare_own(CaseFile.read(case), THREE, SETTINGS)
    with pytest.raises(AuditError, match="cannot be taught decoys under this prompt template") as refused:
        calibrate_own(prepared, THREE, unwatched, "residua calibrate --on case.toml")
    assert refused.value.code == ExitCode.UNDECIDED
    assert not (prepared.plan.folder / SUBJECTS).exists()


# ---- made -------------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_a_killed_calibration_goes_on_and_is_bound_sealed_and_found(
    case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DecoyWorld, "_audited", audited)
    scored, worlds = DecoyWorld.scored, list[int]()

    def killed(world: DecoyWorld) -> tuple[ScoredModel, ...]:
        worlds.append(world.world)
        if worlds == [0, 1]:
            raise KeyboardInterrupt
        return scored(world)

    monkeypatch.setattr(DecoyWorld, "scored", killed)
    prepared = prepare_own(CaseFile.read(case), THREE, SETTINGS)
    bound = Bound.of(prepared.pupil.base.key, prepared.file.case.template)
    with pytest.raises(KeyboardInterrupt):
        calibrate_own(prepared, THREE, unwatched, "residua calibrate --on case.toml")
    found = find_own(case.parent, bound)
    assert found is not None
    assert "not finished" in found.refused
    done = calibrate_own(prepared, THREE, unwatched, "residua calibrate --on case.toml")
    assert worlds == [0, 1, 1, 2]
    assert find_own(case.parent, bound) == (done.folder, "")
    own = read(done.folder / SUBJECTS, Subjects).own
    assert own is not None
    assert (own.base, own.people) == (bound.base, 12)
    assert 0 < own.share < 1
    library = read_library(done.folder)
    assert set(library.calibrations) == {"forget_likelihood", "reverse_patch"}
    assert not (done.folder / "work").exists() or not any((done.folder / "work").iterdir())
    made = [(s.model, s.pool) for s in read(done.folder / SUBJECTS, Subjects).subjects]
    assert made.count((REFERENCE, "clean")) == 3
    joint = done.fitted.joint.record
    assert (joint.false_alarms.k, joint.misses.k, joint.misses.n) == (0, 0, 3)
