"""Answers on stdout, whole, for whoever reads on or stops reading."""

import shutil
import subprocess
from pathlib import Path

import pytest

from audit.cli import main
from audit.render import worst_first
from audit.runs import read_report
from tests.cli.conftest import RESIDUA, Call


def _into(reader: str, *words: object) -> subprocess.CompletedProcess[str]:
    """What a reader that is given so much of the answer says; the exit code is the program's own."""
    command = f"{' '.join(RESIDUA)} {' '.join(map(str, words))} | {reader}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, errors="replace", check=False)


@pytest.mark.thorough
def test_who_stops_reading_hears_no_complaint(finished: Path) -> None:
    for words in (("--help",), ("report", finished), ("report", finished, "--json"), ("probes", "utility")):
        done = _into("head -c 1", *words)
        assert len(done.stdout) == 1 and (done.returncode, done.stderr) == (0, ""), words
    assert _into("head -c 1", "verify", finished, "--fail-on", "any").returncode == 1, "the gate's code is kept"


def test_a_pipe_that_breaks_at_work_is_no_reader_who_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's, say: it must not end as if all were well."""

    def act(args: object) -> None:
        raise BrokenPipeError("of a worker")

    monkeypatch.setattr("audit.cli.commands.probes.act", act)
    with pytest.raises(BrokenPipeError, match="of a worker"):
        main(["probes"])


def test_names_are_whole_where_the_answer_is_no_terminals(residua: Call, finished: Path) -> None:
    said = residua("compare", finished, finished)
    lines = said.stdout.splitlines()
    assert any("forget_likelihood.probability_held_out_attribute " in line for line in lines)
    assert "…" not in said.stdout and not said.stderr


def test_several_audits_stand_beside_the_first(residua: Call, finished: Path) -> None:
    said = residua("compare", finished, finished, finished)
    assert "A base" in said.stdout and "C base" in said.stdout and "≠ differs from A" in said.stdout
    assert "C: 0 of " in said.stdout and " ≠ " not in said.stdout.replace("; ≠ differs", "")


def test_one_probe_is_told_in_full_and_a_wrong_name_gets_a_near_one(residua: Call) -> None:
    said = residua("probes", "utility")
    assert said.stdout.startswith("utility (version ") and "Blind to:" in said.stdout and "settings" in said.stdout
    assert "answer_lens" not in said.stdout
    wrong = residua("probes", "utilty")
    assert wrong.returncode == 2 and "the nearest is 'utility'" in wrong.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_learns_the_verbs(residua: Call, shell: str) -> None:
    said = residua("--completion", shell)
    assert said.returncode == 0 and "forecast" in said.stdout and "--fail-on" in said.stdout


# ---- summary ----------------------------------------------------------------------------------------------------
def test_the_summary_names_the_next_commands_and_leaves_out_what_was_changed(
    residua: Call, finished: Path, tmp_path: Path
) -> None:
    for name in ("sound", "changed"):
        shutil.copytree(finished, tmp_path / "runs" / name)
    (tmp_path / "runs" / "half-written").mkdir()
    page = tmp_path / "runs" / "changed" / "report.md"
    page.write_text(page.read_text() + "!")
    said = residua("summary", tmp_path / "runs")
    assert said.returncode == 3 and said.stdout.count("INTACT") == 1
    assert f"residua report {tmp_path / 'runs' / 'sound'}" in said.stdout.replace("\n", "")
    assert "left out: " in said.stderr and "report.md: changed" in said.stderr
    nothing = residua("summary", tmp_path / "runs" / "half-written")
    assert nothing.returncode == 2 and "no finished audit lies there" in nothing.stderr


def test_what_holds_the_most_comes_first(finished: Path) -> None:
    report = read_report(finished / "report.json")
    words = ("CONSISTENT WITH NEVER TRAINED", "SUPPRESSED", "INCONCLUSIVE", "INTACT")
    reports = [report.model_copy(update={"verdict": report.verdict.model_copy(update={"word": w})}) for w in words]
    ordered = [each.verdict.word for each in sorted(reports, key=worst_first)]
    assert ordered == ["INTACT", "SUPPRESSED", "INCONCLUSIVE", "CONSISTENT WITH NEVER TRAINED"]
