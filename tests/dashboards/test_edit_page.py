"""The page that edits models: what it would type, what it says of an edit, and what became of those that it started."""

import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from audit.cli.parser import build_parser
from audit.edits import listed_edits
from audit.schema import EditSummary, Listing
from audit.storage import write_atomic
from dashboards import edits, workers
from dashboards.serving import RUNS
from dashboards.vault import Vault
from dashboards.workers import Heard, Worker
from tests.dashboards.test_pages import opened, told
from tests.engine.test_editing import case_of
from tests.golden import HOSTILE

SUMMARY = EditSummary(
    key="k", edit="npo", plays="weights", form="edited", case=HOSTILE, role="base", parent="p", settings={"steps": 3},
    rows={"forget": 4, "retain": 3}, general="none", fingerprint="f", tensors=30, of_tensors=31, change=0.0125,
    dtype="float32", rounding=0.0,
    changed=Listing(title="tensors <b>", columns=("tensor", "change"), rows=((HOSTILE, 0.5),), of=30),
    cpu_s=2.25, wall_s=3.0, steps=3,
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of runs with a case in it, and no process that is started for the page."""
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(workers, "verbs", lambda _: workers.VERBS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    case_of(tmp_path / "runs")
    yield tmp_path / "runs"


def command(at: AppTest) -> Any:
    """What the page would type, as the command line reads it."""
    return build_parser().parse_args(shlex.split(at.code[0].value)[1:])


def worker(root: Path, answer: dict[str, Any], said: str = "", verb: str = "edit", out: str = "edited/a") -> Worker:
    """A worker that has ended and left this."""
    made = Worker(id=f"w-{verb}", verb=verb, arguments=("x",), out=out, started="2026-01-01", pid=2**22, born=0.0)
    made = made.sealed(workers.own_key())
    place = root / workers.PLACE / made.id
    write_atomic(place / "worker.json", made.model_dump_json().encode())
    write_atomic(place / "answer.json", json.dumps(answer).encode())
    write_atomic(place / "said.log", said.encode())
    return made


@pytest.mark.thorough
def test_every_edit_is_offered_with_its_text_and_types_a_command_that_parses(root: Path) -> None:
    case = str(root / "cases" / "case.toml")
    for edit in listed_edits():
        at = opened(root, "edit", **{"of": case, "edit": edit.name})
        typed, shown = command(at), told(at)
        assert (typed.verb, typed.case, typed.edit, typed.stated) == ("edit", case, edit.name, [])
        assert typed.out == str(root / "edited" / f"cases-{edit.name}") and not typed.merge
        assert edit.cost in shown and edit.fits in shown and "Cite:" in shown
        asked = {widget.label for widget in (*at.text_input, *at.selectbox)}
        assert {setting.name for setting in edit.settings} <= asked
        (merge,) = (box for box in at.checkbox if box.label == "As plain weights")
        assert merge.disabled == (not edit.folds)


def test_only_what_was_changed_is_typed_and_a_start_hands_it_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[Any, ...]] = []
    monkeypatch.setattr(workers, "start", lambda *what: begun.append(what))
    at = opened(root, "edit", **{"of": str(root / "cases" / "case.toml"), "edit": "quantise"})
    at.selectbox(key="quantise-bits").set_value("8")
    at.selectbox(key="on").set_value("ancestor")
    at.checkbox(key="merge").check()
    at.run()
    typed = command(at)
    assert typed.stated == ["bits=8"] and typed.on == "ancestor" and typed.merge and typed.part == "all"
    at.button(key="start").click().run()
    ((_, verb, arguments, out),) = begun
    assert shlex.join(["residua", verb, *arguments]) == at.code[0].value and out == "edited/cases-quantise"
    at.text_input(key="out-quantise").set_value("../elsewhere").run()
    assert [c.value for c in at.code] == ["residua init case.toml"] and "below the folder of runs" in told(at)


def test_a_finished_edit_says_what_changed_and_how_it_is_audited(root: Path) -> None:
    left = {"folder": "/x/a", "case_file": "/x/a/case.toml", "next": "residua run /x/a/case.toml", "reused": False}
    worker(root, {**SUMMARY.model_dump(mode="json"), **left})
    at = opened(root, "edit")
    shown = told(at)
    assert "30 of 31 tensors, by 0.013 of their norm" in shown and "2.2 CPU-seconds, 3 training steps" in shown
    assert "tensors &lt;b&gt; (first 1 of 30)" in shown and "<img src=x" not in shown
    assert at.code[-1].value == "residua run /x/a/case.toml"
    at.button(key="audit-w-edit").click().run()
    assert at.title[0].value == "Run" and at.selectbox(key="case").value == "/x/a/case.toml"


def test_what_failed_says_why_and_begins_again_and_other_work_is_not_shown(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[Any, ...]] = []
    monkeypatch.setattr(workers, "start", lambda *what: begun.append(what))
    made = worker(root, {"error": f"no such edit {HOSTILE}", "do": "name one", "exit_code": 2})
    worker(root, {"exit_code": 0}, verb="run", out="other")
    at = opened(root, "edit")
    assert "no such edit" in told(at) and "name one" in told(at) and "<img src=x" not in told(at)
    at.button(key="again-w-edit").click().run()
    assert begun[0][1:] == ("edit", made.arguments, made.out)
    assert "edited/a" not in told(opened(root, "run")), "the page of audits shows audits"
    assert "other" not in told(at).partition("Started from here")[2]


@pytest.mark.parametrize(
    ("log", "done", "total"),
    [
        ("", 0, 0),
        ("[   0.5 s] opening toy (1/1)\n", 0, 0),
        ("opening toy (1/1)\n[  12.5 s] editing npo, step 20 (20/400), about 4 to 6 s left\nWARNING (9/9)", 20, 400),
        ("editing npo, step 20 (20/400), about 4 to 6 s left\n", 20, 400),
        ("editing npo, step 400 (400/400)\nedited npo (1/1)\n", 1, 1),
    ],
)
def test_how_far_an_edit_is_is_read_from_its_last_line(log: str, done: int, total: int) -> None:
    seen = edits.steps(Heard("running", {}, log))
    assert (seen.done, seen.total) == (done, total) and seen.share == (done / total if total else 0.0)


@pytest.mark.slow
def test_an_edit_that_is_started_here_goes_on_by_itself_and_is_found_again(root: Path) -> None:
    out, case = root / "edited" / "a", str(root / "cases" / "case.toml")
    made = workers.start(Vault(root), "edit", [case, "--edit", "npo", "--set", "steps=2", "-o", str(out)], "edited/a")
    for _ in range(1500):  # a busy machine takes its time to import torch
        if (outcome := workers.heard(Vault(root), made)).ending != "running":
            break
        time.sleep(0.1)
    assert outcome.ending == "finished", outcome.log
    left = edits.left_by(outcome)
    assert left is not None and left.summary.edit == "npo" and left.case == str(out / "case.toml")
    assert edits.steps(outcome).share == 1.0 and "finished" in told(opened(root, "edit"))
    assert os.environ[RUNS] == str(root)
