"""What the system refuses to do with a path that was given is a fault of the path, said in a sentence."""

import argparse
import errno
from pathlib import Path

import pytest

from audit.cli import main, process

LONG = "x" * 300


@pytest.mark.parametrize("words", [("fingerprint", LONG), ("sweep", LONG), ("plan", f"{LONG}/case.toml")])
def test_a_name_that_no_file_can_have_is_said_and_ends_in_code_2(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert "File name too long" in printed and "what to do: " in printed and "residua broke" not in printed


def _raising(error: Exception) -> argparse.Namespace:
    def act(_: argparse.Namespace) -> object:
        raise error

    return argparse.Namespace(act=act, verb="report", json=False, jsonl=False, debug=False, quiet=True)


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ELOOP, 2), (errno.ENOTDIR, 2), (errno.ENOSPC, 3), (errno.EACCES, 3)]
)
def test_a_fault_of_the_path_is_code_2_and_one_of_the_disk_code_3(
    number: int, code: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert process._acted(_raising(OSError(number, "no", str(tmp_path)))) == code  # pyright: ignore[reportPrivateUsage]
    assert f"residua report: {tmp_path}: no" in capsys.readouterr().err


def test_a_lack_of_memory_is_said_and_ends_in_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert process._acted(_raising(MemoryError())) == 3  # pyright: ignore[reportPrivateUsage]
    assert "residua report: not enough memory\n  what to do: " in capsys.readouterr().err


def test_an_error_about_no_file_stays_a_fault_of_ours() -> None:
    with pytest.raises(OSError, match="broken"):
        process._acted(_raising(OSError("broken")))  # pyright: ignore[reportPrivateUsage]
