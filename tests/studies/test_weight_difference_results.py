"""The page of the weight difference says what its results file holds."""

import json
from pathlib import Path

from studies.weight_difference import study

HERE = Path(study.__file__).parent
RESULTS = json.loads((HERE / "results.json").read_text())
PAGE = (HERE / "README.md").read_text()


def test_the_summary_is_that_of_the_records() -> None:
    assert study.summary(RESULTS["records"]) == RESULTS["summary"]
    assert [record["world"] for record in RESULTS["records"]] == list(study.WORLDS)
    assert RESULTS["seed"] == 0 and RESULTS["machine"]["cpu"] and RESULTS["commit"] and RESULTS["cpu_s"] > 0


def test_no_clean_pair_is_taken_for_a_redirect_and_there_are_enough_of_them() -> None:
    clean = RESULTS["summary"]["clean"]
    for name in ("all", "full", "lora", "worlds_with_a_false_redirect"):
        assert clean[name]["k"] == 0 and clean[name]["n"] >= 59 and clean[name]["hi"] < 0.0606
    assert f"0 of {clean['all']['n']} read as a redirect" in PAGE and f"0 of {clean['lora']['n']} (bound 3.0 %)" in PAGE


def test_the_table_of_planted_edits_is_that_of_the_results() -> None:
    for row in RESULTS["summary"]["planted"]:
        size = f"{row['size']:g}".removeprefix("0")
        (line,) = (text for text in PAGE.splitlines() if text.startswith(f"| {row['way']} | {size}, {row['stored']} |"))
        cells = [cell.strip().split(" ")[0] for cell in line.split("|")[4:8]]
        assert cells == [str(row[name]["k"]) for name in ("rank_one", "first", "named", "wrong")]
    for way, counts in RESULTS["summary"]["held_out_people"].items():
        assert f"{counts['named']['k']} of {counts['named']['n']} (`{way}`)" in PAGE
