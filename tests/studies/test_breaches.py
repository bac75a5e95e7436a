"""The page on breaches is what its record says, nothing of it is open today, the driver tells its outcomes apart."""

import re
from pathlib import Path

import pytest

from studies.breaches import driver, study
from studies.breaches.held import TESTS
from studies.breaches.inputs import INPUTS
from studies.breaches.study import Ended, Results
from studies.pages import with_section

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results() -> Results:
    return Results.model_validate_json((study.HERE / "results.json").read_bytes())


def test_the_page_is_what_the_record_says(results: Results) -> None:
    page = (study.HERE / "README.md").read_text(encoding="utf-8")
    assert with_section(page, study.table(results)) == page


def test_every_row_names_tests_that_are_there(results: Results) -> None:
    assert {x.row for x in results.tried} == set(TESTS)
    assert {x.row for x in INPUTS} <= set(TESTS)
    for named in (name for words in TESTS.values() for name in re.findall(r"`(tests/\S+?)`", words)):
        assert (ROOT / named).is_file(), named


def test_nothing_that_was_tried_breaks_or_hangs_today(results: Results) -> None:
    assert not [x.name for x in results.tried if x.today.startswith(("broke", "hangs", "no result"))]
    assert [x.name for x in results.tried if x.before.startswith(("broke", "hangs"))]


def test_what_is_accepted_today_is_what_the_page_says(results: Results) -> None:
    accepted = {(x.row, x.name) for x in results.tried if x.today.startswith("exit 0")}
    told = {(study.REHASHED, "the version of a package")}
    told |= {(x.row, x.name) for x in results.tried if x.today == "exit 0, says so"}
    told |= {("a zeroed tensor", "suspect")}  # named in the report: an edit may have done that
    assert accepted <= told, accepted - told


@pytest.mark.parametrize(
    ("code", "ended"),
    [("seen = 3", "0"), ("raise ValueError('x')", "broke: ValueError"), ("raise SystemExit(2)", "2"),
     ("import time\ntime.sleep(9)", "hangs")],
)  # fmt: skip
def test_the_driver_tells_what_ends_what_breaks_and_what_hangs(
    code: str, ended: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGALRM, driver.hung)
    try:
        done = driver.done({"name": "a job", "folder": str(tmp_path), "code": code, "seconds": 1})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert done["ended"] == ended


def test_what_an_input_ended_with_is_told_with_what_it_quoted() -> None:
    secret, hidden = study.SECRET, study.HIDDEN
    assert study.shown("a row: x", Ended("2", "", f"residua plan: {secret}")).startswith("exit 2, quotes 0 KB")
    assert study.shown("a row: x", Ended("2", "", hidden)) == "exit 2, control characters as they are"
    assert study.shown("a wish for code: x", Ended("0", "", "")) == "exit 0, no word of it"
    assert study.shown("a wish for code: x", Ended("0", "", "was not run")) == "exit 0, says so"
