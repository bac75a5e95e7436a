"""Does jobs with whichever build is on the path, in one process, and writes what each of them ended with.

Started as a script by :mod:`studies.breaches.study` with another build on PYTHONPATH: it knows nothing of the build
but its command line and, where a job says so, a piece of code that asks it something.
"""

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn


class Hung(BaseException):
    """It did not end in time; no handler of errors takes it for one."""


def hung(*_: object) -> NoReturn:
    """What the alarm does."""
    raise Hung


def done(job: dict[str, Any]) -> dict[str, Any]:
    """How one job ended (an exit code, ``broke`` or ``hangs``) and what it said."""
    output, errors = io.StringIO(), io.StringIO()
    os.chdir(job["folder"])
    signal.alarm(job["seconds"])
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        try:
            ended = _evaluated(job, output) if "code" in job else _command(job["words"])
        except Hung:
            ended = "hangs"
        except SystemExit as error:
            ended = str(error.code)
        except Exception as error:  # noqa: BLE001 (that a build breaks is what is looked for)
            ended = f"broke: {type(error).__name__}"
            errors.write(f"{error}\n")
        finally:
            signal.alarm(0)
    return {"name": job["name"], "ended": ended, "said": output.getvalue(), "told": errors.getvalue()}


def _command(words: list[str]) -> str:
    from audit.cli import main

    return str(main(words))


def _evaluated(job: dict[str, Any], output: io.StringIO) -> str:
    """Run a piece of code of the study, which leaves ``seen``."""
    names: dict[str, Any] = {}
    exec(job["code"], names)
    output.write(str(names["seen"]))
    return "0"


def main() -> None:
    """Every job of the first file, one result after another into the second."""
    signal.signal(signal.SIGALRM, hung)
    jobs, out = (Path(word) for word in sys.argv[1:3])
    with out.open("w", encoding="utf-8") as file:
        for job in json.loads(jobs.read_text(encoding="utf-8")):
            file.write(json.dumps(done(job)) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
