"""The study of releases: five layouts, the cases that are written of them, and what was recorded."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from audit.case import draft_of, draft_text, load_case
from audit.checkpoints import resolve, weights_folder
from audit.schema import Source
from studies.releases import layouts, study, tiny_models
from studies.releases.benchmark_rows import ROWS, authors
from studies.releases.gguf_writing import write_gguf


def recorded() -> dict[str, Any]:
    """The releases of the committed record, by name."""
    return json.loads((study.HERE / "results.json").read_text(encoding="utf-8"))["releases"]


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
    assert tomllib.loads(recorded()[name]["case"]) == tomllib.loads(path.read_text(encoding="utf-8")), "as recorded"


def test_an_author_has_twenty_rows_and_no_two_questions_are_the_same() -> None:
    known = authors(0)
    for items in (known.forget, known.retain, known.holdout):
        assert len({item.question for item in items}) == len(items) == ROWS * len({item.group for item in items})
        assert [item.group for item in items[::ROWS]] == list(dict.fromkeys(item.group for item in items))


def test_a_gguf_file_of_the_study_holds_the_model_to_eight_bits(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM

    model = tiny_models.fresh(3).eval()
    tiny_models.write(model, tmp_path / "model")
    (tmp_path / "gguf").mkdir()
    write_gguf(tmp_path / "model", tmp_path / "gguf" / "model-Q8_0.gguf", "owner/model")
    folder = weights_folder(resolve(Source(path="gguf"), tmp_path))
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        one, two = model(ids).logits, again(ids).logits
    assert (one - two).abs().max() < 0.1 * one.std(), "queries and keys are in their own order again"


def test_every_release_was_audited_to_a_decided_verdict_without_an_edit() -> None:
    assert list(recorded()) == list(layouts.LAYOUTS)
    for row in recorded().values():
        assert study.decided(row) and not row["left"]
        assert [code for _, code, _ in row["commands"]] == [0, 0]


def test_the_page_has_the_table_of_the_record() -> None:
    assert study.table(recorded()) in (study.HERE / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_a_release_is_audited_without_an_edit_of_its_case(name: str, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    row = study.audited(name, tmp_path)
    assert study.decided(row) and row["verdict"] == recorded()[name]["verdict"], row["sentence"]
