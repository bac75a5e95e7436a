"""A report as a PDF: by a browser that is installed, with a clear word where there is none."""

import re
from pathlib import Path

import pytest

from audit.cli import main
from audit.render import html
from audit.runs import printing
from audit.schema import AuditError, ExitCode
from tests.browsing import CHROMIUM
from tests.golden import report


def test_without_a_browser_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AuditError, match="no browser was found") as raised:
        printing.printed("<p>x</p>")
    assert raised.value.code == ExitCode.INPUT and ".html" in str(raised.value)


@pytest.mark.parametrize("program", ["exit 7", "true"])
def test_a_browser_that_prints_nothing_is_an_error_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    fake, scratch = tmp_path / "bin" / "chromium", tmp_path / "scratch"
    fake.parent.mkdir()
    scratch.mkdir()
    fake.write_text(f"#!/bin/sh\n{program}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent))
    monkeypatch.setattr(printing.tempfile, "tempdir", str(scratch))
    with pytest.raises(AuditError, match="printed nothing") as raised:
        printing.printed("<p>x</p>")
    assert raised.value.code == ExitCode.INTEGRITY and not list(scratch.iterdir())


def test_the_sandbox_is_left_on_for_everybody_but_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing.os, "geteuid", lambda: 1000, raising=False)
    assert "--no-sandbox" not in printing.flags()
    monkeypatch.setattr(printing.os, "geteuid", lambda: 0, raising=False)
    assert "--no-sandbox" in printing.flags()


@pytest.mark.thorough
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_a_page_is_printed_to_a_pdf_of_few_pages() -> None:
    pdf = printing.printed(html(report("calibrated")))
    assert pdf.startswith(b"%PDF") and 3 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 12


@pytest.mark.thorough
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_a_finished_run_is_printed_from_the_command_line(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(finished), "-o", "x.pdf"]) == 0
    assert main(["report", str(finished), "--pdf"]) == 0
    (named,) = [path for path in tmp_path.glob("*.pdf") if path.name != "x.pdf"]
    assert named.name.startswith("UA-") and (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", named.read_bytes())) <= 12
    assert main(["report", str(finished), "--pdf", "-o", "x.html"]) == 2
    assert "no name of a PDF" in capsys.readouterr().err
