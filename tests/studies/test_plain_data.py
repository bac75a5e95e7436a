"""The committed audits of plain data bear out what the page says of them."""

import json
from collections.abc import Sequence
from typing import Any

from studies.plain_data import models, study

RESULTS: dict[str, Any] = json.loads((study.HERE / "results.json").read_text(encoding="utf-8"))
PAGE = (study.HERE / "README.md").read_text(encoding="utf-8")
LINES = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line.startswith("|")}


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in LINES[row].split("|")[2:-1]]


def ratio(count: Sequence[int]) -> str:
    return "/".join(map(str, count))


def test_counts_are_those_of_the_audits_and_the_page_shows_them() -> None:
    order = ("before", "plain", "given")
    for data in order:
        assert RESULTS["counts"][data] == study.counts(RESULTS["audits"], data)
    by_data = [RESULTS["counts"][data] for data in order]
    assert cells("base found by the answer lens") == [ratio(c["base_found"]["lens_lift"]) for c in by_data]
    assert cells("clean models CONSISTENT WITH NEVER TRAINED") == [ratio(c["clean_consistent"]) for c in by_data]
    assert cells("knowing models CONSISTENT WITH NEVER TRAINED") == [ratio(c["knowing_consistent"]) for c in by_data]


def test_by_rule_base_is_found_everywhere_and_no_clean_model_carries_a_trace() -> None:
    plain = RESULTS["counts"]["plain"]
    n = len(models.ARCHITECTURES)
    assert set(map(tuple, plain["base_found"].values())) == {(5 * n, 5 * n)}
    assert set(map(tuple, plain["clean_with_a_trace"].values())) == {(0, 3 * n)}
    assert plain["clean_consistent"][0] >= 8 and plain["knowing_consistent"] == [0, 2 * n]


def test_the_page_names_every_clean_model_that_is_not_consistent() -> None:
    for audit in RESULTS["audits"]:
        name = f"{audit['architecture']} {audit['suspect']}"
        if audit["data"] == "plain" and audit["suspect"] in models.CLEAN:
            assert audit["verdict"].startswith("CONSISTENT") or f"`{name}`" in PAGE
            assert f"| {name} |" in PAGE
