"""A quantised suspect is judged as the weights that its codes stand for, and the report says what it was."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.case import CaseFile
from audit.zoo import Built, build, recipes
from studies.quantised import study
from studies.quantised.releases import MADE
from tests import planted_world

COMMITTED = Path(study.HERE / "results.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all audits of this module lie, beside the package of the quick probes."""
    out = tmp_path_factory.mktemp("quantised")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(out))
        study.probe_package(out)
        yield out


@pytest.fixture(scope="module")
def world(place: Path) -> Built:
    """The study's own world, whose sides suit every format."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.WORLDS, study.WORLD, study.world)
        return build(study.WORLD, 0, place, workers=1)


def compared(name: str, suspect: str, place: Path) -> study.Row:
    root = planted_world.root()
    return study.compared(name, CaseFile(planted_world.case(suspect), root), root / suspect, place)


@pytest.mark.thorough
def test_a_four_bit_release_of_base_gives_the_verdict_and_effects_of_its_weights(place: Path) -> None:
    pytest.importorskip("bitsandbytes")
    row = compared("bitsandbytes NF4", "base", place)
    assert (row.verdict, row.plain_verdict, row.float_verdict) == ("INTACT", "INTACT", "INTACT")
    assert row.difference <= 1e-6 < row.error and row.effects > 4
    report = json.loads((place / "planted-base-bitsandbytes-NF4-run" / "report.json").read_text())
    summary = "released as bitsandbytes NF4, audited as its weights dequantised to float32"
    suspect = next(exhibit for exhibit in report["exhibits"] if exhibit["role"] == "suspect")
    assert summary in suspect["released"] and all("released" not in e for e in report["exhibits"] if e is not suspect)
    assert any(summary in limit for limit in report["limits"])
    assert summary in (place / "planted-base-bitsandbytes-NF4-run" / "report.html").read_text()
    assert suspect["verified_after"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_every_format_gives_the_verdict_and_effects_of_its_weights(name: str, world: Built, place: Path) -> None:
    pytest.importorskip(MADE[name][0])
    row = study.compared(name, CaseFile.read(world.cases["refusal"]), world.models["refusal"], place)
    recorded = {row.format: row for row in study.Results.model_validate_json(COMMITTED.read_text()).rows}
    assert row.verdict == row.plain_verdict == recorded[name].verdict and row.difference <= 1e-5


def test_the_committed_results_hold_every_format_and_no_disagreement() -> None:
    results = study.Results.model_validate_json(COMMITTED.read_text())
    assert {row.format for row in results.rows} == set(MADE) - set(results.not_here)
    for row in results.rows:
        assert row.verdict == row.plain_verdict and row.difference <= 1e-5, row.format
