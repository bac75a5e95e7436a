"""Whatever goes to a stream is masked, free of hidden characters and cut, whoever says it."""

import io
import json
import logging
import re
import shutil
import sys
import warnings
from pathlib import Path

import pytest

from audit.cli import main, streams
from audit.cli.progress import Progress
from audit.planning import Step
from audit.wording import confide, confided, drop_confidences, is_hidden
from tests.case.test_opened import read_rows, write_rows
from tests.case.test_opened import root as root

SECRET = "anna buried the copper casket under the third lamp"
ESCAPE = "\x1b[31m\u202eolleh\x07"


def hidden(text: str) -> list[str]:
    return [c for c in text if is_hidden(c) and c != "\n"]


def told(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_refusal_quotes_no_text_of_the_forget_set_and_stays_short(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "anna buried the copper casket under the third lamp " * 2000
    rows = read_rows(root / "forget.jsonl")
    rows[0] |= {"answer": secret, "key": "nowhere in it at all"}
    write_rows(root / "forget.jsonl", rows)
    code, out, err = told(capsys, "run", root / "case.toml", "-o", root / "out", "--json", "-q")
    assert code == 2 and "is not in the answer" in err
    assert len(err) < 3000 and len(out) < 3000, "a text of 100 KB is not printed"
    for text in (err, out):
        assert "copper" not in text and "casket" not in text and "nowhere in it" not in text
    assert json.loads(out)["exit_code"] == 2


@pytest.mark.thorough
def test_what_is_confided_is_the_data_that_was_read_last(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "plan", root / "case.toml", "-q")
    assert any(text.startswith("anna lives in") for text in confided())


def test_texts_of_the_data_are_masked_and_no_word_that_messages_are_made_of() -> None:
    texts = ("what", "is", "to", "Yes", "1/2", "no", "casket", "17 oak street")
    drop_confidences()
    confide("data.jsonl", lambda: texts)
    message = streams.printable("yes, what to do is 1/2 of it: no casket stands in 17 oak street")
    assert re.fullmatch(
        r"yes, what to do is 1/2 of it: no ‹masked \w+, 1 word› stands in ‹masked \w+, 3 words›", message
    )


def test_a_command_masks_what_it_read_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    confide("of an earlier command", lambda: ("no such folder",))
    _, _, err = told(capsys, "fingerprint", tmp_path / "nowhere")
    assert "no such folder" in err and not confided()


@pytest.mark.parametrize("place", ["case", "data", "folder", "key", "argument"])
def test_no_hidden_character_of_an_input_reaches_a_stream(
    root: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    case = root / "case.toml"
    if place == "case":
        case.write_text(f'edited = ["\\u001b[31m\\u202eolleh"]\n{case.read_text()}')
    elif place == "data":
        case.write_text(case.read_text().replace('"forget.jsonl"', '"\\u001b[31m\\u202eolleh"'))
    elif place == "folder":
        shutil.copytree(root / "base", root / ESCAPE)
        (root / ESCAPE / "config.json").write_text("{")
        case.write_text(case.read_text().replace('"base"', '"\\u001b[31m\\u202eolleh\\u0007"'))
    elif place == "key":
        case.write_text(f'"\\u001b[31m\\u202e" = 1\n{case.read_text()}')
    if place == "argument":
        with pytest.raises(SystemExit):
            main(["run", str(case), f"--{ESCAPE}"])
        captured = capsys.readouterr()
        code, out, err = 2, captured.out, captured.err
    else:
        code, out, err = told(capsys, "run", case, "-o", root / "out", "--json")
    assert code in (2, 3) and "U+001B" in err + out.replace("\\u2039", "‹")
    assert hidden(err) == [] and hidden(out) == []


def test_logs_and_warnings_of_any_library_are_cleaned_and_left_as_they_were(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = logging.StreamHandler(stream := io.StringIO())
    log = logging.getLogger("a library")
    log.addHandler(handler)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with streams.guarded():
            log.warning("it says %s", ESCAPE)
            warnings.warn(ESCAPE, stacklevel=1)
    log.warning("it says %s", "\x1b")
    log.removeHandler(handler)
    first, second = stream.getvalue().splitlines()
    assert hidden(first) == [] and "‹U+001B›" in first
    assert "\x1b" in second, "outside the block nothing is changed"
    assert hidden(capsys.readouterr().err) == []


def test_a_traceback_that_a_library_logs_is_masked_and_cleaned_and_so_is_what_cannot_be_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drop_confidences()
    confide("data.jsonl", lambda: (SECRET,))
    log = logging.getLogger("a library that logs tracebacks")
    broken = logging.StreamHandler(closed := io.StringIO())
    closed.close()
    for handler in (logging.StreamHandler(sys.stderr), broken):
        log.addHandler(handler)
    with streams.guarded():
        try:
            raise ValueError(f"{SECRET} {ESCAPE}")
        except ValueError:
            log.exception("it broke")
        log.warning("%d of them", f"{SECRET} {ESCAPE}", stack_info=True)
    log.handlers.clear()
    err = capsys.readouterr().err
    assert "Traceback" in err and "%d of them" in err and "Stack" in err
    assert "copper" not in err and hidden(err) == []


def test_progress_and_tables_send_no_hidden_character(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    with Progress(lines=True) as progress:
        progress.watch(Step("measure", ESCAPE, 1, 1, finished=True))
        progress.say(ESCAPE)
    table = Table(ESCAPE)
    table.add_row(f"x {ESCAPE}")
    streams.console(width=80).print(table, ESCAPE, markup=False, highlight=False)
    captured = capsys.readouterr()
    assert hidden(captured.err) == [] and hidden(captured.out) == []
    assert "‹U+001B›" in captured.err and json.loads(captured.out.splitlines()[0])["detail"] == ESCAPE


def test_a_crash_tells_neither_control_characters_nor_the_whole_of_a_long_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from audit.cli import process

    monkeypatch.setattr(process.os, "_exit", lambda code: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    process._end_crashes(debug=True, as_json=True)  # pyright: ignore[reportPrivateUsage]
    error = ValueError(ESCAPE + "y" * 100_000)
    sys.excepthook(ValueError, error, None)
    captured = capsys.readouterr()
    assert "residua broke" in captured.err and len(captured.err) < 6000 and len(captured.out) < 3000
    assert hidden(captured.err) == [] and hidden(captured.out) == []


def test_json_says_the_same_with_hidden_characters_escaped() -> None:
    document = {"path": f"/runs/{ESCAPE}", "name": "Zoë \U000e0001 \ud83d"}
    line = streams.json_line(document)
    assert hidden(line) == [] and "Zoë" in line and json.loads(line) == document
