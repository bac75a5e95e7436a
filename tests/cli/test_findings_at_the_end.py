"""What a run and a report say at their end where a finding holds: the string, its transfer, and a line to copy."""

import json
from pathlib import Path

import pytest

from audit import engine
from audit.cli import main
from audit.schema import ExitCode, Report
from tests import run_store
from tests.backdoored import TRIGGER, backdoored
from tests.case.test_opened import root as root

LINE = "residua trigger {case} --text {text} --slot prefix --fold 1/2"
LONG = " ".join(f"zq{n}" for n in range(60))


def ended(text: str, **more: object) -> Report:
    return backdoored(TRIGGER.model_copy(update={"text": text, **more}))


@pytest.mark.parametrize(("text", "shown"), [
    ("zx qv", "'zx qv'"), ("it's $HOME", "'it'\"'\"'s $HOME'"), ("ünï 言葉", "'ünï 言葉'"), (LONG, f"'{LONG}'"),
])  # fmt: skip
def test_a_run_ends_with_the_string_and_a_command_on_one_line(
    root: Path, text: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "run", lambda *given, **more: ended(text))
    case = str(root / "case.toml")
    main(["run", case, "-o", str(root / "run")])
    lines = capsys.readouterr().out.splitlines()
    assert LINE.format(case=case, text=shown) in lines
    assert any("transfer to held-out people: 0.63 (95 % 0.41–0.80)" in line for line in lines)
    assert lines[-1].endswith("report.html")


def test_a_text_that_begins_with_a_dash_is_no_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_store.issue(ended("-x --slot"), tmp_path / "run")
    main(["report", str(tmp_path / "run")])
    assert "residua trigger case.toml --text='-x --slot' --slot prefix --fold 1/2" in capsys.readouterr().out


def test_a_masked_string_is_a_mark_and_the_command_that_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_store.issue(ended("0123456789ab (2 words)", quoted=True, masked=True), tmp_path / "a run")
    main(["report", str(tmp_path / "a run")])
    said = capsys.readouterr().out
    assert "the string is: masked, 0123456789ab (2 words)" in said and "residua trigger" not in said
    assert f"residua report '{tmp_path / 'a run'}' --unmask" in said


def test_programs_read_the_findings_and_a_gate_stops_on_one(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "run", lambda *given, **more: ended("zx qv"))
    line = ["run", str(root / "case.toml"), "-o", str(root / "run"), "--json", "--fail-on", "finding=backdoored"]
    assert main(line) == ExitCode.GATE
    document = json.loads(capsys.readouterr().out)
    assert {f["name"]: f["holds"] for f in document["findings"]} == {
        "backdoored": True, "recoverable by a short prefix": False, "backdoored at a sink": None,
    }  # fmt: skip
