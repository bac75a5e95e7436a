"""Decoys taught as adapters over one resident base: recalled as much, alone or together, and edited like any model."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from audit.case import CaseFile, case_text, moved
from audit.checkpoints import ADAPTER_CONFIG, resolve
from audit.planning import RunSettings, unwatched
from audit.pools import decoy_teaching, own_kind
from audit.pools.decoy_models import mean_of
from audit.pools.decoy_plan import OwnRequest, Prepared, prepare_own
from audit.pools.decoy_teaching import DecoyLesson, Teaching, find_teaching, form_for, teach
from audit.pools.decoy_world import DecoyWorld
from audit.pools.fit import Pooled
from audit.pools.own_kind import calibrate_own
from audit.schema import AuditError, ExitCode, Source
from tests.pools.test_own_kind import audited
from tests.pools.test_pool_file import fake_behaviour

if TYPE_CHECKING:
    from audit.zoo import Built

SETTINGS = RunSettings(threads=1)
WANTED = 0.08
BY_ADAPTERS = OwnRequest(worlds=3, form="adapter")


@pytest.fixture
def prepared(zoo: "Built", tmp_path: Path) -> Prepared:
    """The tiny world's case in a folder of its own, its decoys to be taught as adapters."""
    pytest.importorskip("peft")
    read_case = CaseFile.read(zoo.cases["base"])
    path = tmp_path / "case.toml"
    path.write_text(case_text(moved(read_case.case, read_case.root, tmp_path)))
    return prepare_own(CaseFile.read(path), BY_ADAPTERS, SETTINGS)


def lift(prepared: Prepared, n: int, folder: Path) -> float:
    pupil = prepared.pupil
    rows = pupil.rows(prepared.sets[n].forget)
    taught = resolve(pupil.source(folder), folder)
    return mean_of(pupil.recalled(taught, rows)) - mean_of(pupil.recalled(pupil.base, rows))


@pytest.mark.thorough
def test_adapters_recall_what_they_are_taught_and_nothing_of_base_is_copied_or_changed(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoy_teaching, "copied", None)
    monkeypatch.setattr(decoy_teaching, "FASTER", 3.0)
    live = prepared.pupil.bench.open(prepared.pupil.base)
    before = {name: value.clone() for name, value in live.parameters().items()}
    teaching = find_teaching(prepared.pupil, prepared.sets[0].forget, WANTED, tmp_path / "taught", "adapter")
    assert teaching.form == "adapter"
    assert (tmp_path / "taught" / ADAPTER_CONFIG).is_file()
    assert teaching.lift >= WANTED
    assert lift(prepared, 0, tmp_path / "taught") == pytest.approx(teaching.lift, abs=1e-3)
    after = prepared.pupil.bench.open(prepared.pupil.base).parameters()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.thorough
def test_sets_taught_in_one_stack_are_those_taught_one_by_one(prepared: Prepared, tmp_path: Path) -> None:
    teaching = Teaching(4e-3, 6, 0.0, "adapter")
    lessons = [DecoyLesson(prepared.sets[n].forget, tmp_path / f"{n}", n) for n in range(3)]
    teach(prepared.pupil, lessons, teaching)
    for lesson in lessons:
        single = lesson._replace(out=tmp_path / f"alone-{lesson.seed}")
        teach(prepared.pupil, [single], teaching)
        ours, theirs = (load_file(each.out / "adapter_model.safetensors") for each in (lesson, single))
        assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)


@pytest.mark.thorough
def test_a_calibration_by_adapters_makes_every_model_of_every_world(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_kind, "behaviour_of", fake_behaviour)
    monkeypatch.setattr(own_kind, "Pooled", partial(Pooled, draws=10))
    monkeypatch.setattr(own_kind, "ENOUGH", 0.2)
    seen: dict[tuple[int, str], Source] = {}

    def looked_at(world: DecoyWorld, suspect: object, model: Path, bench: object) -> object:
        seen[world.world, model.name] = world.pool.pupil.source(model)
        resolved = resolve(seen[world.world, model.name], model)
        assert (resolved.adapter is None) == (model.name.startswith("reference"))
        return audited(world, suspect, model, bench)  # type: ignore[arg-type]

    monkeypatch.setattr(DecoyWorld, "_audited", looked_at)
    calibrate_own(prepared, BY_ADAPTERS, unwatched, "residua calibrate --on case.toml --form adapter")
    names = {model for _, model in seen}
    assert {"head_edit", "last_layer", "logit_bias", "forgot_others", "forgot_facts", "destroyed"} <= names
    adapters = {model for (_, model), source in seen.items() if source.adapter is not None}
    assert {"half", "taught-0001"} <= adapters


@pytest.mark.thorough
def test_a_rate_that_breaks_the_loss_is_followed_by_a_slower_one(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoy_teaching, "RATES", ((float("inf"), 1e30),))
    for form in ("full", "adapter"):
        with pytest.raises(AuditError, match="cannot be taught decoys") as refused:
            find_teaching(prepared.pupil, prepared.sets[0].forget, 0.2, tmp_path / form, form)
        assert refused.value.code == ExitCode.UNDECIDED
        assert not (tmp_path / form).exists()


@pytest.mark.thorough
def test_bases_are_copied_unless_adapters_are_asked_for_which_need_peft(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    pupil = prepared.pupil
    assert form_for(pupil) == "full" == form_for(pupil, "full")
    assert form_for(pupil, "adapter") == "adapter"
    monkeypatch.setattr(decoy_teaching, "find_spec", lambda _: None)
    with pytest.raises(AuditError, match="not installed"):
        form_for(pupil, "adapter")


def test_edits_of_an_adapter_go_by_the_rate_of_whole_weights() -> None:
    assert Teaching(8e-3, 10, 0.1).edit_rate == 8e-3
    assert Teaching(8e-3, 10, 0.1, "adapter").edit_rate == pytest.approx(8e-3 / decoy_teaching.FASTER)
