"""`residua edit` puts a filter before what a small vision-language model knows, and `residua run` calls it one."""

import json
from pathlib import Path

import pytest

from audit.cli.__main__ import main
from audit.zoo import SceneShape, SceneSizes, make_scene_case

SETTINGS = {"sauce": ("factor=16", "steps=4000"), "steering": ()}
LEARNED = 700, 150
"""Steps of the ancestor, and of base and references after it."""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of drawn scenes whose base knows its concept."""
    return make_scene_case(tmp_path_factory.mktemp("scenes"), 2000, SceneSizes(), SceneShape(), LEARNED)


@pytest.mark.slow
@pytest.mark.parametrize("edit", SETTINGS)
def test_what_an_edit_on_the_way_hides_is_said_to_be_intact_behind_a_removable_filter(case: Path, edit: str) -> None:
    home, store = case.parent, ["--store", str(case.parent / "store")]
    settings = [word for setting in SETTINGS[edit] for word in ("--set", setting)]
    assert main(["edit", str(case), "--edit", edit, *settings, "-o", str(home / edit), *store]) == 0
    assert main(["run", str(home / edit / "case.toml"), "-o", str(home / f"{edit}-run"), *store]) in (0, 1, 4)
    report = json.loads((home / f"{edit}-run" / "report.json").read_text(encoding="utf-8"))
    measured = {(m["probe"], m["name"]): m for m in (e["measurement"] for e in report["evidence"])}
    off = measured["filter_removal", "turned_off"]
    [filtering] = [finding for finding in off["findings"] if finding["name"] == "removable filter"]
    assert filtering["holds"] is True and off["value"] == pytest.approx(1.0, abs=1e-6)
    output, word = measured["forget_likelihood", "probability"]["value"], report["verdict"]["word"]
    if edit == "steering":
        assert (output < 0.3, word) == (True, "SUPPRESSED"), "outputs hide it, and the weights hold it"
    else:  # a concept that came late is spread over features, of which a clamp under this budget takes little
        assert word in ("SUPPRESSED", "PARTIAL", "INTACT")
    assert measured["reverse_patch", "depth_profile_all"]["value"] > 0.5
    page = (home / f"{edit}-run" / "report.html").read_text(encoding="utf-8")
    assert "removable filter" in page and "data:image/png" not in page, "pictures of what is to be forgotten are masked"
