"""TOFU's small splits: who is whose author, and what is told where a plan refuses."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from audit.case import read_items
from audit.schema import AuditError
from studies.pages import with_section
from studies.tofu_small import models, study

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
AUTHORS = {"forget01": 2, "forget05": 10, "forget10": 20}
needs_data = pytest.mark.skipif(not (DATA / "tofu").is_dir(), reason="needs TOFU beside the project")


def test_the_splits_are_nested_and_nobody_is_in_two_cohorts() -> None:
    assert {split: len(authors) for split, authors in models.SPLITS.items()} == AUTHORS
    small, middle, large = (set(models.SPLITS[split]) for split in AUTHORS)
    assert small < middle < large
    assert not (large & {*models.RETAIN, *models.HOLDOUT}) and not set(models.RETAIN) & set(models.HOLDOUT)


@needs_data
def test_every_author_brings_the_questions_with_the_shortest_answers(tmp_path: Path) -> None:
    models.write_data(DATA, tmp_path, models.Sizes())
    for split, authors in models.SPLITS.items():
        items = read_items(tmp_path / f"{split}.jsonl", "author_id")
        assert len(items) == 4 * len(authors) and {item.group for item in items} == {str(a) for a in authors}
        assert all(len(item.perturbed_answers) == 5 for item in items)
        rows = [json.loads(line) for line in (DATA / "tofu" / f"{split}_perturbed.jsonl").read_text().splitlines()]
        for author in authors:
            lengths = sorted(len(row["answer"]) for row in rows if row["author_id"] == author)
            assert sorted(len(i.answer) for i in items if i.group == str(author)) == lengths[:4]
    general, stories = ((tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("general", "stories"))
    assert len(general) == 40 and len(stories) == 300 and not set(general) & set(stories)


def test_a_case_has_every_role_and_the_judging_references_are_not_the_audited_one(tmp_path: Path) -> None:
    for suspect in study.SUSPECTS:
        case = models.case_of("forget05", suspect, tmp_path)
        references = [Path(source.path or "").name for source in case.roles.references]
        assert references == ["r0", "r1"] and Path(case.roles.base.path or "").name == "forget05-base"
        assert Path(case.roles.suspect.path or "").name == ("r2" if suspect == "r2" else f"forget05-{suspect}")
        assert case.roles.ancestor is not None and case.data.holdout is not None and case.data.group == "author_id"


CANNOT = "with 2 audited forget groups p cannot be below 0.5"


@pytest.mark.parametrize("how", ["a plan", "an error"])
def test_a_refusal_is_the_result_with_its_reason(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(*_: object) -> SimpleNamespace:
        if how == "an error":
            raise AuditError("blind here", "teach base")
        return SimpleNamespace(planner=SimpleNamespace(undecidable=CANNOT))

    monkeypatch.setattr(study, "prepare", prepare)
    monkeypatch.setattr(study, "Run", None)
    said = study.audit("forget01", "npo", tmp_path, None)  # type: ignore[arg-type]
    reason = "blind here" if how == "an error" else CANNOT
    assert said["verdict"] == "REFUSED" and said["because"] == [reason] and said["authors"] == 2
    page = study.tables([said, said | {"suspect": "base"}])
    assert "| forget01 | 2 | npo | REFUSED | – | – | – | – | –, – |" in page
    assert f"- forget01 npo, forget01 base: {reason}" in page


def test_the_page_shows_what_each_test_read() -> None:
    test = {"value": 0.5, "p": 0.001, "bound": [0.4, 0.6], "people": 10, "status": "x"}
    told: dict[str, Any] = {"split": "forget05", "suspect": "r2", "authors": 10, "verdict": "PARTIAL", "because": []}
    tests = {"probability": test, "retain": test | {"value": 0.98}, "lens_lift": test | {"value": "blind here"}}
    made = study.tables([told | {"tests": tests}])
    assert "| forget05 | 10 | r2 | PARTIAL | 0.50, p 0.001 | – | – | – | 0.98, – |" in made and "- nowhere" in made
    assert with_section(f"a\n{study.START}\n{study.END}\nb\n", made) == f"a\n{made}\nb\n"


@pytest.mark.skipif(not study.RESULTS.is_file(), reason="the study has not been run on this checkout")
def test_the_committed_page_is_that_of_the_results_and_no_fake_passes_as_clean() -> None:
    results = json.loads(study.RESULTS.read_text(encoding="utf-8"))
    assert study.tables(results["audits"]) in study.README.read_text(encoding="utf-8")
    found = {(told["split"], told["suspect"]): told["verdict"] for told in results["audits"]}
    assert set(found) == {(split, suspect) for split in AUTHORS for suspect in study.SUSPECTS}
    for (_, suspect), word in found.items():
        assert suspect == "r2" or not word.startswith("CONSISTENT")
        assert suspect != "r2" or word not in ("INTACT", "SUPPRESSED", "PARTIAL")


@needs_data
@pytest.mark.slow
def test_a_slice_is_taught_edited_and_audited_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = {name: {"steps": 3, "batch": 4} for name in ("refusal", "npo", "grad_diff")} | {"head_edit": {"steps": 3}}
    monkeypatch.setattr(models, "EDITS", {k: e.model_copy(update=short[k]) for k, e in models.EDITS.items()})
    monkeypatch.setattr("audit.probing.recollection.RECALL_LIFT", -1.0)
    sizes = models.Sizes(per_author=2, stories=24, general=8, steps=3, batch=4)
    audits = study.study(DATA, tmp_path, sizes, ["forget01"])
    assert [told["suspect"] for told in audits] == list(study.SUSPECTS)
    assert all(told["because"] and told["verdict"] for told in audits)
    made = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert made >= {"ancestor", "r0", "r1", "r2", *(f"forget01-{name}" for name in ("base", *models.EDITS))}


def test_the_results_decide_ten_and_twenty_authors_and_clear_nobody_who_knows() -> None:
    results = json.loads(study.RESULTS.read_text(encoding="utf-8"))
    words = {(a["split"], a["suspect"]): a["verdict"] for a in results["audits"]}
    assert set(words) == {(split, suspect) for split in models.SPLITS for suspect in study.SUSPECTS}
    assert all(words[split, "base"] == "INTACT" for split in models.SPLITS)
    assert all(words[split, "r2"].startswith("CONSISTENT") for split in ("forget05", "forget10"))
    assert words["forget01", "r2"] == "INCONCLUSIVE"
    assert not [who for who, word in words.items() if word.startswith("CONSISTENT") and who[1] != "r2"]
    assert study.tables(results["audits"]) in study.README.read_text(encoding="utf-8")
