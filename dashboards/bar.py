"""The global bar: which runs, which suspect, which rows; kept in the address, so that a finding can be linked to."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import streamlit as st

from audit.render import NamedReport
from audit.schema import Evidence, Report
from audit.wording import NAME, visible
from dashboards import show
from dashboards.runs import Folder, Run, folders, open_run
from dashboards.serving import RUNS
from dashboards.vault import Vault, shown

COHORTS: Final = {
    "all rows": lambda e: True,
    "forget, trained rows": lambda e: e.measurement.kind != "gate" and e.measurement.form == "trained",
    "forget, held-out phrasings": lambda e: e.measurement.form == "held_out_phrasing",
    "forget, held-out attributes": lambda e: e.measurement.form == "held_out_attribute",
    "retained and general": lambda e: e.measurement.kind == "gate",
}
TARGET, VIEW = "_target", "_view"
NEWS_S: Final = 10


class View(NamedTuple):
    """What the bar says: the folder of runs, the chosen run, its neighbours, and which rows."""

    vault: Vault
    run: Run | None
    near: tuple[Folder, ...]
    cohort: str
    run_folders: tuple[Folder, ...] = ()

    @property
    def path(self) -> str:
        """The folder of the chosen run, as a command takes it."""
        return "RUN" if self.run is None else str(self.vault.root / self.run.name)

    def keeps(self, evidence: Evidence) -> bool:
        """Does the chosen cohort include this finding?"""
        return COHORTS[self.cohort](evidence)

    def peers(self) -> tuple[Run, ...]:
        """All runs beside the chosen one, verified; where none is chosen, all of the folder."""
        return tuple(opened(self.vault, folder) for folder in self.near)

    def rows(self) -> tuple[NamedReport, ...]:
        """The finished reports that answer the chosen one's question: same base, same forget set."""
        if self.run is None or self.run.report is None:
            return ()
        own_question = question(self.run.report)
        comparable = [run for run in self.peers() if run.report is not None and question(run.report) == own_question]
        return tuple(NamedReport(name_of(run), run.name, run.report) for run in comparable if run.report is not None)


def question(report: Report) -> tuple[str, str]:
    """What makes two reports comparable: the base that knew, and the forget set."""
    return report.plan.fingerprints.get("base", ""), report.plan.data_sha256.get("forget", "")


def name_of(run: Run) -> str:
    """The suspect's short name: that of its case, else of its folder."""
    return visible(run.plan.case.name, NAME) if run.plan else shown(PurePosixPath(run.name).name)


def root() -> Path:
    """The folder of runs."""
    return Path(os.environ.get(RUNS, "runs"))


@st.cache_resource(show_spinner="Reading the run store…", max_entries=1024)
def _cached_run(place: str, folder: Folder) -> Run:
    return open_run(Vault(Path(place)), folder.name)


def opened(vault: Vault, folder: Folder) -> Run:
    """A run, verified once for as long as its files stay as they are."""
    return _cached_run(str(vault.root), folder)


def _parent(name: str) -> str:
    return PurePosixPath(name).parent.as_posix()


def draw() -> View:
    """Draw the bar and say what is chosen."""
    vault = Vault(root())
    run_folders = folders(vault)
    _forget_missing(run_folders)
    if not run_folders:
        return View(vault, None, (), "all rows")
    sets = list(dict.fromkeys(_parent(f.name) for f in run_folders))
    left, middle, right = st.columns([2, 3, 2])
    chosen = left.selectbox("Run", sets, key="set", bind="query-params", format_func=_set_name)
    near = {_last(f.name): f for f in run_folders if _parent(f.name) == chosen}
    suspect = middle.selectbox("Suspect checkpoint", list(near), key="run", bind="query-params", format_func=shown,
                              help=show.glossed("Suspect"))  # fmt: skip
    cohort = right.selectbox("Cohort", list(COHORTS), key="cohort", bind="query-params",
                             help="Which findings the pages show: those of one kind of question, or all.")  # fmt: skip
    folder = near.get(suspect or "") or next(iter(near.values()))
    return View(vault, opened(vault, folder), tuple(near.values()), cohort or "all rows", run_folders)


def whole_folder() -> View:
    """The whole folder, for a page that is about no single run; the address keeps what was chosen elsewhere."""
    vault = Vault(root())
    run_folders = folders(vault)
    return View(vault, None, run_folders, "all rows", run_folders)


@st.fragment(run_every=NEWS_S)
def news(view: View) -> None:
    """No page changes under its reader: what is new is only told, and shown when it is asked for."""
    if folders(view.vault) != view.run_folders and st.button("New results are there: show them", key="news"):
        st.rerun(scope="app")


def _set_name(name: str) -> str:
    return "(this folder)" if name == "." else shown(name)


def _last(name: str) -> str:
    return PurePosixPath(name).name


def _forget_missing(run_folders: Sequence[Folder]) -> None:
    """A run or a folder that is there no longer is chosen no longer."""
    sets, runs = {_parent(f.name) for f in run_folders}, {_last(f.name) for f in run_folders}
    for key, known in (("set", sets), ("run", runs)):
        if key in st.session_state and st.session_state[key] not in known:
            del st.session_state[key]


def current() -> View:
    """What the bar of this page says."""
    return st.session_state[VIEW]


class Target(NamedTuple):
    """A page to open, and what its own widgets shall show there."""

    page: str
    state: dict[str, str]


def go(page: str, run: str = "", **state: str) -> None:
    """From a callback: open a page on the run at this path. It happens when the script runs again.

    What the bar shows lives on every page and is set at once; the other page's own widgets take it from the address.
    """
    if run:
        st.session_state["set"], st.session_state["run"] = _parent(run), _last(run)
    for name in state:
        st.session_state.pop(name, None)
    st.session_state[TARGET] = Target(page, state)
