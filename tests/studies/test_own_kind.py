"""The study of calibrations of the own kind: what was written down, and that the counts are those of the rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from audit.pools.decoy_world import FAKES, UNLEARNERS
from audit.zoo.mechanisms import KIT
from studies.own_kind import counts
from studies.own_kind.invented_people import COHORTS, KINDS, lines_of
from studies.own_kind.kept_out import EDITS, SUSPECTS

STUDY = Path(counts.__file__).parent
RESULTS: dict[str, Any] = (
    json.loads((STUDY / "results.json").read_bytes()) if (STUDY / "results.json").is_file() else {"kinds": {}}
)


def row(truth: str, word: str, fresh: bool = False) -> dict[str, Any]:
    return {"truth": truth, "fresh": fresh, "words": dict.fromkeys(counts.WAYS, word)}


def test_at_least_five_mechanisms_of_knowing_models_are_in_no_calibration_and_the_page_names_them() -> None:
    fresh = [suspect.name for suspect in SUSPECTS if suspect.fresh and suspect.truth == "knows"]
    assert len(fresh) >= 5
    assert not {*fresh} & {*FAKES, *UNLEARNERS, *KIT}
    page = (STUDY / "README.md").read_text()
    assert all(f"`{name}`" in page for name in (*fresh, *(kind.name for kind in KINDS)))
    assert {suspect.name for suspect in SUSPECTS if suspect.parent != "ancestor"} == set(EDITS)
    assert len(SUSPECTS) >= 20


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_people_differ_and_facts_have_one_key_each(kind: Any) -> None:
    cohorts = lines_of(kind)
    assert cohorts == lines_of(kind)
    groups = {name: {line["group"] for line in lines} for name, lines in cohorts.items()}
    assert {name: len(each) for name, each in groups.items()} == COHORTS
    questions = [line["question"] for lines in cohorts.values() for line in lines]
    assert len(set(questions)) == len(questions)
    assert all(line["key"] in line["answer"] for lines in cohorts.values() for line in lines)
    assert all(line["key"] not in line["alternate_keys"] for lines in cohorts.values() for line in lines)
    forget, retained = ({line["key"] for line in cohorts[name]} for name in ("forget", "retain"))
    assert (len(retained & forget) > len(retained) / 2) == kind.shared_values


def test_words_are_counted_by_what_a_model_is() -> None:
    rows = [
        row("knows", "SUPPRESSED"), row("knows", counts.CLEAN, fresh=True), row("knows", counts.OPEN, fresh=True),
        row("part", "INTACT"), row("part", counts.CLEAN), row("never", counts.CLEAN), row("never", "PARTIAL"),
        row("silenced", counts.OPEN), row("destroyed", "INVALID"), row("destroyed", counts.OPEN),
    ]  # fmt: skip
    tallies = {name: (each["k"], each["n"]) for name, each in counts.of_rows(rows, "own").items()}
    assert tallies == {
        "right": (4, 10), "wrong": (4, 10), "inconclusive": (2, 9), "passed as clean": (2, 5),
        "no trace stated": (3, 5), "false alarms": (1, 3), "fresh fakes passed as clean": (1, 2),
        "fresh fakes caught": (0, 2),
    }  # fmt: skip


def test_nominal_bounds_hold_in_nine_of_ten_draws() -> None:
    table = counts.coverage(draws=2000)
    assert len(table) == len(counts.SIZES) * len(counts.SHARES) * len(counts.RATES)
    assert min(cell[name] for cell in table for name in ("this", "mean", "others")) >= 0.9


def test_results_are_counted_from_their_rows_and_the_page_shows_them() -> None:
    if not RESULTS["kinds"]:
        pytest.skip("no kind is studied yet")
    assert RESULTS["counts"] == json.loads(json.dumps(counts.of_all(RESULTS["kinds"])))
    assert counts.markdown(RESULTS) in (STUDY / "README.md").read_text()
