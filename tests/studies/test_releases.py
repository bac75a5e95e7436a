"""The study of releases: five layouts, the cases that are written of them, and what was recorded."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from audit.case import draft_of, draft_text, load_case
from studies.releases import layouts, study, tiny_models
from studies.releases.benchmark_rows import ROWS, authors

RESULTS = study.HERE / "results.json"
needs_record = pytest.mark.skipif(not RESULTS.is_file(), reason="`python -m studies.releases.study` writes the record")


def recorded() -> dict[str, Any]:
    """The releases of the committed record, by name."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))["releases"]


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Layouts with models that learned nothing: what a case says of a release does not depend on it."""

    def taught(_known: object, _pool: object, seed: int, retrained: int) -> tiny_models.Taught:
        models = [tiny_models.fresh(seed + n) for n in range(retrained + 1)]
        return tiny_models.Taught(models[0], tuple(models[1:]))

    monkeypatch.setattr(layouts, "taught", taught)
    monkeypatch.setattr(layouts, "unlearned", lambda *_: tiny_models.fresh(9))
    monkeypatch.setattr(layouts, "descend", lambda *_: None)
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    layouts._taught.cache_clear()
    return tmp_path


@pytest.mark.sampled
@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_nothing_is_left_to_fill_in_of_a_release_beside_its_pool(name: str, untrained: Path) -> None:
    if name == "lora_over_4bit":
        pytest.importorskip("bitsandbytes")
    if name == "gguf":
        pytest.importorskip("gguf")
    (untrained / "pool").mkdir()
    draft = draft_of(str(layouts.LAYOUTS[name](untrained / "pool", 0)))
    path = untrained / "case.toml"
    path.write_text(draft_text(draft, untrained).text, encoding="utf-8")
    case = load_case(path)
    assert not draft.left and case.data.forget and case.data.retain
    assert bool(case.roles.references) == (name != "wmdp_rmu")
    assert (case.roles.suspect.adapter is not None) == (name == "lora_over_4bit")
    if RESULTS.is_file():
        assert tomllib.loads(recorded()[name]["case"]) == tomllib.loads(path.read_text(encoding="utf-8")), "as recorded"


def test_an_author_has_twenty_rows_and_no_two_questions_are_the_same() -> None:
    known = authors(0)
    for items in (known.forget, known.retain, known.holdout):
        assert len({item.question for item in items}) == len(items) == ROWS * len({item.group for item in items})
        assert [item.group for item in items[::ROWS]] == list(dict.fromkeys(item.group for item in items))


@needs_record
def test_every_release_was_audited_to_a_decided_verdict_without_an_edit() -> None:
    assert list(recorded()) == list(layouts.LAYOUTS)
    for row in recorded().values():
        assert study.decided(row) and not row["left"]
        assert [code for _, code, _ in row["commands"]] == [0, 0]


@needs_record
def test_the_page_has_the_table_of_the_record() -> None:
    assert study.table(recorded()) in (study.HERE / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_a_release_is_audited_without_an_edit_of_its_case(name: str, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    row = study.audited(name, tmp_path)
    assert study.decided(row), row["sentence"]
    assert not RESULTS.is_file() or row["verdict"] == recorded()[name]["verdict"]
