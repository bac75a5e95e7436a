"""One worker: audits what it is told, one line a task, until it is killed or its input ends.

A line of input names a suspect by its number, and the folder of the run; the answer is ``done``, or why not in a line.
"""

import sys
from pathlib import Path

from audit.case import CaseFile
from audit.engine import Suspect, run
from audit.planning import RunSettings
from audit.runs import run_files
from audit.schema import AuditError
from audit.storage import hold_temporary_folder

MASK = "0" * 64
"""The key of every run, so that equal audits give equal reports."""


def audit(suspect: Suspect, folder: Path, settings: RunSettings) -> str:
    """Begin or resume one run; what is answered."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / run_files.MASK_KEY).write_text(MASK)
        run(CaseFile(suspect.case, suspect.root), folder, settings)
    except AuditError as error:
        return f"refused {error.code} {' '.join(error.what.split())}"
    except OSError as error:
        return f"refused {error.errno} {error.strerror}"
    return "done"


def serve(suspects: tuple[Suspect, ...], settings: RunSettings) -> None:
    """Answer every line of standard input by one of standard output."""
    hold_temporary_folder()
    answers, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        number, folder = line.rstrip("\n").split(" ", 1)
        print(audit(suspects[int(number)], Path(folder), settings), file=answers, flush=True)
