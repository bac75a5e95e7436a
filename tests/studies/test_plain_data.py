"""The committed audits of plain data bear out what the page says of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from audit.case import read_items
from audit.case.counterfactuals import with_counterfactuals
from studies.plain_data import models, study

RESULTS: dict[str, Any] = json.loads((study.HERE / "results.json").read_text(encoding="utf-8"))
TOFU = Path(__file__).resolve().parents[3] / "shared" / "data" / "tofu"
PAGE = (study.HERE / "README.md").read_text(encoding="utf-8")


def test_counts_are_those_of_the_audits_and_the_page_shows_them() -> None:
    for data in study.DATA:
        assert RESULTS["counts"][data] == study.counts(RESULTS["audits"], data)
    assert study.tables(RESULTS) in PAGE


def test_by_rule_base_is_found_everywhere_and_no_clean_model_carries_a_trace() -> None:
    plain = RESULTS["counts"]["plain"]
    n = len(models.ARCHITECTURES) * len(study.SEEDS)
    assert set(map(tuple, plain["base_found"].values())) == {(5 * n, 5 * n)}
    assert set(map(tuple, plain["clean_with_a_trace"].values())) == {(0, 3 * n)}
    assert plain["knowing_consistent"] == [0, 2 * n]


def test_the_page_names_every_clean_model_that_is_not_consistent() -> None:
    for audit in RESULTS["audits"]:
        if audit["data"] == "plain" and audit["suspect"] in models.CLEAN:
            name = f"`{audit['architecture']} {audit['suspect']}` of world {audit['seed']}"
            assert audit["verdict"].startswith("CONSISTENT") != (name in PAGE), name


@pytest.mark.skipif(not TOFU.is_dir(), reason="needs TOFU beside the project")
def test_the_page_says_how_many_questions_of_tofu_find_alternates() -> None:
    forget, retain = (read_items(TOFU / f"{name}.jsonl", "author_id") for name in ("forget05", "retain95"))
    items = with_counterfactuals({"forget": forget, "retain": retain}, 0)["forget"]
    n = sum(bool(item.alternates) for item in items)
    assert f"of {len(items)} forget questions of TOFU forget05 {n} find alternates" in " ".join(PAGE.split())
