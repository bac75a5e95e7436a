"""A new case file by a form: `residua init` writes it, as in a terminal, and what it left open is filled in here.

A file is written over only while it is one that was written from here and was not finished, and only by a text that
reads as a case.
"""

import tomllib
from pathlib import Path
from typing import Final, NamedTuple

import streamlit as st
from pydantic import Field, ValidationError

from audit.case import load_case
from audit.schema import AuditError, Record
from audit.storage import write_atomic
from audit.wording import visible
from dashboards import bar, show, states, workers
from dashboards.verbs import plain_path
from dashboards.workers import Heard, Worker

VERB: Final = "init"
WRITTEN: Final = "_case_written"
CHOSEN: Final = "_case_chosen"
"""In the session's state: the case written last, and the file that the box of case files shall show next."""
LONGEST: Final = 200_000
"""Characters of a case file that are taken."""


class Wanted(NamedTuple):
    """What the form asks for. Base and suspect are folders or hub ids; one alone is a release that is recognised."""

    path: str
    base: str
    suspect: str
    data: tuple[str, ...]


class Filled(Record, extra="ignore"):
    """A value that was filled in, and why."""

    key: str
    value: str | int | float | bool
    reason: str = Field(default="", alias="why")


class Left(Record, extra="ignore"):
    """A value that is left to fill in. ``needed``: without it there is no case."""

    key: str
    description: str = Field(default="", alias="what")
    needed: bool


class Drafted(Record, extra="ignore"):
    """What `residua init --json` answers."""

    case: str
    recognised: tuple[str, ...] = ()
    filled: tuple[Filled, ...] = ()
    left: tuple[Left, ...] = ()


def arguments(wanted: Wanted) -> list[str]:
    """What `residua init` is started with; without any model it writes the template with everything to fill in."""
    models = [each for each in (wanted.base, wanted.suspect) if each]
    # What was typed never becomes a flag: a path that begins with a dash is one of this folder.
    paths = [plain_path(each) for each in (wanted.path, *models, *wanted.data)]
    path, given, data = paths[0], paths[1 : 1 + len(models)], paths[1 + len(models) :]
    release = ["--from", *given] if given else []
    return [path, *release, *(word for folder in (data if given else ()) for word in ("--data", folder))]


def refused(path: str) -> str:
    """Why a case file may not be written there; empty: it may."""
    if not path.endswith(".toml"):
        return "Name a file that ends in .toml."
    if "case" not in Path(path).name:
        return "Let its name hold the word case: files of such names are offered above."
    return f"{visible(path)} exists already; name another file." if Path(path).exists() else ""


def draw(view: bar.View) -> None:
    """The form, and what became of the case that it asked for."""
    with st.form("new-case", border=False):
        suggested = view.vault.root.parent / "my-audit" / "case.toml"
        path = st.text_input("Case file to write", str(suggested), key="new-path")
        left, right = st.columns(2)
        base = left.text_input("Base, which knew: a folder or hub id", key="new-base")
        suspect = right.text_input("Suspect, said to have forgotten", key="new-suspect")
        data = st.text_area("Folders with data, one a line: of TOFU, MUSE or RWKU, or of your own", key="new-data",
                            height=80)  # fmt: skip
        show.note("A released suspect may be named alone: its base is then looked for by what it says of itself.")
        pressed = st.form_submit_button("Write the case file")
    wanted = Wanted(path.strip(), base.strip(), suspect.strip(),
                    tuple(line.strip() for line in data.splitlines() if line.strip()))  # fmt: skip
    if pressed:
        if reason := refused(wanted.path):
            states.nothing("Not written", reason)
            return
        begun = workers.start(view.vault, VERB, arguments(wanted), "new-case")
        st.session_state[WRITTEN] = begun.id
    mine = next((w for w in workers.workers(view.vault) if w.id == st.session_state.get(WRITTEN)), None)
    if mine is None or mine.verb != VERB:
        return
    outcome = workers.heard(view.vault, mine)
    if outcome.ending == "running":
        waiting(view, mine)
    else:
        written(mine, outcome)


@st.fragment(run_every=1)
def waiting(view: bar.View, worker: Worker) -> None:
    """Until `residua init` has ended."""
    st.progress(0.0, text="Looking at the models and the data…")
    if workers.heard(view.vault, worker).ending != "running":
        st.rerun(scope="app")


def written(worker: Worker, outcome: Heard) -> None:
    """What `residua init` wrote and left open. Which file that is says the sealed record, and not the answer."""
    drafted = drafted_by(outcome)
    if outcome.ending != "finished" or drafted is None:
        states.panel("No case file was written", states.line(workers.trouble(outcome)), "bad", role="alert")
        return
    path, needed = Path(worker.arguments[0]), sum(each.needed for each in drafted.left)
    show.note(f"{visible(str(path))} is written{f'; left to fill in: {needed}' if needed else ''}.")
    if drafted.filled:
        rows = [[f.key, visible(str(f.value)), visible(f.reason)] for f in drafted.filled]
        show.table(show.grid("Filled in", ("Entry", "Value", "Why"), rows, ("", "code")))
    if drafted.left:
        show.facts([(visible(each.key), visible(each.description)) for each in drafted.left])
    editor(path)


def drafted_by(outcome: Heard) -> Drafted | None:
    """What a finished worker answered; None where that is of another version."""
    try:
        return Drafted.model_validate(outcome.answer)
    except ValidationError:
        return None


def editor(path: Path) -> None:
    """The case file as text, to be finished here; what is saved reads as a case."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        states.nothing("The file is gone", f"{visible(str(path))} cannot be read.")
        return
    changed = st.text_area("The case file", text, height=420, max_chars=LONGEST, key=f"text-{path}")
    if st.button("Save", key="save-case"):
        if fault := saved(path, changed):
            states.panel("Not saved", states.line(fault), "bad", role="alert")
        else:
            st.session_state[CHOSEN] = str(path.resolve())
            st.rerun()


def saved(path: Path, text: str) -> str:
    """Save a case file that was written from here, if its text reads as a case; else what is wrong with it."""
    beside = path.with_name(f".{path.name}.unread")
    try:
        tomllib.loads(text)
        write_atomic(beside, text.encode())
        load_case(beside)
        write_atomic(path, text.encode())
    except AuditError as error:
        return visible(f"{error.what.replace(str(beside), path.name)} What to do: {error.do}")
    except (ValueError, OSError) as error:
        return visible(f"{path.name}: {error}")
    finally:
        beside.unlink(missing_ok=True)
    return ""
