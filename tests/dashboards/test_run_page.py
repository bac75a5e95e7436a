"""The page that starts work: what it would type for every verb, that a start shows at once, and a case by a form."""

import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from audit.case import load_case
from audit.cli.parser import build_parser
from audit.storage import write_atomic
from dashboards import case_form, verbs, workers
from dashboards.vault import Vault
from dashboards.verbs import Asked
from dashboards.workers import Heard, Worker
from tests.dashboards.test_pages import opened, told
from tests.engine.test_editing import case_of


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of runs with a case in it; every verb is there without asking for it."""
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(workers, "verbs", lambda _: workers.VERBS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    case_of(tmp_path / "runs")
    yield tmp_path / "runs"


def begun(vault: Vault, verb: str, arguments: list[str], out: str) -> Worker:
    """A worker that has just been started, and never ends: this very process."""
    own = psutil.Process().create_time()
    worker = Worker(id=f"w-{verb}", verb=verb, arguments=tuple(arguments), out=out, started="2026-01-01T00:00:00",
                  pid=os.getpid(), born=own)  # fmt: skip
    sealed = worker.sealed(workers.own_key())
    write_atomic(vault.root / workers.PLACE / worker.id / "worker.json", sealed.model_dump_json().encode())
    return sealed


@pytest.mark.parametrize("verb", workers.VERBS)
def test_what_is_typed_for_every_verb_parses_and_nothing_typed_becomes_a_flag(tmp_path: Path, verb: str) -> None:
    form = Asked("-o/case.toml", "mine", ("--ray", "models/a b"), "30m")
    flags = ["--backend", "native", "--device", "cpu", "--dtype", "float32", "--threads", "1"]
    given = verbs.arguments(verb, form, tmp_path, flags)
    parsed = build_parser().parse_args([verb, *given])
    case = {"sweep": lambda p: str(p.cases[0]), "calibrate": lambda p: p.on}.get(verb, lambda p: str(p.case))(parsed)
    assert (parsed.verb, Path(case)) == (verb, Path("-o/case.toml")) and parsed.threads == 1
    if verb == "sweep":
        assert parsed.suspects == ["./--ray", "models/a b"] and parsed.ray is None
    assert verb != "calibrate" or parsed.time_limit == "30m"
    planner, dry = verbs.planned(verb, form, tmp_path, flags)
    assert planner == "plan" or build_parser().parse_args([planner, *dry]).dry_run


def test_two_cases_of_one_folder_are_suggested_two_folders() -> None:
    assert verbs.suggested("/a/nb/case.toml", "run") == "nb"
    assert verbs.suggested("/a/nb/case-lora.toml", "run") == "case-lora"
    assert verbs.suggested("/a/nb/case.toml", "sweep") != verbs.suggested("/a/nb/case.toml", "run")


def test_a_start_shows_at_once_and_other_work_stands_below(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "start", begun)
    at = opened(root, "run", case=str(root / "cases" / "case.toml"))
    typed = build_parser().parse_args(shlex.split(at.code[0].value)[1:])
    assert (typed.verb, typed.out) == ("run", str(root / "cases"))
    next(button for button in at.button if button.label == "Start").click().run()
    shown = told(at)
    assert "Just started" in shown and shown.index("Just started") < shown.index("Started from here")
    assert "cases: run is running" in shown and any(button.label == "Cancel" for button in at.button)


@pytest.mark.parametrize("verb", ["sweep", "calibrate"])
def test_a_sweep_and_a_calibration_can_be_started_and_stopped(
    root: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(workers, "start", begun)
    at = opened(root, "run", case=str(root / "cases" / "case.toml"), verb=verb)
    typed = build_parser().parse_args(shlex.split(at.code[0].value)[1:])
    assert typed.verb == verb
    next(button for button in at.button if button.label == "Start").click().run()
    assert f"{verb} is running" in told(at) and any(button.label == "Stop" for button in at.button)
    assert not any(button.label == "Cancel" for button in at.button), "it does not hear of a wish in a file"


def test_the_last_step_of_a_worker_is_read_from_what_it_said() -> None:
    log = "[   0.1 s] opening case.toml\n[  12.0 s] world decoy world 1 (1/19)\n[  24.0 s] world decoy world 2 (2/19)\n"
    step = verbs.last_step(Heard("running", {}, log))
    assert step == ("world decoy world 2", 2, 19) and 0.1 < step.share < 0.11
    assert verbs.last_step(Heard("running", {}, "[ 0.1 s] opening")).total == 0


# ---- a case by a form -------------------------------------------------------------------------------------------
def test_a_form_writes_a_case_as_init_does_and_a_text_that_is_none_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "my" / "case.toml"
    vault = Vault(tmp_path)
    worker = workers.start(
        vault, case_form.VERB, case_form.arguments(case_form.Wanted(str(path), "", "", ())), "new-case"
    )
    outcome = workers.heard(vault, worker)
    while outcome.ending == "running":
        time.sleep(0.05)
        outcome = workers.heard(vault, worker)
    drafted = case_form.drafted_by(outcome)
    assert outcome.ending == "finished" and drafted is not None and Path(worker.arguments[0]) == path
    text = path.read_text()
    assert load_case(path).name == "my-audit"
    assert "not a case" in case_form.saved(path, text.replace("[data]", "[dota]")) and path.read_text() == text
    assert "case.toml" in case_form.saved(path, "name = ") and path.read_text() == text
    assert case_form.saved(path, text.replace('"my-audit"', '"ours"')) == "" and load_case(path).name == "ours"
    assert [p.name for p in path.parent.iterdir()] == ["case.toml"]


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (("c.toml", "a", "b", ("d",)), ["c.toml", "--from", "a", "b", "--data", "d"]),
        (("c.toml", "", "b", ()), ["c.toml", "--from", "b"]), (("c.toml", "", "", ("d",)), ["c.toml"]),
        (("-c.toml", "--online", "b", ()), ["./-c.toml", "--from", "./--online", "b"]),
    ],
)  # fmt: skip
def test_what_a_form_asks_for_is_what_init_is_started_with(wanted: Any, given: list[str]) -> None:
    assert case_form.arguments(case_form.Wanted(*wanted)) == given
    assert build_parser().parse_args(["init", *given]).path == given[0]


def test_a_case_is_written_over_nothing_and_the_form_shows_what_was_filled_in(root: Path) -> None:
    taken = root / "cases" / "case.toml"
    assert "exists already" in case_form.refused(str(taken)) and case_form.refused(str(root / "plain.txt"))
    assert case_form.refused(str(root / "a" / "case.toml")) == ""
    path = root / "a" / "case.toml"
    path.parent.mkdir()
    path.write_text(taken.read_text())
    built = Worker(id="w-init", verb="init", arguments=(str(path),), out="new-case", started="x", pid=2**22, born=0.0)
    place = root / workers.PLACE / "w-init"
    write_atomic(place / "worker.json", built.sealed(workers.own_key()).model_dump_json().encode())
    answer = {
        "case": "/etc/elsewhere", "filled": [{"key": "roles.base.path", "value": "<b>", "why": "named"}],
        "left": [{"key": "data.forget", "what": "not found", "needed": True}],
    }  # fmt: skip
    write_atomic(place / "answer.json", json.dumps(answer).encode())
    at = opened(root, "run", **{case_form.WRITTEN: "w-init"})
    shown = told(at)
    assert "left to fill in: 1" in shown and "&lt;b&gt;" in shown and "/etc/elsewhere" not in shown
    assert any(area.value == path.read_text().strip() or area.value == path.read_text() for area in at.text_area)
