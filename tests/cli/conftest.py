"""The program in this process, on one finished run."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from audit.cli import main

RESIDUA = (sys.executable, "-m", "audit.cli")
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def residua(capsys: pytest.CaptureFixture[str]) -> Call:
    """The program in this process: what :func:`process` says, without a new interpreter."""

    def call(*argv: object) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        words = [str(word) for word in argv]
        code = main(words)
        captured = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, captured.out, captured.err)

    return call
