"""A page printed to PDF by a browser that is installed here: no library of ours, no download, no request.

The page goes through a folder of its own that is removed again, as does the browser's profile. Nothing is asked of the
network: the page carries all that it shows, and its policy allows it no request.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from audit.schema import AuditError, ExitCode

BROWSERS: Final = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge",
)  # fmt: skip
FLAGS: Final = (
    "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-extensions", "--disable-sync", "--no-pdf-header-footer",
)  # fmt: skip
PATIENCE_S: Final = 120
"""How long a browser may take."""


def browser_on_path() -> str:
    """The program of the first browser on the PATH that can print; AuditError (code 2) where there is none."""
    program_file = next((program for name in BROWSERS if (program := shutil.which(name))), None)
    if program_file is None:
        raise AuditError(
            "no browser was found to print with: none of " + ", ".join(BROWSERS) + " is on the PATH",
            "install chromium, or write a .html and print it from any browser",
        )
    return program_file


def flags() -> tuple[str, ...]:
    """What the browser is told; without its sandbox for root alone, to whom it refuses one."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return (*FLAGS, "--no-sandbox") if root else FLAGS


def printed(page: str) -> bytes:
    """An HTML page as a PDF. AuditError: code 2 without a browser, code 3 where the browser gave none."""
    program = browser_on_path()
    with tempfile.TemporaryDirectory(prefix="residua-print-") as name:
        folder = Path(name)
        source, target = folder / "report.html", folder / "report.pdf"
        source.write_text(page, encoding="utf-8")
        command = [program, *flags(), f"--user-data-dir={folder / 'profile'}", f"--print-to-pdf={target}",
                   source.as_uri()]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _failed(program, type(error).__name__) from error
        data = target.read_bytes() if target.is_file() else b""
    if not data.startswith(b"%PDF"):
        raise _failed(program, f"it ended with {done.returncode}")
    return data


def _failed(program: str, reason: str) -> AuditError:
    return AuditError(
        f"{program} printed nothing ({reason})", "write a .html and print it from a browser", ExitCode.INTEGRITY
    )
