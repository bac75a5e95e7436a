"""Worlds grow by what comes later, and statistics are computed again from people: what stands, stands."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy import ndarray

from audit.calibration import InstalledBehaviours, Score, ScoredModel, WorldScores, read_world, world_path, write_world
from audit.edits import GradDiff, LastLayer
from audit.engine import runner
from audit.pools import add_members, add_probe, panels, reassessment, schedule, score_world
from audit.pools.panel_file import Assessed, add_panels, panels_path, read_panels, write_panels
from audit.pools.reassessment import assessed_again, assessed_of
from audit.probing import Design, Panel, Recorded, Sides, assess, recording
from audit.schema import AuditError
from audit.zoo import Drawn, mechanisms, population
from audit.zoo.mechanisms import Mechanism
from tests.known_truth import World, simulated
from tests.planted import ASSESSED, planted_behaviour, planted_package, write_probe
from tests.pools.test_zoo_pools import MICRO, micro


def _few() -> Drawn:
    """The micro world with three members."""
    drawn = micro()
    return drawn._replace(share=drawn.share._replace(mechanisms=(), of_facts=(), crossed=()))


def _grown() -> Drawn:
    """The same with two mechanisms dealt to it later."""
    drawn = _few()
    return drawn._replace(share=drawn.share._replace(added=("last_later", "npo_later")))


@pytest.fixture
def _kit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The micro kit, with two mechanisms that came later."""
    later = {
        "last_later": Mechanism("fake", LastLayer(steps=6, batch=16), later=True),
        "npo_later": Mechanism("unlearner", GradDiff(steps=6, batch=16), later=True),
    }
    monkeypatch.setattr(mechanisms, "KIT", {"head_edit": MICRO["head_edit"]} | later)
    monkeypatch.setattr("audit.probing.recollection.RECALL_LIFT", -1.0)


@pytest.fixture
def _package(_kit: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Two probes with planted numbers, one of them assessed over people."""
    with planted_package(tmp_path, f"planted_{tmp_path.name.replace('-', '_')}") as package:
        for name in ("causal", "decoding"):
            (package / f"{name}.py").unlink()
        write_probe(package, "context_people", body=ASSESSED.replace("{name}", "context_people"))
        monkeypatch.setattr(score_world, "PROBES", package.name)
        monkeypatch.setattr(score_world, "behaviours", lambda name, _="": InstalledBehaviours(name, planted_behaviour))
        yield package


@pytest.fixture
def _places(tmp_path: Path) -> score_world.Places:
    return score_world.Places(
        tmp_path / "models", tmp_path / "work", tmp_path / "scores", panels=tmp_path / "panels"
    )  # fmt: skip


def _quiet(_: str) -> None: ...


@pytest.mark.thorough
@pytest.mark.usefixtures("_package")
def test_members_that_come_later_are_audited_alone_and_put_where_a_whole_scoring_puts_them(
    _places: score_world.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after, measured = _few(), _grown(), list[str]()
    path = score_world.score_world(before, _places, _quiet)
    standing, people = read_world(path), panels_path(_places.panels, before.world)  # type: ignore[arg-type]
    assert not add_members.lacking_members(path, before) and not score_world.is_current(path, after)
    new = ("last_later", "npo_later", "npo_later_of_others", "npo_later_of_facts")
    assert add_members.lacking_members(path, after) == new
    assert add_probe.addable(path, after) == (), "no probe has come, members have"
    report = runner.Run.report
    monkeypatch.setattr(
        runner.Run, "report", lambda self: (measured.append(self.case.case.name), report(self))[1]
    )  # fmt: skip
    assert add_members.add_members(after, _places, _quiet) == path
    assert measured == list(new), "what was measured is not measured again"
    grown = read_world(path)
    assert [m.model for m in grown.models] == [m.model for m in population(after).members]
    assert tuple(m for m in grown.models if m.model not in new) == standing.models
    assert score_world.is_current(path, after) and not list(_places.work.glob("*"))
    kept = read_panels(people)
    assert set(kept) == {m.model for m in grown.models} and all(kept.values())
    bytes_now = path.read_bytes()
    assert add_members.add_members(after, _places, _quiet) == path and path.read_bytes() == bytes_now
    path.unlink()
    whole = read_world(score_world.score_world(after, _places, _quiet))
    assert whole.models == grown.models and whole.recipe == grown.recipe and whole.behaviours == grown.behaviours
    assert len(measured) == len(new) + len(whole.models)


@pytest.mark.usefixtures("_kit")
def test_a_world_is_added_to_only_where_all_that_is_there_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after, path = _grown(), tmp_path / "world-0007.json"
    monkeypatch.setattr(score_world, "standing", lambda _: {"one", "two"})
    monkeypatch.setattr(score_world, "measuring", lambda _: {"one": None, "two": None})
    assert add_members.lacking_members(path, after) == ()

    def written(**other: object) -> tuple[str, ...]:
        models = tuple(_scored(member.model) for member in population(_few()).members)
        scores = WorldScores(
            world=7, recipe=_few().recorded(), stages_cpu_s={}, models=models, behaviours={"one": "1", "two": "2"}
        )
        write_world(path, scores.model_copy(update=other))
        return add_members.lacking_members(path, after)

    assert len(written()) == 4
    assert written(behaviours={"one": "1"}) == () == written(behaviours={"one": "1", "two": "2", "three": "3"})
    assert written(recipe={**_few().recorded(), "d": 33}) == ()
    assert written(recipe={**_few().recorded(), "added": "gone"}) == (), "what was dealt and is gone is no addition"
    assert len(written(recipe={**_few().recorded(), "added": "last_later"})) == 4
    assert written(models=(_scored("stranger"),)) == () == written(models=(_scored("head_edit"), _scored("base")))
    assert len(written(models=())) == len(population(after).members)


def _scored(name: str) -> ScoredModel:
    return simulated(7, World()).models[0].model_copy(update={"model": name})


@pytest.mark.thorough
@pytest.mark.usefixtures("_package")
def test_the_schedule_adds_probes_then_members_and_scores_no_world_anew(
    _places: score_world.Places, _package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_world.score_world(_few(), _places, _quiet)
    write_probe(_package, "context_later", value=0.5)
    monkeypatch.setattr(schedule, "draw", lambda _: _grown())
    monkeypatch.setattr(score_world, "score_world", None)
    path = schedule.one_world(7, _places, {})
    grown = read_world(path)
    assert score_world.is_current(path, _grown()) and "context_later" in grown.behaviours
    assert all({"context_later", "context_people"} <= {s.probe for s in m.scores} for m in grown.models)


# ---- people are kept, and statistics computed again ------------------------------------------------------------
@pytest.mark.thorough
@pytest.mark.usefixtures("_package")
def test_assessed_again_right_after_scoring_nothing_changes_and_with_other_statistics_only_what_was_assessed(
    _places: score_world.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = score_world.score_world(_few(), _places, _quiet)
    assert _places.panels is not None
    before, as_scored = read_world(path), path.read_bytes()
    assert panels.restat(7, _places.scores, _places.panels) == path and path.read_bytes() == as_scored
    assert panels.reword(7, _places.scores) == path and path.read_bytes() == as_scored
    with monkeypatch.context() as other_ladder:
        other_ladder.setattr(panels, "word_of", lambda *_: "INVALID")
        panels.reword(7, _places.scores)
    assert {m.verdict for m in read_world(path).models} == {"INVALID"}
    monkeypatch.setattr(reassessment, "assess", lambda panel, design: assess(panel, design)._replace(p=0.77))
    panels.restat(7, _places.scores, _places.panels)
    after = read_world(path)
    changed = {
        (new.name, field)
        for old_model, new_model in zip(before.models, after.models, strict=True)
        for old, new in zip(old_model.scores, new_model.scores, strict=True)
        for field in Score.model_fields
        if getattr(old, field) != getattr(new, field)
    }
    assert changed == {("shift", "p")}
    with pytest.raises(AuditError, match="panels are kept while a world is scored"):
        panels.restat(7, _places.scores, _places.panels / "elsewhere")


def _panel(seed: int, people: int = 12) -> Panel:
    rng = np.random.default_rng(seed)

    def sides(level: float) -> Sides:
        return Sides(level + rng.normal(size=(people, 3)), rng.normal(size=(6, 3)))

    return Panel(sides(1.0), sides(2.0), sides(0.0), (sides(0.0),))


def _recorded(seed: int = 0, **how: float) -> tuple[Recorded, Score]:
    design = Design(seed, 0.5, draws=99, name="lens.effect")._replace(**how)
    with recording() as records:
        result = assess(_panel(seed), design)
    blank = next(s for s in simulated(7, World()).models[0].scores if (s.probe, s.name) == ("lens", "effect"))
    return records[0], Score.of(result.onto(blank.restored().model_copy(update={"readings": {"own": 2.0}})))


def test_what_a_probe_put_in_place_of_an_assessed_number_stays() -> None:
    record, score = _recorded()
    kept = assessed_of([record], [score])["lens.effect"]
    assert set(kept.fields) == set(Score.model_fields) and "own" not in kept.readings
    assert assessed_again(score, kept).score == score
    other = score.model_copy(update={"p": 0.77, "readings": score.readings | {kept.readings[0]: 5.0}})
    fewer = assessed_of([record], [other])["lens.effect"]
    assert set(kept.fields) - set(fewer.fields) == {"p", "readings"}
    assert assessed_again(other, fewer).score == other


def test_of_several_assessments_under_one_name_the_one_that_the_score_follows_is_kept() -> None:
    record, score = _recorded()
    control = record._replace(panel=record.panel._replace(suspect=record.panel.base), result=_recorded(1)[0].result)
    for order in ([record, control], [control, record]):
        assert assessed_of(order, [score])["lens.effect"].panel is record.panel
    assert assessed_of([record._replace(design=record.design._replace(name="no.such"))], [score]) == {}


ARRAYS = npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=4))


@settings(max_examples=40, deadline=None)
@forall(arrays=st.lists(ARRAYS, min_size=3, max_size=3), seed=st.integers(0, 2**40), turned=st.booleans())
def test_panels_come_back_bit_for_bit_from_their_file(
    tmp_path_factory: pytest.TempPathFactory, arrays: list[ndarray], seed: int, turned: bool
) -> None:
    suspect, base, null = (Sides(x.T if turned else x, None if n else x) for n, x in enumerate(arrays))
    kept = Assessed(Panel(suspect, base, null, (null, base)), Design(seed, 0.1, name="a.b"), ("p",), ("people",))
    path = tmp_path_factory.mktemp("panels") / "world-0001.npz"
    write_panels(path, {"one": {"a.b": kept}, "two": {"a.b": kept, "c.d": kept}, "none": {}})
    again = read_panels(path)
    assert list(again) == ["one", "two", "none"] and list(again["two"]) == ["a.b", "c.d"] and again["none"] == {}
    for found in (again["one"]["a.b"], again["two"]["c.d"]):
        assert found[1:] == kept[1:]
        for old, new in zip(_arrays(kept.panel), _arrays(found.panel), strict=True):
            assert (old is None) == (new is None)
            if old is not None and new is not None:
                assert old.tobytes("A") == new.tobytes("A") and old.shape == new.shape and old.dtype == new.dtype
                assert old.flags.c_contiguous == new.flags.c_contiguous


def _arrays(panel: Panel) -> list[ndarray | None]:
    return [part for sides in (panel.suspect, panel.base, panel.null, *panel.floors) for part in sides]


def test_what_every_model_shares_is_stored_once_and_panels_are_added_to(tmp_path: Path) -> None:
    panel, path = _panel(0, people=400), tmp_path / "world-0001.npz"

    def kept(suspect: int) -> Assessed:
        return Assessed(panel._replace(suspect=_panel(suspect, people=400).suspect), Design(0, 0.1), (), ())

    write_panels(path, {"0": {"a": kept(0)}})
    alone = path.stat().st_size
    add_panels(path, {str(n): {"a": kept(n)} for n in range(1, 5)})
    assert path.stat().st_size < 2.2 * alone, "four more suspects, and no second copy of the rest"
    add_panels(path, {"0": {"b": kept(9)}})
    assert list(read_panels(path)["0"]) == ["a", "b"] and len(read_panels(path)) == 5


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"x" + b, lambda b: b"{}"])
def test_panels_that_cannot_be_read_are_a_fault_of_the_file(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "world-0001.npz"
    write_panels(path, {"one": {"a": Assessed(_panel(0), Design(0, 0.1), (), ())}})
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(AuditError, match="holds no panels") as error:
        read_panels(path)
    assert error.value.code == 3


@pytest.mark.thorough
def test_a_killed_audit_is_begun_again_so_that_no_person_is_lost(
    _package: Path, _places: score_world.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = score_world.write_panels, list[Path]()

    def broken(path: Path, kept: dict[str, dict[str, Assessed]]) -> None:
        if not killed:
            killed.append(path)
            raise KeyboardInterrupt
        whole(path, kept)

    monkeypatch.setattr(score_world, "write_panels", broken)
    with pytest.raises(KeyboardInterrupt):
        score_world.score_world(_few(), _places, _quiet)
    path = score_world.score_world(_few(), _places, _quiet)
    assert _places.panels is not None
    kept = read_panels(panels_path(_places.panels, 7))
    assert all(list(kept[m.model]) == ["context_people.shift"] for m in read_world(path).models)
    assert world_path(_places.scores, 7) == path
